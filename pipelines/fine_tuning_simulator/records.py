"""Make the records that a host sends: jobs, checkpoints, events, files.

One record maker serves all hosts. The profile says how they differ; so do tables and methods below that have the
host's name. Listings come oldest first.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fine_tuning_simulator.plan import JobPlan
from fine_tuning_simulator.profiles import Ids, Profile
from fine_tuning_simulator.training import VALID_EVERY, Metrics, Point

Record = dict[str, Any]

KEPT = 3
"""How many checkpoints of a job a host keeps that does not keep all."""

SETTLES_AFTER = 2
"""Seconds from `finished_at` until a host that shows checkpoints only at the end shows them, and has their events."""

_SERVED_FOR = 730 * 86_400
"""Seconds from the creation of a model until Azure stops to serve it."""

_LOSSES = ("train_loss", "valid_loss", "full_valid_loss")
_LOSS_METRICS = tuple(metric for loss in _LOSSES for metric in (loss, loss.replace("loss", "mean_token_accuracy")))
_ONLY_IN_EVENTS = frozenset({"full_valid_loss", "full_valid_mean_token_accuracy", "valid_reasoning_tokens_mean"})
"""Metrics that OpenAI's checkpoints lack, though the event of the same step has them."""
_GRADERS = (("exact-reference", "string_check"), ("helpful-tone", "score_model"))
_LORA = {
    "warmup_ratio": 0.0,
    "weight_decay": 0.0,
    "lora": True,
    "lora_r": 16,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "packing": False,
    "max_grad_norm": 1,
    "context_length": 8192,
}


@dataclass(frozen=True)
class _Messages:
    """The texts of a host's events; the fields of a plan and of a step are filled in."""

    created: tuple[str, ...]
    validated: str
    started: str
    cancelled: str
    succeeded: tuple[tuple[int, str], ...]
    """Seconds after the end of the job, and the message."""


_MESSAGES: Mapping[str, _Messages] = {
    "openai": _Messages(
        ("Created fine-tuning job: {id}", "Validating {files}"),
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        "Fine-tuning job cancelled",
        ((SETTLES_AFTER, "New fine-tuned model created: {model}"), (8, "The job has successfully completed")),
    ),
    "azure": _Messages(
        ("Job enqueued behind the jobs ahead of it.",),
        "Preprocessing done: the files are valid.",
        "Training started.",
        "Job cancelled.",
        (
            (0, "Job succeeded."),
            (SETTLES_AFTER, "Completed results file: {result_file}"),
            (SETTLES_AFTER, "Training tokens billed: {tokens}"),
        ),
    ),
    "nebius": _Messages(
        ("Job created",), "Dataset validated", "Training started", "Job cancelled", ((0, "Job completed"),)
    ),
}

_Event = tuple[int, str, Record | None, str]
"""Time, message, data, level."""


class Records:
    """The records of one host.

    Args:
        profile: The host.
        ids: Its ids.
        first_modern: The index of the first OpenAI job with `method` and `metadata`, and a result file in base64.
    """

    def __init__(self, profile: Profile, ids: Ids, first_modern: int) -> None:
        self._profile = profile
        self._ids = ids
        self._first_modern = first_modern

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def job(self, plan: JobPlan, now: int) -> Record:
        """Return a job as of `now`."""
        status = plan.status(now)
        succeeded = status == "succeeded"
        result_file = self.result_file(plan)
        record: Record = {
            "object": "fine_tuning.job",
            "id": plan.id,
            "model": plan.model,
            "created_at": plan.created_at,
            "finished_at": plan.finished_at if now >= plan.finished_at else None,
            "fine_tuned_model": self._model(plan, plan.total_steps) if succeeded else None,
            "organization_id": None,
            "result_files": [result_file] if result_file is not None and now >= plan.finished_at else [],
            "status": status,
            "validation_file": self.validation_file(plan),
            "training_file": self.training_file(plan),
            "hyperparameters": _hyperparameters(plan, numbers=True),
            "trained_tokens": plan.trained_tokens if succeeded else None,
            "error": _failure(plan) if status == "failed" else None,
            "seed": plan.seed,
            "estimated_finish": None,
            "integrations": None,
            "metadata": None,
            "method": None,
        }
        own: Callable[[JobPlan, int, Record], None] = getattr(self, f"_{self._profile.name}_job")
        own(plan, now, record)
        return record

    def _openai_job(self, plan: JobPlan, _now: int, record: Record) -> None:
        succeeded = record["status"] == "succeeded"
        hyperparameters = _hyperparameters(plan, numbers=succeeded)
        # An integer here, a float inside `method`.
        is_integer = succeeded and plan.learning_rate_multiplier == 1
        wandb = {"project": plan.dataset.topic, "entity": None, "name": None, "tags": None, "run_id": plan.id}
        record |= {
            "organization_id": plan.organization,
            "hyperparameters": hyperparameters | ({"learning_rate_multiplier": 1} if is_integer else {}),
            "error": record["error"] or {},
            "user_provided_suffix": plan.suffix,
            "estimated_finish": plan.trained_at if record["status"] == "running" else None,
            "integrations": [{"type": "wandb", "wandb": wandb}] if plan.kind.tracked else [],
        }
        if plan.kind.fails_validation:
            record["finished_at"] = None  # OpenAI sets no end if it refuses the files
        if plan.index < self._first_modern:
            del record["metadata"], record["method"]
            return
        record |= {
            "metadata": plan.metadata,
            "usage_metrics": None,
            "shared_with_openai": False,
            "eval_id": None,
            "method": _method(plan, hyperparameters),
        }

    def _azure_job(self, plan: JobPlan, now: int, record: Record) -> None:
        record["estimated_finish"] = plan.trained_at if now >= plan.started_at else None

    def _nebius_job(self, plan: JobPlan, now: int, record: Record) -> None:
        running = now >= plan.started_at and not plan.kind.fails_validation
        record["hyperparameters"] |= {
            "learning_rate_multiplier": None,
            "learning_rate": round(1e-5 * plan.learning_rate_multiplier, 9),
            **_LORA,
        }
        record |= {
            "fine_tuned_model": None,
            "organization_id": "",
            "trained_tokens": plan.trained_tokens * plan.steps_by(now) // plan.total_steps,
            "metadata": plan.metadata,
            "suffix": plan.suffix or "",
            "trained_steps": plan.steps_by(now),
            "total_steps": plan.total_steps if running else None,
        }

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def checkpoints(self, plan: JobPlan, points: Sequence[Point], now: int) -> list[Record]:
        """Return the checkpoints that the host lists at `now`."""
        if not self._profile.shows_checkpoints_while_training and (
            now < plan.finished_at + SETTLES_AFTER or plan.kind.outcome not in self._profile.shows_checkpoints_of
        ):
            return []
        return [self._checkpoint(plan, point) for point in self._kept(plan, points, now)]

    def _kept(self, plan: JobPlan, points: Sequence[Point], now: int) -> Sequence[Point]:
        """Return the steps with a kept checkpoint: the ends of epochs, the last three, or the best three by reward."""
        ends = [points[step - 1] for step in plan.epoch_ends(plan.steps_by(now))]
        if self._profile.keeps_all_checkpoints or not ends:
            return ends
        if "train_mean_reward" not in ends[-1].metrics:
            return ends[-KEPT:]
        best = sorted(ends[:-1], key=lambda point: (-_reward(point.metrics), point.step))[: KEPT - 1]
        return [*sorted(best, key=lambda point: point.step), ends[-1]]

    def _checkpoint(self, plan: JobPlan, point: Point) -> Record:
        record: Record = {
            "object": "fine_tuning.job.checkpoint",
            "id": self._ids.of("checkpoint", f"{plan.index}:{point.step}"),
            "created_at": plan.step_time(point.step),
            "fine_tuned_model_checkpoint": self._checkpoint_name(plan, point.step),
            "fine_tuning_job_id": plan.id,
            "metrics": {"step": point.step, **{k: v for k, v in point.metrics.items() if k not in _ONLY_IN_EVENTS}},
            "step_number": point.step,
        }
        if self._profile.name == "azure":  # floats, where events have integers
            measured = {"step": point.step, **_chosen(point.metrics, _LOSS_METRICS)}
            record["metrics"] = {name: float(value) for name, value in measured.items()}
        elif self._profile.name == "nebius":  # the two losses, and null for everything else
            losses = {name: round(value, 6) for name, value in _chosen(point.metrics, _LOSSES[:2]).items()}
            record["metrics"] = {"step": point.step, **dict.fromkeys(_LOSS_METRICS), **losses}
            record["result_files"] = list(self.weight_files(plan, point.step))
        return record

    # -- events --------------------------------------------------------------------------------------------------------

    def events(self, plan: JobPlan, points: Sequence[Point]) -> Iterator[Record]:
        """Yield all events of the whole life of a job."""
        for number, (at, message, data, level) in enumerate(self._story(plan, points)):
            yield {
                "object": "fine_tuning.job.event",
                "id": self._ids.of("event", f"{plan.index}:{number}"),
                "created_at": at,
                "level": level,
                "message": message,
                "data": data,
                "type": "metrics" if data and "step" in data else "message",
            }

    def _story(self, plan: JobPlan, points: Sequence[Point]) -> Iterator[_Event]:
        messages = _MESSAGES[self._profile.name]
        is_openai = self._profile.name == "openai"
        nothing: Record | None = {} if is_openai else None
        validation = self.validation_file(plan)
        filled = {
            "id": plan.id,
            "files": f"training file: {self.training_file(plan)}"
            + (f" and validation file: {validation}" if validation is not None else ""),
            "model": self._model(plan, plan.total_steps),
            "result_file": self.result_file(plan),
            "tokens": plan.trained_tokens,
        }
        for message in messages.created:
            yield plan.created_at, message.format(**filled), nothing, "info"
        if plan.kind.fails_validation:
            yield plan.finished_at, _failure(plan)["message"], nothing, "error"
            return
        yield plan.validated_at, messages.validated, nothing, "info"
        yield plan.started_at, messages.started, None, "info"
        steps: Callable[[JobPlan, Sequence[Point]], Iterator[_Event]] = getattr(self, f"_{self._profile.name}_steps")
        yield from steps(plan, points[: plan.steps_by(plan.finished_at)])
        ended = plan.finished_at
        if plan.kind.outcome == "failed":
            yield ended, _failure(plan)["message"], nothing, "error"
        elif plan.kind.outcome == "cancelled":
            yield ended, messages.cancelled, nothing, "warn" if is_openai else "info"
        else:
            for point in self._kept(plan, points, ended)[:-1] if is_openai else ():
                name = self._checkpoint_name(plan, point.step)
                text = f"Checkpoint created at step {point.step} with Snapshot ID: {name}"
                yield ended + SETTLES_AFTER, text, {}, "info"
            for after, message in messages.succeeded:
                yield ended + after, message.format(**filled), nothing, "info"

    def _openai_steps(self, plan: JobPlan, points: Sequence[Point]) -> Iterator[_Event]:
        rng = random.Random(f"events:{plan.id}")  # noqa: S311 - repeatable on purpose
        for point in points:
            data: Record = {"step": point.step, "total_steps": plan.total_steps, **point.metrics}
            if plan.kind.method == "reinforcement":
                data |= _reward_details(point.metrics, rng)
            yield plan.step_time(point.step), _step_message(plan, point), data, "info"

    def _azure_steps(self, plan: JobPlan, points: Sequence[Point]) -> Iterator[_Event]:
        for point in points:
            if point.step % VALID_EVERY == 0 or point.step % plan.steps_per_epoch == 0:
                measured = _chosen(point.metrics, _LOSS_METRICS)
                data = {name: int(value) if value == int(value) else value for name, value in measured.items()}
                message = f"Step {point.step}: training loss={point.metrics['train_loss']}"
                yield plan.step_time(point.step), message, {"step": point.step, **data}, "info"

    def _nebius_steps(self, plan: JobPlan, points: Sequence[Point]) -> Iterator[_Event]:
        for point in points:
            at = plan.step_time(point.step)
            losses = {name: round(value, 6) for name, value in _chosen(point.metrics, _LOSSES[:2]).items()}
            yield at, f"Step {point.step}", {"step": point.step, "total_steps": plan.total_steps, **losses}, "info"
            if point.step % plan.steps_per_epoch == 0:
                yield at, f"Checkpoint created: {self._checkpoint_name(plan, point.step)}", None, "info"

    # -- files ---------------------------------------------------------------------------------------------------------

    def training_file(self, plan: JobPlan) -> str:
        """Return the id of the training file of a job."""
        return self._ids.of("file", f"training:{plan.dataset}")

    def validation_file(self, plan: JobPlan) -> str | None:
        """Return the id of the validation file of a job, or None."""
        return self._ids.of("file", f"validation:{plan.dataset}") if plan.kind.has_validation_file else None

    def result_file(self, plan: JobPlan) -> str | None:
        """Return the id of the result file of a job that succeeds, or None."""
        return self._ids.of("file", f"results:{plan.index}") if plan.kind.outcome == "succeeded" else None

    def encodes_result_file(self, plan: JobPlan) -> bool:
        """Return whether the host sends the result file of a job in base64."""
        return self._profile.name == "openai" and plan.index >= self._first_modern

    def weight_files(self, plan: JobPlan, step: int) -> dict[str, str]:
        """Return the downloadable files of a checkpoint: id to file name."""
        names = ("adapter_config.json", "adapter_model.safetensors") if self._profile.name == "nebius" else ()
        return {self._ids.of("file", f"weights:{plan.index}:{step}:{name}"): name for name in names}

    # -- models --------------------------------------------------------------------------------------------------------

    def base_model(self, name: str, created_at: int) -> Record:
        """Return a base model, as the listing of models shows it."""
        return self._listed_model(name, created_at, "system", {})

    def fine_tuned_models(self, plan: JobPlan, points: Callable[[], Sequence[Point]], now: int) -> list[Record]:
        """Return the models of a job that can be called at `now`: the final one, and its other checkpoints."""
        kinds = self._profile.lists_models_of
        if plan.kind.outcome != "succeeded" or now < plan.finished_at + SETTLES_AFTER or _is_deleted(plan, now):
            return []
        wanted = {plan.total_steps: plan.finished_at} if "fine_tuned" in kinds else {}
        if "checkpoint" in kinds:
            is_by_reward = plan.kind.method == "reinforcement"
            steps = (
                [point.step for point in self._kept(plan, points(), now)]
                if is_by_reward
                else plan.epoch_ends(plan.total_steps)[-KEPT:]
            )
            wanted = {step: plan.step_time(step) for step in steps} | wanted
        of_job = {"model": plan.model, "fine_tune": plan.id}
        return [
            self._listed_model(self._checkpoint_name(plan, step), at, plan.organization, of_job)
            for step, at in wanted.items()
        ]

    def _listed_model(self, name: str, created_at: int, owner: str, azure: Record) -> Record:
        if self._profile.name != "azure":
            return {"id": name, "object": "model", "created": created_at, "owned_by": owner}
        return {
            "id": name,
            "object": "model",
            "created_at": created_at,
            "updated_at": created_at,
            "status": "succeeded",
            "lifecycle_status": "generally-available",
            "capabilities": {"fine_tune": not azure, "inference": True, "chat_completion": True},
            "deprecation": {"fine_tune": created_at + _SERVED_FOR, "inference": created_at + _SERVED_FOR},
            **azure,
        }

    # -- names of models -----------------------------------------------------------------------------------------------

    def _model(self, plan: JobPlan, step: int) -> str:
        match self._profile.name:
            case "azure":
                suffix = f"-{plan.suffix}" if plan.suffix else ""
                return f"{plan.model}.ft-{plan.id.removeprefix('ftjob-')}{suffix}"
            case "nebius":
                suffix = f":{plan.suffix}" if plan.suffix else ""
                return f"{plan.model}-LoRA{suffix}:{self._ids.token(f'model:{plan.index}', 8)}"
            case "openai":
                token = self._ids.token(f"model:{plan.index}:{step}", 8)
                return f"ft:{plan.model}:example-org:{plan.suffix or ''}:{token}"

    def _checkpoint_name(self, plan: JobPlan, step: int) -> str:
        is_model = step == plan.total_steps and self._profile.name != "nebius"
        return self._model(plan, step) + ("" if is_model else f":ckpt-step-{step}")


def _is_deleted(plan: JobPlan, now: int) -> bool:
    """Return whether its owner has deleted the models of a job: some do so after a day."""
    return plan.seed % 5 == 0 and now >= plan.finished_at + 86_400


def settled_at(plan: JobPlan) -> int:
    """Return the time from which nothing about a job changes any more."""
    return plan.finished_at + 10


def _failure(plan: JobPlan) -> Record:
    if plan.kind.fails_validation:
        return {
            "code": "invalid_training_file",
            "message": f"The training file cannot be used: example {plan.seed % 20 + 1} has a message without a role.",
            "param": "training_file",
        }
    return {
        "code": "server_error",
        "message": "Training stopped because of an error on our side. You have not been billed for it.",
        "param": None,
    }


def _hyperparameters(plan: JobPlan, *, numbers: bool) -> Record:
    names = ("n_epochs", "batch_size", "learning_rate_multiplier")
    return {name: getattr(plan, name) if numbers or name in plan.chosen_by_user else "auto" for name in names}


def _method(plan: JobPlan, hyperparameters: Record) -> Record:
    method = plan.kind.method
    settings: Record = {"hyperparameters": dict(hyperparameters)}
    if method == "dpo":
        settings["hyperparameters"]["beta"] = 0.1 if hyperparameters["learning_rate_multiplier"] != "auto" else "auto"
    elif method == "reinforcement":
        automatic = dict.fromkeys(("compute_multiplier", "eval_interval", "eval_samples"), "auto")
        settings["hyperparameters"] |= {"reasoning_effort": "medium", **automatic}
        settings["grader"] = {
            "type": "string_check",
            "name": _GRADERS[0][0],
            "input": "{{sample.output_text}}",
            "reference": "{{item.reference_answer}}",
            "operation": "ilike",
        }
    return {"type": method, method: settings}


def _chosen(metrics: Metrics, names: Sequence[str]) -> Metrics:
    return {name: metrics[name] for name in names if name in metrics}


def _reward(metrics: Metrics) -> float:
    return metrics.get("full_valid_mean_reward", metrics["train_mean_reward"])


def _step_message(plan: JobPlan, point: Point) -> str:
    shown = {
        "train_loss": "training loss",
        "valid_loss": "validation loss",
        "full_valid_loss": "full validation loss",
        "train_mean_reward": "train mean reward",
        "valid_mean_reward": "validation mean reward",
        "full_valid_mean_reward": "full validation mean reward",
    }
    values = ", ".join(f"{text}={point.metrics[name]:.2f}" for name, text in shown.items() if name in point.metrics)
    return f"Step {point.step}/{plan.total_steps}: {values}"


def _reward_details(metrics: Metrics, rng: random.Random) -> Record:
    """Return what the metrics of a reinforcement step were made of: a list of graders in each part."""
    parts = ["train", *(["valid"] if "valid_mean_reward" in metrics else [])]
    names = [{"name": name, "type": kind} for name, kind in _GRADERS]

    def graders(measure: str, low: float, high: float) -> list[Record]:
        return [{**name, **{f"{part}_{measure}": rng.uniform(low, high) for part in parts}} for name in names]

    rewards = {f"{part}_reward_mean": metrics[f"{part}_mean_reward"] for part in parts}
    prompt, completion = rng.randint(20_000, 90_000), rng.randint(10_000, 50_000)
    return {
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
            "gpt-4o-2024-08-06": {"train_prompt_tokens": prompt, "train_completion_tokens": completion}
        },
    }
