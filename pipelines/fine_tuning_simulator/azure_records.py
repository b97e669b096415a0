"""The records of Azure OpenAI."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fine_tuning_simulator.plan import JobPlan
from fine_tuning_simulator.records import SETTLES_AFTER, Record, Records, failure
from fine_tuning_simulator.training import VALID_EVERY, Metrics, Point

_ALL = (
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)


class AzureRecords(Records):
    """Azure OpenAI: null where OpenAI sends `{}` or `[]`, and the full validation metrics on each checkpoint."""

    def job(self, plan: JobPlan, now: int) -> Record:
        """The job as of `now`."""
        status = plan.status(now)
        succeeded = status == "succeeded"
        return {
            "id": plan.id,
            "created_at": plan.created_at,
            "error": failure(plan) if status == "failed" else None,
            "fine_tuned_model": self._model(plan) if succeeded else None,
            "finished_at": plan.finished_at if now >= plan.finished_at else None,
            "hyperparameters": {
                "batch_size": plan.batch_size,
                "learning_rate_multiplier": plan.learning_rate_multiplier,
                "n_epochs": plan.n_epochs,
            },
            "model": plan.model,
            "object": "fine_tuning.job",
            "organization_id": None,
            "result_files": self.result_files(plan, now),
            "seed": plan.seed,
            "status": status,
            "trained_tokens": plan.trained_tokens if succeeded else None,
            "training_file": self.training_file(plan),
            "validation_file": self.validation_file(plan),
            "estimated_finish": plan.trained_at if now >= plan.started_at else None,
            "integrations": None,
            "metadata": None,
            "method": None,
        }

    def checkpoint(self, plan: JobPlan, point: Point) -> Record:
        """The checkpoint of a step, with all that was measured at it: floats, where events send integers."""
        return {
            "id": self.ids.checkpoint(plan.index, point.step),
            "created_at": plan.step_time(point.step),
            "fine_tuned_model_checkpoint": self._checkpoint_name(plan, point.step),
            "fine_tuning_job_id": plan.id,
            "metrics": {"step": float(point.step), **{k: float(v) for k, v in _measured(point.metrics).items()}},
            "object": "fine_tuning.job.checkpoint",
            "step_number": point.step,
        }

    def events(self, plan: JobPlan, points: Sequence[Point]) -> Iterator[Record]:
        """All events of the job's whole life."""
        for number, (at, message, data) in enumerate(self._story(plan, points)):
            level = "error" if at == plan.finished_at and plan.kind.outcome == "failed" else "info"
            yield self.event(plan, number, at, message, data, level=level)

    def _story(self, plan: JobPlan, points: Sequence[Point]) -> Iterator[tuple[int, str, Mapping[str, Any] | None]]:
        yield plan.created_at, "Job enqueued behind the jobs ahead of it.", None
        if plan.kind.fails_validation:
            yield plan.finished_at, failure(plan)["message"], None
            return
        yield plan.validated_at, "Preprocessing done: the files are valid.", None
        yield plan.started_at, "Training started.", None
        steps = plan.steps_by(plan.finished_at)
        for point in points[:steps]:
            if point.step % VALID_EVERY == 0 or point.step % plan.steps_per_epoch == 0:
                data = {"step": point.step, **{k: _shortest(v) for k, v in _measured(point.metrics).items()}}
                message = f"Step {point.step}: training loss={point.metrics['train_loss']}"
                yield plan.step_time(point.step), message, data
        ended = plan.finished_at
        if plan.kind.outcome == "failed":
            yield ended, failure(plan)["message"], None
        elif plan.kind.outcome == "cancelled":
            yield ended, "Job cancelled.", None
        else:
            yield ended, "Job succeeded.", None
            yield ended + SETTLES_AFTER, f"Completed results file: {self.result_file(plan)}", None
            yield ended + SETTLES_AFTER, f"Training tokens billed: {plan.trained_tokens}", None

    def _model(self, plan: JobPlan) -> str:
        suffix = f"-{plan.suffix}" if plan.suffix else ""
        return f"{plan.model}.ft-{plan.id.removeprefix('ftjob-')}{suffix}"

    def _checkpoint_name(self, plan: JobPlan, step: int) -> str:
        name = self._model(plan)
        return name if step == plan.total_steps else f"{name}:ckpt-step-{step}"


def _measured(metrics: Metrics) -> Metrics:
    return {name: metrics[name] for name in _ALL if name in metrics}


def _shortest(value: float) -> float:
    return int(value) if value == int(value) else value
