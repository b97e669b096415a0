"""Random sequences of commands over one warehouse and one changing host: nothing is lost, and nothing gets stuck.

A state machine of hypothesis draws what the host shows, what a user runs, and what somebody does to the database beside
it. After each step: a documented failure at most. At the end: every table equals the host, and `ftw verify` agrees.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlt
import duckdb
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from command import Command
from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.copy import copy_history
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.sync.run import AccountResult, SyncOptions, run_sync
from fine_tuning_warehouse.verify import verify
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.postgres import PostgreSql
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from harness import QUICK
from histories import DAY, HOUR, NOW, Truth, assert_holds, mixed_faults
from killing import Deadly, killing
from openai_fine_tuning import openai_fine_tuning

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["lakes"]

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


_VIEWS = ("checkpoint_history", "best_checkpoints", "job_overview", "training_curves", "model_status", "account_health")
_TABLES = ("jobs", "checkpoints", "events", "result_metrics")
DAMAGE = [
    *(f"DROP TABLE fine_tuning.{name}" for name in (*_TABLES, "files", "models", "rejected_records", "syncs")),
    *(f"DROP TABLE fine_tuning_staging.{name}" for name in ("jobs", "checkpoints", "_dlt_version")),
    *(f"ALTER TABLE fine_tuning.{name} DROP COLUMN _dlt_load_id" for name in (*_TABLES, "syncs")),
    *(f"ALTER TABLE fine_tuning.{name} DROP COLUMN account" for name in _TABLES),
    "ALTER TABLE fine_tuning.jobs DROP COLUMN status",
    "ALTER TABLE fine_tuning.checkpoints DROP COLUMN id",
    "ALTER TABLE fine_tuning.checkpoints DROP COLUMN metrics__own_1",
    "ALTER TABLE fine_tuning.events DROP COLUMN data__train_loss",
    "ALTER TABLE fine_tuning.result_metrics DROP COLUMN step",
    "ALTER TABLE fine_tuning.models DROP COLUMN id",
    "ALTER TABLE fine_tuning_staging.checkpoints DROP COLUMN id",
    *(
        f"{verb} fine_tuning.{name}"
        for verb in ("DROP TABLE", "DELETE FROM")
        for name in ("_dlt_loads", "_dlt_version")
    ),
    *(f"{verb} fine_tuning._dlt_pipeline_state" for verb in ("DROP TABLE", "DELETE FROM")),
    "DROP SCHEMA fine_tuning_staging CASCADE",
    "DROP SCHEMA fine_tuning CASCADE",
]
"""What somebody may do to a database that the next sync mends."""
LOSSES = [f"DELETE FROM fine_tuning.{name}" for name in _TABLES]
"""What only a full refresh mends, since a sync does not count rows."""
HARMLESS = [
    *(f"DROP VIEW fine_tuning.{name}" for name in _VIEWS),
    "CREATE OR REPLACE VIEW fine_tuning.mine AS SELECT id, step_number FROM fine_tuning.checkpoints",
    "CREATE OR REPLACE VIEW fine_tuning.mine_too AS SELECT * FROM fine_tuning.best_checkpoints",
    "CREATE INDEX mine ON fine_tuning.checkpoints (fine_tuning_job_id)",
    "ALTER TABLE fine_tuning.jobs ADD COLUMN mine INTEGER",
    "ALTER TABLE fine_tuning.checkpoints ADD COLUMN metrics__own_1 DOUBLE",
    "ALTER TABLE fine_tuning.events ADD COLUMN mine STRUCT(a INTEGER)",
]


class SyncsOfARandomWorld(RuleBasedStateMachine):
    """What may happen on a host, and what a user may do, in any order.

    What the host shows at a sync that reads it, and what it shows at the end, must be in the tables, once and in its
    last state; what has come and gone between syncs may be.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.database = Path(self.folder.name) / "warehouse.duckdb"
        self.clock = Clock(start=NOW, speed=0)
        self.must, self.ever = Truth(), Truth()
        self.count = 0
        self.key = "key"
        self.lost_rows = False
        self.accounts = {"default"}
        self.kept: tuple[Truth, bool, set[str]] | None = None
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

    def warehouse_of(self, dataset: str) -> Warehouse:
        """The warehouse with another dataset."""
        return DuckDb(self.database, dataset)

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse as it is now."""
        return self.warehouse_of("fine_tuning")

    def account(self, label: str = "default") -> Account:
        """An account at the host, under the key of the day."""
        assert self.host is not None
        return Account(label, self.key, self.host.base_url, policy=QUICK)

    def read(self, label: str = "default", **options: Any) -> AccountResult | None:
        """A sync; None where it failed."""
        assert self.host is not None
        self.accounts.add(label)
        try:
            return run_sync(self.account(label), self.warehouse, SyncOptions(**options))
        except CommandError:
            assert self.host.faults, "it failed although nothing was wrong"
            return None

    def execute(self, statement: str) -> bool:
        """Run a statement in the database. Returns whether DuckDB could."""
        if not self.database.exists():
            return False
        with duckdb.connect(str(self.database)) as connection:
            try:
                connection.execute(statement)
            except duckdb.Error:
                return False
        return True

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

    @rule(number=NUMBERS, value=st.sampled_from([0.5, 1, "high", True, None, {"deep": [1]}]))
    def a_metric_appears_or_changes_its_type(self, number: int, value: Any) -> None:
        """On a new checkpoint."""
        self.count += 1
        job_id = self.pick(number)["id"]
        metrics = {"train_loss": 0.5, f"own_{number % 3}": value}
        self.world.add_checkpoint(
            job_id, id=f"ftckpt-{self.count}", created_at=self.now, step_number=self.count, metrics=metrics
        )

    @rule(order=st.sampled_from(["newest_first", "oldest_first", "as_added"]))
    def the_listing_changes_its_order(self, order: Any) -> None:
        """From one sync to the next."""
        self.world._jobs._order, self.world._jobs._sorted = order, None

    @rule()
    def the_key_is_rotated(self) -> None:
        """To one that stands for the same account."""
        self.count += 1
        self.key = f"key-{self.count}"

    @rule(label=st.sampled_from(["other", "Ünïcode label"]), dataset=st.sampled_from(["fine_tuning", "beside"]))
    def another_account_or_dataset_is_synced(self, label: str, dataset: str) -> None:
        """Into the same file."""
        if dataset == "fine_tuning":
            self.read(label)
        else:
            run_sync(self.account(), self.warehouse_of(dataset), SyncOptions())

    @rule(statement=st.sampled_from(DAMAGE))
    def somebody_drops_something(self, statement: str) -> None:
        """Then what the host no longer shows cannot come back."""
        if self.execute(statement):
            self.must = Truth()

    @rule(statement=st.sampled_from(LOSSES))
    def somebody_deletes_rows(self, statement: str) -> None:
        """As the damage, but that nothing tells the next sync of it."""
        if self.execute(statement):
            self.must, self.lost_rows = Truth(), True

    @rule(statement=st.sampled_from(HARMLESS))
    def somebody_builds_on_top(self, statement: str) -> None:
        """Views and indexes of theirs, and columns beside ours."""
        self.execute(statement)

    @rule(options=st.sampled_from([(), ("--full-refresh",), ("--strict",), ("--resources", "jobs,files")]))
    def the_command_is_run(self, options: tuple[str, ...]) -> None:
        """In a process of its own: a documented exit code, and at most two lines of failure."""
        assert self.host is not None
        ftw = Command(Path(self.folder.name), self.host.base_url)
        ftw.env["OPENAI_API_KEY"] = self.key
        ended = ftw("sync", "--database", str(self.database), "--output", "json", *options)
        assert ended.code in (0, 3), ended
        assert "Traceback" not in ended.err
        assert ended.json["status"] == "done"

    @rule()
    def the_plain_source_is_run_by_dlt(self) -> None:
        """Into the same tables, with dlt's own memory of what it has read."""
        assert self.host is not None
        pipeline = dlt.pipeline(
            "plain",
            pipelines_dir=str(self.database.with_name("plain")),
            destination=dlt.destinations.duckdb(str(self.database)),
            dataset_name="fine_tuning",
        )
        try:
            pipeline.run(openai_fine_tuning(self.key, self.host.base_url, fine_tuning_policy=QUICK))
        except PipelineStepFailed:  # what was dropped is dlt's to miss
            pipeline.drop_pending_packages()

    @rule()
    def the_history_is_copied_and_goes_on_there(self) -> None:
        """To another file, and perhaps back."""
        assume(self.database.exists())
        self.count += 1
        target = self.database.with_name(f"copy_{self.count}.duckdb")
        try:
            copied = list(copy_history(self.warehouse, DuckDb(target)))
        except CommandError:
            return
        assume(target.exists())
        self.database = target
        if not all(one.has_state for one in copied):
            self.lost_rows = True

    @rule()
    def the_file_is_kept(self) -> None:
        """As a backup."""
        assume(self.database.exists())
        shutil.copyfile(self.database, self.database.with_name("backup"))
        self.kept = (copy.deepcopy(self.must), self.lost_rows, set(self.accounts))

    @rule()
    def an_older_file_is_put_back(self) -> None:
        """What it lacks is read again."""
        assume(self.kept is not None and self.database.with_name("backup").exists())
        assert self.kept is not None
        shutil.copyfile(self.database.with_name("backup"), self.database)
        self.must, self.lost_rows, self.accounts = copy.deepcopy(self.kept[0]), self.kept[1], set(self.kept[2])

    @rule(where=st.sampled_from(["statement", "commit", "request", "load"]), number=st.integers(1, 60))
    def a_sync_is_killed(self, where: str, number: int) -> None:
        """At any statement, or as it sends a request; or it gets through."""
        assert self.host is not None
        process = multiprocessing.get_context("fork").Process(
            target=_sync_and_be_killed,
            args=(Deadly(where, number), self.account(), self.database, self.folder.name),
        )
        process.start()
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        process.close()

    # the end

    def teardown(self) -> None:
        """All is well again, all jobs end, and an hour passes: one sync more, and nothing is missing."""
        try:
            if self.host is not None:
                # An event that shows late, and is older than one that was read, is read at the end of its job.
                for job in list(self.world.jobs()):
                    if job["status"] == "running":
                        self.end(job["id"], self.now)
                self.clock.advance(2 * HOUR)
                summary = self.read(full_refresh=self.lost_rows)
                assert summary is not None
                assert summary.skipped == []
                assert self.read() is not None, "and once more"
                self.note(self.must, RESOURCES)
                self.note(self.ever, RESOURCES)
                for record in self.rows("SELECT record FROM rejected_records"):
                    # A value of another type than its column's; the row may be there without it.
                    self.must.tables["checkpoints"].pop((json.loads(record[0])["id"],), None)
                assert_holds(self.rows, self.must, more=True)
                self.assert_verified()
                for table, known in self.ever.tables.items():
                    keys = "file_id, step" if table == "result_metrics" else "id"
                    assert (
                        set(self.rows(f"SELECT {keys} FROM {table}")) <= known.keys() | self.must.tables[table].keys()
                    )
        finally:
            if self.host is not None:
                self.host.stop()
            self.folder.cleanup()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, of the account that is synced most."""
        with duckdb.connect(str(self.database), read_only=True) as connection:
            connection.execute("SET search_path = 'fine_tuning'")
            return connection.execute(f"{sql} WHERE account = 'default'").fetchall()

    def assert_verified(self) -> None:
        """Assert that every value of every account is as the host shows it."""
        for label in sorted(self.accounts):
            if label != "default":
                assert self.read(label, full_refresh=self.lost_rows) is not None
            found = verify(self.account(label), self.warehouse)
            wrong = [one for one in found.findings if one.verdict not in ("unlisted", "pending")]
            assert wrong == [], label


class SyncsIntoPostgres(SyncsOfARandomWorld):
    """The same in a PostgreSQL database, less what is of files."""

    postgres: Postgres

    def __init__(self) -> None:
        super().__init__()
        for dataset in ("fine_tuning", "fine_tuning_staging", "beside", "beside_staging"):
            self.postgres.execute(f"DROP SCHEMA IF EXISTS {dataset} CASCADE")

    def warehouse_of(self, dataset: str) -> Warehouse:
        """The database, with any dataset."""
        return PostgreSql(dataset=dataset)

    def execute(self, statement: str) -> bool:
        """Run a statement in the database. Returns whether PostgreSQL could."""
        import psycopg2  # type: ignore[import-untyped]

        is_drop = "DROP" in statement and "CASCADE" not in statement
        try:
            self.postgres.execute(f"{statement} CASCADE" if is_drop else statement)
        except psycopg2.Error:
            return False
        return True

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, of the account that is synced most."""
        return self.postgres.rows(f"{sql} WHERE account = 'default'")

    def of_files(self) -> None:
        """Nothing: what is left out has no rule here."""

    the_command_is_run = the_history_is_copied_and_goes_on_there = of_files
    the_file_is_kept = an_older_file_is_put_back = a_sync_is_killed = of_files
    the_plain_source_is_run_by_dlt = of_files


def _iso(seconds: int) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def _sync_and_be_killed(deadly: Deadly, account: Account, database: Path, folder: str) -> None:
    """The body of a process that syncs until it is killed."""
    tempfile.tempdir = folder
    killing(deadly, Counter())
    try:
        run_sync(account, DuckDb(database), SyncOptions())
    except BaseException:  # noqa: BLE001 - told below
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run_worlds(worlds: int, steps: int, *, derandomize: bool, machine: Any = SyncsOfARandomWorld) -> None:
    """Run so many random worlds of so many steps; raises where a row was lost."""
    run_state_machine_as_test(
        machine,
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


@pytest.mark.parametrize("steps", [4, pytest.param(8, marks=pytest.mark.thorough)])
def test_the_tables_equal_the_world_whatever_happened(steps: int) -> None:
    run_worlds(1, steps, derandomize=True)


@pytest.mark.nightly
@pytest.mark.timeout(1200)  # minutes on a machine of its own; a busy one takes its time
def test_the_tables_equal_more_worlds_whatever_happened() -> None:
    run_worlds(4, 14, derandomize=True)


@pytest.mark.engine
@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("postgres_engine")
def test_tables_in_postgres_equal_the_world_whatever_happened(postgres: Postgres) -> None:
    machine = type("SyncsIntoThisPostgres", (SyncsIntoPostgres,), {"postgres": postgres})
    run_worlds(1, 14, derandomize=True, machine=machine)
