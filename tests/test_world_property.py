"""A random world, random syncs and random faults: at the end, the tables equal the world."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import openai_fine_tuning.settings as source_settings
from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.sync.run import AccountResult, SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from histories import DAY, HOUR, NOW, Truth, assert_holds, mixed_faults

RESOURCES = ("jobs", "checkpoints", "events", "result_metrics", "files")
STEPS = 3
"""Rows of a result file."""
NUMBERS = st.integers(0, 10_000)
FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "status": 403, "path": "events$"},
    {"kind": "status", "status": 500, "path": "checkpoints$", "times": 8},
    {"kind": "stuck_cursor", "path": "checkpoints$"},
    {"kind": "empty_more", "path": "events$"},
    {"kind": "reset", "path": "content$", "times": 9},
    {"kind": "status", "status": 401},
    {"kind": "empty_more", "path": "/jobs$"},
    {"kind": "lost_cursor", "times": 5},
]


class SyncsOfARandomWorld(RuleBasedStateMachine):
    """What may happen on a host, and what a user may do, in any order.

    What the host shows at a sync that reads it, and what it shows at the end, must be in the tables, once and in its
    last state; what has come and gone between syncs may be.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backoff = source_settings.BACKOFF_SECONDS
        source_settings.BACKOFF_SECONDS = 0.001
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.database = Path(self.folder.name) / "warehouse.duckdb"
        self.clock = Clock(start=NOW, speed=0)
        self.must, self.ever = Truth(), Truth()
        self.count = 0
        self.host: Simulator | None = None

    @initialize(
        order=st.sampled_from(["newest_first", "oldest_first", "as_added"]), page=st.sampled_from([1, 2, 3, 100])
    )
    def begin(self, order: Any, page: int) -> None:
        """A host with a job or two from earlier days."""
        self.world = ScriptedWorld(order)
        self.world.page_limit = page
        self.host = Simulator(self.world, clock=self.clock)
        self.host.start()
        for number in range(3):
            self.add(NOW - DAY * (3 - number), terminal=number != 1)

    # the host

    @property
    def now(self) -> int:
        """The host's time."""
        return int(self.clock.now())

    def add(self, created_at: int, *, terminal: bool) -> None:
        """A job, with a child of each kind."""
        self.count += 1
        job_id = f"ftjob-{self.count}"
        self.world.add_job(id=job_id, created_at=created_at, status="running", finished_at=None)
        self.child("checkpoint", job_id, 0)
        self.child("event", job_id, 0)
        if terminal:
            self.end(job_id, min(self.now, created_at + 60))

    def end(self, job_id: str, finished_at: int) -> None:
        """A job ends, and has a result file."""
        file_id = f"file-{job_id}"
        text = "step,train_loss\n" + "".join(f"{step},{1 / step:.3f}\n" for step in range(1, STEPS + 1))
        self.world.add_file(file_id, text.encode())
        status = ("succeeded", "failed", "cancelled")[self.count % 3]
        self.world.update_job(job_id, status=status, finished_at=finished_at, result_files=[file_id])

    def child(self, kind: str, job_id: str, age: int) -> None:
        """A checkpoint or an event, which may carry a time well before it shows."""
        self.count += 1
        job = self.world.job(job_id)
        assert job is not None
        created_at = max(job["created_at"], self.now - age)
        if kind == "checkpoint":
            self.world.add_checkpoint(job_id, id=f"ftckpt-{self.count}", created_at=created_at, step_number=self.count)
        else:
            self.world.add_event(job_id, id=f"ftevent-{self.count}", created_at=created_at, message=str(self.count))

    def pick(self, number: int, *, running: bool = False) -> dict[str, Any]:
        """A job that still changes: one that runs, or one that ended less than the grace period ago."""
        jobs = [
            job
            for job in self.world.jobs()
            if job["status"] == "running" or (not running and job["finished_at"] > self.now - 3000)
        ]
        assume(jobs)
        found: dict[str, Any] = jobs[number % len(jobs)]
        return found

    @rule(late=st.integers(0, 50), terminal=st.booleans())
    def a_job_appears(self, late: int, terminal: bool) -> None:
        """Now, or up to the overlap late; several may share a second."""
        self.add(self.now - late, terminal=terminal)

    @rule(number=NUMBERS, ago=st.integers(0, 60))
    def a_job_ends(self, number: int, ago: int) -> None:
        """Its end may show a little late."""
        job = self.pick(number, running=True)
        self.end(job["id"], max(job["created_at"], self.now - ago))

    @rule(number=NUMBERS, kind=st.sampled_from(["checkpoint", "event"]), age=st.sampled_from([0, 0, 1, 600, 2 * DAY]))
    def a_child_appears(self, number: int, kind: str, age: int) -> None:
        """Of a job that runs, or that ended a while ago."""
        self.child(kind, self.pick(number)["id"], age)

    @rule(number=NUMBERS)
    def a_checkpoint_is_dropped(self, number: int) -> None:
        """As hosts drop all but the last ones."""
        there = self.world.checkpoints(self.pick(number)["id"])
        assume(there)
        assert there
        self.ever.see(self.world)
        self.world.remove_checkpoint(there[number % len(there)]["id"])

    @rule(seconds=st.sampled_from([0, 1, 30, 600, 2 * HOUR, 2 * DAY]))
    def time_passes(self, seconds: int) -> None:
        """Nothing else does."""
        self.clock.advance(seconds)

    # the user

    def read(self, **reading: Any) -> AccountResult | None:
        """A sync; None where it failed."""
        assert self.host is not None
        try:
            return run_sync(
                Account("default", "key", self.host.base_url), DuckDb(self.database), SyncOptions(**reading)
            )
        except CommandError:
            assert self.host.faults, "it failed although nothing was wrong"
            return None

    def note(self, truth: Truth, resources: tuple[str, ...]) -> None:
        """Take in what the host shows."""
        truth.see(self.world, resources)
        if "result_metrics" in resources:
            truth.see_files(self.world, STEPS)

    @rule(
        resources=st.sampled_from([RESOURCES, RESOURCES, ("checkpoints",), ("jobs", "events"), ("result_metrics",)]),
        faulty=st.sampled_from([None, None, -1, *range(len(FAULTS))]),
        concurrency=st.sampled_from([1, 16]),
        number=NUMBERS,
        commit_seconds=st.sampled_from([300, 300, 300, 0]),
    )
    def a_sync(
        self, resources: tuple[str, ...], faulty: int | None, concurrency: int, number: int, commit_seconds: float
    ) -> None:
        """Of everything owed, on a host that may fail in one way or in many."""
        assert self.host is not None
        if faulty == -1:
            self.host.faults.extend(mixed_faults(0.15, number))
        elif faulty is not None:
            self.host.faults.append(Fault(**{"times": None, **FAULTS[faulty]}))
        summary = self.read(resources=resources, concurrency=concurrency, commit_seconds=commit_seconds)
        self.host.faults.clear()
        if summary is not None and not summary.skipped:
            self.note(self.must, resources)

    @rule(number=NUMBERS, since=st.sampled_from([None, 0, 60, DAY]))
    def a_bounded_read(self, number: int, since: int | None) -> None:
        """Of one job, or of those since a date: it hides nothing from later syncs."""
        jobs = self.world.jobs()
        if since is None:
            self.read(job_ids=(jobs[number % len(jobs)]["id"],))
        else:
            self.read(since=_iso(self.now - since))

    @rule()
    def a_full_refresh(self) -> None:
        """Reads everything once more."""
        if self.read(full_refresh=True) is not None:
            self.note(self.must, RESOURCES)

    # the end

    def teardown(self) -> None:
        """All is well again, and an hour passes: one sync more, and nothing is missing."""
        try:
            if self.host is not None:
                self.clock.advance(2 * HOUR)
                summary = self.read()
                assert summary is not None
                assert summary.skipped == []
                self.note(self.must, RESOURCES)
                self.note(self.ever, RESOURCES)
                assert_holds(self.rows, self.must, more=True)
                for table, known in self.ever.tables.items():
                    keys = "file_id, step" if table == "result_metrics" else "id"
                    assert (
                        set(self.rows(f"SELECT {keys} FROM {table}")) <= known.keys() | self.must.tables[table].keys()
                    )
        finally:
            if self.host is not None:
                self.host.stop()
            source_settings.BACKOFF_SECONDS = self.backoff
            self.folder.cleanup()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with duckdb.connect(str(self.database), read_only=True) as connection:
            connection.execute("SET search_path = 'fine_tuning'")
            return connection.execute(sql).fetchall()


def _iso(seconds: int) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def run_worlds(worlds: int, steps: int, *, derandomize: bool) -> None:
    """Run so many random worlds of so many steps; raises where a row was lost."""
    run_state_machine_as_test(
        SyncsOfARandomWorld,
        settings=settings(
            max_examples=worlds,
            stateful_step_count=steps,
            derandomize=derandomize,
            deadline=None,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_tables_equal_the_world_whatever_happened() -> None:
    run_worlds(1, 8, derandomize=True)


@pytest.mark.thorough
@pytest.mark.timeout(600)  # some 60 s on a machine of its own; a busy one takes its time
def test_the_tables_equal_more_worlds_whatever_happened() -> None:
    run_worlds(3, 8, derandomize=True)
