"""Spark SQL over the lake: the views that `ftw views` prints give the answers that DuckDB's give."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from command import Command
from engines import Engine
from fine_tuning_simulator import Clock, GeneratedWorld, Simulator
from fine_tuning_warehouse.views import VIEWS
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from harness import DAY, HOUR, Database

if TYPE_CHECKING:
    from bucket import Bucket

pytest_plugins = ["lakes", "spark"]
pytestmark = pytest.mark.engine


def prepare(session: Any, ftw: Command, engine: Engine) -> None:
    """Do what the page says: let Spark make the tables and views that `ftw views` prints."""
    ended = ftw("views", *engine.options, "--dialect", "spark", env=engine.env)
    assert ended.code == 0, ended.all
    statements = [statement for statement in re.split(r";\s*$", ended.out, flags=re.MULTILINE) if statement.strip()]
    assert len(statements) >= 1 + len(VIEWS)
    for statement in statements:
        session.sql(statement).collect()


def assert_same_answers(session: Any, file: Database) -> int:
    """Assert that views give the same rows: all but those about syncs, which differ by warehouse."""
    compared = 0
    for view in VIEWS:
        if view.name in ("sync_history", "account_health"):
            continue
        # Each warehouse was synced at a time of its own.
        columns = ", ".join(name for name in view.columns if name != "listed_at")
        expected = sorted(file.rows(f"SELECT {columns} FROM {view.name}"), key=repr)
        table = session.sql(f"SELECT {columns} FROM fine_tuning.{view.name}").toArrow()
        got = sorted((tuple(row.values()) for row in table.to_pylist()), key=repr)
        assert len(got) == len(expected) > 0, view.name
        for mine, theirs in zip(got, expected, strict=True):
            near = [pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for value in theirs]
            assert [_plain(value) for value in mine] == [_plain(value) for value in near], view.name
        compared += len(got)
    return compared


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    return value.timestamp() if hasattr(value, "timestamp") else value


@pytest.mark.nightly
def test_spark_answers_the_views_over_a_lake_as_duckdb_does(
    tmp_path: Path, clock: Clock, lake: Engine, spark: Any
) -> None:
    with Simulator(GeneratedWorld(seed=3, jobs=16, clock=clock), clock=clock) as host:
        file = Engine(DuckDb(tmp_path / "warehouse.duckdb"), {})
        database = Database(tmp_path / "warehouse.duckdb", host)
        for number in range(2):
            for one in (file, lake):
                one.sync(host)
            if number == 0:
                prepare(spark, Command(tmp_path), lake)
            assert assert_same_answers(spark, database) > 100
            history = spark.sql("SELECT jobs_seen, load_id FROM fine_tuning.sync_history").toArrow().to_pylist()
            assert len(history) == number + 1, "Spark sees the next sync by itself"
            clock.advance(2 * HOUR if number else DAY)


@pytest.fixture
def in_bucket(bucket: Bucket, bucket_lake: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A lake in a bucket, for whose S3 API the environment is set before Spark starts."""
    for name, value in {**bucket.env, "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    return bucket_lake


@pytest.mark.nightly
def test_spark_reads_a_lake_in_a_bucket(tmp_path: Path, clock: Clock, in_bucket: Engine, spark: Any) -> None:
    with Simulator(GeneratedWorld(seed=3, jobs=4, clock=clock), clock=clock) as host:
        summary = in_bucket.sync(host)
    prepare(spark, Command(tmp_path), in_bucket)
    counted = spark.sql("SELECT count(*) AS jobs FROM fine_tuning.job_overview").toArrow().to_pylist()
    assert counted == [{"jobs": summary.rows["jobs"]}]
