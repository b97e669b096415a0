"""The accounts of a warehouse are listed, renamed and removed, and what stays goes on."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from command import Command
from engines import Engine
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.account_life import forget, rename, stored_accounts
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.archive import Plan, archive, check, open_store, rewrite
from fine_tuning_warehouse.errors import BusyError, CommandError, UsageError
from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.locking import file_lock
from fine_tuning_warehouse.warehouses.rows import open_rows
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from harness import Database
from histories import add_history

pytest_plugins = ["lakes"]

JOBS = 3
FIRST, LAST = "ftjob-000", f"ftjob-{JOBS - 1:03}"


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    add_history(world, range(JOBS))


@pytest.fixture
def two(database: Database) -> Database:
    """A database with the accounts `a` and `b`, which have read one host with two keys."""
    database.sync(account="a", key="key-a")
    database.sync(account="b", key="key-b")
    return database


def everywhere(database: Database, text: str) -> list[str]:
    """The tables that hold a text, those of the staging schema included."""
    tables = database.rows(
        "SELECT DISTINCT schema_name, table_name FROM duckdb_tables() WHERE schema_name LIKE 'fine_tuning%'"
    )
    like = text.replace("'", "''")
    return [
        f"{schema}.{name}"
        for schema, name in sorted(tables)
        if database.rows(f"SELECT 1 FROM {schema}.{name} AS t WHERE t::VARCHAR LIKE '%{like}%'")
    ]


@pytest.mark.thorough
def test_accounts_are_listed_with_host_rows_and_last_sync(two: Database, host: Simulator) -> None:
    a, b = stored_accounts(DuckDb(two.path))
    assert (a.account, b.account) == ("a", "b")
    assert a.host == b.host == host.base_url
    assert a.rows == b.rows
    assert a.rows["jobs"] == JOBS
    assert a.last_sync is not None
    assert b.last_sync is not None
    assert a.last_sync < b.last_sync


@pytest.mark.nightly
def test_an_account_is_forgotten_and_the_other_one_stays(two: Database) -> None:
    before = stored_accounts(DuckDb(two.path))[1]
    removed = forget(DuckDb(two.path), "a")
    assert removed.rows == {name: before.rows.get(name, 0) for name in TABLES}
    assert stored_accounts(DuckDb(two.path)) == [before]
    assert two.rows("SELECT DISTINCT pipeline_name FROM _dlt_pipeline_state") == [("fine_tuning_b",)]
    two.sync(account="b", key="key-b")
    assert len(two.paths()) == 1
    assert two.sync(account="a", key="key-a").rows["jobs"] == JOBS


@pytest.mark.thorough
def test_a_job_is_forgotten_everywhere_and_does_not_come_back(database: Database, world: ScriptedWorld) -> None:
    world.add_job("ftjob-open", status="running")
    database.sync()
    for job in (FIRST, "ftjob-open"):
        assert everywhere(database, job)
        forget(DuckDb(database.path), "default", job)
        assert everywhere(database, job) == []
    database.sync()
    assert database.ids("jobs") == [f"ftjob-{number:03}" for number in range(1, JOBS)]
    assert {"file-scripted-training", "file-001", "file-002"} == set(database.ids("files"))


@pytest.mark.thorough
def test_what_a_sync_has_skipped_of_a_forgotten_job_is_removed_too(database: Database, host: Simulator) -> None:
    database.sync()
    skipped = [{"account": "default", "job": one, "resource": "events", "reason": "gone"} for one in (FIRST, LAST)]
    database.execute(f"UPDATE fine_tuning.syncs SET skipped = '{json.dumps(skipped)}'")
    forget(DuckDb(database.path), "default", FIRST)
    assert json.loads(database.rows("SELECT skipped FROM syncs")[0][0]) == skipped[1:]


def test_an_account_is_renamed_and_the_next_sync_goes_on(two: Database) -> None:
    rows = stored_accounts(DuckDb(two.path))[0].rows
    rename(DuckDb(two.path), "a", "A & co")
    renamed, other = stored_accounts(DuckDb(two.path))
    assert (renamed.account, renamed.rows, other.account) == ("A & co", rows, "b")
    assert two.sync(account="A & co", key="key-a").rows["jobs"] == 0
    assert len(two.paths()) == 1


@pytest.mark.thorough
def test_a_rename_that_was_killed_before_the_state_is_finished_when_it_is_run_again(two: Database) -> None:
    for table in TABLES:
        if two.rows(f"SELECT 1 FROM duckdb_tables() WHERE table_name = '{table}'"):
            two.execute(f"UPDATE fine_tuning.{table} SET account = 'new' WHERE account = 'a'")
    rename(DuckDb(two.path), "a", "new")
    two.sync(account="new", key="key-a")
    assert len(two.paths()) == 1


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(("old", "new", "names"), [("c", "d", "a, b"), ("a", "b", "b already"), ("a", "a", "already")])
def test_a_rename_that_cannot_be_meant_changes_nothing(two: Database, old: str, new: str, names: str) -> None:
    before = two.rows("FROM jobs ORDER BY ALL")
    with pytest.raises(UsageError, match=names):
        rename(DuckDb(two.path), old, new)
    assert two.rows("FROM jobs ORDER BY ALL") == before


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(("label", "job"), [("c", None), ("a", "ftjob-none"), ("c", FIRST)])
def test_what_is_not_there_cannot_be_forgotten(two: Database, label: str, job: str | None) -> None:
    with pytest.raises(UsageError, match="a, b"):
        forget(DuckDb(two.path), label, job)
    assert len(two.rows("FROM jobs")) == 2 * JOBS


@pytest.mark.thorough
def test_nothing_is_forgotten_while_a_sync_runs(two: Database) -> None:
    with file_lock(two.path.with_name(f"{two.path.name}.lock"), "test"), pytest.raises(BusyError):
        forget(DuckDb(two.path), "a")


@pytest.mark.nightly
def test_a_known_host_and_key_under_a_new_label_is_named_before_it_is_read_again(
    two: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("fine_tuning_warehouse"), "propagate", True)
    two.sync(account="new label", key="key-a")
    assert "ftw accounts rename a 'new label'" in caplog.text
    caplog.clear()
    two.sync(account="new label", key="key-a")
    two.sync(account="c", key="key-c")
    assert caplog.text == ""


@pytest.mark.nightly
def test_an_account_that_never_succeeded_has_a_host_and_no_time(two: Database) -> None:
    two.host.faults.append(Fault("status", status=401, times=None))
    with pytest.raises(CommandError):
        two.sync(account="c")
    *_, last = stored_accounts(DuckDb(two.path))
    assert (last.account, last.host, last.last_sync) == ("c", two.host.base_url, None)


# the command ----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_the_commands_list_rename_and_forget(two: Database, tmp_path: Path, host: Simulator) -> None:
    ftw = Command(tmp_path, host.base_url)
    database = ["--database", str(two.path)]
    archived(two, tmp_path / "archive", "a", "b")
    listed = ftw("accounts", *database, "--output", "json").json
    assert [(one["account"], one["rows"]["jobs"]) for one in listed] == [("a", JOBS), ("b", JOBS)]
    assert set(listed[0]) == {"account", "host", "rows", "last_sync"}
    assert two.host.base_url in ftw("accounts", *database).out
    assert ftw("accounts", *database, "rename", "a", "c").code == 2
    archive_option = ["--archive", str(tmp_path / "archive")]
    assert ftw("accounts", "rename", "a", "c", *database, *archive_option).code == 0
    ended = ftw("forget", "--account", "c", "--job", FIRST, *database, *archive_option, "--output", "json")
    assert ended.json["rows"]["jobs"] == 1
    assert ended.json["archives"]
    assert ftw("forget", "--account", "b", *database, *archive_option).code == 0
    assert [one["account"] for one in ftw("accounts", *database, "--output", "json").json] == ["c"]
    assert ftw("forget", "--account", "b", *database).code == 2
    refused = ftw("forget", "--account", "b", *database, "--output", "json")
    assert (refused.code, refused.json["status"], refused.json["rows"]) == (2, "failed", {})
    assert "holds no account 'b'" in refused.json["error"]
    assert check(open_store(str(tmp_path / "archive"))).damaged == []


@pytest.mark.nightly
def test_nothing_is_changed_where_an_archive_is_not_one(two: Database, tmp_path: Path, host: Simulator) -> None:
    ftw, place = Command(tmp_path, host.base_url), ["--database", str(two.path), "--archive", "nothing"]
    (tmp_path / "empty").mkdir()
    for arguments in (["forget", "--account", "a", *place], ["accounts", "rename", "a", "c", *place]):
        for where in ("nothing", str(tmp_path / "empty")):
            assert ftw(*arguments[:-1], where).code == 1
    assert [one.account for one in stored_accounts(DuckDb(two.path))] == ["a", "b"]


@pytest.mark.nightly
def test_an_archive_follows_though_the_warehouse_went_ahead(two: Database, tmp_path: Path, host: Simulator) -> None:
    ftw, place = Command(tmp_path, host.base_url), ["--database", str(two.path)]
    archived(two, tmp_path / "archive", "a", "b")
    archive_option = ["--archive", str(tmp_path / "archive")]
    assert ftw("accounts", "rename", "a", "c", *place).code == 0
    assert ftw("accounts", "rename", "a", "c", *place, *archive_option).code == 0
    assert ftw("forget", "--account", "b", *place).code == 0
    assert ftw("forget", "--account", "c", *place).code == 0
    assert ftw("forget", "--account", "c", *place, *archive_option).code == 2
    both = ftw("forget", "--account", "b", "--account", "c", *place, *archive_option, "--output", "json")
    assert (both.code, both.json["accounts"]) == (0, ["b", "c"])
    checked = check(open_store(str(tmp_path / "archive")))
    assert (checked.damaged, checked.manifest.accounts) == ([], {})


@pytest.mark.nightly
def test_a_label_that_nobody_has_changes_nothing(two: Database, tmp_path: Path, host: Simulator) -> None:
    ftw, place = Command(tmp_path, host.base_url), ["--database", str(two.path)]
    archived(two, tmp_path / "archive", "a", "b")
    assert ftw("forget", "--account", "a", "--account", "typo", *place).code == 2
    assert ftw("accounts", "rename", "typo", "b", *place, "--archive", str(tmp_path / "archive")).code == 2
    assert [one.account for one in stored_accounts(DuckDb(two.path))] == ["a", "b"]
    assert ftw("forget", "--account", "a", "--account", "a", *place).code == 0
    assert [one.account for one in stored_accounts(DuckDb(two.path))] == ["b"]


@pytest.mark.nightly
def test_an_archive_follows_several_jobs_that_are_gone_already(two: Database, tmp_path: Path, host: Simulator) -> None:
    ftw, place = Command(tmp_path, host.base_url), ["--database", str(two.path)]
    archived(two, tmp_path / "archive", "a", "b")
    both = ["forget", "--account", "a", "--job", FIRST, "--job", LAST, *place]
    assert ftw(*both).code == 0
    assert ftw(*both, "--archive", str(tmp_path / "archive")).code == 0
    checked = check(open_store(str(tmp_path / "archive")))
    assert checked.damaged == []
    assert [one.job for one in checked.manifest.tombstones] == [FIRST, LAST]


@pytest.mark.nightly
def test_a_label_that_is_still_configured_is_named(two: Database, tmp_path: Path, host: Simulator) -> None:
    ftw = Command(tmp_path, host.base_url)
    ftw.env["SOURCES__OPENAI_FINE_TUNING__ACCOUNTS__A__OPENAI_API_KEY"] = "key-a"
    assert "a is still the label" in ftw("accounts", "rename", "a", "c", "--database", str(two.path)).err
    assert ftw("accounts", "rename", "b", "d", "--database", str(two.path)).err == ""


# the archive ----------------------------------------------------------------------------------------------------------


def archived(database: Database, folder: Path, *keys: str) -> Any:
    accounts = [Account(key, f"key-{key}", database.host.base_url) for key in keys]
    return archive(open_store(str(folder)), Plan(DuckDb(database.path), accounts)).manifest


@pytest.mark.nightly
@pytest.mark.first_only
@pytest.mark.parametrize("job", [None, FIRST])
def test_what_is_forgotten_leaves_the_archive_and_the_nightly_run_goes_on(
    two: Database, tmp_path: Path, job: str | None
) -> None:
    folder = tmp_path / "archive"
    archived(two, folder, "a", "b")
    forget(DuckDb(two.path), "a", job)
    with pytest.raises(UsageError, match="ftw forget --account LABEL --archive"):
        archived(two, folder, "b")
    rewrite(open_store(str(folder)), DuckDb(two.path), "a", jobs=[job] if job else [])
    assert check(open_store(str(folder))).damaged == []
    manifest = archived(two, folder, "b")
    kept = {(one.account, job_id) for one in manifest.files.values() if one.is_original for job_id in one.jobs}
    of_a = set() if job is None else {("a", f"ftjob-{number:03}") for number in range(1, JOBS)}
    assert kept == of_a | {("b", f"ftjob-{number:03}") for number in range(JOBS)}
    assert [(one.account, one.job) for one in manifest.tombstones] == [("a", job)]
    assert len(list((folder / "result_files").iterdir())) == len(kept)
    assert check(open_store(str(folder))).damaged == []


@pytest.mark.nightly
def test_an_account_is_renamed_in_the_archive_too(two: Database, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    before = archived(two, folder, "a", "b")
    rename(DuckDb(two.path), "a", "new")
    rewrite(open_store(str(folder)), DuckDb(two.path), "a", renamed_to="new")
    two.host.requests.clear()
    accounts = [Account("new", "key-a", two.host.base_url)]
    after = archive(open_store(str(folder)), Plan(DuckDb(two.path), accounts)).manifest
    assert after is not None
    assert set(after.accounts) == {"new", "b"}
    assert len(after.files) == len(before.files)
    assert not any("/content" in request.path for request in two.host.requests)


@pytest.mark.nightly
def test_an_archive_of_another_warehouse_is_not_rewritten(two: Database, tmp_path: Path, host: Simulator) -> None:
    folder, other = tmp_path / "archive", tmp_path / "other.duckdb"
    archived(two, folder, "a", "b")
    run_sync(Account("a", "key-a", host.base_url), DuckDb(other), SyncOptions())
    with pytest.raises(UsageError, match="another warehouse"):
        rewrite(open_store(str(folder)), DuckDb(other), "a")
    assert check(open_store(str(folder))).damaged == []


# lakes ----------------------------------------------------------------------------------------------------------------


def labels(warehouse: Warehouse) -> dict[str, list[str]]:
    with open_rows(warehouse, names=["jobs", "syncs"]) as rows:
        return {one.name: sorted(rows.counts(one)) for one in rows.relations}


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["lake", "postgres_engine"])
def test_accounts_of_a_lake_and_of_a_server_are_renamed_and_forgotten(
    kind: str, host: Simulator, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Engine = request.getfixturevalue(kind)
    for name, value in engine.env.items():
        monkeypatch.setenv(name, value)
    _rename_and_forget(engine.warehouse, host)


@pytest.mark.nightly
@pytest.mark.parametrize("ducklake", ["duckdb"], indirect=True)
def test_accounts_of_a_ducklake_are_renamed_and_forgotten(ducklake: Engine, host: Simulator) -> None:
    _rename_and_forget(ducklake.warehouse, host)


def _rename_and_forget(warehouse: Warehouse, host: Simulator) -> None:
    accounts = {label: Account(label, f"key-{label}", host.base_url) for label in ("a", "b")}
    for account in accounts.values():
        run_sync(account, warehouse, SyncOptions())
    rename(warehouse, "b", "c")
    forget(warehouse, "c", FIRST)
    host.requests.clear()
    run_sync(Account("c", "key-b", host.base_url), warehouse, SyncOptions())
    assert len(host.requests) == 1
    forget(warehouse, "a")
    assert labels(warehouse) == {"jobs": ["c"], "syncs": ["c"]}
    assert run_sync(accounts["a"], warehouse, SyncOptions()).rows["jobs"] == JOBS
