"""`ftw dbt-sources` describes what a warehouse really holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from command import Command
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.dbt_sources import dbt_sources
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from harness import Database
from histories import add_history
from openai_fine_tuning.schema import JOBS


@pytest.mark.thorough
def test_the_sources_are_the_tables_and_views_with_tests_and_the_freshness_of_each_account(
    database: Database, world: ScriptedWorld
) -> None:
    add_history(world, range(1))
    database.sync(account="it's {{ odd }}", key="a")
    database.sync(account="b", key="b")
    found = yaml.safe_load(dbt_sources(DuckDb(database.path), name="ours", warn_hours=3))
    ours, accounts = found["sources"]
    assert (ours["name"], ours["schema"]) == ("ours", "fine_tuning")
    tables = {table["name"]: table for table in ours["tables"]}
    stored = {
        (table, column)
        for table, column in database.rows(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE schema_name = 'fine_tuning'"
        )
        if not table.startswith("_dlt")
    }
    assert {(name, column["name"]) for name, table in tables.items() for column in table["columns"]} == stored
    for name, table in tables.items():
        if name not in TABLES:
            continue
        assert table["description"] == TABLES[name].description
        [test] = table["data_tests"]
        key = test["unique"]["column_name"]
        assert database.rows(f"SELECT count(*) - count(DISTINCT {key}) FROM {name}") == [(0,)]
        tested = {column["name"] for column in table["columns"] if "not_null" in column.get("data_tests", [])}
        assert tested == set(TABLES[name].keys)
    described = {column["name"]: column.get("description") for column in tables["jobs"]["columns"]}
    assert all(described[column.name] == column.description for column in JOBS.columns)
    for name in ("checkpoints", "events", "result_metrics"):
        [job] = [one for one in tables[name]["columns"] if one["name"] == "fine_tuning_job_id"]
        assert {"relationships": {"arguments": {"to": "source('ours', 'jobs')", "field": "id"}}} in job["data_tests"]
    for table, label in zip(accounts["tables"], ["b", "it's {{ odd }}"], strict=True):
        freshness = table["config"]["freshness"]
        assert freshness["warn_after"] == {"count": 3, "period": "hour"}
        assert "{{" not in str(table)
        if label == "b":
            assert database.rows(f"SELECT count(*) FROM {table['identifier']} WHERE {freshness['filter']}") == [(1,)]


@pytest.mark.thorough
@pytest.mark.parametrize("release", ["this", "an earlier one, without the column"])
def test_a_sync_that_failed_makes_an_account_no_fresher(database: Database, release: str) -> None:
    database.begin()
    done = database.rows("SELECT id FROM syncs")
    if release == "this":
        database.execute(
            "INSERT INTO fine_tuning.syncs (account, id, status, finished_at) VALUES ('default', 'x', 'failed', now())"
        )
    else:
        for view in ("account_health", "sync_history"):
            database.execute(f"DROP VIEW fine_tuning.{view}")
        database.execute("ALTER TABLE fine_tuning.syncs DROP COLUMN status")
    found = yaml.safe_load(dbt_sources(DuckDb(database.path)))
    condition = found["sources"][1]["tables"][0]["config"]["freshness"]["filter"]
    assert database.rows(f"SELECT id FROM syncs WHERE {condition}") == done


def test_a_warehouse_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="ftw sync"):
        dbt_sources(DuckDb(tmp_path / "none.duckdb"))


@pytest.mark.thorough
def test_the_command_prints_yaml(tmp_path: Path, host: Simulator) -> None:
    ftw = Command(tmp_path, host.base_url)
    assert ftw("sync", "--quiet").code == 0
    printed = ftw("dbt-sources")
    assert (printed.code, printed.err) == (0, "")
    assert yaml.safe_load(printed.out)["version"] == 2
