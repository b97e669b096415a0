"""Rows of large views that are kept in tables: they are always those that the view would compute, and quick to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fine_tuning_simulator import Clock, GeneratedWorld, ScriptedWorld, Simulator
from fine_tuning_warehouse.account_life import forget, rename
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.sync.run import AccountResult, SyncOptions, run_sync
from fine_tuning_warehouse.views import materialize
from fine_tuning_warehouse.views.build import Builder
from fine_tuning_warehouse.views.files import VIEWS
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.warehouse import MARK
from harness import DAY, NOW
from histories import add_history
from killing import Deadly, Syncs

KEPT = ("checkpoint_history", "_advice", "_event_facts")
SHOWN = ("checkpoint_history", "best_checkpoints", "job_overview", "comparable_runs", "job_costs")
TYPES = {
    "VARCHAR": "text",
    "DOUBLE": "double",
    "BIGINT": "bigint",
    "BOOLEAN": "bool",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
}


@pytest.fixture
def warehouse(tmp_path: Path) -> DuckDb:
    """A warehouse that keeps the rows of large views whatever its size."""
    return DuckDb(tmp_path / "warehouse.duckdb", materialize_from_rows=0)


def sync(warehouse: DuckDb, host: Simulator, label: str = "default") -> AccountResult:
    return run_sync(Account(label, "key", host.base_url), warehouse, SyncOptions())


def rows(warehouse: DuckDb, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(warehouse.database), read_only=True) as connection:
        connection.execute("SET search_path = 'fine_tuning'")
        return connection.execute(query).fetchall()


def execute(warehouse: DuckDb, *statements: str) -> None:
    with duckdb.connect(str(warehouse.database)) as connection:
        connection.execute("SET search_path = 'fine_tuning'")
        for statement in statements:
            connection.execute(statement)


def kept(warehouse: DuckDb) -> dict[str, int]:
    """The number of rows in each table of kept rows."""
    return {name: rows(warehouse, f'SELECT count(*) FROM fine_tuning_materialized."{name}"')[0][0] for name in KEPT}


def kept_accounts(warehouse: DuckDb) -> set[str]:
    return {label for (label,) in rows(warehouse, "SELECT account FROM fine_tuning_materialized.accounts")}


def assert_right(warehouse: DuckDb) -> None:
    """Assert that each view shows the rows that it computes where nothing is kept."""
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{warehouse.database}' AS warehouse (READ_ONLY)")
        tables: dict[str, dict[str, str]] = {}
        for table, column, type_ in connection.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = 'warehouse' AND schema_name = 'fine_tuning'"
        ).fetchall():
            tables.setdefault(table, {})[column] = TYPES.get(type_, "decimal")
        views = {view.name for view in VIEWS}
        for name in views:
            tables.pop(name, None)
        builder = Builder(
            "duckdb",
            tables,
            lambda name: ["memory", "main", name] if name in views else ["warehouse", "fine_tuning", name],
        )
        for view in builder.views:
            connection.execute(f"CREATE VIEW memory.main.{view.name} AS {builder.select(view)}")
        for name in SHOWN:
            computed = connection.execute(f"FROM memory.main.{name} ORDER BY ALL").fetchall()
            shown = connection.execute(f"FROM warehouse.fine_tuning.{name} ORDER BY ALL").fetchall()
            assert repr(shown) == repr(computed), name  # NaN is not equal to itself


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("profile", ["openai", "azure", "nebius"])
def test_the_kept_rows_are_those_that_a_view_computes(profile: Any, warehouse: DuckDb) -> None:
    clock = Clock(start=NOW, speed=0)
    with Simulator(GeneratedWorld(5, 20, profile, clock), clock=clock, profile=profile) as host:
        sync(warehouse, host)
    assert kept_accounts(warehouse) == {"default"}
    assert kept(warehouse) == {
        "checkpoint_history": rows(warehouse, "SELECT count(*) FROM checkpoints")[0][0],
        "_advice": rows(warehouse, "SELECT count(DISTINCT fine_tuning_job_id) FROM checkpoints")[0][0],
        "_event_facts": rows(warehouse, "SELECT count(DISTINCT fine_tuning_job_id) FROM events")[0][0],
    }
    assert_right(warehouse)


@pytest.mark.thorough
def test_a_small_warehouse_keeps_no_rows_and_one_that_grows_does(
    world: ScriptedWorld, host: Simulator, warehouse: DuckDb
) -> None:
    small = DuckDb(warehouse.database, materialize_from_rows=100)
    schemas = "SELECT count(*) FROM duckdb_schemas() WHERE schema_name = 'fine_tuning_materialized'"
    add_history(world, range(3))
    sync(small, host)
    assert rows(small, schemas) == [(0,)]
    add_history(world, range(3, 20))
    sync(small, host)
    assert rows(small, schemas) == [(1,)]
    assert kept_accounts(small) == {"default"}
    assert_right(small)


@pytest.mark.thorough
def test_only_the_rows_of_jobs_that_changed_are_computed_again(
    world: ScriptedWorld, host: Simulator, warehouse: DuckDb
) -> None:
    add_history(world, range(3))
    sync(warehouse, host)
    execute(warehouse, "UPDATE fine_tuning_materialized.checkpoint_history SET base_model = 'as kept'")
    world.add_checkpoint("ftjob-001", id="ftckpt-late", step_number=99)
    run_sync(Account("default", "key", host.base_url), warehouse, SyncOptions(job_ids=["ftjob-001"]))
    models = "SELECT DISTINCT fine_tuning_job_id FROM checkpoint_history WHERE base_model = 'as kept' ORDER BY 1"
    assert rows(warehouse, models) == [("ftjob-000",), ("ftjob-002",)]


@pytest.mark.nightly
def test_rows_that_another_version_of_the_views_has_kept_are_computed_again(
    world: ScriptedWorld, host: Simulator, warehouse: DuckDb
) -> None:
    add_history(world, range(2))
    sync(warehouse, host)
    execute(
        warehouse,
        "UPDATE fine_tuning_materialized.checkpoint_history SET base_model = 'of another version'",
        f"COMMENT ON TABLE fine_tuning_materialized.accounts IS '{MARK}another version'",
    )
    sync(warehouse, host)
    assert_right(warehouse)
    execute(warehouse, "DROP SCHEMA fine_tuning_materialized CASCADE")
    sync(warehouse, host)
    assert_right(warehouse)
    assert kept_accounts(warehouse) == {"default"}


CHANGES: dict[str, str] = {
    "an event is deleted": "DELETE FROM events WHERE id = 'ftevent-001-1'",
    "a job is deleted": "DELETE FROM jobs WHERE id = 'ftjob-001'",
    "all is deleted": "DELETE FROM events; DELETE FROM checkpoints; DELETE FROM result_metrics; DELETE FROM jobs",
    "a later load changes a job": "UPDATE jobs SET status = 'failed', _dlt_load_id = '9999999999' "
    "WHERE id = 'ftjob-001'",
    "another program adds a checkpoint": "INSERT INTO checkpoints BY NAME "
    "SELECT * REPLACE ('ftckpt-more' AS id, NULL AS _dlt_load_id) FROM checkpoints WHERE id = 'ftckpt-001-1'",
    "another program adds an account": "INSERT INTO checkpoints BY NAME "
    "SELECT * REPLACE ('other' AS account, NULL AS _dlt_load_id) FROM checkpoints",
}


@pytest.mark.nightly
@pytest.mark.first_only
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_somebody_changes_shows_at_once(
    change: str, world: ScriptedWorld, host: Simulator, warehouse: DuckDb
) -> None:
    add_history(world, range(3))
    sync(warehouse, host)
    execute(warehouse, change)
    assert_right(warehouse)
    sync(warehouse, host)
    assert_right(warehouse)


@pytest.mark.nightly
def test_rows_without_a_load_are_never_kept(world: ScriptedWorld, host: Simulator, warehouse: DuckDb) -> None:
    add_history(world, range(2))
    sync(warehouse, host)
    execute(
        warehouse,
        "UPDATE events SET _dlt_load_id = NULL WHERE id = 'ftevent-001-1'",
        "UPDATE fine_tuning_materialized.checkpoint_history SET base_model = 'as kept'",
    )
    sync(warehouse, host)
    assert_right(warehouse)
    assert rows(warehouse, "SELECT 1 FROM checkpoint_history WHERE base_model = 'as kept'") == []


@pytest.mark.thorough
def test_a_refused_step_is_a_warning_and_the_views_stay_right(
    world: ScriptedWorld, host: Simulator, warehouse: DuckDb
) -> None:
    add_history(world, range(2))
    sync(warehouse, host)
    ((comment,),) = rows(
        warehouse,
        "SELECT comment FROM duckdb_tables() WHERE schema_name = 'fine_tuning_materialized' AND table_name = 'jobs'",
    )
    execute(
        warehouse,
        "DROP TABLE fine_tuning_materialized.jobs",
        "CREATE TABLE fine_tuning_materialized.jobs (account VARCHAR)",
        f"COMMENT ON TABLE fine_tuning_materialized.jobs IS '{comment}'",
        "DELETE FROM events WHERE id = 'ftevent-001-1'",
    )
    assert [warning.split(":")[0] for warning in sync(warehouse, host).warnings] == [
        "The tables are loaded, but the rows of large views could not be kept"
    ]
    assert_right(warehouse)


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(
    "strange",
    [
        "CREATE TABLE fine_tuning_materialized.accounts AS SELECT 42 AS x",
        "CREATE TABLE fine_tuning_materialized.revenue AS SELECT 42 AS x",
        "CREATE VIEW fine_tuning_materialized.revenue AS SELECT 42 AS x",
    ],
)
def test_a_schema_of_somebody_else_is_left_alone(
    strange: str, world: ScriptedWorld, host: Simulator, warehouse: DuckDb
) -> None:
    add_history(world, range(2))
    sync(DuckDb(warehouse.database), host)
    execute(warehouse, "CREATE SCHEMA fine_tuning_materialized", strange)
    world.add_checkpoint("ftjob-001", id="ftckpt-late", step_number=99)
    sync(warehouse, host)
    forget(warehouse, "default", "ftjob-000")
    rename(warehouse, "default", "other")
    name = "accounts" if "accounts" in strange else "revenue"
    assert rows(warehouse, f"FROM fine_tuning_materialized.{name}") == [(42,)]
    assert_right(warehouse)


@pytest.mark.nightly
def test_a_clock_that_was_set_back_leaves_no_old_rows(world: ScriptedWorld, host: Simulator, warehouse: DuckDb) -> None:
    add_history(world, range(1))
    world.add_job(id="ftjob-open", created_at=NOW - DAY, status="running", finished_at=None)
    world.add_checkpoint("ftjob-open", id="ftckpt-open", step_number=1, metrics={"valid_loss": 0.5})
    sync(warehouse, host)
    execute(
        warehouse,
        *(f"UPDATE {table} SET _dlt_load_id = '9999999999.5'" for table in ("jobs", "checkpoints", "events", "files")),
        "UPDATE result_metrics SET _dlt_load_id = '9999999999.5'",
    )
    sync(warehouse, host)
    world.update_job("ftjob-open", status="succeeded", finished_at=NOW - 10)
    sync(warehouse, host)
    assert_right(warehouse)
    assert kept_accounts(warehouse) == {"default"}


# accounts that are forgotten or renamed -----------------------------------------------------------------------------


@pytest.mark.nightly
def test_nothing_is_kept_of_what_was_forgotten(world: ScriptedWorld, host: Simulator, warehouse: DuckDb) -> None:
    add_history(world, range(3))
    sync(warehouse, host, "one")
    sync(warehouse, host, "two")
    forget(warehouse, "one", "ftjob-001")
    for name in (*KEPT, "jobs"):
        found = rows(warehouse, f'SELECT DISTINCT account, fine_tuning_job_id FROM fine_tuning_materialized."{name}"')
        assert ("one", "ftjob-001") not in found
        assert ("two", "ftjob-001") in found
    assert_right(warehouse)
    forget(warehouse, "two")
    for name in (*KEPT, "jobs", "accounts"):
        assert ("two",) not in rows(warehouse, f'SELECT account FROM fine_tuning_materialized."{name}"')
    assert_right(warehouse)
    sync(warehouse, host, "one")
    assert kept_accounts(warehouse) == {"one"}
    assert_right(warehouse)


@pytest.mark.nightly
def test_an_account_with_another_label_keeps_its_rows(world: ScriptedWorld, host: Simulator, warehouse: DuckDb) -> None:
    add_history(world, range(3))
    sync(warehouse, host, "old")
    rename(warehouse, "old", "new")
    assert kept_accounts(warehouse) == {"new"}
    for name in (*KEPT, "jobs"):
        assert set(rows(warehouse, f'SELECT account FROM fine_tuning_materialized."{name}"')) == {("new",)}
    assert_right(warehouse)


# any sequence --------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_sync_that_is_killed_while_it_keeps_rows_leaves_right_views(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, warehouse: DuckDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialize, "_ROWS_AT_ONCE", 20)  # two jobs in a step
    syncs = Syncs(tmp_path, host, warehouse)
    add_history(world, range(4))
    syncs.run()
    passed = syncs.run(full_refresh=True)
    for number, share in enumerate((0.96, 0.8)):
        for where in ("statement", "commit"):
            world.add_checkpoint("ftjob-001", id=f"ftckpt-{number}-{where}", step_number=50 + number)
            syncs.run(Deadly(where, round(share * passed[where])), full_refresh=True)
            assert_right(warehouse)
    syncs.run()
    assert_right(warehouse)
    assert kept_accounts(warehouse) == {"default"}


class _Life:
    """A warehouse in the course of time."""

    def __init__(self, world: ScriptedWorld, host: Simulator, warehouse: DuckDb) -> None:
        self.world, self.host, self.warehouse = world, host, warehouse
        self.jobs = 0
        self.label = "a"

    def new_job(self) -> None:
        add_history(self.world, [self.jobs])
        self.jobs += 1

    def open_job(self) -> None:
        job = f"ftjob-open-{self.jobs}"
        self.world.add_job(id=job, created_at=NOW - DAY + self.jobs, status="running", finished_at=None)
        self.world.add_checkpoint(job, id=f"ftckpt-open-{self.jobs}", step_number=1, metrics={"valid_loss": 0.5})
        self.jobs += 1

    def later_step(self) -> None:
        for job in [job["id"] for job in self.world.jobs() if job["status"] == "running"]:
            self.world.add_event(
                job, id=f"ftevent-{job}-{self.jobs}", type="metrics", data={"step": 2, "train_loss": 1}
            )
            self.world.update_job(job, status="succeeded", finished_at=NOW - 10)

    def sync(self) -> None:
        sync(self.warehouse, self.host, self.label)
        with_rows = {label for (label,) in rows(self.warehouse, "SELECT account FROM jobs")}
        assert kept_accounts(self.warehouse) == with_rows

    def sync_another(self) -> None:
        sync(self.warehouse, self.host, "b")

    def delete_rows(self) -> None:
        execute(self.warehouse, "DELETE FROM events WHERE hash(id) % 3 = 0")

    def forget_job(self) -> None:
        found = rows(self.warehouse, f"SELECT max(id) FROM jobs WHERE account = '{self.label}'")
        if found[0][0]:
            forget(self.warehouse, self.label, found[0][0])

    def rename(self) -> None:
        if rows(self.warehouse, f"SELECT 1 FROM jobs WHERE account = '{self.label}' LIMIT 1"):
            rename(self.warehouse, self.label, "a" if self.label == "c" else "c")
            self.label = "a" if self.label == "c" else "c"


STEPS: list[Callable[[_Life], None]] = [
    _Life.new_job,
    _Life.open_job,
    _Life.later_step,
    _Life.sync,
    _Life.sync_another,
    _Life.delete_rows,
    _Life.forget_job,
    _Life.rename,
]


@pytest.mark.nightly
@settings(max_examples=3, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=6))
def test_after_any_steps_each_view_shows_what_it_computes(
    steps: list[Callable[[_Life], None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = ScriptedWorld()
    warehouse = DuckDb(tmp_path_factory.mktemp("life") / "warehouse.duckdb", materialize_from_rows=0)
    with Simulator(world, clock=Clock(start=NOW, speed=0)) as host:
        life = _Life(world, host, warehouse)
        life.new_job()
        life.sync()
        for step in steps:
            step(life)
            assert_right(warehouse)
        life.sync()
        assert_right(warehouse)


# what DuckDB does with it --------------------------------------------------------------------------------------------


def scanned(plan: dict[str, Any]) -> Iterator[int]:
    """The rows that each scan of `events` has given on."""
    if "events" in str((plan.get("extra_info") or {}).get("Table", "")):
        yield int(plan["operator_cardinality"])
    for child in plan.get("children", ()):
        yield from scanned(child)


@pytest.mark.nightly
def test_one_job_is_read_from_the_kept_rows_alone(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, warehouse: DuckDb
) -> None:
    add_history(world, range(2))
    sync(warehouse, host)
    execute(
        warehouse,
        "INSERT INTO events BY NAME SELECT e.* REPLACE "
        "(e.id || '-' || n AS id, 'ftjob-more' AS fine_tuning_job_id, 1.0 AS data__step) "
        "FROM (FROM events LIMIT 1) AS e, range(500_000) AS numbers (n)",
    )
    sync(warehouse, host)
    assert kept_accounts(warehouse) == {"default"}
    with duckdb.connect(str(warehouse.database), read_only=True) as connection:
        connection.execute("SET search_path = 'fine_tuning'")
        connection.execute(f"PRAGMA enable_profiling = 'json'; SET profiling_output = '{tmp_path / 'plan.json'}'")
        assert connection.execute("FROM checkpoint_history WHERE fine_tuning_job_id = 'ftjob-001'").fetchall()
    counted, *computed = sorted(scanned(json.loads((tmp_path / "plan.json").read_text())), reverse=True)
    assert counted == 500_006, "the rows are counted once"
    assert computed
    assert sum(computed) < 100_000, "a scan ends with its first rows where the rows of all accounts are kept"
