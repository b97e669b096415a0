"""One history in every engine: equal rows, a state that only the destination holds, clear words where it is not set."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from command import Command, is_told_well
from engines import Engine
from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from fine_tuning_warehouse.errors import BusyError, UsageError
from fine_tuning_warehouse.maintain import maintain
from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from harness import DAY, HOUR, NOW, Database
from histories import add_history, assert_holds, truth_of

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["lakes"]


NEWER = 90 * 24
"""Numbers of jobs of `add_history` that are newer than the one that runs."""


def add_running_job(world: ScriptedWorld) -> None:
    """A job that goes on while it is synced."""
    world.add_job(id="ftjob-runs", created_at=NOW - HOUR, status="running")
    world.add_checkpoint("ftjob-runs", id="ftckpt-runs-1", step_number=1, metrics={"train_loss": 1.5})
    world.add_event("ftjob-runs", id="ftevent-runs-1", type="metrics", data={"step": 1, "train_loss": 1.5})


def change(world: ScriptedWorld, clock: Clock) -> None:
    """What may change between two syncs: a status, values, new columns, new jobs, a checkpoint that is dropped."""
    clock.advance(DAY)
    world.update_job("ftjob-runs", status="succeeded", finished_at=clock.now(), a_new_field={"deep": [1, None]})
    world.add_checkpoint("ftjob-runs", id="ftckpt-runs-2", step_number=2, metrics={"train_loss": 1, "Odd Metric": 0.5})
    world.add_event("ftjob-runs", id="ftevent-runs-2", type="message", message="Zürich 🎉", data={"new": 7})
    world.remove_checkpoint("ftckpt-runs-1")
    add_history(world, range(NEWER, NEWER + 3))


@pytest.mark.first_only
@pytest.mark.parametrize("name", ["postgres_engine", "lake", "bucket_lake"])
@pytest.mark.engine
def test_three_syncs_with_changes_give_the_rows_that_duckdb_has_for_the_same_requests(
    request: pytest.FixtureRequest, name: str, tmp_path: Path, world: ScriptedWorld, host: Simulator
) -> None:
    engine: Engine = request.getfixturevalue(name)
    clock = host.clock
    file = Engine(DuckDb(tmp_path / "warehouse.duckdb"), {})
    add_history(world, range(4))
    add_running_job(world)
    for number in range(3):
        counts = []
        for one in (file, engine):
            summary = one.sync(host)
            counts.append((summary.requests, summary.rows, len(host.requests)))
        assert counts[0] == counts[1], f"sync {number + 1}: the state came from elsewhere than the destination"
        expected, got = file.tables(), engine.tables()
        assert got.keys() == expected.keys()
        for table, rows in expected.items():
            assert got[table].schema == rows.schema, table
            assert got[table].to_pylist() == rows.to_pylist(), table
        if number == 0:
            change(world, clock)
        else:
            clock.advance(DAY)
    assert len(file.tables()["jobs"]) == 5 + 3
    assert counts[1][0] <= 4, "the last sync had next to nothing to read"


@pytest.mark.nightly
@pytest.mark.engine
def test_a_lake_of_some_tables_is_read_as_far_as_it_goes(lake: Engine, world: ScriptedWorld, host: Simulator) -> None:
    add_history(world, range(2))
    lake.sync(host, resources=("jobs",))
    assert {name: len(table) for name, table in lake.tables().items()} == {"jobs": 2, "rejected_records": 0}
    assert lake.folder is not None
    shutil.rmtree(lake.folder / "fine_tuning" / "rejected_records")
    assert set(lake.tables()) == {"jobs"}


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator) -> Command:
    """The command, with a key for the host."""
    return Command(tmp_path, host.base_url)


@pytest.mark.engine
def test_a_destination_that_is_not_set_up_is_exit_2_and_nothing_is_requested(host: Simulator, ftw: Command) -> None:
    pytest.importorskip("pyiceberg", reason="needs pyiceberg: uv run --group engines pytest")
    ended = ftw("sync", "--destination", "filesystem", "--table-format", "iceberg")
    assert ended.code == 2
    assert is_told_well(ended, "DESTINATION__FILESYSTEM__BUCKET_URL")
    assert host.requests == []


@pytest.mark.parametrize("command", [("check",), ("best",), ("views",), ("verify",), ("archive", "kept")])
@pytest.mark.engine
def test_every_command_says_what_a_destination_lacks(command: tuple[str, ...], ftw: Command) -> None:
    pytest.importorskip("pyiceberg", reason="needs pyiceberg: uv run --group engines pytest")
    ended = ftw(*command, "--destination", "filesystem", "--table-format", "iceberg")
    assert "DESTINATION__FILESYSTEM__BUCKET_URL" in ended.all
    if command == ("check",):
        assert ended.code == 1
    else:
        assert ended.code == 2
        assert is_told_well(ended)


@pytest.mark.first_only
@pytest.mark.parametrize(
    ("module", "where", "package"),
    [
        ("pyiceberg", ("filesystem", "--table-format", "iceberg"), "'fine-tuning-warehouse[lake]'"),
        ("deltalake", ("filesystem", "--table-format", "delta"), "'dlt[deltalake]'"),
        ("psycopg2", ("postgres",), "'dlt[postgres]'"),
    ],
    ids=["iceberg", "delta", "postgres"],
)
def test_a_package_that_is_missing_is_told_before_anything_is_requested(
    *, module: str, where: tuple[str, ...], package: str, host: Simulator, ftw: Command, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules['{module}'] = None\n")
    ftw.env["PYTHONPATH"] = str(tmp_path)
    ftw.env["DESTINATION__FILESYSTEM__BUCKET_URL"] = "lake"
    ftw.env["DESTINATION__POSTGRES__CREDENTIALS"] = "postgresql://postgres:any@127.0.0.1:1/none"
    for command in ("sync", "best"):
        ended = ftw(command, "--destination", *where)
        assert ended.code == 2
        assert is_told_well(ended, f"pip install {package}")
    assert host.requests == []
    assert not (ftw.folder / "lake").exists()


@pytest.mark.parametrize("name", ["postgres", "motherduck", "snowflake", "bigquery", "databricks", "clickhouse"])
@pytest.mark.thorough
def test_each_destination_says_what_it_lacks(name: str, host: Simulator, ftw: Command) -> None:
    ended = ftw("sync", "--destination", name)
    assert ended.code == 2
    package = f"dlt[{name}]"
    assert is_told_well(ended, package if package in ended.err else f"DESTINATION__{name.upper()}__CREDENTIALS")
    assert host.requests == []


@pytest.mark.engine
def test_wrong_credentials_are_told_without_them(host: Simulator, ftw: Command, postgres: Postgres) -> None:
    def sync(credentials: str) -> int:
        ended = ftw("sync", "--destination", "postgres", env={"DESTINATION__POSTGRES__CREDENTIALS": credentials})
        assert is_told_well(ended, "postgres")
        assert "word" not in ended.all
        return ended.code

    assert sync("secret-word") == 2
    assert sync(postgres.credentials.rpartition("/")[0].replace(":any@", ":secret-word@") + "/nowhere") == 1
    assert sync("postgresql://postgres:secret-word@127.0.0.1:1/none") == 1
    assert host.requests == []


@pytest.mark.engine
def test_a_bucket_that_is_not_there_is_told_and_not_made(host: Simulator, ftw: Command, bucket_lake: Engine) -> None:
    env = {**bucket_lake.env, "DESTINATION__FILESYSTEM__BUCKET_URL": "s3://nowhere-at-all/lake"}
    for _ in range(2):
        ended = ftw("sync", *bucket_lake.options, env=env)
        assert ended.code == 1
        assert is_told_well(ended, "no bucket nowhere-at-all")
    assert host.requests == []
    checked = ftw("check", *bucket_lake.options, env=env)
    assert checked.code == 1
    assert "no bucket nowhere-at-all" in checked.out


def test_a_destination_that_cannot_merge_is_refused(host: Simulator, ftw: Command, tmp_path: Path) -> None:
    env = {"DESTINATION__FILESYSTEM__BUCKET_URL": str(tmp_path / "lake")}
    ended = ftw("sync", "--destination", "athena", "--table-format", "delta", env=env)
    assert ended.code == 2
    assert host.requests == []


@pytest.mark.nightly
def test_a_table_that_was_dropped_is_made_anew_by_a_full_refresh(
    world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    assert_is_made_anew(Engine(DuckDb(database.path), {}), world, host, database.execute)


@pytest.mark.nightly
@pytest.mark.engine
def test_in_postgresql_too_and_staging_tables_may_be_dropped_at_any_time(
    world: ScriptedWorld, host: Simulator, postgres: Postgres, postgres_engine: Engine
) -> None:
    assert_is_made_anew(postgres_engine, world, host, postgres.execute)
    assert_is_described(postgres)
    written = "SELECT objsubid, xmin::text FROM pg_description WHERE objoid = 'fine_tuning.jobs'::regclass ORDER BY 1"
    before = postgres.rows(written)
    postgres.execute("DROP SCHEMA fine_tuning_staging CASCADE")
    add_history(world, [4])
    postgres_engine.sync(host)
    assert postgres.rows(written) == before, "what is described already is not described again"
    assert_holds(postgres_engine.rows, truth_of(world))


def assert_is_described(postgres: Postgres) -> None:
    """Assert that every table and column of ours has its comment in the database."""
    expected = {(table.name, column.name): column.description for table in TABLES.values() for column in table.columns}
    found = postgres.rows(
        "SELECT c.relname, a.attname, col_description(c.oid, a.attnum), obj_description(c.oid) FROM pg_class AS c "
        "JOIN pg_attribute AS a ON a.attrelid = c.oid WHERE c.relnamespace = 'fine_tuning'::regnamespace "
        "AND c.relkind = 'r' AND a.attnum > 0"
    )
    columns = {(table, column): comment for table, column, comment, _ in found}
    there = {table for table, _ in columns} & set(TABLES)
    assert there >= {"jobs", "checkpoints", "events", "result_metrics", "syncs"}
    assert {key: columns.get(key) for key in expected if key[0] in there} == {
        key: description for key, description in expected.items() if key[0] in there
    }
    assert all(comment for table, _, _, comment in found if table in there)


def assert_is_made_anew(
    engine: Engine, world: ScriptedWorld, host: Simulator, execute: Callable[[str], object]
) -> None:
    """Drop a table, and the one with the state, and sync."""
    add_history(world, range(2))
    engine.sync(host)
    for number, table in enumerate(("events", "_dlt_pipeline_state"), start=2):
        execute(f"DROP TABLE fine_tuning.{table} CASCADE")
        add_history(world, [number])
        engine.sync(host)
        assert_holds(engine.rows, truth_of(world))
        assert engine.sync(host).requests == 1


@pytest.mark.nightly
@pytest.mark.engine
def test_a_role_that_may_not_load_is_told_what_to_be_granted_before_anything_is_requested(
    world: ScriptedWorld, host: Simulator, ftw: Command, postgres: Postgres
) -> None:
    add_history(world, range(1))
    name = f"loader-{postgres.credentials.rpartition('_')[2]}"  # a name that SQL takes in quotes
    postgres.execute(f'CREATE ROLE "{name}" LOGIN')
    own = {"DESTINATION__POSTGRES__CREDENTIALS": postgres.credentials.replace("postgres:any@", f"{name}:any@")}
    where = ("--destination", "postgres")

    def refused() -> list[str]:
        """The GRANTs that check and sync name; both the same, and neither leaves anything behind."""
        before, schemas = len(host.requests), postgres.rows("SELECT nspname FROM pg_namespace")
        synced = ftw("sync", *where, env=own)
        assert synced.code == 1
        assert is_told_well(synced, f"The role {name} may not load into postgres (dataset fine_tuning)")
        assert len(host.requests) == before
        checked = ftw("check", *where, env=own)
        assert checked.code == 1
        (line,) = [line for line in checked.out.splitlines() if "FAILED" in line]
        assert line.startswith("FAILED  destination")
        assert line.partition("The role")[2] == synced.err.strip().partition("The role")[2]
        assert postgres.rows("SELECT nspname FROM pg_namespace") == schemas
        return re.findall(r"GRANT [^;]*;", synced.err)

    def grant(statements: list[str], *, expected: list[str]) -> None:
        assert [statement.rpartition(" TO ")[0] for statement in statements] == expected
        for statement in statements:
            postgres.execute(statement)

    database = postgres.credentials.rpartition("/")[2]
    grant(refused(), expected=[f"GRANT CREATE ON DATABASE {database}"])
    assert ftw("sync", *where, env=own).code == 0, "and that was all it lacked"

    postgres.execute("DROP SCHEMA fine_tuning CASCADE; DROP SCHEMA fine_tuning_staging CASCADE")
    postgres.execute(f'REVOKE CREATE ON DATABASE {database} FROM "{name}"')
    postgres.execute("CREATE SCHEMA fine_tuning; CREATE SCHEMA fine_tuning_staging")
    both = ["fine_tuning", "fine_tuning_staging"]
    grant(refused(), expected=[f"GRANT USAGE, CREATE ON SCHEMA {schema}" for schema in both])
    checked = ftw("check", *where, env=own)
    assert (checked.code, "postgres (dataset fine_tuning) can be written" in checked.out) == (0, True)

    owner = {"DESTINATION__POSTGRES__CREDENTIALS": postgres.credentials}
    assert ftw("sync", *where, env=owner).code == 0, "the owner of the database"
    tables = "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA"
    grant(refused(), expected=[f"{tables} {schema}" for schema in both])
    add_history(world, range(1, 2))
    postgres.execute("COMMENT ON TABLE fine_tuning.jobs IS 'Of the owner'")
    done = ftw("sync", *where, env=own)
    assert done.code == 0, "comments are the owner's to make, and no failure of a sync"
    assert done.err == ""
    assert postgres.rows("SELECT count(*), obj_description('fine_tuning.jobs'::regclass) FROM jobs") == [
        (2, "Of the owner")
    ]
    world.update_job("ftjob-001", a_new_field=1)
    column = ftw("sync", *where, "--full-refresh", env=own)
    assert column.code == 1
    assert is_told_well(column, "must be owner", "must own the tables")


@pytest.mark.engine
def test_accounts_share_one_staging_schema_since_their_loads_take_turns(
    world: ScriptedWorld, host: Simulator, postgres: Postgres, postgres_engine: Engine
) -> None:
    """dlt empties them at the start of a load: two accounts at once would empty each other's."""
    add_history(world, range(2))
    for account in ("default", "research"):
        postgres_engine.sync(host, account)
    schemas = postgres.rows("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fine%' ORDER BY 1")
    assert schemas == [("fine_tuning",), ("fine_tuning_staging",)]
    assert postgres.rows("SELECT account, count(*) FROM jobs GROUP BY 1 ORDER BY 1") == [
        ("default", 2),
        ("research", 2),
    ]


@pytest.mark.nightly
@pytest.mark.engine
@pytest.mark.timeout(300)
def test_a_lake_without_a_catalog_is_an_error_that_names_the_settings_and_its_tables_are_taken_into_one(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, lake: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_history(world, range(2))
    lake.sync(host)
    (tmp_path / "catalog.db").unlink()  # as an earlier release left it: tables, and no catalog
    with monkeypatch.context() as without:
        without.delenv("ICEBERG_CATALOG__ICEBERG_CATALOG_CONFIG")
        for step in (lake.tables, lambda: lake.sync(host)):
            with pytest.raises(UsageError, match="ICEBERG_CATALOG__ICEBERG_CATALOG_CONFIG"):
                step()
    add_history(world, range(2, 4))
    world.update_job("ftjob-003", a_new_field="new")
    lake.sync(host)
    assert_holds(lake.rows, truth_of(world))
    assert len(list(maintain(lake.warehouse, keep_seconds=0.001))) == len(TABLES)
    assert_holds(lake.rows, truth_of(world))
    assert lake.sync(host).requests == 1


@pytest.mark.nightly
@pytest.mark.engine
@pytest.mark.timeout(300)
def test_two_syncs_of_one_account_at_once_bring_every_row_of_a_lake_once(
    world: ScriptedWorld, host: Simulator, ftw: Command, lake: Engine
) -> None:
    add_history(world, range(6))
    ftw.env.update(lake.env)
    arguments = ("sync", *lake.options, "--lock-wait", "100")
    with ftw.start(*arguments) as first, ftw.start(*arguments) as second:
        ended = [one.end(120) for one in (first, second)]
    assert [(one.code, one.err) for one in ended if one.code] == []
    assert_holds(lake.rows, truth_of(world))


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_postgresql_gets_indexes_views_with_the_rights_of_who_asks_and_keeps_grants(
    world: ScriptedWorld, host: Simulator, postgres: Postgres, postgres_engine: Engine
) -> None:
    add_history(world, range(2))
    postgres_engine.sync(host, resources=("jobs", "checkpoints"))
    role = f"analyst_{postgres.credentials.rpartition('/')[2]}"
    postgres.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA fine_tuning TO {role}")
    postgres.execute(
        f"GRANT SELECT ON fine_tuning.job_overview TO {role}; GRANT SELECT ON fine_tuning.job_overview TO PUBLIC"
    )
    # a column that a later version no longer has: the view cannot be replaced, and is dropped and made
    postgres.execute(
        "DROP VIEW fine_tuning.job_overview CASCADE; CREATE VIEW fine_tuning.job_overview AS SELECT 1 AS former"
    )
    postgres.execute(
        f"GRANT SELECT ON fine_tuning.job_overview TO {role}; GRANT SELECT ON fine_tuning.job_overview TO PUBLIC"
    )
    postgres_engine.sync(host)
    assert postgres.rows("SELECT count(*) FROM job_overview") == [(2,)]
    assert postgres.rows(f"SELECT has_table_privilege('{role}', 'fine_tuning.job_overview', 'SELECT')") == [(True,)]
    ((options,),) = postgres.rows("SELECT reloptions FROM pg_class WHERE oid = 'fine_tuning.job_overview'::regclass")
    assert options == ["security_invoker=true"]
    indexes = {name for (name,) in postgres.rows("SELECT indexname FROM pg_indexes WHERE schemaname = 'fine_tuning'")}
    assert {"jobs_key", "events_key", "events_by_job", "checkpoints_by_job", "result_metrics_key"} <= indexes
    postgres_engine.sync(host, full_refresh=True)
    assert_holds(postgres.rows, truth_of(world))


@pytest.mark.engine
@pytest.mark.timeout(300)
@pytest.mark.parametrize("table", ["checkpoints", "_dlt_loads"])
def test_who_holds_a_table_in_postgresql_is_named_after_the_lock_wait(
    world: ScriptedWorld, host: Simulator, postgres: Postgres, postgres_engine: Engine, table: str
) -> None:
    import psycopg2  # type: ignore[import-untyped,unused-ignore]

    add_history(world, range(2))
    postgres_engine.sync(host)
    add_history(world, range(2, 4))
    holder = psycopg2.connect(postgres.credentials)
    try:
        with holder.cursor() as cursor:
            cursor.execute(f"LOCK TABLE fine_tuning.{table} IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(BusyError, match=f"process {holder.get_backend_pid()} of the server.*{table}"):
                postgres_engine.sync(host, lock_wait_seconds=0.5)
    finally:
        holder.close()
    postgres_engine.sync(host)
    assert_holds(postgres.rows, truth_of(world))
