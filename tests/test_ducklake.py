"""DuckLake with a catalog in SQLite, in DuckDB and in PostgreSQL, its files in a folder and in a bucket."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import duckdb
import pytest

from command import Command, wait_until
from engines import Engine
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.errors import UsageError
from fine_tuning_warehouse.maintain import maintain
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.duckdb_extensions import load_extensions
from fine_tuning_warehouse.warehouses.ducklake import DuckLake
from histories import add_history, assert_holds, truth_of

if TYPE_CHECKING:
    from bucket import Bucket
    from postgres import Postgres

pytest_plugins = ["lakes"]


@contextmanager
def reading(lake: Engine, folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection over a lake that only reads."""
    assert isinstance(lake.warehouse, DuckLake)
    with ExitStack() as stack:
        connection = lake.warehouse.connect(folder, stack)
        connection.execute("SET enable_external_access = false")
        connection.execute("USE lake.fine_tuning")
        yield connection


in_sqlite = pytest.mark.parametrize("ducklake", ["sqlite"], indirect=True)
"""With a catalog in SQLite and the files in a folder."""


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator) -> Command:
    """The command, with a key for the host."""
    return Command(tmp_path, host.base_url)


@pytest.mark.first_only
@pytest.mark.timeout(300)
@pytest.mark.engine
def test_a_lake_holds_what_a_duckdb_file_holds(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ducklake: Engine
) -> None:
    file = Engine(DuckDb(tmp_path / "warehouse.duckdb"), {})
    add_history(world, range(4))
    assert ducklake.sync(host).rows == file.sync(host).rows
    assert ducklake.tables() == file.tables()
    world.update_job("ftjob-003", a_new_field="new")
    add_history(world, range(4, 6))
    ducklake.sync(host)
    file.sync(host)
    assert ducklake.tables() == file.tables()
    assert_holds(ducklake.rows, truth_of(world))
    assert ducklake.sync(host).requests == 1


@in_sqlite
def test_plain_duckdb_attaches_it_and_reads_tables_views_and_comments_after_one_snapshot_a_sync(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ducklake: Engine
) -> None:
    add_history(world, range(3))
    for _ in range(2):
        ducklake.sync(host)
    with duckdb.connect() as connection:
        for statement in load_extensions(["ducklake", "sqlite_scanner"]):
            connection.execute(statement)
        connection.execute(f"ATTACH 'ducklake:sqlite:{tmp_path}/catalog.sqlite' AS lake (READ_ONLY)")
        connection.execute("USE lake.fine_tuning")
        assert connection.execute("SELECT count(*) FROM jobs").fetchall() == [(3,)]
        assert len(connection.execute("SELECT reason FROM best_checkpoints").fetchall()) == 3
        comments = connection.execute("SELECT comment FROM duckdb_tables() WHERE table_name = 'jobs'").fetchall()
        assert comments[0][0]
        comments = connection.execute("SELECT comment FROM duckdb_views() WHERE view_name = 'job_overview'").fetchall()
        assert comments[0][0]
        snapshots = connection.execute("SELECT count(*) FROM ducklake_snapshots('lake')").fetchone()
    assert snapshots == (4,), "an empty lake, two loads, and the views and comments after the first"


@pytest.mark.nightly
@pytest.mark.engine
@pytest.mark.timeout(200)
@pytest.mark.parametrize("ducklake", ["postgres-s3"], indirect=True)
def test_plain_duckdb_attaches_one_with_a_catalog_in_postgresql_and_its_files_in_a_bucket(
    world: ScriptedWorld, host: Simulator, ducklake: Engine, postgres: Postgres, bucket: Bucket
) -> None:
    add_history(world, range(12))
    ducklake.sync(host)
    endpoint = bucket.env["AWS_ENDPOINT_URL"].removeprefix("http://")
    with duckdb.connect() as connection:
        for statement in load_extensions(["ducklake", "postgres_scanner", "httpfs"]):
            connection.execute(statement)
        connection.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID 'any', SECRET 'any-secret', REGION 'us-east-1', ENDPOINT '{endpoint}', "
            "URL_STYLE 'path', USE_SSL false)"
        )
        connection.execute(
            f"ATTACH 'ducklake:postgres:{postgres.credentials}' AS lake (READ_ONLY, METADATA_SCHEMA 'ducklake')"
        )
        connection.execute("USE lake.fine_tuning")
        assert connection.execute("SELECT count(*) FROM jobs").fetchall() == [(12,)]
        assert connection.execute("SELECT count(*) FROM best_checkpoints").fetchall() == [(12,)]


@in_sqlite
def test_a_connection_over_it_reads_and_does_nothing_else(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ducklake: Engine
) -> None:
    add_history(world, range(2))
    ducklake.sync(host)
    with reading(ducklake, tmp_path) as connection:
        assert connection.execute("SELECT count(*) FROM job_overview").fetchall() == [(2,)]
        for refused in ("DELETE FROM jobs", "CREATE TABLE another (i INT)", "FROM read_text('/etc/hostname')"):
            with pytest.raises(duckdb.Error):
                connection.execute(refused)


@pytest.mark.nightly
@in_sqlite
def test_a_query_shows_which_tables_there_are(
    world: ScriptedWorld, host: Simulator, ftw: Command, ducklake: Engine
) -> None:
    ftw.env.update(ducklake.env)
    add_history(world, range(1))
    ducklake.sync(host)
    for sql in ("SHOW TABLES", "DESCRIBE ;", "SELECT table_name FROM information_schema.tables"):
        ended = ftw("query", sql, *ducklake.options, "--output", "csv")
        assert ended.code == 0, ended.err
        assert "checkpoints" in ended.out, sql
        assert "best_checkpoints" in ended.out, sql


@in_sqlite
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CREDENTIALS", "ducklake:catalog.sqlite", "CREDENTIALS__CATALOG"),
        ("CREDENTIALS__CATALOGUE", "sqlite:///catalog.sqlite", "would be ignored"),
        ("STORAGE__BUCKET_URL", "files", "would be ignored"),
        ("CREDENTIALS__STORAGE__BUCKETURL", "files", "would be ignored"),
        ("CREDENTIALS__STORAGE__CREDENTIAL__AWS_ACCESS_KEY_ID", "key", "would be ignored"),
        ("CREDENTIALS__STORAGE__CREDENTIALS__AWS_ACCESS_KEY", "key", "would be ignored"),
        ("CREDENTIALS__CATALOG", "mysql://user@host/catalog", "not supported"),
        ("CREDENTIALS__CATALOG", "catalog.sqlite", "expected postgres://"),
        ("CREDENTIALS__CATALOG", "sqlite://", "sqlite:///FILE"),
        ("CREDENTIALS__CATALOG", "postgres://user:password@host:port/catalog", "cannot be read"),
        ("CREDENTIALS__CATALOG", "duckdb:///:memory:", "a file"),
        ("CREDENTIALS__CATALOG", "", "is not set up"),
        ("CREDENTIALS__STORAGE__BUCKET_URL", "", "is not set up"),
    ],
)
def test_a_setting_that_dlt_ignores_is_an_error_that_names_it(
    *, tmp_path: Path, ducklake: Engine, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"DESTINATION__DUCKLAKE__{name}", value)
    with pytest.raises(UsageError, match=words) as raised:
        ducklake.warehouse.exists()
    assert f"DESTINATION__DUCKLAKE__{name}" in str(raised.value)
    assert not list(tmp_path.glob("*ducklake*"))


@in_sqlite
def test_a_setting_that_is_missing_is_an_error_and_nothing_is_made_up(
    tmp_path: Path, ducklake: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DESTINATION__DUCKLAKE__CREDENTIALS__STORAGE__BUCKET_URL")
    with pytest.raises(UsageError, match="set DESTINATION__DUCKLAKE__CREDENTIALS__STORAGE__BUCKET_URL"):
        DuckLake().exists()
    assert not list(tmp_path.glob("*ducklake*"))


@in_sqlite
def test_a_setting_in_a_file_that_dlt_ignores_is_an_error_too(
    *, tmp_path: Path, ducklake: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DESTINATION__DUCKLAKE__CREDENTIALS__CATALOG")
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "secrets.toml").write_text(
        f'[destination.ducklake.credentials]\ncatalog = "sqlite:///{tmp_path}/catalog.sqlite"\ncatalogue = "another"\n'
    )
    ftw = Command(tmp_path)
    ftw.folder = tmp_path
    ended = ftw("best", "--destination", "ducklake", env=ducklake.env | {next(iter(ducklake.env)): None})
    assert ended.code == 2
    assert "DESTINATION__DUCKLAKE__CREDENTIALS__CATALOGUE is not a setting" in ended.err


@in_sqlite
def test_a_bucket_without_its_credentials_and_a_file_in_place_of_a_folder_are_told_before_anything_is_read(
    tmp_path: Path, host: Simulator, ftw: Command, ducklake: Engine
) -> None:
    storage = "DESTINATION__DUCKLAKE__CREDENTIALS__STORAGE__"
    ended = ftw("sync", *ducklake.options, env={**ducklake.env, f"{storage}BUCKET_URL": "s3://bucket/lake"})
    assert ended.code == 2
    assert f"{storage}CREDENTIALS__AWS_ACCESS_KEY_ID" in ended.err
    assert "LOCAL_DIR" not in ended.err
    (tmp_path / "file").write_text("")
    ended = ftw("sync", *ducklake.options, env={**ducklake.env, f"{storage}BUCKET_URL": str(tmp_path / "file")})
    assert ended.code == 1
    assert "cannot be written" in ended.err
    assert host.requests == []


@pytest.mark.first_only
@pytest.mark.timeout(400)
@pytest.mark.engine
@pytest.mark.parametrize("ducklake", ["sqlite", "duckdb", "postgres"], indirect=True)
def test_two_syncs_at_once_bring_every_row_once(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ftw: Command, ducklake: Engine
) -> None:
    ftw.env.update(ducklake.env)
    add_history(world, range(6))
    arguments = ("sync", *ducklake.options, "--lock-wait", "90", "--account")
    with (
        ftw.start(*arguments, "one") as first,
        ftw.start(*arguments, "one") as second,
        ftw.start(*arguments, "two") as third,
    ):
        assert [one.end(100).code for one in (first, second, third)] == [0, 0, 0]
    with reading(ducklake, tmp_path) as connection:
        counted = connection.execute("SELECT account, count(*), count(DISTINCT id) FROM events GROUP BY 1 ORDER BY 1")
        assert [(label, rows == distinct) for label, rows, distinct in counted.fetchall()] == [
            ("one", True),
            ("two", True),
        ]
    for table in ("jobs", "checkpoints", "events"):
        assert ducklake.rows(f"SELECT count(*) FROM {table} WHERE account = 'one'") == ducklake.rows(
            f"SELECT count(*) FROM {table} WHERE account = 'two'"
        )
    host.requests.clear()
    host.latency = 30
    with ftw.start(*arguments, "one") as first:
        wait_until(lambda: host.requests)
        late = ftw("sync", *ducklake.options, "--lock-wait", "1", "--account", "one")
        assert late.code == 75
        assert "account one" in late.err
        first.signal(signal.SIGKILL)
        first.end()
    host.latency = 0
    assert ftw(*arguments, "one").code == 0, "a lock ends with its process"


@pytest.mark.first_only
@pytest.mark.timeout(300)
@pytest.mark.engine
@pytest.mark.parametrize("ducklake", ["sqlite", "postgres-s3"], indirect=True)
def test_maintenance_merges_files_and_expires_snapshots_beside_a_reader_and_the_next_sync_goes_on(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ducklake: Engine
) -> None:
    for number in range(2):
        add_history(world, [number])
        ducklake.sync(host)
    before = ducklake.tables()
    with reading(ducklake, tmp_path) as reader:
        lines = list(maintain(ducklake.warehouse, keep_seconds=0.001))
        assert len(lines) == 6
        assert reader.execute("SELECT count(*) FROM jobs").fetchall() == [(2,)]
    assert ducklake.tables() == before
    with reading(ducklake, tmp_path) as connection:
        assert connection.execute("SELECT count(*) FROM ducklake_snapshots('lake')").fetchall() == [(1,)]
        files = connection.execute("SELECT file_count FROM ducklake_table_info('lake')").fetchall()
        assert max(count for (count,) in files) <= 1
    add_history(world, [2])
    ducklake.sync(host)
    assert_holds(ducklake.rows, truth_of(world))


@pytest.mark.nightly
@pytest.mark.engine
@pytest.mark.timeout(200)
@pytest.mark.parametrize("ducklake", ["postgres"], indirect=True)
def test_a_sync_goes_on_where_the_server_of_the_catalog_closes_idle_connections(
    world: ScriptedWorld, host: Simulator, ftw: Command, ducklake: Engine, postgres: Postgres
) -> None:
    name = postgres.credentials.rpartition("/")[2]
    url = postgres.credentials.replace(":any@", f":{quote('a b@c/d:e%f', safe='')}@")
    ftw.env.update(ducklake.env, DESTINATION__DUCKLAKE__CREDENTIALS__CATALOG=url)
    ftw.env["DESTINATION__DUCKLAKE__CREDENTIALS__STORAGE__BUCKET_URL"] = "it's here"
    add_history(world, range(2))
    host.latency = 1
    with ftw.start("sync", *ducklake.options) as running:
        wait_until(lambda: host.requests)
        ended = "pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname"
        postgres.execute(f"SELECT {ended} = '{name}'")
        done = running.end()
    assert done.code == 0, done.all
    host.latency = 0
    postgres.execute(f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '1ms'")
    add_history(world, range(2, 4))
    done = ftw("sync", *ducklake.options)
    assert done.code == 1, "a load cannot be done, and the process does not abort"
    assert "idle_in_transaction_session_timeout" in done.err
    assert "a b" not in done.err
    postgres.execute(f"ALTER DATABASE {name} RESET idle_in_transaction_session_timeout")
    assert ftw("sync", *ducklake.options).code == 0
    assert ftw("verify", *ducklake.options).code == 0


@pytest.mark.nightly
@in_sqlite
def test_what_failed_is_named_and_not_that_the_transaction_is_aborted(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ftw: Command, ducklake: Engine
) -> None:
    ftw.env.update(ducklake.env)
    add_history(world, range(20), children=1)
    (tmp_path / "files" / "fine_tuning_staging").mkdir(parents=True)
    (tmp_path / "files" / "fine_tuning_staging" / "jobs").write_text("in the place of a folder")
    ended = ftw("sync", *ducklake.options)
    assert ended.code == 1
    assert "files/fine_tuning_staging/jobs" in ended.err
    assert "aborted" not in ended.err
    (tmp_path / "files" / "fine_tuning_staging" / "jobs").unlink()
    assert ftw("sync", *ducklake.options).code == 0
    assert_holds(ducklake.rows, truth_of(world, children=1))
    for file in (tmp_path / "files" / "fine_tuning" / "events").glob("*.parquet"):
        file.write_bytes(b"no longer Parquet")
    for command in (["query", "FROM events"], ["verify"], ["archive", "archive", "--no-sync"]):
        ended = ftw(*command, *ducklake.options)
        assert ended.code == 1
        assert "cannot be read" in ended.err
        assert "Traceback" not in ended.err
        assert "arrow_scan" not in ended.err


KILLED = {
    "in a load": ("dlt.destinations.impl.duckdb.duck", "DuckDbCopyJob.run"),
    "before the commit": ("dlt.destinations.job_client_impl", "SqlJobClientBase.complete_load"),
    "after the load": ("fine_tuning_warehouse.warehouses.comments", "write_comments"),
}
"""Where a sync is killed: a function, before which the process ends itself."""


@pytest.mark.first_only
@pytest.mark.timeout(400)
@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize("ducklake", ["sqlite", "postgres-s3"], indirect=True)
def test_a_sync_that_is_killed_at_any_point_is_made_whole_by_the_next_one(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ducklake: Engine
) -> None:
    for number, (module, function) in enumerate(KILLED.values()):
        add_history(world, [2 * number, 2 * number + 1])
        script = f"""
import os, signal
from importlib import import_module
*owners, name = {function!r}.split(".")
owner = import_module({module!r})
for one in owners:
    owner = getattr(owner, one)
setattr(owner, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.ducklake import DuckLake
run_sync(Account("default", "key", {host.base_url!r}), DuckLake(), SyncOptions())
"""
        ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False, timeout=200)
        assert ended.returncode == -signal.SIGKILL, function
        ducklake.sync(host)
        assert_holds(ducklake.rows, truth_of(world))
