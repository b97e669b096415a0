"""The whole life of a job, planned before it begins, from the seed and the place of the job in history."""

import json
import random
from dataclasses import dataclass
from typing import Any, Literal

from fine_tuning_simulator.profiles import Ids, Profile

Method = Literal["supervised", "dpo", "reinforcement"]
Part = Literal["training", "validation"]

TOPICS = ("support-replies", "invoice-fields", "ticket-triage", "release-notes", "contract-clauses", "tone-of-voice")
"""The purposes that the imagined company trains models for."""

_NOUNS = ("order", "invoice", "account", "delivery", "contract", "password", "refund", "subscription")
_TROUBLES = ("is late", "shows the wrong total", "cannot be found", "was charged twice", "needs a new owner")
_TONES = ("Thank you for writing.", "Good morning.", "I am sorry about that.", "Let me look into it.")


@dataclass(frozen=True)
class Dataset:
    """One version of the examples for one topic."""

    topic: str
    version: int
    method: Method
    seed: int

    @property
    def examples(self) -> int:
        """The number of examples in the training file."""
        return self._random("size").randint(24, 96)

    def filename(self, part: Part) -> str:
        """Return the name of a file."""
        return f"{self.topic}-{self.method}-v{self.version % 1000}{'' if part == 'training' else '-valid'}.jsonl"

    def content(self, part: Part) -> bytes:
        """Return the bytes of a file: JSON lines, an example a line."""
        rng = self._random(part)
        count = self.examples if part == "training" else max(10, self.examples // 5)
        return b"".join(json.dumps(self._example(rng)).encode() + b"\n" for _ in range(count))

    def _random(self, what: str) -> random.Random:
        return random.Random(f"{self.seed}:{self.topic}:{self.version}:{self.method}:{what}")  # noqa: S311

    def _example(self, rng: random.Random) -> dict[str, Any]:
        noun = rng.choice(_NOUNS)
        number = rng.randint(1000, 9999)
        question = {"role": "user", "content": f"My {noun} {number} {rng.choice(_TROUBLES)}."}
        good = {"role": "assistant", "content": f"{rng.choice(_TONES)} I have opened a case for {noun} {number}."}
        if self.method == "dpo":
            poor = {"role": "assistant", "content": f"Please wait for news of {noun} {number}."}
            return {"input": {"messages": [question]}, "preferred_output": [good], "non_preferred_output": [poor]}
        if self.method == "reinforcement":
            return {"messages": [question], "reference_answer": f"{noun}-{number}"}
        return {"messages": [{"role": "system", "content": f"You handle {self.topic}."}, question, good]}


Outcome = Literal["succeeded", "failed", "cancelled"]
Shape = Literal["healthy", "drifting", "overfitting", "memorising"]

SPACING = 9000
"""Seconds from one job's creation to the next one's, on average."""

_JITTER = 1200
_FIRST_NEW = 6000
"""Seconds from the clock's start to the first job that is created after it, give or take the jitter."""
_TIE_EVERY = 7
_WARM_UP = 60
_MOST_STEPS = 120


@dataclass(frozen=True)
class Kind:
    """The kind of a job: how its curve runs, how it ends, what it has."""

    shape: Shape = "healthy"
    method: Method = "supervised"
    outcome: Outcome = "succeeded"
    fails_validation: bool = False
    has_validation_file: bool = True
    tracked: bool = False
    """Whether it reports to Weights & Biases."""
    epochs: tuple[int, int] = (3, 6)


_KINDS: tuple[Kind, ...] = (
    Kind(),
    Kind(shape="overfitting", epochs=(4, 8)),
    Kind(method="dpo"),
    Kind(has_validation_file=False),
    Kind(method="reinforcement", epochs=(4, 6)),
    Kind(outcome="failed", fails_validation=True),
    Kind(tracked=True),
    Kind(outcome="cancelled", epochs=(5, 8)),
    Kind(shape="memorising", epochs=(6, 10)),
    Kind(shape="drifting", epochs=(8, 10)),
    Kind(outcome="failed", epochs=(5, 8)),
    Kind(method="reinforcement", has_validation_file=False),
)
"""One of each is in every twelve jobs in a row."""


@dataclass(frozen=True)
class _Opening:
    """A job in progress when the clock starts; times in seconds from then."""

    kind: Kind
    created: int
    started: int
    trained: int


_OPENINGS: dict[int, _Opening] = {
    # the older of the two running jobs ends last: its checkpoints are older than those that appeared before them
    -2: _Opening(Kind(shape="overfitting", epochs=(5, 5)), created=-13_000, started=-12_400, trained=6_200),
    -1: _Opening(Kind(tracked=True, epochs=(4, 4)), created=-5_400, started=-4_900, trained=3_800),
    0: _Opening(Kind(method="dpo", epochs=(3, 3)), created=-900, started=2_400, trained=8_400),
}
_FIRST_OPENING = min(_OPENINGS)


@dataclass(frozen=True)
class JobPlan:
    """The whole life of a job. Times are Unix seconds."""

    index: int
    """The place in history: 0 is the newest job when the clock starts."""
    id: str
    kind: Kind
    model: str
    suffix: str | None
    metadata: dict[str, str] | None
    organization: str
    seed: int
    dataset: Dataset
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    chosen_by_user: frozenset[str]
    """The hyperparameters that the user set; the others are `auto`."""
    total_steps: int
    steps_per_epoch: int
    created_at: int
    validated_at: int
    started_at: int
    trained_at: int
    """The planned end of the last step, also of a job that ends early."""
    finished_at: int

    def step_time(self, step: int) -> int:
        """Return the end of a step."""
        first = self.started_at + _WARM_UP
        return int(first + (self.trained_at - first) * step / self.total_steps)

    def steps_by(self, now: int) -> int:
        """Return the number of steps that have ended at `now`."""
        now = min(now, self.finished_at)
        if self.kind.fails_validation or now < self.step_time(1):
            return 0
        first = self.started_at + _WARM_UP
        guess = min(self.total_steps, (now - first) * self.total_steps // (self.trained_at - first) + 1)
        while self.step_time(guess) > now:
            guess -= 1
        return guess

    def epoch_ends(self, steps: int) -> list[int]:
        """Return those of the first `steps` steps that end an epoch."""
        return list(range(self.steps_per_epoch, steps + 1, self.steps_per_epoch))

    def status(self, now: int) -> str:
        """Return the status at `now`."""
        if now >= self.finished_at:
            return self.kind.outcome
        if now < self.validated_at:
            return "validating_files"
        return "queued" if now < self.started_at else "running"

    @property
    def trained_tokens(self) -> int:
        """The number of trained tokens."""
        return self.dataset.examples * (37 + self.seed % 23) * self.n_epochs


class Planner:
    """Plans the jobs of one world; `start` is the time at which its clock starts."""

    def __init__(self, profile: Profile, seed: int, ids: Ids, start: int) -> None:
        self._profile = profile
        self._seed = seed
        self._ids = ids
        self._start = start

    def created_at(self, index: int) -> int:
        """Return the creation time of job `index`. Now and then two jobs have the same second, as in a sweep."""
        if index in _OPENINGS:
            return self._start + _OPENINGS[index].created
        if index % _TIE_EVERY == 0 and not _FIRST_OPENING <= index - 1 <= 0:
            index -= 1
        regular = index * SPACING if index <= 0 else (index - 1) * SPACING + _FIRST_NEW
        return self._start + regular + self._random(f"created:{index}").randint(-_JITTER, _JITTER)

    def plan(self, index: int) -> JobPlan:
        """Return the plan of job `index`."""
        rng = self._random(f"job:{index}")
        opening = _OPENINGS.get(index)
        kind = self._kind(index)
        dataset = Dataset(rng.choice(TOPICS), _block(index), kind.method, self._seed)
        n_epochs = rng.randint(*kind.epochs)
        batch_size = 1
        while n_epochs * -(-dataset.examples // batch_size) > _MOST_STEPS:
            batch_size *= 2
        steps_per_epoch = -(-dataset.examples // batch_size)
        created = self.created_at(index)
        validated = created + rng.randint(30, 120)
        started = validated + rng.randint(60, 900)
        trained = started + rng.randint(3000, 15_000)
        finished = trained + rng.randint(30, 240)
        if opening is not None:
            started, trained = self._start + opening.started, self._start + opening.trained
            finished = trained + 90
        elif kind.fails_validation:
            finished = validated
        elif kind.outcome != "succeeded":
            finished = started + int((trained - started) * rng.uniform(0.45, 0.85))
        reinforcement = kind.method == "reinforcement"
        return JobPlan(
            index=index,
            id=self._ids.of("job", str(index)),
            kind=kind,
            model=rng.choice(self._profile.reinforcement_models if reinforcement else self._profile.supervised_models),
            suffix=dataset.topic if rng.random() < 0.6 else None,
            metadata=_metadata(rng, dataset.topic) if rng.random() < 0.4 else None,
            organization=f"org-{self._ids.token('organization', 24)}",
            seed=rng.randint(1, 2**31 - 1),
            dataset=dataset,
            n_epochs=n_epochs,
            batch_size=batch_size,
            learning_rate_multiplier=rng.choice((0.1, 0.5, 1.0, 1.8, 2.0)),
            chosen_by_user=frozenset(name for name in ("n_epochs", "batch_size") if rng.random() < 0.25),
            total_steps=n_epochs * steps_per_epoch,
            steps_per_epoch=steps_per_epoch,
            created_at=created,
            validated_at=validated,
            started_at=started,
            trained_at=trained,
            finished_at=finished,
        )

    def dataset_created_at(self, dataset: Dataset) -> int:
        """Return the upload time of the files of a dataset: before the first job that may use them."""
        first = self.created_at(dataset.version * len(_KINDS) + _FIRST_OPENING)
        return first - 1800 - self._random(f"uploaded:{dataset}").randint(0, 1800)

    def _kind(self, index: int) -> Kind:
        kinds = list(_KINDS)
        self._random(f"block:{_block(index)}").shuffle(kinds)
        kind = _OPENINGS[index].kind if index in _OPENINGS else kinds[(index - _FIRST_OPENING) % len(kinds)]
        if kind.method == "supervised" or self._profile.reinforcement_models:
            return kind
        return Kind(
            shape="drifting" if kind.method == "dpo" else "healthy",
            outcome=kind.outcome,
            has_validation_file=kind.has_validation_file,
            epochs=kind.epochs,
        )

    def _random(self, what: str) -> random.Random:
        return random.Random(f"{self._seed}:{self._profile.name}:{what}")  # noqa: S311 - repeatable on purpose


def _block(index: int) -> int:
    """Return the number of the twelve jobs in a row that a job belongs to."""
    return (index - _FIRST_OPENING) // len(_KINDS)


def _metadata(rng: random.Random, topic: str) -> dict[str, str]:
    metadata = {"team": rng.choice(("support", "finance", "platform")), "purpose": topic}
    if rng.random() < 0.5:
        metadata["ticket"] = f"ML-{rng.randint(100, 999)}"
    return metadata
