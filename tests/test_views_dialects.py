"""The views in the words of other engines: what every dialect's parser takes, and what ClickHouse answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlglot
from sqlglot import ErrorLevel, exp

from clickhouse import run_in_clickhouse
from fine_tuning_simulator import Clock, GeneratedWorld, Simulator
from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.views import VIEWS, View
from fine_tuning_warehouse.views.build import DIALECTS, READ_TABLES, Builder
from harness import Database

NAMES = [view.name for view in VIEWS]
ALL_TABLES: dict[str, dict[str, Any]] = {
    **{name: dict(table.types) for name, table in TABLES.items()},
    "_dlt_loads": {"load_id": "text", "status": "bigint"},
    "retirements": {"model": "text", "retires_at": "date", "replacement": "text", "note": "text"},
}
ALL_TABLES["syncs"]["_dlt_load_id"] = "text"

OWN_FUNCTIONS = {
    "clickhouse": {"TOUNIXTIMESTAMP64MICRO", "TODECIMALSTRING", "SPLITBYSTRING", "ARRAYELEMENT"},
    "bigquery": {"UNIX_MICROS", "SAFE_ORDINAL"},
}
"""Functions that a dialect has and its parser does not know by name."""


@pytest.mark.thorough
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("view", VIEWS, ids=NAMES)
@pytest.mark.parametrize(
    "tables",
    [
        pytest.param(ALL_TABLES, id="all"),
        pytest.param(
            {view.over[0]: ALL_TABLES[view.over[0]] for view in VIEWS}, id="only its own", marks=pytest.mark.nightly
        ),
    ],
)
def test_every_view_transpiles_and_parses(view: View, dialect: str, tables: Any) -> None:
    fold = str.upper if dialect == "snowflake" else str
    sql = Builder(dialect, tables, lambda name: ["catalog", "fine_tuning", name], fold).select(view)
    parsed: Any = sqlglot.parse_one(sql, read=dialect, error_level=ErrorLevel.RAISE)
    assert isinstance(parsed, exp.Query)
    assert [fold(name) for name in view.columns] == parsed.named_selects
    assert "each_metric" not in sql.lower()
    again = parsed.sql(dialect, unsupported_level=ErrorLevel.RAISE)
    assert sqlglot.parse_one(again, read=dialect, error_level=ErrorLevel.RAISE) == parsed
    unknown = {node.name.upper() for node in parsed.find_all(exp.Anonymous)}
    assert unknown <= OWN_FUNCTIONS.get(dialect, set())
    if dialect in ("bigquery", "clickhouse"):
        assert "TIME_TO_UNIX" not in sql
        assert "SPLIT_PART" not in sql


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_curves_have_a_part_for_every_metric(dialect: str) -> None:
    tables = {**ALL_TABLES, "checkpoints": {**ALL_TABLES["checkpoints"], "metrics__newest": "double"}}
    view = next(view for view in VIEWS if view.name == "training_curves")
    parsed = sqlglot.parse_one(Builder(dialect, tables, lambda name: ["fine_tuning", name]).select(view), read=dialect)
    parts = [
        (part.args["from_"].this.name, literal.name)
        for part in parsed.find_all(exp.Select)
        for literal in part.find_all(exp.Literal)
        if literal.parent is not None and literal.parent.alias_or_name == "metric"
    ]
    for prefix, table in (("data__", "events"), ("", "result_metrics"), ("metrics__", "checkpoints")):
        metrics = {
            name.removeprefix(prefix)
            for name, type_ in tables[table].items()
            if name.startswith(prefix) and type_ == "double"
        } - {"step", "total_steps", "train_accuracy"}
        if table == "result_metrics":
            metrics.add("train_mean_token_accuracy")  # the name that events and checkpoints have for train_accuracy
        assert {metric for name, metric in parts if name == table} == metrics
    assert ("checkpoints", "newest") in parts


@pytest.mark.thorough
@pytest.mark.engine
def test_clickhouse_gives_the_same_answers(tmp_path: Path, clock: Clock) -> None:
    with Simulator(GeneratedWorld(seed=3, jobs=16, clock=clock), clock=clock) as host:
        database = Database(tmp_path / "warehouse.duckdb", host)
        database.sync()
        database.execute(
            "CREATE TABLE fine_tuning.prices AS SELECT 'gpt-4o-2024-08-06' AS base_model, 25.0::DOUBLE AS "
            "per_million_tokens, NULL::DOUBLE AS per_training_hour, 'USD' AS currency"
        )
        database.execute(
            "CREATE TABLE fine_tuning.retirements AS SELECT 'GPT-4o-2024-08-06' AS model, DATE '2026-10-23' AS "
            "retires_at, 'gpt-4.1' AS replacement, NULL::VARCHAR AS note"
        )
        database.sync()
    views = {view.name: tmp_path / f"{view.name}.parquet" for view in VIEWS}
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        statements = ["CREATE DATABASE fine_tuning"]
        tables: dict[str, dict[str, str]] = {}
        for table in READ_TABLES:
            file = tmp_path / f"{table}.parquet"
            rows = connection.execute(f"COPY (FROM fine_tuning.{table}) TO '{file}'").execute(
                f"DESCRIBE fine_tuning.{table}"
            )
            types = {name: TYPES.get(type_, ("text", "String")) for name, type_, *_ in rows.fetchall()}
            tables[table] = {name: dlts for name, (dlts, _) in types.items()}
            columns = ", ".join(f'"{name}" Nullable({clickhouses})' for name, (_, clickhouses) in types.items())
            names = ", ".join(f'"{name}"' for name in types)
            statements += [
                f'CREATE TABLE fine_tuning."{table}" ({columns}) ENGINE = MergeTree ORDER BY tuple()',
                f"INSERT INTO fine_tuning.\"{table}\" ({names}) SELECT {names} FROM file('{file}')",
            ]
        builder = Builder("clickhouse", tables, lambda name: ["fine_tuning", name])
        for view in builder.views:
            statements += [
                f"CREATE VIEW fine_tuning.{view.name} AS {builder.select(view)}",
                f"SELECT * FROM fine_tuning.{view.name} INTO OUTFILE '{views[view.name]}' FORMAT Parquet",
            ]
        run_in_clickhouse(statements, tmp_path)
        for view in VIEWS:
            columns = ", ".join(name for name in view.columns if name != "age_seconds")
            expected, got = (
                sorted(
                    (
                        tuple(map(_rounded, row))
                        for row in connection.execute(f"SELECT {columns} FROM {where}").fetchall()
                    ),
                    key=repr,
                )
                for where in (f"fine_tuning.{view.name}", f"'{views[view.name]}'")
            )
            assert expected
            assert got == expected, view.name
        asked = f"SELECT age_seconds BETWEEN 0 AND 300 FROM '{views['account_health']}'"
        assert connection.execute(asked).fetchall() == [(True,)]


TYPES = {
    "DOUBLE": ("double", "Float64"),
    "BIGINT": ("bigint", "Int64"),
    "BOOLEAN": ("bool", "Bool"),
    "DATE": ("date", "Date"),
    "TIMESTAMP WITH TIME ZONE": ("timestamp", "DateTime64(6, 'UTC')"),
}
"""dlt's name of a type of DuckDB, and the type that dlt's destination `clickhouse` gives its columns."""


def _rounded(value: Any) -> Any:
    # Microseconds as a difference of doubles; all else is equal to the last digit or nearly so.
    return round(value, 6) if isinstance(value, float) else value
