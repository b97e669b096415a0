"""The records of Nebius Token Factory."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fine_tuning_simulator.plan import JobPlan
from fine_tuning_simulator.records import Record, Records, failure
from fine_tuning_simulator.training import Point

_RATE = 1e-5
_LOSSES = ("train_loss", "valid_loss")


class NebiusRecords(Records):
    """Nebius: a checkpoint an epoch, all kept, seen as they are trained, each with the files of its weights."""

    def job(self, plan: JobPlan, now: int) -> Record:
        """The job as of `now`."""
        status = plan.status(now)
        running = now >= plan.started_at and not plan.kind.fails_validation
        return {
            "object": "fine_tuning.job",
            "id": plan.id,
            "created_at": plan.created_at,
            "error": failure(plan) if status == "failed" else None,
            "fine_tuned_model": None,
            "finished_at": plan.finished_at if now >= plan.finished_at else None,
            "hyperparameters": {
                "batch_size": plan.batch_size,
                "learning_rate_multiplier": None,
                "n_epochs": plan.n_epochs,
                "learning_rate": round(_RATE * plan.learning_rate_multiplier, 9),
                "warmup_ratio": 0.0,
                "weight_decay": 0.0,
                "lora": True,
                "lora_r": 16,
                "lora_alpha": 16,
                "lora_dropout": 0.05,
                "packing": False,
                "max_grad_norm": 1,
                "context_length": 8192,
            },
            "model": plan.model,
            "organization_id": "",
            "result_files": self.result_files(plan, now),
            "seed": plan.seed,
            "status": status,
            "trained_tokens": plan.trained_tokens * plan.steps_by(now) // plan.total_steps,
            "training_file": self.training_file(plan),
            "validation_file": self.validation_file(plan),
            "estimated_finish": None,
            "integrations": None,
            "metadata": plan.metadata,
            "method": None,
            "suffix": plan.suffix or "",
            "trained_steps": plan.steps_by(now),
            "total_steps": plan.total_steps if running else None,
        }

    def checkpoint(self, plan: JobPlan, point: Point) -> Record:
        """The checkpoint of a step: the two losses, null for what is not measured."""
        metrics = point.metrics
        valid = metrics.get("valid_loss")
        return {
            "object": "fine_tuning.job.checkpoint",
            "id": self.ids.checkpoint(plan.index, point.step),
            "created_at": plan.step_time(point.step),
            "fine_tuned_model_checkpoint": self._checkpoint_name(plan, point.step),
            "fine_tuning_job_id": plan.id,
            "metrics": {
                "full_valid_loss": None,
                "full_valid_mean_token_accuracy": None,
                "step": point.step,
                "train_loss": round(metrics["train_loss"], 6),
                "train_mean_token_accuracy": None,
                "valid_loss": None if valid is None else round(valid, 6),
                "valid_mean_token_accuracy": None,
            },
            "step_number": point.step,
            "result_files": list(self.weight_files(plan, point.step)),
        }

    def weight_files(self, plan: JobPlan, step: int) -> dict[str, str]:
        """The adapter that was trained, and its configuration."""
        names = ("adapter_config.json", "adapter_model.safetensors")
        return {self.ids.file(f"weights:{plan.index}:{step}:{name}"): name for name in names}

    def events(self, plan: JobPlan, points: Sequence[Point]) -> Iterator[Record]:
        """All events of the job's whole life."""
        for number, (at, message, data) in enumerate(self._story(plan, points)):
            level = "error" if at == plan.finished_at and plan.kind.outcome == "failed" else "info"
            yield self.event(plan, number, at, message, data, level=level)

    def _story(self, plan: JobPlan, points: Sequence[Point]) -> Iterator[tuple[int, str, Mapping[str, Any] | None]]:
        yield plan.created_at, "Job created", None
        if plan.kind.fails_validation:
            yield plan.finished_at, failure(plan)["message"], None
            return
        yield plan.validated_at, "Dataset validated", None
        yield plan.started_at, "Training started", None
        steps = plan.steps_by(plan.finished_at)
        for point in points[:steps]:
            losses = {name: round(value, 6) for name, value in point.metrics.items() if name in _LOSSES}
            at = plan.step_time(point.step)
            yield at, f"Step {point.step}", {"step": point.step, "total_steps": plan.total_steps, **losses}
            if point.step % plan.steps_per_epoch == 0:
                yield at, f"Checkpoint created: {self._checkpoint_name(plan, point.step)}", None
        endings = {
            "succeeded": "Job completed",
            "failed": failure(plan)["message"],
            "cancelled": "Job cancelled",
        }
        yield plan.finished_at, endings[plan.kind.outcome], None

    def _checkpoint_name(self, plan: JobPlan, step: int) -> str:
        suffix = f":{plan.suffix}" if plan.suffix else ""
        return f"{plan.model}-LoRA{suffix}:{self.ids.token(f'model:{plan.index}', 8)}:ckpt-step-{step}"
