"""A large history is loaded in parts, within bounds of memory, and ends up the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fine_tuning_simulator import ScriptedWorld
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from harness import DAY, NOW, Database

JOBS, CHECKPOINTS = 60, 10


@pytest.fixture
def long_history(world: ScriptedWorld) -> ScriptedWorld:
    """More jobs than are under way at once, each with some checkpoints."""
    for number in range(JOBS):
        job_id = f"ftjob-{number:03d}"
        world.add_job(id=job_id, created_at=NOW - 30 * DAY + number * 600)
        for step in range(CHECKPOINTS):
            world.add_checkpoint(job_id, id=f"ftckpt-{number:03d}-{step}", step_number=step)
    return world


def test_a_large_sync_commits_after_so_many_rows_and_asks_for_nothing_twice(
    long_history: ScriptedWorld, database: Database
) -> None:
    summary = database.sync(commit_rows=100, resources=("jobs", "checkpoints"))
    assert 1 < len(summary.load_ids) <= JOBS * CHECKPOINTS / 100 + 1
    assert summary.rows["checkpoints"] == JOBS * CHECKPOINTS
    assert database.rows("SELECT count(*), count(DISTINCT id) FROM checkpoints") == [(600, 600)]
    assert database.rows("SELECT count(*), count(DISTINCT id) FROM jobs") == [(JOBS, JOBS)]
    assert sum(path.endswith("/checkpoints") for path in database.paths()) == JOBS
    assert database.sync().rows["events"] == 0
    assert len(database.rows("SELECT DISTINCT sync_id FROM sync_history")) == 2, "parts are one sync"


@pytest.mark.thorough
def test_a_part_holds_little_more_than_its_rows_and_what_was_under_way(
    long_history: ScriptedWorld, database: Database
) -> None:
    database.sync(commit_rows=100, concurrency=1, resources=("jobs", "checkpoints"))
    parts = database.rows("SELECT count(*) FROM checkpoints GROUP BY _dlt_load_id ORDER BY _dlt_load_id")
    assert max(rows for (rows,) in parts) <= 100 + 3 * CHECKPOINTS, "the jobs under way with one thread"


@pytest.mark.thorough
def test_a_load_that_does_not_fit_its_bound_is_loaded_all_the_same(
    long_history: ScriptedWorld, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fine_tuning_warehouse")
    account = Account("default", "key", database.host.base_url)
    run_sync(account, DuckDb(database.path, load_megabytes=1), SyncOptions())
    assert "did not fit 2 MB of memory" in caplog.text
    assert database.rows("SELECT count(*) FROM checkpoints") == [(600,)]
    assert database.rows("SELECT count(*) FROM _dlt_loads WHERE status = 0") == [(1,)]


def load_one_row(warehouse: DuckDb, setting: str, after: Callable[[Any], None] = lambda _: None) -> list[Any]:
    """Load a row. Returns what DuckDB shows of a setting at each attempt; `after` may fail with it."""
    pipeline = warehouse.pipeline(warehouse.database.with_suffix(".pipelines"))
    seen: list[Any] = []

    def prepare() -> None:
        with pipeline.sql_client() as client:
            ((value,),) = client.execute_sql(f"SELECT current_setting('{setting}')") or ()
        seen.append(value)
        after(seen)

    pipeline.extract([{"id": "one"}], table_name="jobs")
    pipeline.normalize()
    warehouse.load(pipeline, prepare=prepare)
    return seen


def test_a_commit_that_does_not_fit_the_bound_of_memory_is_repeated_without_it(tmp_path: Path) -> None:
    def fail_once(limits: list[str]) -> None:
        if len(limits) == 1:
            raise duckdb.TransactionException(  # as DuckDB 1.5 raised it in a sync of a million rows
                "TransactionContext Error: Failed to commit: failed to pin block of size 256.0 KiB "
                "(22.6 MiB/22.8 MiB used)"
            )

    warehouse = DuckDb(tmp_path / "warehouse.duckdb")
    limits = load_one_row(warehouse, "memory_limit", fail_once)
    assert len(set(limits)) == 2
    with duckdb.connect(str(warehouse.database)) as connection:
        assert connection.execute("SELECT id FROM fine_tuning.jobs").fetchall() == [("one",)]


@pytest.mark.thorough
@pytest.mark.parametrize("limit", ["2816MiB", "-1"])
def test_a_sync_leaves_the_settings_of_a_connection_that_its_process_has_to_the_file(
    long_history: ScriptedWorld, database: Database, limit: str
) -> None:
    account = Account("default", "key", database.host.base_url)
    with duckdb.connect(str(database.path)) as notebook:
        notebook.execute(f"SET memory_limit = '{limit}'; SET GLOBAL TimeZone = 'Europe/Prague'")
        before = notebook.execute("FROM duckdb_settings() ORDER BY ALL").fetchall()
        # A load that does not fit its bound is repeated without one.
        run_sync(account, DuckDb(database.path, load_megabytes=1), SyncOptions())
        assert notebook.execute("FROM duckdb_settings() ORDER BY ALL").fetchall() == before
        assert notebook.execute("SELECT count(*) FROM fine_tuning.checkpoints").fetchall() == [(600,)]


@pytest.mark.thorough
def test_a_load_has_one_thread_unless_dlt_is_configured_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_one_row(DuckDb(tmp_path / "default.duckdb"), "threads") == [1]
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS__GLOBAL_CONFIG", '{"threads": 3}')
    assert load_one_row(DuckDb(tmp_path / "configured.duckdb"), "threads") == [3]
