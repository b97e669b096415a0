"""A warehouse whose tables are not as the last sync left them: the next sync makes what is missing."""

from __future__ import annotations

import dlt
import pytest

from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from harness import Database
from histories import add_history, assert_holds, truth_of
from openai_fine_tuning import openai_fine_tuning

pytestmark = pytest.mark.usefixtures("_history")


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


def test_a_wider_sync_follows_a_full_refresh_of_some_resources(database: Database, world: ScriptedWorld) -> None:
    database.sync(resources=("jobs", "checkpoints"))
    database.sync(resources=("jobs", "checkpoints"), full_refresh=True)
    database.sync()
    assert_holds(database.rows, truth_of(world))


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


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE fine_tuning.{0} ADD COLUMN mine INTEGER",
        "ALTER TABLE fine_tuning_staging.{0} DROP COLUMN account",
        "ALTER TABLE fine_tuning_staging.{0} DROP COLUMN _dlt_load_id",
        "DROP TABLE fine_tuning_staging.{0}",
        "DROP TABLE fine_tuning_staging._dlt_version",
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


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE fine_tuning.events",
        "DROP TABLE fine_tuning.files",
        "ALTER TABLE fine_tuning.checkpoints DROP COLUMN metrics__train_loss",
        "ALTER TABLE fine_tuning.checkpoints DROP COLUMN metrics__own",
        "ALTER TABLE fine_tuning.checkpoints DROP COLUMN id",
        "ALTER TABLE fine_tuning.events DROP COLUMN account",
        "ALTER TABLE fine_tuning.jobs DROP COLUMN _dlt_load_id",
        "ALTER TABLE fine_tuning.syncs DROP COLUMN _dlt_load_id",
        "ALTER TABLE fine_tuning.syncs DROP COLUMN id",
        "DROP TABLE fine_tuning.syncs",
        "DROP TABLE fine_tuning._dlt_loads",
        "DROP TABLE fine_tuning._dlt_version",
        "DROP TABLE fine_tuning._dlt_pipeline_state",
        "DELETE FROM fine_tuning._dlt_loads",
        "DELETE FROM fine_tuning._dlt_version",
        "DELETE FROM fine_tuning._dlt_pipeline_state",
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
