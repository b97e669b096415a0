"""The views themselves: made where they can be, described, and never in a sync's way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
import sqlglot

from fine_tuning_simulator import Clock, GeneratedWorld, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync
from fine_tuning_warehouse.views import VIEWS, View
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.postgres import PostgreSql
from harness import DAY, HOUR, NOW, Database

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["postgres"]

NAMES = [view.name for view in VIEWS]
CURVES = {"run_curves", "training_curves"}
OF_SYNCS = {"sync_history", "account_health"}


def views_of(database: Database) -> list[str]:
    return [name for (name,) in database.rows("SELECT view_name FROM duckdb_views() WHERE schema_name = 'fine_tuning'")]


def add_history(world: ScriptedWorld) -> None:
    world.add_file(
        "file-results", b"step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,0.9,0.5,,\n"
    )
    world.add_job(id="job", created_at=NOW - DAY, result_files=["file-results"])
    world.add_checkpoint("job", id="ftckpt-1", step_number=1, metrics={"train_loss": 0.7})
    world.add_event("job", type="metrics", data={"step": 1, "valid_loss": 0.8})


@pytest.mark.parametrize("view", VIEWS, ids=NAMES)
def test_every_column_is_described_in_order(view: View) -> None:
    query: Any = sqlglot.parse_one(view.text, read="duckdb")
    assert list(view.columns) == query.named_selects
    assert view.description.endswith(".")
    assert all(description.endswith(".") for description in view.columns.values())


def test_comments_stand_on_views_and_columns(world: ScriptedWorld, database: Database) -> None:
    add_history(world)
    database.sync()
    views = dict(database.rows("SELECT view_name, comment FROM duckdb_views() WHERE schema_name = 'fine_tuning'"))
    columns = database.rows(
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE schema_name = 'fine_tuning' "
        "ORDER BY column_index"
    )
    assert sorted(views) == sorted(NAMES)
    for view in VIEWS:
        assert str(views[view.name]).startswith(view.description)
        assert [(name, comment) for table, name, comment in columns if table == view.name] == list(view.columns.items())


def test_views_are_made_anew_only_where_they_changed(
    world: ScriptedWorld, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_history(world)
    database.sync()
    with duckdb.connect(str(database.path)) as connection:
        connection.execute("DROP VIEW fine_tuning.sync_history")
        connection.execute("CREATE OR REPLACE VIEW fine_tuning.job_overview AS SELECT 1 AS old")
    executed: list[str] = []
    from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient

    execute = DuckDbSqlClient.execute_sql

    def noted(self: Any, sql: Any, *args: Any, **kwargs: Any) -> Any:
        executed.append(str(sql))
        return execute(self, sql, *args, **kwargs)

    monkeypatch.setattr(DuckDbSqlClient, "execute_sql", noted)
    database.sync()
    made = [sql.split()[4] for sql in executed if sql.startswith("CREATE OR REPLACE VIEW")]
    assert made == ['"fine_tuning"."job_overview"', '"fine_tuning"."sync_history"']
    assert sorted(views_of(database)) == sorted(NAMES)
    assert database.rows("SELECT fine_tuning_job_id FROM job_overview") == [("job",)]
    executed.clear()
    database.sync()
    assert not [sql for sql in executed if " VIEW " in sql]


@pytest.mark.thorough
@pytest.mark.timeout(400)  # DuckDB 1.4 plans large views ten times as slowly as 1.5
@pytest.mark.first_only
@pytest.mark.parametrize(
    ("resources", "made"),
    [
        (["jobs"], {"job_overview", "comparable_runs", "job_costs", "model_status", *OF_SYNCS}),
        (["checkpoints"], {"checkpoint_history", "best_checkpoints", "model_status", *CURVES, *OF_SYNCS}),
        (["events"], {*CURVES, *OF_SYNCS}),
        (["result_metrics"], {*CURVES, *OF_SYNCS}),
        (["jobs", "checkpoints"], set(NAMES)),
    ],
)
def test_what_is_missing_is_left_out_or_empty(
    world: ScriptedWorld, database: Database, resources: list[str], made: set[str]
) -> None:
    add_history(world)
    database.sync(resources=resources)
    assert set(views_of(database)) == made
    for view in made:
        rows = database.rows(f"SELECT * FROM {view}")
        metrics = 2 if resources == ["result_metrics"] else 1
        models = len(resources)  # the final model is that of the job, and not that of the checkpoint
        assert len(rows) == {"training_curves": metrics, "comparable_runs": 0, "model_status": models}.get(view, 1)
    if "best_checkpoints" in made:
        rows = database.rows("SELECT checkpoint_id, base_model, evaluation_metric FROM best_checkpoints")
        assert rows == [("ftckpt-1", "gpt-4o-mini-2024-07-18" if "jobs" in resources else None, "train_loss")]
    if "job_overview" in made:
        assert database.rows("SELECT checkpoints FROM job_overview") == [(int("checkpoints" in resources),)]
    database.sync()
    assert set(views_of(database)) == set(NAMES)
    rows = database.rows("SELECT evaluation_metric, evaluation_source, base_model FROM checkpoint_history")
    assert rows == [("valid_loss", "event", "gpt-4o-mini-2024-07-18")]


@pytest.mark.thorough
def test_texts_where_numbers_are_meant_count_as_none(world: ScriptedWorld, database: Database) -> None:
    world.add_file("file-results", b"step,train_loss,full_valid_loss\n1,0.9,n/a\n")
    world.add_job(id="job", created_at=NOW - DAY, result_files=["file-results"])
    world.add_checkpoint("job", step_number=1, metrics={"train_loss": 0.7})
    database.sync()
    assert database.rows("SELECT evaluation_metric FROM checkpoint_history") == [("train_loss",)]
    assert database.rows("SELECT metric FROM training_curves WHERE source = 'result_file'") == [("train_loss",)]


@pytest.mark.thorough
def test_a_file_that_was_moved_keeps_its_views(world: ScriptedWorld, database: Database, tmp_path: Path) -> None:
    add_history(world)
    database.sync()
    database.path = database.path.rename(tmp_path / "moved.duckdb")
    assert database.rows("SELECT checkpoint_id FROM best_checkpoints") == [("ftckpt-1",)]
    database.sync()
    assert database.rows("SELECT count(*) FROM sync_history") == [(2,)]


@pytest.mark.thorough
def test_a_view_that_cannot_be_made_is_told_and_the_rows_stay(world: ScriptedWorld, database: Database) -> None:
    add_history(world)
    database.sync(resources=["jobs"])
    with duckdb.connect(str(database.path)) as connection:
        connection.execute("CREATE TABLE fine_tuning.checkpoint_history (mine INTEGER)")
    with pytest.raises(
        CommandError,
        match=r"The tables are loaded, but the view checkpoint_history could not be made: .* Rename or drop it",
    ):
        database.sync()
    assert database.rows("SELECT id FROM checkpoints") == [("ftckpt-1",)]
    with duckdb.connect(str(database.path)) as connection:
        connection.execute("DROP TABLE fine_tuning.checkpoint_history")
    database.sync()
    assert set(views_of(database)) == set(NAMES)


@pytest.mark.thorough
def test_a_users_own_views_are_left_alone(world: ScriptedWorld, clock: Clock, database: Database) -> None:
    world.add_job(id="job", created_at=NOW - HOUR, status="running")
    world.add_checkpoint("job", step_number=1)
    database.sync()
    with duckdb.connect(str(database.path)) as connection:
        connection.execute("CREATE VIEW fine_tuning.mine AS SELECT * FROM fine_tuning.best_checkpoints")
        connection.execute("COMMENT ON VIEW fine_tuning.best_checkpoints IS 'made from something else'")
    world.add_checkpoint("job", step_number=2, metrics={"train_loss": 0.1, "new_metric": 1})
    clock.advance(60)
    database.sync()
    assert "mine" in views_of(database)
    assert database.rows("SELECT step_number FROM fine_tuning.mine") == [(2,)]


@pytest.mark.timeout(300)
def test_postgresql_gives_the_same_answers(tmp_path: Path, clock: Clock, postgres: Postgres) -> None:
    """Two accounts, with every shape that the generated history has; and a change of a view's columns."""
    with Simulator(GeneratedWorld(seed=3, jobs=16, clock=clock), clock=clock) as host:
        account = Account("default", "key", host.base_url)
        file = DuckDb(tmp_path / "warehouse.duckdb")
        for warehouse in (file, PostgreSql()):
            run_sync(account, warehouse, SyncOptions(resources=["jobs"]))
            run_sync(account, warehouse, SyncOptions())
        in_file = Database(tmp_path / "warehouse.duckdb", host)
        for view, key in {
            "checkpoint_history": "checkpoint_id",
            "best_checkpoints": "checkpoint_id",
            "job_overview": "fine_tuning_job_id",
            "comparable_runs": "fine_tuning_job_id",
            "job_costs": "fine_tuning_job_id",
            "run_curves": "fine_tuning_job_id, step",
            "training_curves": "fine_tuning_job_id, source, metric, step",
        }.items():
            # Each warehouse was synced at a time of its own.
            columns = ", ".join(set(next(one for one in VIEWS if one.name == view).columns) - {"listed_at"})
            sql = f"SELECT {columns} FROM {view} ORDER BY {key}"
            expected = sorted(in_file.rows(sql), key=repr)
            assert expected
            got = sorted(postgres.rows(sql), key=repr)
            assert len(got) == len(expected)
            for mine, theirs in zip(got, expected, strict=True):
                assert list(mine) == [pytest.approx(v, rel=1e-12) if isinstance(v, float) else v for v in theirs]
        ((comment,),) = postgres.rows("SELECT obj_description('fine_tuning.best_checkpoints'::regclass)")
        assert "The best checkpoint of each job" in comment
        assert len(postgres.rows("SELECT * FROM sync_history")) == 2


def test_postgresql_replaces_views_whose_columns_have_changed(
    world: ScriptedWorld, clock: Clock, host: Simulator, postgres: Postgres
) -> None:
    import psycopg2  # type: ignore[import-untyped,unused-ignore]

    world.add_job(id="job", created_at=NOW - HOUR, status="running")
    world.add_checkpoint("job", id="ftckpt-1", step_number=1)
    account = Account("default", "key", host.base_url)
    run_sync(account, PostgreSql(), SyncOptions())
    connection = psycopg2.connect(postgres.credentials)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("CREATE VIEW fine_tuning.hangs_on_another AS SELECT account FROM fine_tuning.sync_history")
    cursor.execute("DROP VIEW fine_tuning.best_checkpoints CASCADE")
    cursor.execute("CREATE VIEW fine_tuning.best_checkpoints AS SELECT 1 AS old")
    world.add_checkpoint("job", id="ftckpt-2", step_number=2, metrics={"train_loss": 0.1, "new_metric": 1})
    clock.advance(60)
    run_sync(account, PostgreSql(), SyncOptions())
    assert postgres.rows("SELECT checkpoint_id FROM best_checkpoints") == [("ftckpt-2",)]
    assert postgres.rows("SELECT account FROM hangs_on_another") == [("default",)] * 2
    assert ("new_metric",) in postgres.rows("SELECT DISTINCT metric FROM training_curves")

    # What hangs on an old view is the user's: it is reported, and nothing of theirs is dropped.
    cursor.execute("DROP VIEW fine_tuning.best_checkpoints CASCADE")
    cursor.execute("CREATE VIEW fine_tuning.best_checkpoints AS SELECT 1 AS old")
    cursor.execute("CREATE VIEW fine_tuning.mine AS SELECT old FROM fine_tuning.best_checkpoints")
    result = run_sync(account, PostgreSql(), SyncOptions())
    assert result.is_incomplete, "3 with --strict"
    (warning,) = result.warnings
    assert re.search(r"the view best_checkpoints could not be made: .*mine depends on.*Drop or change what", warning)
    assert postgres.rows("SELECT * FROM mine") == [(1,)]
    assert len(postgres.rows("SELECT * FROM checkpoint_history")) == 2
    connection.close()
