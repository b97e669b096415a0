"""Rows that did not change are not written again: their load, and the counts of a sync, say what is new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.sync.run import AccountResult, SyncOptions, run_sync
from fine_tuning_warehouse.verify import Comparison, verify
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from harness import HOUR, NOW, Database
from histories import add_history, assert_holds, truth_of

if TYPE_CHECKING:
    from engines import Engine

pytest_plugins = ["lakes"]

NOTHING: dict[str, int] = {
    **dict.fromkeys(("jobs", "checkpoints", "events", "result_metrics", "files", "models", "rejected_records"), 0)
}
RETAINED = (
    "SELECT c.id FROM checkpoints AS c JOIN jobs AS j ON j.id = c.fine_tuning_job_id "
    "WHERE c.last_listed_at = j.checkpoints_listed_at ORDER BY 1"
)


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    """Two jobs of long ago, and one that runs, with a record that does not fit."""
    add_history(world, range(2))
    world.add_file("file-growing", b"step,train_loss\n1,1.000\n2,0.500\n3,0.333\n")
    world.add_job(
        id="ftjob-open", created_at=NOW, status="running", finished_at=None, result_files=["file-growing"], seed="odd"
    )
    for name in ("a", "b"):
        world.add_checkpoint("ftjob-open", id=f"ftckpt-{name}", created_at=NOW, metrics={"train_loss": float("nan")})
        world.add_event("ftjob-open", id=f"ftevent-{name}", created_at=NOW)


def verified(database: Database) -> Comparison:
    """Return what `ftw verify` finds."""
    return verify(Account("default", "key", database.host.base_url), DuckDb(database.path))


def counts(rows: dict[str, int], **expected: int) -> bool:
    """Return whether a sync has loaded these rows and no others."""
    assert rows == {**NOTHING, **expected}
    return True


@pytest.mark.thorough
def test_a_sync_of_an_open_job_that_did_not_change_writes_nothing(database: Database) -> None:
    database.begin()
    before = {name: str(database.rows(f"SELECT * FROM {name} ORDER BY ALL")) for name in NOTHING}
    for _ in range(2):
        assert counts(database.sync().rows)
    assert counts(database.sync(job_ids=["ftjob-000", "ftjob-open"]).rows)
    assert {name: str(database.rows(f"SELECT * FROM {name} ORDER BY ALL")) for name in NOTHING} == before


def test_only_what_changed_is_written_and_has_the_id_of_the_load(
    database: Database, world: ScriptedWorld, clock: Clock
) -> None:
    database.begin()
    ((first,),) = database.rows("SELECT max(epoch_us(synced_at)) FROM checkpoints")
    world.add_checkpoint("ftjob-open", id="ftckpt-c", created_at=NOW)
    world.update_checkpoint("ftckpt-a", metrics={"train_loss": 0.5})
    world.add_event("ftjob-open", id="ftevent-c", created_at=NOW)
    result = database.sync()
    assert counts(result.rows, checkpoints=2, events=1)
    (load_id,) = result.load_ids
    assert database.rows(f"SELECT id FROM checkpoints WHERE _dlt_load_id = '{load_id}' ORDER BY id") == [
        ("ftckpt-a",),
        ("ftckpt-c",),
    ]
    since = f"SELECT id FROM checkpoints WHERE epoch_us(synced_at) > {first} ORDER BY id"
    assert database.rows(since) == [("ftckpt-a",), ("ftckpt-c",)]
    for name in NOTHING:
        assert database.rows(f"SELECT count(*) FROM {name} WHERE synced_at IS NULL") == [(0,)]
    assert database.rows(RETAINED)[-3:] == [("ftckpt-a",), ("ftckpt-b",), ("ftckpt-c",)]
    world.update_job("ftjob-open", status="succeeded", finished_at=NOW)
    clock.advance(2 * HOUR)
    assert counts(database.sync().rows, jobs=1, rejected_records=1)
    assert_holds(database.rows, truth_of(world), more=True)
    assert database.sync().requests == 1


@pytest.mark.thorough
def test_a_checkpoint_that_the_host_drops_is_seen_to_be_dropped(database: Database, world: ScriptedWorld) -> None:
    database.begin()
    database.sync()
    world.remove_checkpoint("ftckpt-a")
    assert counts(database.sync().rows, jobs=1, checkpoints=1)
    assert database.rows(RETAINED)[-1:] == [("ftckpt-b",)]
    assert ("ftckpt-a",) not in database.rows(RETAINED)
    assert counts(database.sync().rows)
    world.remove_checkpoint("ftckpt-b")
    assert counts(database.sync().rows, jobs=1)
    assert ("ftckpt-b",) not in database.rows(RETAINED)
    assert counts(database.sync().rows)
    world.add_checkpoint("ftjob-open", id="ftckpt-b", created_at=NOW, metrics={"train_loss": float("nan")})
    assert counts(database.sync().rows, checkpoints=1)
    assert database.rows(RETAINED)[-1:] == [("ftckpt-b",)]


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("resources", [("jobs",), ("checkpoints",), ("jobs", "checkpoints")])
def test_a_partial_sync_or_one_that_cannot_list_checkpoints_leaves_them_retained(
    database: Database, world: ScriptedWorld, host: Simulator, resources: tuple[str, ...]
) -> None:
    database.begin()
    world.page_limit = 1
    for fault in (None, Fault("status", path="ftjob-open/checkpoints$", times=None, status=403)):
        host.faults[:] = [fault] if fault else []
        world.add_checkpoint("ftjob-open", id=f"ftckpt-z{fault is None}", created_at=NOW)
        world.update_job("ftjob-open", status="queued" if fault else "running", trained_tokens=int(fault is None))
        database.sync(resources=resources)
        assert {("ftckpt-a",), ("ftckpt-b",)} < set(database.rows(RETAINED))
    host.faults.clear()
    database.sync()
    database.sync()
    assert len(database.rows(RETAINED)) == 6 + 4


@pytest.mark.thorough
def test_rows_that_somebody_deleted_duplicated_or_changed_are_written_again(database: Database) -> None:
    database.begin()
    database.execute("DELETE FROM fine_tuning.checkpoints WHERE id = 'ftckpt-a'")
    database.execute("UPDATE fine_tuning.events SET message = 'changed' WHERE id = 'ftevent-b'")
    database.execute("INSERT INTO fine_tuning.jobs SELECT * FROM fine_tuning.jobs WHERE id = 'ftjob-open'")
    assert counts(database.sync().rows, checkpoints=1, events=1, jobs=1)
    assert counts(database.sync().rows)
    assert database.rows("SELECT count(*) FROM jobs WHERE id = 'ftjob-open'") == [(1,)]


def test_a_full_refresh_writes_everything_again(database: Database) -> None:
    database.begin()
    database.execute("INSERT INTO fine_tuning.jobs SELECT * FROM fine_tuning.jobs")
    rows = database.sync(full_refresh=True).rows
    assert (rows["jobs"], rows["checkpoints"], rows["events"]) == (3, 8, 8)
    assert database.rows("SELECT count(*) FROM jobs") == [(3,)]


@pytest.mark.thorough
def test_another_key_that_reads_everything_again_writes_what_is_new(database: Database, world: ScriptedWorld) -> None:
    database.begin()
    world.remove_job("ftjob-000")
    add_history(world, range(90 * 24, 90 * 24 + 1))
    rows = database.sync(key="another").rows
    assert (rows["jobs"], rows["checkpoints"], rows["events"], rows["result_metrics"]) == (1, 3, 3, 3)


def test_rows_are_counted_once_they_are_loaded(database: Database, world: ScriptedWorld) -> None:
    database.begin()
    world.add_checkpoint("ftjob-open", id="ftckpt-c", created_at=NOW)
    database.execute("CREATE UNIQUE INDEX mine ON fine_tuning.checkpoints (account, id)")
    world.update_checkpoint("ftckpt-a", step_number=77)
    result = AccountResult("default")
    with pytest.raises(CommandError):
        run_sync(Account("default", "key", database.host.base_url), DuckDb(database.path), SyncOptions(), result=result)
    assert counts(result.rows)


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("full_refresh", [False, True])
def test_what_somebody_keeps_in_columns_beside_ours_stays(
    database: Database, world: ScriptedWorld, full_refresh: bool
) -> None:
    database.begin()
    database.execute("ALTER TABLE fine_tuning.checkpoints ADD COLUMN note VARCHAR")
    database.execute("ALTER TABLE fine_tuning.jobs ADD COLUMN priority INTEGER")
    database.execute("UPDATE fine_tuning.checkpoints SET note = 'mine ' || id")
    database.execute("UPDATE fine_tuning.jobs SET priority = 7")
    assert not verified(database).differs
    world.update_checkpoint("ftckpt-a", step_number=77)
    world.update_job("ftjob-open", status="queued")
    rows = database.sync(full_refresh=full_refresh).rows
    assert full_refresh or counts(rows, jobs=1, checkpoints=1, rejected_records=1)
    assert full_refresh or counts(database.sync().rows)
    assert database.rows(
        "SELECT count(*), count(note), count(note) FILTER (note = 'mine ' || id) FROM checkpoints"
    ) == [(8, 8, 8)]
    assert database.rows("SELECT DISTINCT priority, typeof(priority) FROM jobs") == [(7, "INTEGER")]
    assert database.rows("SELECT step_number FROM checkpoints WHERE id = 'ftckpt-a'") == [(77,)]


@pytest.mark.nightly
def test_a_metric_that_somebody_made_a_column_for_is_filled_and_compared(
    database: Database, world: ScriptedWorld
) -> None:
    database.begin()
    database.execute("ALTER TABLE fine_tuning.checkpoints ADD COLUMN metrics__own DOUBLE")
    for value in (0.5, 0.25):
        world.update_checkpoint("ftckpt-a", metrics={"own": value})
        assert counts(database.sync().rows, checkpoints=1)
        assert database.rows("SELECT metrics__own FROM checkpoints WHERE id = 'ftckpt-a'") == [(value,)]
    assert not verified(database).differs
    database.execute("UPDATE fine_tuning.checkpoints SET metrics__own = 7 WHERE id = 'ftckpt-a'")
    assert verified(database).differs


def assert_writes_changes_alone(engine: Engine, host: Simulator, world: ScriptedWorld) -> None:
    """Assert that an engine is written to as a DuckDB file is."""
    engine.sync(host)
    assert counts(engine.sync(host).rows)
    world.add_checkpoint("ftjob-open", id="ftckpt-c", created_at=NOW)
    world.update_checkpoint("ftckpt-a", metrics={"train_loss": 0.5})
    assert counts(engine.sync(host).rows, checkpoints=2)
    world.remove_checkpoint("ftckpt-b")
    assert counts(engine.sync(host).rows, jobs=1, checkpoints=2)
    tables: Any = engine.tables()
    assert tables["checkpoints"].num_rows == 9
    rows = engine.sync(host, full_refresh=True).rows
    assert (rows["jobs"], rows["checkpoints"]) == (3, 8)


@pytest.mark.engine
@pytest.mark.thorough
def test_postgres_is_written_what_changed(postgres_engine: Engine, host: Simulator, world: ScriptedWorld) -> None:
    assert_writes_changes_alone(postgres_engine, host, world)


@pytest.mark.engine
@pytest.mark.nightly
@pytest.mark.parametrize("ducklake", ["sqlite"], indirect=True)
def test_a_ducklake_is_written_what_changed(ducklake: Engine, host: Simulator, world: ScriptedWorld) -> None:
    assert_writes_changes_alone(ducklake, host, world)


@pytest.mark.engine
@pytest.mark.nightly
def test_an_iceberg_lake_is_written_what_changed(lake: Engine, host: Simulator, world: ScriptedWorld) -> None:
    assert_writes_changes_alone(lake, host, world)
