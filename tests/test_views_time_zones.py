"""A view gives the same rows to whoever reads it, whatever zone the session is in."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
import sqlglot
from sqlglot import ErrorLevel, exp

from fine_tuning_simulator import ScriptedWorld
from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.views import VIEWS, View
from fine_tuning_warehouse.views.build import DIALECTS, Builder
from harness import Database
from repository import ROOT

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["postgres", "spark"]

ZONES = ("UTC", "America/New_York", "Pacific/Auckland")
NEW_YEAR = 1_767_225_600
"""2026-01-01 00:00 UTC: half an hour earlier or later it is another year somewhere."""

TYPES = {"VARCHAR", "DOUBLE", "BIGINT", "INTEGER", "BOOLEAN", "TIMESTAMP WITH TIME ZONE", "DATE"}
"""Types that every engine has, and that rows are kept in."""


def month_of_contributing() -> str:
    """The expression that CONTRIBUTING shows for a month."""
    found = re.search(r"`(CAST\(DATE_TRUNC.*?)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


MONTHS = View("months", over=("jobs",))
vars(MONTHS)["text"] = f"SELECT account, {month_of_contributing()} AS month FROM jobs"
"""A view of it: what `views/months.sql` would hold."""


def months_in(dialect: str) -> str:
    """Its SELECT for an engine."""
    return Builder(dialect, {"jobs": TABLES["jobs"].types}, lambda name: [name]).select(MONTHS)


@pytest.fixture
def around_new_year(world: ScriptedWorld, database: Database) -> Database:
    """A database with two jobs, all of whose times are half an hour before a new year, or after it."""
    for name, seconds in (("old", NEW_YEAR - 1800), ("new", NEW_YEAR + 1800)):
        text = b"step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,0.9,0.5,,\n"
        world.add_file(f"file-{name}", text, created_at=seconds)
        world.add_job(
            id=name,
            created_at=seconds,
            finished_at=seconds + 60,
            validation_file="file-v",
            result_files=[f"file-{name}"],
        )
        for step, loss in ((1, 0.5), (2, 0.7)):
            world.add_checkpoint(
                name, id=f"{name}-{step}", created_at=seconds + step, step_number=step, metrics={"valid_loss": loss}
            )
        world.add_event(name, created_at=seconds, type="metrics", data={"step": 1, "valid_loss": 0.8})
    for _ in range(2):
        database.sync()
    for position, seconds in (("min", NEW_YEAR - 1800), ("max", NEW_YEAR + 1800)):
        database.execute(
            f"UPDATE fine_tuning.syncs SET started_at = to_timestamp({seconds}), "
            f"finished_at = to_timestamp({seconds + 60}) WHERE id = (SELECT {position}(id) FROM fine_tuning.syncs)"
        )
    return database


def in_every_zone(database: Database, sql: str) -> list[list[tuple[Any, ...]]]:
    """The rows of a query, in the session of each zone."""
    answers = []
    for zone in ZONES:
        with duckdb.connect(str(database.path), read_only=True) as connection:
            connection.execute("SET search_path = 'fine_tuning'")
            connection.execute(f"SET TimeZone = '{zone}'")
            answers.append(sorted(connection.execute(sql).fetchall(), key=lambda row: str(row[:2])))
    return answers


@pytest.mark.nightly
def test_a_view_gives_the_same_rows_in_every_time_zone(around_new_year: Database) -> None:
    for view in VIEWS:
        columns = ", ".join(name for name in view.columns if name != "age_seconds")  # it is of the moment of the query
        first, *others = in_every_zone(around_new_year, f"SELECT {columns} FROM {view.name} ORDER BY ALL")
        assert len(first) >= (1 if view.name == "account_health" else 2), view.name
        assert all(rows == first for rows in others), view.name


@pytest.mark.nightly
def test_the_months_of_a_session_would_differ_and_that_of_contributing_does_not(around_new_year: Database) -> None:
    months = "SELECT fine_tuning_job_id, DATE_TRUNC('month', created_at) FROM job_overview"
    first, *others = in_every_zone(around_new_year, months)
    assert all(rows != first for rows in others)
    expected = [("new", date(2026, 1, 1)), ("old", date(2025, 12, 1))]
    months = f"SELECT fine_tuning_job_id, {month_of_contributing()} FROM job_overview"
    assert in_every_zone(around_new_year, months) == [expected] * len(ZONES)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_month_of_contributing_is_known_to_every_dialect(dialect: str) -> None:
    sql = months_in(dialect)
    parsed: Any = sqlglot.parse_one(sql, read=dialect, error_level=ErrorLevel.RAISE)
    again = parsed.sql(dialect, unsupported_level=ErrorLevel.RAISE)
    assert sqlglot.parse_one(again, read=dialect, error_level=ErrorLevel.RAISE) == parsed
    assert not list(parsed.find_all(exp.Anonymous))


TIMES = "SELECT '{}' AS account, TIMESTAMP WITH TIME ZONE '{}:30:00+00' AS created_at"
TWO_TIMES = f"{TIMES.format('old', '2025-12-31 23')} UNION ALL {TIMES.format('new', '2026-01-01 00')}"
MONTHS_OF_TWO = [("new", date(2026, 1, 1)), ("old", date(2025, 12, 1))]


@pytest.mark.parametrize("zone", ZONES)
def test_postgresql_gives_the_month_of_utc(zone: str, postgres: Postgres) -> None:
    import psycopg2  # type: ignore[import-untyped,unused-ignore]

    with psycopg2.connect(postgres.credentials, options=f"-c TimeZone={zone}") as connection:
        cursor = connection.cursor()
        cursor.execute(f"CREATE TEMP VIEW jobs AS {TWO_TIMES}")
        cursor.execute(months_in("postgres"))
        assert sorted(cursor.fetchall()) == MONTHS_OF_TWO
    connection.close()


@pytest.mark.engine
def test_spark_gives_the_month_of_utc(spark: Any) -> None:
    for zone in ZONES:
        spark.conf.set("spark.sql.session.timeZone", zone)
        spark.sql(f"CREATE OR REPLACE TEMP VIEW jobs AS {TWO_TIMES.replace('WITH TIME ZONE', '')}").collect()
        rows = spark.sql(months_in("spark")).toArrow().to_pylist()
        assert sorted(tuple(row.values()) for row in rows) == MONTHS_OF_TWO, zone


@pytest.mark.first_only
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_the_columns_of_a_view_have_types_that_every_engine_has(view: Any, around_new_year: Database) -> None:
    types = {name: type_ for name, type_, *_ in around_new_year.rows(f"DESCRIBE {view.name}")}
    assert list(types) == list(view.columns)
    assert {name: type_ for name, type_ in types.items() if type_ not in TYPES} == {}
