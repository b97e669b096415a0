"""What the table `syncs` and the view `account_health` say: which accounts are well, and which are not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync, sync_accounts
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from harness import HOUR, NOW, Database
from histories import add_history

if TYPE_CHECKING:
    from engines import Engine
    from postgres import Postgres

pytest_plugins = ["lakes"]

HEALTH = (
    "SELECT last_status, last_error IS NOT NULL, failures, last_success_at IS NOT NULL, "
    "jobs, jobs_open, epoch(newest_job_at) FROM account_health WHERE account = "
)


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    add_history(world, range(3))
    world.add_job(id="ftjob-open", created_at=NOW - HOUR, status="running", finished_at=None)


@pytest.fixture
def dead(clock: Clock) -> Iterator[Simulator]:
    """A host that refuses every key."""
    with Simulator(ScriptedWorld(), clock=clock) as simulator:
        simulator.faults.append(Fault("status", times=None, status=401))
        yield simulator


@pytest.mark.thorough
def test_a_sync_says_what_it_loaded_and_the_newest_job(database: Database) -> None:
    rows = database.sync().rows
    ((status, error, loaded, newest, known),) = database.rows(
        "SELECT status, error, rows_loaded, epoch(newest_job_at), jobs_known FROM syncs"
    )
    assert (status, error, newest, known) == ("done", None, NOW - HOUR, 4)
    assert json.loads(loaded) == rows
    database.sync()
    ((again,),) = database.rows("SELECT rows_loaded FROM syncs ORDER BY started_at DESC LIMIT 1")
    assert set(json.loads(again).values()) == {0}


@pytest.mark.thorough
def test_accounts_that_are_well_dead_and_never_were_can_be_told_apart(
    database: Database, host: Simulator, dead: Simulator
) -> None:
    well, ill = Account("well", "key", host.base_url), Account("ill", "key", host.base_url)
    never = Account("never", "key", dead.base_url)
    warehouse = DuckDb(database.path)
    result = sync_accounts([never, well, ill], warehouse, SyncOptions())
    assert list(result.failures) == ["never"]
    host.faults.append(Fault("status", times=None, status=401))
    for _ in range(2):
        with pytest.raises(CommandError):
            run_sync(ill, warehouse, SyncOptions())
    host.faults.clear()
    assert database.rows(f"{HEALTH}'well'") == [("done", False, 0, True, 4, 1, NOW - HOUR)]
    assert database.rows(f"{HEALTH}'ill'") == [("failed", True, 2, True, 4, 1, NOW - HOUR)]
    assert database.rows(f"{HEALTH}'never'") == [("failed", True, 1, False, 0, None, None)]
    assert database.rows("SELECT host, age_seconds FROM account_health WHERE account = 'never'") == [
        (dead.base_url, None)
    ]
    ((status, error, loaded),) = database.rows(
        "SELECT status, error, rows_loaded FROM sync_history WHERE account = 'never'"
    )
    assert status == "failed"
    assert "key" in error
    assert set(json.loads(loaded).values()) == {0}
    run_sync(ill, warehouse, SyncOptions())
    assert database.rows(f"{HEALTH}'ill'") == [("done", False, 0, True, 4, 1, NOW - HOUR)]


@pytest.mark.thorough
def test_a_load_that_fails_is_a_failed_sync_too(database: Database, world: ScriptedWorld) -> None:
    database.begin()
    database.execute("CREATE UNIQUE INDEX mine ON fine_tuning.jobs (account, id)")
    world.update_job("ftjob-open", trained_tokens=7)
    with pytest.raises(CommandError):
        database.sync()
    (failed, done) = database.rows("SELECT status, error FROM syncs ORDER BY started_at DESC")
    assert (failed[0], done) == ("failed", ("done", None))
    assert "drop the index" in failed[1]
    database.execute("DROP INDEX fine_tuning.mine")
    assert database.sync().rows["jobs"] == 1, "its state was not kept"


def test_a_first_sync_that_fails_leaves_no_database(database: Database, dead: Simulator) -> None:
    with pytest.raises(CommandError):
        run_sync(Account("default", "key", dead.base_url), DuckDb(database.path), SyncOptions())
    assert not database.path.exists()


@pytest.mark.nightly
def test_a_table_of_an_earlier_release_gets_the_columns_and_its_syncs_are_done(database: Database) -> None:
    database.begin()
    for column in ("status", "error", "rows_loaded", "newest_job_at", "jobs_known", "host"):
        database.execute(f"ALTER TABLE fine_tuning.syncs DROP COLUMN {column}")
    database.sync()
    assert database.rows("SELECT status FROM sync_history") == [("done",), ("done",)]
    assert database.rows("SELECT last_status, failures, age_seconds BETWEEN 0 AND 300 FROM account_health") == [
        ("done", 0, True)
    ]


@pytest.mark.engine
@pytest.mark.thorough
def test_postgres_says_it_too(postgres_engine: Engine, postgres: Postgres, host: Simulator) -> None:
    postgres_engine.sync(host)
    host.faults.append(Fault("status", times=None, status=401))
    with pytest.raises(CommandError):
        postgres_engine.sync(host)
    rows: list[Any] = postgres.rows(
        "SELECT last_status, failures, last_success_at < last_sync_at, jobs, jobs_open FROM account_health"
    )
    assert rows == [("failed", 1, True, 4, 1)]
    assert postgres.rows("SELECT age_seconds BETWEEN 0 AND 300 FROM account_health") == [(True,)]
