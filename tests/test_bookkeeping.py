"""dlt's own tables, and the tables that rows are merged through, after somebody has changed their columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fine_tuning_simulator import ScriptedWorld, Simulator
from harness import Database
from histories import add_history, assert_holds, truth_of

if TYPE_CHECKING:
    from engines import Engine
    from postgres import Postgres

pytest_plugins = ["lakes"]
pytestmark = pytest.mark.usefixtures("_history")

CHANGES = [
    "ALTER TABLE fine_tuning._dlt_version DROP COLUMN version_hash",
    "ALTER TABLE fine_tuning._dlt_version RENAME COLUMN inserted_at TO made_at",
    "ALTER TABLE fine_tuning._dlt_version ALTER COLUMN version TYPE VARCHAR",
    "ALTER TABLE fine_tuning._dlt_loads DROP COLUMN schema_name",
    "ALTER TABLE fine_tuning._dlt_loads RENAME COLUMN load_id TO id",
    "ALTER TABLE fine_tuning._dlt_loads ALTER COLUMN inserted_at TYPE VARCHAR",
    "ALTER TABLE fine_tuning._dlt_pipeline_state DROP COLUMN state",
    "ALTER TABLE fine_tuning._dlt_pipeline_state RENAME COLUMN _dlt_load_id TO load_id",
    "ALTER TABLE fine_tuning._dlt_pipeline_state ALTER COLUMN version TYPE VARCHAR",
]
"""Each of dlt's tables, and each way to change a column."""


@pytest.fixture
def _history(world: ScriptedWorld) -> None:
    add_history(world, range(3))


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("change", CHANGES)
def test_a_table_of_dlt_that_was_changed_is_kept_aside_and_made_again(
    database: Database, world: ScriptedWorld, change: str
) -> None:
    database.begin()
    name = change.split(".")[1].split(maxsplit=1)[0]
    ((rows,),) = database.rows(f"SELECT count(*) FROM {name}")
    database.execute(change)
    (note,) = database.sync().notes
    assert name in note
    ((aside,),) = database.rows(f"SELECT table_name FROM duckdb_tables() WHERE table_name SIMILAR TO '{name}_[0-9]+'")
    assert aside in note
    assert database.rows(f"SELECT count(*) FROM {aside}") == [(rows,)]
    assert_holds(database.rows, truth_of(world))
    again = database.sync()
    assert (again.requests, again.notes) == (1, [])


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE fine_tuning_staging.checkpoints ALTER COLUMN created_at TYPE VARCHAR",
        "ALTER TABLE fine_tuning_staging.checkpoints RENAME COLUMN step_number TO step",
        "ALTER TABLE fine_tuning_staging.checkpoints ALTER COLUMN step_number SET NOT NULL",
        "ALTER TABLE fine_tuning_staging._dlt_version DROP COLUMN version_hash",
        "ALTER TABLE fine_tuning_staging._dlt_version ALTER COLUMN version TYPE VARCHAR",
    ],
)
def test_rows_are_merged_through_a_table_that_somebody_has_changed(
    database: Database, world: ScriptedWorld, change: str
) -> None:
    database.sync()
    database.execute("DELETE FROM fine_tuning_staging.checkpoints")
    database.execute(change)
    add_history(world, range(90 * 24, 90 * 24 + 1))
    world.add_checkpoint(world.jobs()[0]["id"], id="ftckpt-null", step_number=None)
    database.sync()
    assert_holds(database.rows, truth_of(world))


@pytest.mark.first_only
@pytest.mark.engine
@pytest.mark.thorough
@pytest.mark.usefixtures("postgres_engine")
@pytest.mark.parametrize("change", CHANGES[::2])
def test_a_table_of_dlt_in_postgres_is_made_again(
    postgres_engine: Engine, postgres: Postgres, world: ScriptedWorld, host: Simulator, change: str
) -> None:
    postgres_engine.sync(host)
    if "TYPE" in change:
        postgres.execute("DROP VIEW IF EXISTS fine_tuning.sync_history CASCADE")
    postgres.execute(f"{change} CASCADE" if "DROP" in change else change)
    assert_made_again(postgres_engine, postgres.rows, world, host)


@pytest.mark.nightly
@pytest.mark.engine
@pytest.mark.parametrize("ducklake", ["sqlite"], indirect=True)
@pytest.mark.parametrize("change", [change for change in CHANGES if "TYPE" not in change][::2])
def test_a_table_of_dlt_in_a_ducklake_is_made_again(
    ducklake: Engine, world: ScriptedWorld, host: Simulator, tmp_path: Path, change: str
) -> None:
    ducklake.sync(host)
    with ducklake.warehouse.pipeline(tmp_path / "change").sql_client() as client:
        client.execute_sql(change)
    assert_made_again(ducklake, ducklake.rows, world, host)


def assert_made_again(engine: Engine, rows: Any, world: ScriptedWorld, host: Simulator) -> None:
    """Assert that the next syncs load everything, and say once what was changed."""
    assert [bool(engine.sync(host).notes) for _ in range(2)] == [True, False]
    assert_holds(rows, truth_of(world))
