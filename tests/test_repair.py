"""A warehouse whose tables are not as the last sync left them: the next sync makes what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dlt
import pytest

from command import Command, is_told_well
from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from fine_tuning_warehouse.errors import CommandError
from harness import Database
from histories import add_history, assert_holds, truth_of
from openai_fine_tuning import openai_fine_tuning

pytestmark = pytest.mark.usefixtures("_history")


def thorough(sql: str) -> Any:
    """A case that the usual run leaves out."""
    return pytest.param(sql, marks=pytest.mark.thorough)


@pytest.fixture
def _history(world: ScriptedWorld) -> None:
    add_history(world, range(3))


def run_the_plain_source(database: Database, host: Simulator) -> None:
    """Load with dlt alone, as the README shows."""
    pipeline = dlt.pipeline(
        "plain",
        pipelines_dir=str(database.path.with_name("plain")),
        destination=dlt.destinations.duckdb(str(database.path)),
        dataset_name="fine_tuning",
    )
    pipeline.run(openai_fine_tuning("key", host.base_url))


@pytest.mark.nightly
def test_a_wider_sync_follows_a_full_refresh_of_some_resources(database: Database, world: ScriptedWorld) -> None:
    database.sync(resources=("jobs", "checkpoints"))
    database.sync(resources=("jobs", "checkpoints"), full_refresh=True)
    database.sync()
    assert_holds(database.rows, truth_of(world))


@pytest.mark.nightly
def test_a_sync_follows_the_plain_source_and_the_plain_source_a_sync(
    database: Database, world: ScriptedWorld, host: Simulator, clock: Clock
) -> None:
    run_the_plain_source(database, host)
    database.sync()
    clock.advance(10)
    add_history(world, range(90 * 24, 90 * 24 + 2))
    run_the_plain_source(database, host)
    database.sync()
    assert_holds(database.rows, truth_of(world))


@pytest.mark.first_only
@pytest.mark.parametrize(
    "sql",
    [
        thorough("ALTER TABLE fine_tuning.{0} ADD COLUMN mine INTEGER"),
        "ALTER TABLE fine_tuning_staging.{0} DROP COLUMN account",
        thorough("ALTER TABLE fine_tuning_staging.{0} DROP COLUMN _dlt_load_id"),
        thorough("DROP TABLE fine_tuning_staging.{0}"),
        thorough("DROP TABLE fine_tuning_staging._dlt_version"),
        "DROP SCHEMA fine_tuning_staging CASCADE",
    ],
)
def test_rows_are_merged_whatever_became_of_the_tables_that_they_are_merged_through(
    database: Database, world: ScriptedWorld, sql: str
) -> None:
    database.sync()
    for table in ("jobs", "checkpoints"):
        database.execute(sql.format(table))
        if "{0}" not in sql:
            break
    add_history(world, range(90 * 24, 90 * 24 + 2))
    database.sync()
    assert_holds(database.rows, truth_of(world))


@pytest.mark.first_only
@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE fine_tuning.events",
        thorough("DROP TABLE fine_tuning.files"),
        thorough("ALTER TABLE fine_tuning.checkpoints DROP COLUMN metrics__train_loss"),
        thorough("ALTER TABLE fine_tuning.checkpoints DROP COLUMN metrics__own"),
        "ALTER TABLE fine_tuning.checkpoints DROP COLUMN id",
        thorough("ALTER TABLE fine_tuning.events DROP COLUMN account"),
        thorough("ALTER TABLE fine_tuning.jobs DROP COLUMN _dlt_load_id"),
        thorough("ALTER TABLE fine_tuning.syncs DROP COLUMN _dlt_load_id"),
        thorough("ALTER TABLE fine_tuning.syncs DROP COLUMN id"),
        thorough("DROP TABLE fine_tuning.syncs"),
        thorough("DROP TABLE fine_tuning._dlt_loads"),
        thorough("DROP TABLE fine_tuning._dlt_version"),
        "DROP TABLE fine_tuning._dlt_pipeline_state",
        thorough("DELETE FROM fine_tuning._dlt_loads"),
        "DELETE FROM fine_tuning._dlt_version",
        thorough("DELETE FROM fine_tuning._dlt_pipeline_state"),
        "DROP SCHEMA fine_tuning CASCADE",
    ],
)
def test_what_was_dropped_is_made_again_and_filled(database: Database, world: ScriptedWorld, sql: str) -> None:
    world.add_checkpoint("ftjob-000", id="ftckpt-own", metrics={"own": 0.5, "train_loss": 0.25})
    database.begin()
    columns = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = 'warehouse' "
    columns += "AND schema_name = 'fine_tuning' AND NOT contains(table_name, '_without_') ORDER BY ALL"
    before = database.rows(columns)
    database.execute(sql)
    database.sync()
    assert database.rows(columns) == before
    truth = truth_of(world)
    assert_holds(database.rows, truth)
    assert database.rows("SELECT metrics__own, metrics__train_loss FROM checkpoints WHERE id = 'ftckpt-own'") == [
        (0.5, 0.25)
    ]
    assert database.sync().requests == 1


@pytest.mark.thorough
def test_rows_that_lost_their_key_are_kept_in_a_table_beside(database: Database, world: ScriptedWorld) -> None:
    database.begin()
    database.execute("ALTER TABLE fine_tuning.checkpoints DROP COLUMN id")
    world.remove_checkpoint("ftckpt-000-0")
    result = database.sync()
    assert "checkpoints" in result.notes[0]
    assert "ftckpt-000-0" not in database.ids("checkpoints")
    ((kept,),) = database.rows("SELECT table_name FROM duckdb_tables() WHERE contains(table_name, '_without_id_')")
    assert database.rows(f'SELECT count(*) FROM "{kept}"') == [(9,)]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "forget", ["DELETE FROM fine_tuning._dlt_pipeline_state", thorough("DELETE FROM fine_tuning._dlt_loads")]
)
def test_rows_without_a_key_do_not_stay_where_the_state_is_gone_too(
    database: Database, world: ScriptedWorld, forget: str
) -> None:
    database.begin()
    database.execute(forget)
    database.execute("ALTER TABLE fine_tuning.checkpoints DROP COLUMN id")
    database.sync()
    assert_holds(database.rows, truth_of(world))


@pytest.mark.nightly
def test_every_account_is_read_once_more_where_a_table_was_dropped(database: Database, world: ScriptedWorld) -> None:
    for account in ("one", "two"):
        database.sync(account=account)
    database.execute("DROP TABLE fine_tuning.events")
    for account in ("one", "two"):
        database.sync(account=account)
        assert len(database.rows(f"SELECT id FROM events WHERE account = '{account}'")) == 9
        assert database.sync(account=account).requests == 1


@pytest.mark.nightly
def test_a_bounded_read_does_not_hide_that_a_table_was_dropped(database: Database, world: ScriptedWorld) -> None:
    database.begin()
    database.execute("DROP TABLE fine_tuning.events")
    database.sync(job_ids=["ftjob-001"])
    assert len(database.ids("events")) == 3
    database.sync()
    assert_holds(database.rows, truth_of(world))


@pytest.mark.nightly
@pytest.mark.parametrize(("column", "to", "found"), [("step_number", "VARCHAR", "text"), ("id", "BLOB", "binary")])
def test_a_column_of_another_type_is_named_and_can_be_dropped(
    database: Database, world: ScriptedWorld, column: str, to: str, found: str
) -> None:
    database.begin()
    database.execute(f"ALTER TABLE fine_tuning.checkpoints ALTER COLUMN {column} TYPE {to}")
    with pytest.raises(CommandError, match=f"column {column} of the table checkpoints has the type {found}, expected"):
        database.sync()
    assert database.host.requests == []
    database.execute(f"ALTER TABLE fine_tuning.checkpoints DROP COLUMN {column}")
    database.sync()
    assert_holds(database.rows, truth_of(world))


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("forget", [None, "DELETE FROM fine_tuning._dlt_version"])
def test_a_new_account_reads_a_value_as_the_type_of_the_column_that_is_there(
    database: Database, world: ScriptedWorld, forget: str | None
) -> None:
    world.add_checkpoint("ftjob-000", id="ftckpt-number", metrics={"own": 0.5})
    database.sync(account="one")
    if forget:
        database.execute(forget)
    world.remove_checkpoint("ftckpt-number")
    world.add_checkpoint("ftjob-000", id="ftckpt-text", metrics={"own": "high"})
    database.sync(account="two")
    assert database.rows(
        "SELECT typeof(metrics__own), count(*) FROM checkpoints WHERE id = 'ftckpt-number' GROUP BY 1"
    ) == [("DOUBLE", 1)]
    assert len(database.rows("SELECT * FROM rejected_records WHERE account = 'two'")) == 1


@pytest.mark.thorough
def test_a_broken_log_of_duckdb_is_named_and_what_it_held_is_read_again(
    tmp_path: Path, world: ScriptedWorld, host: Simulator
) -> None:
    ftw = Command(tmp_path, host.base_url)
    assert ftw("sync").code == 0
    code = (
        "import duckdb, os\n"
        "connection = duckdb.connect('fine_tuning_warehouse.duckdb')\n"
        "connection.execute('INSERT INTO fine_tuning.jobs SELECT * FROM fine_tuning.jobs')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ftw.folder, check=True, timeout=60)
    log = ftw.database.with_name(f"{ftw.database.name}.wal")
    content = bytearray(log.read_bytes())
    content[60] ^= 255
    log.write_bytes(content)
    for arguments in (("sync",), ("query", "SELECT 1"), ("best",), ("verify",)):
        ended = ftw(*arguments)
        assert ended.code == 1
        assert is_told_well(ended, f"Rename {log.name}")
    log.rename(log.with_suffix(".aside"))
    assert ftw("sync").code == 0
    assert_holds(ftw.rows, truth_of(world))


@pytest.mark.thorough
def test_a_unique_index_of_somebodys_is_named_as_what_keeps_rows_from_being_replaced(
    database: Database, world: ScriptedWorld
) -> None:
    database.begin()
    database.execute("CREATE UNIQUE INDEX mine ON fine_tuning.jobs (account, id)")
    with pytest.raises(CommandError, match=r"unique index: drop the index, which duckdb_indexes\(\) names"):
        database.sync(full_refresh=True)
    database.execute("DROP INDEX fine_tuning.mine")
    database.sync(full_refresh=True)
    assert_holds(database.rows, truth_of(world))


@pytest.mark.first_only
@pytest.mark.thorough
@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE fine_tuning.checkpoints DROP COLUMN id",
        thorough("ALTER TABLE fine_tuning.checkpoints DROP COLUMN step_number"),
        thorough("DROP TABLE fine_tuning.checkpoints"),
    ],
)
def test_a_new_account_does_not_hide_what_was_dropped(database: Database, world: ScriptedWorld, sql: str) -> None:
    database.sync(account="one")
    database.execute(sql)
    database.sync(account="two", resources=("jobs",))
    database.sync(account="one")
    rows = database.rows("SELECT id, step_number FROM checkpoints WHERE account = 'one' ORDER BY id")
    assert len(rows) == 9
    assert None not in {value for row in rows for value in row}
