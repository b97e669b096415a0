"""A world made from a seed: a history before the clock starts, and jobs that go on after it."""

import json
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, TypeVar

from fine_tuning_simulator.clock import Clock
from fine_tuning_simulator.plan import JobPlan, Planner
from fine_tuning_simulator.profiles import Ids, profile_named
from fine_tuning_simulator.records import Record, Records, settled_at
from fine_tuning_simulator.training import Point, curve, result_file

_T = TypeVar("_T")
_PARTS: tuple[Literal["training", "validation"], ...] = ("training", "validation")
_RUNS_IN_MEMORY = 256
_BASE_MODELS_ARE_OLDER = 400 * 86_400
_NO_WEIGHTS = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"
"""The smallest valid safetensors file."""


@dataclass(frozen=True)
class _File:
    id: str
    purpose: str
    filename: str
    created_at: int
    visible_from: int
    content: Callable[[], bytes]


class GeneratedWorld:
    """A pure function of the seed, the profile and the clock.

    When the clock starts there are `jobs` jobs: the newest is queued, the two before it run (the older one ends last),
    all others are history. From then on one more is created about every two and a half hours.

    Args:
        seed: Worlds of one seed are the same.
        jobs: The number of jobs when the clock starts.
        profile: The host: `openai`, `azure` or `nebius`.
        clock: The time; a frozen clock by default.
    """

    def __init__(self, seed: int = 0, jobs: int = 24, profile: str = "openai", clock: Clock | None = None) -> None:
        self.page_limit: int | None = None
        self.clock = clock or Clock()
        self.profile_name = profile
        self._profile = profile_named(profile)
        ids = Ids(self._profile, seed)
        self._planner = Planner(self._profile, seed, ids, int(self.clock.start))
        self._oldest = 1 - jobs
        self._records = Records(self._profile, ids, first_modern=-(2 * jobs // 3))
        self._lock = threading.RLock()
        self._plans: list[JobPlan] = []
        self._by_id: dict[str, JobPlan] = {}
        self._files: dict[str, _File] = {}
        self._settled: dict[str, Record] = {}
        self._points = lru_cache(_RUNS_IN_MEMORY)(self._measure)
        self._events = lru_cache(_RUNS_IN_MEMORY)(self._all_events)
        self._listing: tuple[int, list[Record]] = (-1, [])

    # -- what the host shows -------------------------------------------------------------------------------------------

    def jobs(self) -> Sequence[Record]:
        """Return all jobs created by now, in the host's order."""
        with self._lock:
            now = self._now()
            if self._listing[0] != now:
                created = bisect_right(self._plans, now, key=lambda plan: plan.created_at)
                self._listing = (now, self._in_order([self._job(plan, now) for plan in self._plans[:created]]))
            return self._listing[1]

    def job(self, job_id: str) -> Record | None:
        """Return one job."""
        return self._of(job_id, self._job)

    def checkpoints(self, job_id: str) -> Sequence[Record] | None:
        """Return the checkpoints that the host lists of a job by now."""
        return self._of(
            job_id, lambda plan, now: self._in_order(self._records.checkpoints(plan, self._points(plan.id), now))
        )

    def events(self, job_id: str) -> Sequence[Record] | None:
        """Return the events of a job up to now."""
        return self._of(
            job_id,
            lambda plan, now: self._in_order([event for event in self._events(plan.id) if event["created_at"] <= now]),
        )

    def files(self) -> Sequence[Record]:
        """Return all files by now, newest first."""
        with self._lock:
            now = self._now()
            shown = [file for file in self._files.values() if file.visible_from <= now]
            shown.sort(key=lambda file: (file.created_at, file.id), reverse=True)
            return [self._description(file) for file in shown]

    def file(self, file_id: str) -> Record | None:
        """Return the description of a file."""
        with self._lock:
            file = self._known_file(file_id)
            return None if file is None else self._description(file)

    def file_content(self, file_id: str) -> bytes | None:
        """Return the bytes of a file, as the host sends them."""
        with self._lock:
            file = self._known_file(file_id)
            return None if file is None else file.content()

    def models(self) -> Sequence[Record]:
        """Return the models that can be called by now: base models, and what jobs have made and nobody has deleted."""
        with self._lock:
            now = self._now()
            started = int(self.clock.start) - _BASE_MODELS_ARE_OLDER
            names = (*self._profile.supervised_models, *self._profile.reinforcement_models)
            listed = [self._records.base_model(name, started) for name in dict.fromkeys(names)]
            for plan in self._plans:
                if plan.finished_at <= now:
                    listed += self._records.fine_tuned_models(plan, partial(self._points, plan.id), now)
            return listed

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def _of(self, job_id: str, read: Callable[[JobPlan, int], _T]) -> _T | None:
        with self._lock:
            now = self._now()
            plan = self._by_id.get(job_id)
            return read(plan, now) if plan is not None and plan.created_at <= now else None

    def _now(self) -> int:
        """Return the time in whole seconds, once all jobs are planned that exist by then."""
        now = int(self.clock.now())
        index = self._oldest + len(self._plans)
        # When the clock starts the number of jobs is exact, even if none of them is due.
        while index <= 0 or self._planner.created_at(index) <= now:
            plan = self._planner.plan(index)
            self._plans.append(plan)
            self._by_id[plan.id] = plan
            self._add_files(plan)
            index += 1
        return now

    def _in_order(self, oldest_first: list[Record]) -> list[Record]:
        return oldest_first[::-1] if self._profile.newest_first else oldest_first

    def _job(self, plan: JobPlan, now: int) -> Record:
        if now < settled_at(plan):
            return self._records.job(plan, now)
        if plan.id not in self._settled:
            self._settled[plan.id] = self._records.job(plan, now)
        return self._settled[plan.id]

    def _measure(self, job_id: str) -> list[Point]:
        return curve(self._by_id[job_id])

    def _all_events(self, job_id: str) -> list[Record]:
        return list(self._records.events(self._by_id[job_id], self._points(job_id)))

    # -- files ---------------------------------------------------------------------------------------------------------

    def _known_file(self, file_id: str) -> _File | None:
        now = self._now()
        file = self._files.get(file_id)
        return file if file is not None and file.visible_from <= now else None

    def _description(self, file: _File) -> Record:
        return {
            "object": "file",
            "id": file.id,
            "purpose": file.purpose,
            "filename": file.filename,
            "bytes": len(file.content()),
            "created_at": file.created_at,
            "expires_at": None,
            "status": "processed",
            "status_details": None,
        }

    def _add_files(self, plan: JobPlan) -> None:
        """Add the files of a job. Of a file that several jobs name, the oldest job says since when it is visible."""
        dataset, records, ended = plan.dataset, self._records, plan.finished_at
        uploaded = self._planner.dataset_created_at(dataset)
        files = [
            _File(
                file_id, "fine-tune", dataset.filename(part), uploaded, plan.created_at, partial(dataset.content, part)
            )
            for part, file_id in zip(_PARTS, (records.training_file(plan), records.validation_file(plan)), strict=True)
            if file_id is not None
        ]
        if (result := records.result_file(plan)) is not None:
            content = partial(self._results, plan)
            files.append(_File(result, "fine-tune-results", "step_metrics.csv", ended, ended, content))
        config = json.dumps({"base_model_name_or_path": plan.model, "peft_type": "LORA", "r": 16}).encode()
        for step in plan.epoch_ends(plan.steps_by(ended)):
            trained = plan.step_time(step)
            for file_id, name in records.weight_files(plan, step).items():
                content = partial(bytes, config if name.endswith(".json") else _NO_WEIGHTS)
                files.append(_File(file_id, "fine-tune-results", name, trained, trained, content))
        for file in files:
            self._files.setdefault(file.id, file)

    def _results(self, plan: JobPlan) -> bytes:
        return result_file(self._points(plan.id), plan.kind.method, self._records.encodes_result_file(plan))
