"""The records of OpenAI."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from fine_tuning_simulator.identity import Ids
from fine_tuning_simulator.plan import JobPlan
from fine_tuning_simulator.profiles import Profile
from fine_tuning_simulator.records import KEPT, SETTLES_AFTER, Record, Records, failure
from fine_tuning_simulator.training import Metrics, Point

_ONLY_IN_EVENTS = frozenset({"full_valid_loss", "full_valid_mean_token_accuracy", "valid_reasoning_tokens_mean"})
_GRADERS = (("exact-reference", "string_check"), ("helpful-tone", "score_model"))
_GRADER_MODEL = "gpt-4o-2024-08-06"


class OpenAIRecords(Records):
    """OpenAI: checkpoints appear when the job has succeeded, the last three epochs or the best by reward."""

    def __init__(self, profile: Profile, ids: Ids, first_modern: int) -> None:
        super().__init__(profile, ids)
        self._first_modern = first_modern

    def encodes_result_file(self, plan: JobPlan) -> bool:
        """Only jobs from the time of plain result files have those."""
        return not self._is_old(plan)

    def _is_old(self, plan: JobPlan) -> bool:
        """Whether a job is from the time of plain result files and fewer fields."""
        return plan.index < self._first_modern

    def job(self, plan: JobPlan, now: int) -> Record:
        """The job as of `now`."""
        status = plan.status(now)
        succeeded = status == "succeeded"
        ended = now >= plan.finished_at
        hyperparameters = _hyperparameters(plan, numbers=succeeded)
        wire = dict(hyperparameters)
        if succeeded and plan.learning_rate_multiplier == 1:
            wire["learning_rate_multiplier"] = 1  # an integer here, a float within the method
        record: Record = {
            "object": "fine_tuning.job",
            "id": plan.id,
            "model": plan.model,
            "created_at": plan.created_at,
            # a job whose files are refused never gets a time of its end
            "finished_at": plan.finished_at if ended and not plan.kind.fails_validation else None,
            "fine_tuned_model": self._model(plan) if succeeded else None,
            "organization_id": plan.organization,
            "result_files": self.result_files(plan, now),
            "status": status,
            "validation_file": self.validation_file(plan),
            "training_file": self.training_file(plan),
            "hyperparameters": wire,
            "trained_tokens": plan.trained_tokens if succeeded else None,
            "error": failure(plan) if status == "failed" else {},
            "user_provided_suffix": plan.suffix,
            "seed": plan.seed,
            "estimated_finish": plan.trained_at if status == "running" else None,
            "integrations": [_tracking(plan)] if plan.kind.tracked else [],
        }
        if not self._is_old(plan):
            record |= {
                "metadata": plan.metadata,
                "usage_metrics": None,
                "shared_with_openai": False,
                "eval_id": None,
                "method": _method(plan, hyperparameters),
            }
        return record

    def choose(self, ends: Sequence[Point]) -> Sequence[Point]:
        """The last three epochs; of a reinforcement run the last one and the best others by reward."""
        if not ends or "train_mean_reward" not in ends[-1].metrics:
            return super().choose(ends)
        best = sorted(ends[:-1], key=lambda point: (-_reward(point.metrics), point.step))[: KEPT - 1]
        return [*sorted(best, key=lambda point: point.step), ends[-1]]

    def checkpoint(self, plan: JobPlan, point: Point) -> Record:
        """The checkpoint of a step, as of the time that it was trained; without `full_valid_*` losses."""
        return {
            "object": "fine_tuning.job.checkpoint",
            "id": self.ids.checkpoint(plan.index, point.step),
            "created_at": plan.step_time(point.step),
            "fine_tuned_model_checkpoint": self._checkpoint_name(plan, point.step),
            "fine_tuning_job_id": plan.id,
            "metrics": {"step": point.step, **{k: v for k, v in point.metrics.items() if k not in _ONLY_IN_EVENTS}},
            "step_number": point.step,
        }

    def events(self, plan: JobPlan, points: Sequence[Point]) -> Iterator[Record]:
        """All events of the job's whole life."""
        for number, (at, message, data, level) in enumerate(self._story(plan, points)):
            yield self.event(plan, number, at, message, data, level=level)

    def _story(self, plan: JobPlan, points: Sequence[Point]) -> Iterator[tuple[int, str, dict[str, Any] | None, str]]:
        validation = self.validation_file(plan)
        files = f"training file: {self.training_file(plan)}"
        if validation is not None:
            files += f" and validation file: {validation}"
        yield plan.created_at, f"Created fine-tuning job: {plan.id}", {}, "info"
        yield plan.created_at, f"Validating {files}", {}, "info"
        if plan.kind.fails_validation:
            yield plan.finished_at, failure(plan)["message"], {}, "error"
            return
        yield plan.validated_at, "Files validated, moving job to queued state", {}, "info"
        yield plan.started_at, "Fine-tuning job started", None, "info"
        rng = random.Random(f"events:{plan.id}")  # noqa: S311 - repeatable on purpose
        steps = plan.steps_by(plan.finished_at)
        for point in points[:steps]:
            data = _reward_data(plan, point, rng) if plan.kind.method == "reinforcement" else _loss_data(plan, point)
            yield plan.step_time(point.step), _step_message(plan, point), data, "info"
        ended = plan.finished_at
        if plan.kind.outcome == "failed":
            yield ended, failure(plan)["message"], {}, "error"
        elif plan.kind.outcome == "cancelled":
            yield ended, "Fine-tuning job cancelled", {}, "warn"
        else:
            *earlier, _ = self.kept(plan, points, ended)
            for point in earlier:
                name = self._checkpoint_name(plan, point.step)
                text = f"Checkpoint created at step {point.step} with Snapshot ID: {name}"
                yield ended + SETTLES_AFTER, text, {}, "info"
            text = f"New fine-tuned model created: {self._model(plan)}"
            yield ended + SETTLES_AFTER, text, {}, "info"
            yield ended + 8, "The job has successfully completed", {}, "info"

    def _model(self, plan: JobPlan) -> str:
        return self._named(plan, plan.total_steps)

    def _checkpoint_name(self, plan: JobPlan, step: int) -> str:
        name = self._named(plan, step)
        return name if step == plan.total_steps else f"{name}:ckpt-step-{step}"

    def _named(self, plan: JobPlan, step: int) -> str:
        return f"ft:{plan.model}:example-org:{plan.suffix or ''}:{self.ids.token(f'model:{plan.index}:{step}', 8)}"


def _hyperparameters(plan: JobPlan, numbers: bool) -> dict[str, Any]:
    values: dict[str, Any] = {
        "n_epochs": plan.n_epochs,
        "batch_size": plan.batch_size,
        "learning_rate_multiplier": plan.learning_rate_multiplier,
    }
    return {name: value if numbers or name in plan.chosen_by_user else "auto" for name, value in values.items()}


def _method(plan: JobPlan, hyperparameters: dict[str, Any]) -> Record:
    method = plan.kind.method
    settings: Record = {"hyperparameters": dict(hyperparameters)}
    if method == "dpo":
        settings["hyperparameters"]["beta"] = 0.1 if hyperparameters["learning_rate_multiplier"] != "auto" else "auto"
    elif method == "reinforcement":
        settings["hyperparameters"] |= {
            "reasoning_effort": "medium",
            "compute_multiplier": "auto",
            "eval_interval": "auto",
            "eval_samples": "auto",
        }
        settings["grader"] = {
            "type": "string_check",
            "name": _GRADERS[0][0],
            "input": "{{sample.output_text}}",
            "reference": "{{item.reference_answer}}",
            "operation": "ilike",
        }
    return {"type": method, method: settings}


def _tracking(plan: JobPlan) -> Record:
    settings = {"project": plan.dataset.topic, "entity": None, "name": None, "tags": None, "run_id": plan.id}
    return {"type": "wandb", "wandb": settings}


def _reward(metrics: Metrics) -> float:
    return metrics.get("full_valid_mean_reward", metrics["train_mean_reward"])


def _step_message(plan: JobPlan, point: Point) -> str:
    metrics = point.metrics
    shown = {
        "train_loss": "training loss",
        "valid_loss": "validation loss",
        "full_valid_loss": "full validation loss",
        "train_mean_reward": "train mean reward",
        "valid_mean_reward": "validation mean reward",
        "full_valid_mean_reward": "full validation mean reward",
    }
    values = ", ".join(f"{text}={metrics[name]:.2f}" for name, text in shown.items() if name in metrics)
    return f"Step {point.step}/{plan.total_steps}: {values}"


def _loss_data(plan: JobPlan, point: Point) -> Record:
    return {"step": point.step, "total_steps": plan.total_steps, **point.metrics}


def _reward_data(plan: JobPlan, point: Point, rng: random.Random) -> Record:
    """The metrics of a reinforcement step, with what they were made of: a list of graders in each part."""
    metrics = point.metrics
    parts = ["train", *(["valid"] if "valid_mean_reward" in metrics else [])]
    names = [{"name": name, "type": kind} for name, kind in _GRADERS]

    def graders(measure: str, low: float, high: float) -> list[Record]:
        return [{**who, **{f"{part}_{measure}": rng.uniform(low, high) for part in parts}} for who in names]

    rewards = {f"{part}_reward_mean": metrics[f"{part}_mean_reward"] for part in parts}
    prompt, completion = rng.randint(20_000, 90_000), rng.randint(10_000, 50_000)
    return {
        "step": point.step,
        "total_steps": plan.total_steps,
        **metrics,
        "scores": {"graders": graders("reward_mean", 0.2, 0.9), **rewards},
        "errors": {"graders": graders("sample_parse_error_mean", 0.0, 0.02)},
        "usage": {
            "graders": graders("prompt_tokens_mean", 150, 320),
            "samples": {f"{part}_reasoning_tokens_mean": metrics["reasoning_tokens_mean"] for part in parts},
        },
        "timing": {
            "step": {"sampling": rng.uniform(90, 240), "training": rng.uniform(120, 420)},
            "graders": graders("execution_latency_mean", 0.4, 4.2),
        },
        "model_graders_token_usage": {
            _GRADER_MODEL: {"train_prompt_tokens": prompt, "train_completion_tokens": completion}
        },
    }
