"""`ftw copy`: a history moves to another warehouse, and the next sync there goes on as if it had always been there."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from catalogs import catalog_env
from command import Command, is_told_well
from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.copy import Copied, copy_history
from fine_tuning_warehouse.errors import UsageError
from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.sync.run import AccountResult, SyncOptions, run_sync
from fine_tuning_warehouse.views import VIEWS
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.iceberg import Iceberg
from fine_tuning_warehouse.warehouses.postgres import PostgreSql
from fine_tuning_warehouse.warehouses.rows import open_rows
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from harness import HOUR, NOW, Database
from histories import add_history

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["postgres"]

Content = dict[str, list[dict[str, Any]]]


@pytest.fixture
def history(world: ScriptedWorld, database: Database) -> Database:
    """A database of two accounts, with a column that no one has seen before and a record that was rejected."""
    add_history(world, range(3))
    world.add_checkpoint("ftjob-000", id="ftckpt-odd", step_number=99, metrics={"train_loss": 0.1, "newest_metric": 3})
    world.add_raw_checkpoint("ftjob-001", {"id": "ftckpt-bad", "metrics": {"train_loss": "high"}})
    database.begin()
    database.sync(account="Another Team", key="other", resources=["jobs", "checkpoints"])
    return database


def content(warehouse: Warehouse) -> Content:
    """The rows of every table and view but for what tells of loads, which a copy has of its own."""
    left = {"_dlt_load_id", "load_id", "seconds", "age_seconds"}  # of seconds, engines disagree in the seventh digit
    with open_rows(warehouse) as rows:
        return {
            one.name: sorted(
                (
                    {name: row[name] for name in sorted(row.keys() - left)}
                    for batch in rows.batches(one)
                    for row in batch.to_pylist()
                ),
                key=repr,
            )
            for one in rows.relations
        }


def copied(source: Warehouse, target: Warehouse) -> dict[str, Copied]:
    return {one.account: one for one in copy_history(source, target)}


def synced(
    host: Simulator, target: Warehouse, account: str = "default", key: str = "key", **reading: Any
) -> AccountResult:
    return run_sync(Account(account, key, host.base_url), target, SyncOptions(**reading))


def assert_goes_on(history: Database, target: Warehouse, world: ScriptedWorld) -> None:
    """Copy twice, sync into the copy, let something happen, and sync into both."""
    source = DuckDb(history.path)
    with duckdb.connect(str(history.path)) as connection:
        # What a sync has left whose load did not complete.
        connection.execute(
            "INSERT INTO fine_tuning.syncs (account, id, _dlt_load_id) VALUES ('default', 'half', 'none')"
        )
    before = content(source)
    assert set(before) == {*TABLES, *(view.name for view in VIEWS)}
    assert any(row["metrics__newest_metric"] == 3 for row in before["checkpoints"])
    assert len(before["rejected_records"]) == 2
    before["syncs"] = [row for row in before["syncs"] if row["id"] != "half"]
    for _ in range(2):
        done = copied(source, target)
        assert sorted(done) == ["Another Team", "default"]
        assert all(one.has_state and len(one.load_ids) == 1 for one in done.values())
        assert {name: sum(one.rows[name] for one in done.values()) for name in TABLES} == {
            name: len(before[name]) for name in TABLES
        }
        assert content(target) == before

    assert synced(history.host, target).requests == 1
    assert synced(history.host, target, "Another Team", "other", resources=["jobs", "checkpoints"]).requests == 1
    world.add_job(id="ftjob-new", created_at=NOW - HOUR, finished_at=NOW - 60)
    world.add_checkpoint("ftjob-new", id="ftckpt-new", step_number=1, metrics={"train_loss": 0.5, "newest_metric": 4})
    mine, theirs = history.sync(), synced(history.host, target)
    assert (theirs.requests, theirs.rows) == (mine.requests, mine.rows)
    for name in ("jobs", "checkpoints", "events", "result_metrics", "files", "best_checkpoints", "job_overview"):
        left = {"last_listed_at", "checkpoints_listed_at", "listed_at", "last_synced_at", "synced_at"}
        both = [
            sorted(({key: value for key, value in row.items() if key not in left} for row in found[name]), key=repr)
            for found in (content(source), content(target))
        ]
        assert both[0] == both[1], name
    with pytest.raises(UsageError, match=r"account default that is not a copy .* or was synced since"):
        copied(source, target)


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_a_copy_in_duckdb_goes_on_where_the_original_stood(
    history: Database, tmp_path: Path, world: ScriptedWorld
) -> None:
    target = DuckDb(tmp_path / "copy.duckdb")
    assert_goes_on(history, target, world)
    with duckdb.connect(str(tmp_path / "copy.duckdb"), read_only=True) as connection:
        ((comment,),) = connection.execute(
            "SELECT comment FROM duckdb_columns() WHERE schema_name = 'fine_tuning' AND table_name = 'jobs' "
            "AND column_name = 'status'"
        ).fetchall()
    assert comment.startswith("validating_files, queued")


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_a_copy_in_postgresql_goes_on_where_the_original_stood(
    history: Database, postgres: Postgres, world: ScriptedWorld
) -> None:
    assert_goes_on(history, PostgreSql(), world)
    assert postgres.rows("SELECT count(*), count(DISTINCT (account, id)) FROM checkpoints") == [(23, 23)]
    assert postgres.rows("SELECT metrics__newest_metric FROM checkpoints WHERE id = 'ftckpt-new'") == [(4.0,)]
    assert len(postgres.rows("SELECT * FROM sync_history")) == 5


@pytest.mark.nightly
@pytest.mark.engine
@pytest.mark.timeout(300)
def test_a_copy_in_a_lake_goes_on_where_the_original_stood(
    history: Database, tmp_path: Path, world: ScriptedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("pyiceberg") is None:
        pytest.skip("needs pyiceberg: uv run --group engines pytest")
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", (tmp_path / "lake").as_uri())
    for name, value in catalog_env(tmp_path / "catalog.db", (tmp_path / "lake").as_uri()).items():
        monkeypatch.setenv(name, value)
    lake = Iceberg()
    assert_goes_on(history, lake, world)
    back = DuckDb(tmp_path / "back.duckdb")
    copied(lake, back)
    assert content(back) == content(lake)


@pytest.mark.nightly
def test_what_has_changed_since_is_copied_too_until_the_copy_is_synced(
    history: Database, tmp_path: Path, world: ScriptedWorld, clock: Clock
) -> None:
    source, target = DuckDb(history.path), DuckDb(tmp_path / "copy.duckdb")
    copied(source, target)
    world.add_job(id="ftjob-new", created_at=NOW - HOUR, status="running", finished_at=None)
    history.sync()
    copied(source, target)
    assert content(target) == content(source)
    third = DuckDb(tmp_path / "third.duckdb")
    copied(target, third)
    clock.advance(60)
    world.update_job("ftjob-new", status="failed", finished_at=NOW + 30)
    synced(history.host, target)
    before = content(target)
    with pytest.raises(UsageError, match="nothing was written"):
        copied(source, target)
    assert content(target) == before
    copied(target, third)
    assert content(third) == before
    with pytest.raises(UsageError, match="into itself"):
        copied(source, DuckDb(history.path))


@pytest.mark.nightly
def test_rows_of_which_no_sync_completed_are_copied_without_a_state(history: Database, tmp_path: Path) -> None:
    with duckdb.connect(str(history.path)) as connection:
        connection.execute("DELETE FROM fine_tuning._dlt_pipeline_state WHERE pipeline_name = 'fine_tuning_default'")
    target = DuckDb(tmp_path / "copy.duckdb")
    done = copied(DuckDb(history.path), target)
    assert {label: one.has_state for label, one in done.items()} == {"Another Team": True, "default": False}
    before = content(target)
    assert synced(history.host, target).requests > 10
    assert [row["id"] for row in content(target)["checkpoints"]] == [row["id"] for row in before["checkpoints"]]


@pytest.mark.thorough
def test_the_command_tells_what_it_did_and_what_is_wrong(history: Database, tmp_path: Path) -> None:
    ftw = Command(tmp_path)
    nothing = ftw("copy", "--to-database", "copy.duckdb")
    assert nothing.code == 1
    assert is_told_well(nothing, "There is no database", "fine_tuning_warehouse.duckdb", "ftw sync")
    for arguments in ([], ["--destination", "duckdb"], ["--destination", "postgres", "--to-database", "copy.duckdb"]):
        unclear = ftw("copy", "--database", str(history.path), *arguments)
        assert unclear.code == 2
        assert is_told_well(unclear, "--")
    ended = ftw("copy", "--database", str(history.path), "--to-database", "copy.duckdb", "--output", "json")
    assert ended.code == 0
    told = ended.json
    assert list(told) == ["status", "error", "from", "to", "accounts", "rows", "seconds", "started_at", "finished_at"]
    assert (told["status"], told["rows"]["checkpoints"]) == ("done", 22)
    assert [(one["account"], one["has_state"], len(one["load_ids"])) for one in told["accounts"]] == [
        ("Another Team", True, 1),
        ("default", True, 1),
    ]
    assert synced(history.host, DuckDb(ftw.folder / "copy.duckdb")).requests == 1


@pytest.mark.engine
def test_a_destination_that_refuses_a_copy_is_told_without_its_credentials(
    history: Database, tmp_path: Path, postgres: Postgres
) -> None:
    nowhere = {"DESTINATION__POSTGRES__CREDENTIALS": "postgresql://postgres:secret-word@127.0.0.1:1/none"}
    where = ("--destination", "postgres", "--output", "json")
    failed = Command(tmp_path)("copy", "--database", str(history.path), *where, env=nowhere)
    assert failed.code == 1
    assert failed.json["status"] == "failed"
    assert "secret-word" not in failed.all


@pytest.mark.nightly
def test_two_copies_at_once_into_an_empty_database_bring_every_row_once(
    history: Database, tmp_path: Path, postgres: Postgres
) -> None:
    """Into tables that are new, rows are appended: the second one must see that they are new no more."""
    ftw = Command(tmp_path)
    ftw.env["DESTINATION__POSTGRES__CREDENTIALS"] = postgres.credentials
    arguments = ("copy", "--database", str(history.path), "--destination", "postgres")
    with ftw.start(*arguments) as first, ftw.start(*arguments) as second:
        assert [one.end().code for one in (first, second)] == [0, 0]
    assert content(PostgreSql()) == content(DuckDb(history.path))


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_a_copy_that_was_killed_is_made_whole_by_the_next_one(
    history: Database, postgres: Postgres, tmp_path: Path
) -> None:
    source = DuckDb(history.path)
    ftw = Command(tmp_path)
    ftw.env["DESTINATION__POSTGRES__CREDENTIALS"] = postgres.credentials
    arguments = ("copy", "--database", str(history.path), "--destination", "postgres", "--dataset")
    whole = ftw(*arguments, "whole").seconds
    states = set()
    for number, share in enumerate((0.6, 0.85)):
        with ftw.start(*arguments, f"killed_{number}") as running:
            time.sleep(share * whole)
            running.process.kill()
            states.add(running.end().code)
        target = PostgreSql(dataset=f"killed_{number}")
        copied(source, target)
        assert content(target) == content(source)
        assert synced(history.host, target).requests == 1
    assert -9 in states


@pytest.mark.thorough
def test_it_is_one_way_to_hold_a_database(history: Database, tmp_path: Path) -> None:
    """A sync that runs into the target keeps the copy out, and the other way round."""
    from filelock import FileLock

    ftw = Command(tmp_path)
    with FileLock(tmp_path / "here" / "copy.duckdb.lock"):
        busy = ftw("copy", "--database", str(history.path), "--to-database", "copy.duckdb")
    assert busy.code == 75
    assert is_told_well(busy, "Another sync is running")
