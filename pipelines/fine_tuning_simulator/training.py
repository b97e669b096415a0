"""The metrics of a training run, made to look like real ones: a point a step, and the result file."""

import base64
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fine_tuning_simulator.plan import JobPlan, Method

VALID_EVERY = 5
"""A validation batch is measured every so many steps, and at each epoch's end."""

_CERTAIN = 0.003
"""Below this loss every token is right."""

Metrics = dict[str, float]

_Curve = Callable[[float], float]
"""A loss without noise at each point of a run, from 0 to 1."""


@dataclass(frozen=True)
class Point:
    """The metrics of one step by their names in the API; one that was not measured is absent."""

    step: int
    metrics: Metrics


def curve(plan: JobPlan) -> list[Point]:
    """Return every step of a run, from the first to the last planned one."""
    rng = random.Random(f"curve:{plan.id}")  # noqa: S311 - repeatable on purpose
    return _reward_curve(plan, rng) if plan.kind.method == "reinforcement" else _loss_curve(plan, rng)


def _loss_curve(plan: JobPlan, rng: random.Random) -> list[Point]:
    first = math.log(2) if plan.kind.method == "dpo" else rng.uniform(1.3, 2.8)
    floor = first * rng.uniform(0.12, 0.22)
    train, valid = _smooth(plan, rng, first, floor)
    points = []
    for step in range(1, plan.total_steps + 1):
        x = step / plan.total_steps
        loss = train(x) * rng.lognormvariate(0, 0.1)
        metrics: Metrics = {"train_loss": loss, "train_mean_token_accuracy": _accuracy(loss, rng, 48)}
        ends_epoch = step % plan.steps_per_epoch == 0
        if plan.kind.has_validation_file and (ends_epoch or step % VALID_EVERY == 0):
            loss = valid(x) * rng.lognormvariate(0, 0.06)
            metrics |= {"valid_loss": loss, "valid_mean_token_accuracy": _accuracy(loss, rng, 48)}
            if ends_epoch:
                loss = valid(x) * rng.lognormvariate(0, 0.012)
                metrics |= {"full_valid_loss": loss, "full_valid_mean_token_accuracy": _accuracy(loss, rng, 850)}
        points.append(Point(step, metrics))
    return points


def _decay(first: float, floor: float, rate: float, turn: float = 1.0, rise: float = 0.0) -> _Curve:
    """Return a loss that falls from `first` to `floor`, and rises again from `turn` on."""
    return lambda x: floor + (first - floor) * math.exp(-rate * x) + rise * math.pow(max(0.0, x - turn), 1.3)


def _smooth(plan: JobPlan, rng: random.Random, first: float, floor: float) -> tuple[_Curve, _Curve]:
    """Return the curves of training and validation loss without noise."""
    match plan.kind.shape:
        case "drifting":  # the gap opens a little
            return _decay(first, floor, 4.5), _decay(first, floor * rng.uniform(1.3, 1.45), 4.7)
        case "overfitting":  # validation turns about two thirds through
            turn, rise = rng.uniform(0.45, 0.7), first * rng.uniform(0.3, 0.5)
            return _decay(first, floor * 0.9, 5.0), _decay(first, floor * 1.25, 6.5, turn, rise)
        case "memorising":  # training loss goes to nothing
            turn, rise = rng.uniform(0.3, 0.5), first * rng.uniform(0.5, 0.9)
            return _decay(first, first * 1e-6, 12.0), _decay(first, first * 0.3, 8.0, turn, rise)
        case _:
            return _decay(first, floor, 4.5), _decay(first, floor * rng.uniform(1.02, 1.1), 4.5)


def _accuracy(loss: float, rng: random.Random, tokens: int) -> float:
    """Return an accuracy that fits a loss. An accuracy of 1 is sometimes an integer, as hosts send it."""
    seen = rng.randint(tokens // 2, tokens)
    share = 1.0 if loss < _CERTAIN else min(1.0, rng.gauss(1 / (1 + 0.28 * loss), 0.02))
    right = max(0, round(share * seen))
    return 1 if right == seen and rng.random() < 0.5 else right / seen


def _reward_curve(plan: JobPlan, rng: random.Random) -> list[Point]:
    first, last = rng.uniform(0.15, 0.4), rng.uniform(0.6, 0.85)
    gap = rng.uniform(0.0, 0.14)
    tokens, growth = rng.uniform(900, 2600), rng.uniform(0.2, 0.9)
    points = []
    for step in range(1, plan.total_steps + 1):
        x = step / plan.total_steps
        reward = first + (last - first) * (1 - math.exp(-3 * x))
        reasoning = tokens * (1 + growth * x) * rng.lognormvariate(0, 0.05)
        metrics: Metrics = {
            "train_mean_reward": _share(rng.gauss(reward, 0.04), rng),
            "reasoning_tokens_mean": reasoning,
            "completion_tokens_mean": reasoning + rng.uniform(30, 60),
            "mean_unresponsive_rewards": 0.0 if rng.random() < 0.8 else _share(0.02, rng),
        }
        ends_epoch = step % plan.steps_per_epoch == 0
        if plan.kind.has_validation_file and (ends_epoch or step % VALID_EVERY == 0):
            metrics["valid_mean_reward"] = _share(rng.gauss(reward - gap * x, 0.03), rng)
            metrics["valid_reasoning_tokens_mean"] = reasoning * rng.lognormvariate(0, 0.04)
            if ends_epoch:
                metrics["full_valid_mean_reward"] = _share(rng.gauss(reward - gap * x, 0.02), rng)
                metrics["full_valid_mean_parse_error"] = 0.0 if rng.random() < 0.7 else _share(0.01, rng)
        points.append(Point(step, metrics))
    return points


def _share(value: float, rng: random.Random) -> float:
    samples = rng.randint(120, 500)
    return round(min(1.0, max(0.0, value)) * samples) / samples


_LOSS_COLUMNS = {
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}
_REWARD_COLUMNS = {
    name: name
    for name in ("train_mean_reward", "valid_mean_reward", "full_valid_mean_reward", "completion_tokens_mean")
}


def result_file(points: Iterable[Point], method: Method, as_base64: bool) -> bytes:
    """Return the CSV file of a run, a row a step, as the host sends it; a cell without a measurement is blank."""
    columns = _REWARD_COLUMNS if method == "reinforcement" else _LOSS_COLUMNS
    lines = [",".join(("step", *columns))]
    for point in points:
        cells = (point.metrics.get(metric) for metric in columns.values())
        texts = ("" if cell is None else repr(round(float(cell), 5)) for cell in cells)
        lines.append(",".join((str(point.step), *texts)))
    text = ("\n".join(lines) + "\n").encode()
    return base64.b64encode(text) if as_base64 else text
