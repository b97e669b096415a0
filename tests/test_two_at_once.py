"""Others at the same database, and disks that are full or closed: told clearly, and nothing that was there is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from command import Command, Ended, is_told_well, wait_until
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync
from fine_tuning_warehouse.verify import verify
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from harness import Database
from histories import Rows, add_history, assert_holds, truth_of

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["postgres"]


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator) -> Command:
    """The command, with a key for the host."""
    return Command(tmp_path, host.base_url)


# two syncs -----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_second_sync_says_who_is_first_and_the_lock_of_a_killed_one_is_free(
    world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    add_history(world, range(2))
    host.latency = 30
    with ftw.start("sync") as first:
        wait_until(lambda: host.requests)
        second = ftw("sync", "--output", "json")
        assert second.code == 75
        assert second.json["status"] == "failed"
        assert "another sync" in second.json["error"].lower()
        assert ftw.database.name in second.json["error"]
        assert len(host.requests) == 1
        elsewhere = ftw.start("sync", "--database", "other.duckdb")
        with elsewhere as other:  # another database is another matter
            wait_until(lambda: len(host.requests) == 2)
            other.signal(signal.SIGKILL)
            other.end()
        first.signal(signal.SIGKILL)
        first.end()
    host.latency = 0
    assert ftw("sync", "--strict").code == 0
    assert_holds(ftw.rows, truth_of(world))
    assert list(ftw.temporary.glob("*/sync-*")) == []


@pytest.mark.nightly
@pytest.mark.parametrize("same", [True, False], ids=["same-account", "two-accounts"])
def test_two_syncs_at_once_into_postgres_are_both_right(
    world: ScriptedWorld, host: Simulator, ftw: Command, postgres: Postgres, same: bool
) -> None:
    add_history(world, range(20), children=30)
    ftw.env["DESTINATION__POSTGRES__CREDENTIALS"] = postgres.credentials
    arguments = ("sync", "--destination", "postgres", "--output", "json", "--account")
    assert ftw(*arguments, "before", "--resources", "jobs").code == 0  # some tables are there, others not yet
    labels = set()
    for number in range(2):  # which of two gets in the other's way depends on the moment
        first_label, second_label = (f"{number}-same",) * 2 if same else (f"{number}-one", f"{number}-two")
        labels |= {first_label, second_label}
        with ftw.start(*arguments, first_label) as first, ftw.start(*arguments, second_label) as second:
            ends = [first.end(), second.end()]
        assert [end.code for end in ends] == [0, 0], ends
    for label in sorted(labels):
        assert_holds(rows_of_account(postgres, label), truth_of(world, children=30))


def rows_of_account(postgres: Postgres, label: str) -> Rows:
    """The rows of a query, of one account alone."""
    return lambda sql: postgres.rows(f"{sql} WHERE account = '{label}'")


# a reader ------------------------------------------------------------------------------------------------------------


@contextmanager
def reader(database: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that has the database open."""
    script = f"import duckdb; c = duckdb.connect({str(database)!r}, read_only=True); print(1, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.thorough
def test_a_sync_waits_for_a_reader_and_says_for_whom(world: ScriptedWorld, host: Simulator, ftw: Command) -> None:
    add_history(world, range(2))
    assert ftw("sync").code == 0
    add_history(world, range(2, 4))
    with reader(ftw.database) as held, ftw.start("sync") as running:
        assert running.process.stderr is not None
        told = running.process.stderr.readline()
        assert "waiting" in told.lower()
        assert str(held.pid) in told
        assert ftw.database.name in told
        assert running.process.poll() is None
        held.kill()
        held.wait()
        assert running.end().code == 0
    assert_holds(ftw.rows, truth_of(world))


@pytest.mark.thorough
@pytest.mark.parametrize("is_attached", [False, True])
def test_a_sync_and_a_reader_wait_for_a_connection_of_their_own_process(
    world: ScriptedWorld, database: Database, is_attached: bool
) -> None:
    add_history(world, range(2))
    database.sync()
    account = Account("default", "key", database.host.base_url)
    impatient = DuckDb(database.path, lock_wait_seconds=1)

    def held() -> duckdb.DuckDBPyConnection:
        if not is_attached:
            return duckdb.connect(str(database.path), read_only=True)
        connection = duckdb.connect()
        connection.execute(f"ATTACH '{database.path}' AS history (READ_ONLY)")
        return connection

    with held() as notebook:
        for step in (
            lambda: run_sync(account, impatient, SyncOptions()),
            lambda: verify(account, impatient),
        ):
            with pytest.raises(CommandError, match=r"Another connection of this process .* for longer than 1 s"):
                step()
        later = threading.Timer(0.5, notebook.close)
        later.start()
        assert run_sync(account, DuckDb(database.path), SyncOptions()).status == "done"
        later.join()


@pytest.mark.thorough
def test_a_reader_that_does_not_go_is_exit_1_and_the_next_sync_loads_it_all(
    world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    add_history(world, range(2))
    assert ftw("sync").code == 0
    before = truth_of(world)
    add_history(world, range(2, 4))
    with reader(ftw.database) as held:
        ended = ftw("sync", "--lock-wait", "1", "--output", "json")
        assert ended.code == 1
        assert str(held.pid) in ended.json["error"]
        assert "1 s" in ended.json["error"]
        assert ended.json["load_ids"] == []
        assert "Traceback" not in ended.err
        assert_holds(ftw.rows, before)
    assert ftw("sync").code == 0
    assert_holds(ftw.rows, truth_of(world))
    assert list(ftw.temporary.glob("*/sync-*")) == []


# disks ---------------------------------------------------------------------------------------------------------------


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A file system of its own at a folder. Skips the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    try:
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"may not mount here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def is_told_as_failure(ended: Ended, *words: str) -> bool:
    """Assert that it failed with exit 1, in a line or two."""
    assert ended.code == 1, ended
    return is_told_well(ended, *words)


@pytest.mark.thorough
def test_a_full_disk_is_told_and_what_was_there_stays(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=48m", "tmpfs"):
        database = disk / "warehouse.duckdb"
        add_history(world, range(2))
        assert ftw("sync", "--database", str(database)).code == 0
        before = truth_of(world)
        add_history(world, range(2, 4))
        for number in range(300):
            world.add_event("ftjob-003", id=f"ftevent-large-{number}", message=os.urandom(8_000).hex())
        filler = disk / "filler"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler.write_bytes(b"\0" * max(0, free - 300_000))
        assert is_told_as_failure(ftw("sync", "--database", str(database)), "space")
        filler.unlink()
        assert_holds(lambda sql: ftw.rows(sql, database), before, more=True)
        assert ftw("sync", "--database", str(database)).code == 0
        assert_holds(lambda sql: ftw.rows(sql, database), truth_of(world))


@pytest.mark.nightly
def test_a_full_disk_for_temporary_files_is_told(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    add_history(world, range(2))
    assert ftw("sync").code == 0
    before = truth_of(world)
    add_history(world, range(2, 4))
    for number in range(200):
        world.add_event("ftjob-003", id=f"ftevent-large-{number}", message=os.urandom(8_000).hex())
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=400k", "tmpfs"):
        assert is_told_as_failure(ftw("sync", env={"TMPDIR": str(disk)}), "space")
        assert_holds(ftw.rows, before)
        assert list(disk.glob("*/sync-*")) == []
    assert ftw("sync").code == 0
    assert_holds(ftw.rows, truth_of(world))


def test_a_file_that_may_not_grow_is_told_and_what_was_there_stays(
    world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    resource = pytest.importorskip("resource")
    if os.geteuid() == 0:
        pytest.skip("a disk that is full says more, and can be had")
    add_history(world, range(2))
    assert ftw("sync").code == 0
    before = truth_of(world)
    add_history(world, range(2, 4))
    for number in range(300):
        world.add_event("ftjob-003", id=f"ftevent-large-{number}", message=os.urandom(8_000).hex())
    most = ftw.database.stat().st_size + 100_000
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, usual[1]))
    try:
        ended = ftw("sync")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert is_told_as_failure(ended, "file")
    assert_holds(ftw.rows, before, more=True)
    assert ftw("sync").code == 0
    assert_holds(ftw.rows, truth_of(world))


@pytest.mark.thorough
def test_a_read_only_file_or_folder_is_told_before_anything_is_requested(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    add_history(world, range(2))
    assert ftw("sync").code == 0
    requests = len(host.requests)
    with mounted(ftw.folder, "--bind", str(ftw.folder)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(ftw.folder)], check=True)
        assert is_told_as_failure(ftw("sync"), ftw.database.name, "read-only")
        assert is_told_as_failure(ftw("sync", "--database", "new.duckdb"), "new.duckdb", "written")
        assert ftw("query", "SELECT count(*) FROM jobs", "--output", "csv").out.split() == ["count_star()", "2"]
    done = subprocess.run(["chattr", "+i", str(ftw.database)], check=False, capture_output=True)
    if done.returncode == 0:
        try:
            assert is_told_as_failure(ftw("sync"), ftw.database.name)
        finally:
            subprocess.run(["chattr", "-i", str(ftw.database)], check=True)
    assert len(host.requests) == requests
    assert ftw("sync").code == 0
    assert_holds(ftw.rows, truth_of(world))


@pytest.mark.first_only
@pytest.mark.parametrize("damage", ["text", "short", "middle"])
@pytest.mark.thorough
def test_a_file_that_is_no_database_is_told_and_left_as_it_is(
    world: ScriptedWorld, host: Simulator, ftw: Command, damage: str
) -> None:
    add_history(world, range(2))
    if damage == "text":
        ftw.database.write_text("Dear diary,\n" * 1000)
    else:
        assert ftw("sync").code == 0
        content = bytearray(ftw.database.read_bytes())
        if damage == "short":
            content = content[:5000]
        elif damage == "middle":
            content[4096:-4096] = os.urandom(len(content) - 8192)
        ftw.database.write_bytes(bytes(content))
    before = ftw.database.read_bytes()
    ended = ftw("sync")
    assert is_told_as_failure(ended, ftw.database.name)
    assert ftw.database.read_bytes() == before
    asked = ftw("query", "SELECT 1")
    assert asked.code == 1
    assert is_told_well(asked, ftw.database.name)
