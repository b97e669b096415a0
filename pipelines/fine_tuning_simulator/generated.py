"""A world made from a seed: a history before the clock starts, and jobs that go on after it."""

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from fine_tuning_simulator.azure_records import AzureRecords
from fine_tuning_simulator.clock import Clock
from fine_tuning_simulator.datasets import Part
from fine_tuning_simulator.identity import Ids
from fine_tuning_simulator.nebius_records import NebiusRecords
from fine_tuning_simulator.openai_records import OpenAIRecords
from fine_tuning_simulator.plan import JobPlan, Planner
from fine_tuning_simulator.profiles import Profile, profile_named
from fine_tuning_simulator.records import Record, Records, settled
from fine_tuning_simulator.results import result_file
from fine_tuning_simulator.training import Point, curve

_RUNS_AT_HAND = 256
_NO_WEIGHTS = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"
"""The smallest valid safetensors file."""


class _Run:
    """What a job measures, worked out when someone asks."""

    def __init__(self, plan: JobPlan, records: Records) -> None:
        self._plan = plan
        self._records = records

    @cached_property
    def points(self) -> list[Point]:
        return curve(self._plan)

    @cached_property
    def events(self) -> list[Record]:
        return list(self._records.events(self._plan, self.points))


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
    """

    def __init__(self, seed: int = 0, jobs: int = 24, profile: str = "openai", clock: Clock | None = None) -> None:
        self.page_limit: int | None = None
        self.clock = clock or Clock()
        self.profile_name = profile
        self._profile: Profile = profile_named(profile)
        ids = Ids(self._profile, seed)
        self._planner = Planner(self._profile, seed, ids, int(self.clock.start))
        self._oldest = 1 - jobs
        self._records = _records_of(self._profile, ids, first_modern=-(2 * jobs // 3))
        self._lock = threading.RLock()
        self._plans: list[JobPlan] = []
        self._created: list[int] = []
        self._by_id: dict[str, JobPlan] = {}
        self._files: dict[str, _File] = {}
        self._descriptions: dict[str, Record] = {}
        self._settled: dict[str, Record] = {}
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._listing: tuple[int, list[Record]] = (-1, [])

    # -- what the host shows ---------------------------------------------------------------------------------------

    def jobs(self) -> Sequence[Record]:
        """All jobs created by now, in the host's order."""
        with self._lock:
            now = self._now()
            if self._listing[0] != now:
                records = [self._job(plan, now) for plan in self._plans[: bisect_right(self._created, now)]]
                self._listing = (now, self._in_order(records))
            return self._listing[1]

    def job(self, job_id: str) -> Record | None:
        """One job."""
        with self._lock:
            now = self._now()
            plan = self._known(job_id, now)
            return None if plan is None else self._job(plan, now)

    def checkpoints(self, job_id: str) -> Sequence[Record] | None:
        """The checkpoints that the host shows for a job by now."""
        with self._lock:
            now = self._now()
            plan = self._known(job_id, now)
            if plan is None:
                return None
            return self._in_order(self._records.checkpoints(plan, self._run(plan).points, now))

    def events(self, job_id: str) -> Sequence[Record] | None:
        """The events of a job up to now."""
        with self._lock:
            now = self._now()
            plan = self._known(job_id, now)
            if plan is None:
                return None
            return self._in_order([event for event in self._run(plan).events if event["created_at"] <= now])

    def files(self) -> Sequence[Record]:
        """All files by now, newest first."""
        with self._lock:
            now = self._now()
            shown = [file for file in self._files.values() if file.visible_from <= now]
            shown.sort(key=lambda file: (file.created_at, file.id), reverse=True)
            return [self._description(file) for file in shown]

    def file(self, file_id: str) -> Record | None:
        """One file's description."""
        with self._lock:
            file = self._known_file(file_id)
            return None if file is None else self._description(file)

    def file_content(self, file_id: str) -> bytes | None:
        """One file's bytes as the host sends them."""
        with self._lock:
            file = self._known_file(file_id)
            return None if file is None else file.content()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        """The time in whole seconds, with all jobs planned that exist by then."""
        now = int(self.clock.now())
        index = self._oldest + len(self._plans)
        # at the clock's start the number of jobs is exact, even where none of them would be due
        while index <= 0 or self._planner.created_at(index) <= now:
            plan = self._planner.plan(index)
            self._plans.append(plan)
            self._created.append(plan.created_at)
            self._by_id[plan.id] = plan
            self._add_files(plan)
            index += 1
        return now

    def _in_order(self, oldest_first: list[Record]) -> list[Record]:
        return oldest_first[::-1] if self._profile.newest_first else oldest_first

    def _known(self, job_id: str, now: int) -> JobPlan | None:
        plan = self._by_id.get(job_id)
        return plan if plan is not None and plan.created_at <= now else None

    def _known_file(self, file_id: str) -> _File | None:
        now = self._now()
        file = self._files.get(file_id)
        return file if file is not None and file.visible_from <= now else None

    def _job(self, plan: JobPlan, now: int) -> Record:
        if now < settled(plan):
            return self._records.job(plan, now)
        record = self._settled.get(plan.id)
        if record is None:
            record = self._settled[plan.id] = self._records.job(plan, now)
        return record

    def _run(self, plan: JobPlan) -> _Run:
        run = self._runs.get(plan.id)
        if run is None:
            run = self._runs[plan.id] = _Run(plan, self._records)
            if len(self._runs) > _RUNS_AT_HAND:
                self._runs.popitem(last=False)
        self._runs.move_to_end(plan.id)
        return run

    # -- files -----------------------------------------------------------------------------------------------------

    def _description(self, file: _File) -> Record:
        record = self._descriptions.get(file.id)
        if record is None:
            record = self._descriptions[file.id] = {
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
        return record

    def _add_files(self, plan: JobPlan) -> None:
        dataset, records = plan.dataset, self._records
        uploaded = self._planner.dataset_created_at(dataset)
        parts: dict[Part, str | None] = {
            "training": records.training_file(plan),
            "validation": records.validation_file(plan),
        }
        for part, file_id in parts.items():
            if file_id is not None:
                content = partial(dataset.content, part)
                self._add(_File(file_id, "fine-tune", dataset.filename(part), uploaded, plan.created_at, content))
        result, ended = records.result_file(plan), plan.finished_at
        if result is not None:
            content = partial(self._results, plan)
            self._add(_File(result, "fine-tune-results", "step_metrics.csv", ended, ended, content))
        self._add_weights(plan)

    def _add(self, file: _File) -> None:
        """Make a file known. The first job that names it is the oldest one: later ones change nothing."""
        self._files.setdefault(file.id, file)

    def _add_weights(self, plan: JobPlan) -> None:
        config = json.dumps({"base_model_name_or_path": plan.model, "peft_type": "LORA", "r": 16}).encode()
        for step in plan.epoch_ends(plan.steps_by(plan.finished_at)):
            trained = plan.step_time(step)
            for file_id, name in self._records.weight_files(plan, step).items():
                content = partial(bytes, config if name.endswith(".json") else _NO_WEIGHTS)
                self._add(_File(file_id, "fine-tune-results", name, trained, trained, content))

    def _results(self, plan: JobPlan) -> bytes:
        return result_file(self._run(plan).points, plan.kind.method, self._records.encodes_result_file(plan))


def _records_of(profile: Profile, ids: Ids, first_modern: int) -> Records:
    match profile.name:
        case "azure":
            return AzureRecords(profile, ids)
        case "nebius":
            return NebiusRecords(profile, ids)
        case "openai":
            return OpenAIRecords(profile, ids, first_modern)
