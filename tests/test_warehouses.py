"""`ftw check`, `verify` and `best` on what is no DuckDB file: a PostgreSQL server, and lakes."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from catalogs import catalog_env
from command import HOUR, NOW, Command, is_told_well
from engines import Engine
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.best import best_checkpoints
from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.verify import verify
from fine_tuning_warehouse.warehouses import dlt_seam
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.errors import destination_errors
from fine_tuning_warehouse.warehouses.iceberg import Iceberg
from fine_tuning_warehouse.warehouses.other import OtherDestination
from fine_tuning_warehouse.warehouses.preflight import merge_hints
from histories import add_history, assert_holds, truth_of

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["postgres"]


@pytest.fixture
def ftw(tmp_path: Path, world: ScriptedWorld, host: Simulator) -> Command:
    """The command, and a host with three jobs that ended and one that runs."""
    add_history(world, range(3))
    world.add_job(id="ftjob-runs", created_at=NOW - HOUR, status="running", finished_at=None)
    return Command(tmp_path, host.base_url)


def _without_times(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of `best_checkpoints` without the time of the listing, which two warehouses cannot share."""
    return [{name: value for name, value in row.items() if name != "listed_at"} for row in rows]


def assert_is_read_as_duckdb_is(ftw: Command, world: ScriptedWorld, *where: str) -> None:
    """Check, sync, verify and ask for the best on a warehouse, and compare with DuckDB."""
    before = ftw("best", *where)
    assert before.code == 1
    assert is_told_well(before, "holds no view best_checkpoints", "ftw sync")
    unsynced = ftw("verify", *where)
    assert unsynced.code == 1
    assert is_told_well(unsynced, "holds no sync of account default", "ftw sync")
    checked = ftw("check", *where)
    assert (checked.code, checked.err) == (0, "")
    assert "destination" in checked.out
    assert ftw("sync", *where).code == 0
    assert ftw("sync").code == 0

    verified = ftw("verify", *where, "--output", "json")
    assert (verified.code, verified.err) == (0, "")
    assert (verified.json["status"], verified.json["findings"]) == ("equal", [])
    assert verified.json["equal"] == ftw("verify", "--output", "json").json["equal"]
    model = world.add_checkpoint("ftjob-001", id="ftckpt-late", step_number=7)["fine_tuned_model_checkpoint"]
    world.update_job("ftjob-002", user_provided_suffix="changed")
    differs = ftw("verify", *where, "--output", "json")
    assert differs.code == 4
    assert sorted((one["table"], one["key"], one["verdict"]) for one in differs.json["findings"]) == [
        ("checkpoints", "ftckpt-late", "missing"),
        ("jobs", "ftjob-002", "different"),
        ("models", model, "pending"),
    ]

    for more in ((), ("--job", "ftjob-001"), ("--account", "default")):
        best = ftw("best", *where, *more, "--output", "json")
        assert (best.code, best.err) == (0, "")
        assert best.json
        assert _without_times(best.json) == _without_times(ftw("best", *more, "--output", "json").json)
    running = ftw("best", *where, "--job", "ftjob-runs")
    assert running.code == 1
    assert is_told_well(running, "ftjob-runs has no checkpoints (it is running)")


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_postgresql_is_read_as_duckdb_is(ftw: Command, world: ScriptedWorld, postgres: Postgres) -> None:
    ftw.env["DESTINATION__POSTGRES__CREDENTIALS"] = postgres.credentials
    assert_is_read_as_duckdb_is(ftw, world, "--destination", "postgres")
    other = ("--destination", "postgres", "--dataset", "other")
    assert is_told_well(ftw("best", *other), "postgres (dataset other) holds no view")
    nowhere = "postgresql://postgres:secret-word@127.0.0.1:1/none"
    no_database = postgres.credentials.replace("postgres:any@", "postgres:secret-word@").replace("/test_", "/none_")
    nobody = postgres.credentials.replace("postgres:any@", "nobody:secret-word@")
    for command, credentials in (
        ("best", nowhere),
        ("best", no_database),
        ("verify", nobody),
        ("check", no_database),
        ("check", "postgresql://postgres:secret-word@127.0.0.1:many/none"),
    ):
        failed = ftw(command, "--destination", "postgres", env={"DESTINATION__POSTGRES__CREDENTIALS": credentials})
        assert failed.code == 1
        assert "Traceback" not in failed.all
        assert "secret-word" not in failed.all
        assert "postgres" in failed.all


def test_a_destination_that_cannot_merge_is_refused(tmp_path: Path) -> None:
    for warehouse, words in (
        (Iceberg(table_format=None), "cannot merge rows as it is set; with --table-format"),
        (Iceberg(table_format="hudi"), "has no tables in hudi: it has"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match=words):
            merge_hints(warehouse, warehouse.pipeline(tmp_path / str(warehouse.table_format)))


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of a lake whose catalog does not exist yet."""
    pytest.importorskip("pyiceberg")
    for name, value in catalog_env(tmp_path / "catalog.db", (tmp_path / "lake").as_uri()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", (tmp_path / "lake").as_uri())


@pytest.mark.usefixtures("catalog")
def test_a_catalog_that_another_sync_is_just_making_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, real = [], dlt_seam.has_catalog

    def has_catalog(client: Any) -> bool:
        opened.append(1)
        if len(opened) == 1:
            raise RuntimeError("(sqlite3.OperationalError) table iceberg_tables already exists")
        return real(client)

    monkeypatch.setattr(dlt_seam, "has_catalog", has_catalog)
    warehouse = Iceberg()
    warehouse.preflight(warehouse.pipeline(tmp_path / "pipeline"))
    assert len(opened) == 2


@pytest.mark.usefixtures("catalog")
def test_a_namespace_that_another_sync_makes_in_between_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyiceberg.catalog.sql import SqlCatalog

    warehouse = Iceberg()
    warehouse.preflight(warehouse.pipeline(tmp_path / "another"))
    asked, real = [], SqlCatalog.namespace_exists

    def namespace_exists(self: SqlCatalog, identifier: str) -> bool:
        asked.append(identifier)
        return len(asked) > 1 and real(self, identifier)

    monkeypatch.setattr(SqlCatalog, "namespace_exists", namespace_exists)
    warehouse.preflight(warehouse.pipeline(tmp_path / "pipeline"))
    assert len(asked) == 2


@pytest.mark.nightly
@pytest.mark.engine
def test_an_engine_that_no_view_is_written_for_is_read_as_duckdb_is(
    world: ScriptedWorld, host: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite through SQLAlchemy stands for them: the views are computed, and its times come as text."""
    pytest.importorskip("sqlalchemy", reason="needs SQLAlchemy: uv run --group engines pytest")
    add_history(world, range(3))
    monkeypatch.setenv("DESTINATION__SQLALCHEMY__CREDENTIALS", f"sqlite:///{tmp_path}/warehouse.db")
    engine = Engine(OtherDestination("sqlalchemy"), {})
    file = Engine(DuckDb(tmp_path / "warehouse.duckdb"), {})
    assert engine.sync(host).rows == file.sync(host).rows
    assert engine.tables() == file.tables()
    comparison = verify(Account("default", "key", host.base_url), engine.warehouse)
    assert (comparison.findings, comparison.equal["events"]) == ([], 9)
    (columns, best, _), (same_columns, same, _) = (best_checkpoints(one.warehouse) for one in (engine, file))
    assert columns == same_columns
    assert len(best) == 3
    assert _without_times(best) == _without_times(same)


@pytest.mark.nightly
@pytest.mark.engine
@pytest.mark.timeout(300)
def test_a_lake_is_read_as_duckdb_is(ftw: Command, world: ScriptedWorld, tmp_path: Path) -> None:
    if importlib.util.find_spec("pyiceberg") is None:
        pytest.skip("needs pyiceberg: uv run --group engines pytest")
    ftw.env["DESTINATION__FILESYSTEM__BUCKET_URL"] = (tmp_path / "lake").as_uri()
    ftw.env.update(catalog_env(tmp_path / "catalog.db", (tmp_path / "lake").as_uri()))
    where = ("--destination", "filesystem", "--table-format")
    assert_is_read_as_duckdb_is(ftw, world, *where, "iceberg")
    for command in ("best", "verify"):
        other = ftw(command, *where, "delta")
        assert other.code == 1
        assert is_told_well(other, "in the format delta", "--table-format")
    plain = ftw("best", "--destination", "filesystem")
    assert plain.code == 2
    assert is_told_well(plain, "--table-format")


@pytest.mark.thorough
def test_maintenance_of_a_file_writes_its_log_into_it(tmp_path: Path, world: ScriptedWorld, host: Simulator) -> None:
    add_history(world, range(2))
    ftw = Command(tmp_path, host.base_url)
    assert ftw("maintain").code == 1, "there is no database yet"
    assert ftw("sync").code == 0
    with duckdb.connect(str(ftw.database)) as connection:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("CREATE TABLE another AS FROM range(1000)")
    log = ftw.database.with_name(f"{ftw.database.name}.wal")
    assert log.is_file()
    ended = ftw("maintain")
    assert ended.code == 0, ended.all
    assert "checkpoint" in ended.out
    assert not log.exists()
    assert ftw("maintain", "--keep", "soon").code == 2
    for wait in ("0", "1.5", "2s"):
        assert ftw("maintain", "--keep", "0s", "--lock-wait", wait).code == 0
        assert ftw("sync", "--lock-wait", wait).code == 0
    assert_holds(ftw.rows, truth_of(world))


def test_a_file_of_a_later_duckdb_is_named_as_such_with_the_way_out(tmp_path: Path) -> None:
    def step() -> None:
        raise duckdb.IOException(
            "IO Error: Trying to read a database file with version number 99, but we can only read versions between 64 "
            "and 67."
        )

    with pytest.raises(CommandError, match=r"later DuckDB.*STORAGE_VERSION"):
        DuckDb(tmp_path / "w.duckdb").attempt(step)


@pytest.mark.parametrize(
    "reason", ["Operation not supported", "Conflicting lock is held in PID 0", "No locks available"]
)
def test_a_file_system_without_locks_is_named_at_once(tmp_path: Path, reason: str) -> None:
    asked = []

    def step() -> None:
        asked.append(1)
        raise duckdb.IOException(f'IO Error: Could not set lock on file "/share/w.duckdb": {reason}.')

    with pytest.raises(CommandError, match="no locks"):
        DuckDb(tmp_path / "w.duckdb").attempt(step)
    assert asked == [1], "it is not waited for"


@pytest.mark.parametrize(
    "message",
    [
        'Failed to prepare COPY "...": server closed the connection unexpectedly',
        'Failed to execute query "ROLLBACK": no connection to the server',
        "FATAL:  terminating connection due to idle-in-transaction timeout",
        "SSL connection has been closed unexpectedly",
    ],
)
def test_an_error_of_a_lost_server_names_the_setting_wherever_it_is_noticed(tmp_path: Path, message: str) -> None:
    with (
        pytest.raises(CommandError, match="idle_in_transaction_session_timeout"),
        destination_errors(DuckDb(tmp_path / "w.duckdb"), "The destination cannot be reached"),
    ):
        raise duckdb.IOException(message)
