"""Who may read what a command writes, and what becomes of directories that somebody else has prepared."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from pathlib import Path

import pytest

from command import Command, is_told_well
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.warehouses.working_directory import user_name, working_directory
from histories import add_history


def mode(path: Path) -> int:
    """The rights on a path."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def synced(tmp_path: Path, world: ScriptedWorld, host: Simulator) -> Command:
    """The command, with a host of one job."""
    add_history(world, range(1))
    return Command(tmp_path, host.base_url)


@pytest.mark.thorough
def test_only_their_owner_may_read_new_files(synced: Command) -> None:
    assert synced("sync", "--health-file", "health.json").code == 0
    assert synced("archive", "kept").code == 0
    assert synced("copy", "--to-database", "copy.duckdb").code == 0
    files = [path for path in synced.folder.rglob("*") if ".dlt" not in path.parts]
    assert {"fine_tuning_warehouse.duckdb", "fine_tuning_warehouse.duckdb.lock", "health.json", "copy.duckdb"} <= {
        path.name for path in files
    }
    assert {path for path in files if mode(path) & 0o077} == set()


@pytest.mark.nightly
def test_a_umask_that_is_asked_for_counts_and_files_keep_their_rights(synced: Command) -> None:
    assert synced("sync", env={"FTW_UMASK": "027"}).code == 0
    assert mode(synced.database) == 0o640
    synced.database.chmod(0o664)
    assert synced("sync", "--full-refresh").code == 0
    assert mode(synced.database) == 0o664
    ended = synced("sync", env={"FTW_UMASK": "u=rw"})
    assert ended.code == 2
    assert is_told_well(ended, "FTW_UMASK", "027")


@pytest.mark.parametrize("prepared", ["link", "open to all", "of another user", "a file"])
def test_a_prepared_directory_is_not_worked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, prepared: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root, elsewhere = tmp_path / f"fine-tuning-warehouse-{user_name()}", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if prepared == "link":
        root.symlink_to(elsewhere)
    elif prepared == "a file":
        root.write_text("")
    else:
        root.mkdir()
        root.chmod(0o777 if prepared == "open to all" else 0o700)
        if prepared == "of another user":
            if os.getuid() != 0:
                pytest.skip("only root can give a directory away")
            os.chown(root, 12345, 12345)
    with caplog.at_level(logging.WARNING), working_directory() as directory:
        assert root not in directory.parents
        assert mode(directory) == mode(directory.parent) == 0o700
        assert str(root) in caplog.text
    assert list(elsewhere.iterdir()) == []
    assert not directory.parent.exists()
    assert root.is_file() or list(root.iterdir()) == []


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = tmp_path / f"fine-tuning-warehouse-{user_name()}"
    root.mkdir(mode=0o700)
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (root / ".tidying").symlink_to(precious)
    with pytest.raises(OSError), working_directory():  # noqa: PT011 - the system says which
        pass
    assert precious.read_text() == "kept"


def test_a_link_beside_a_database_is_not_followed(synced: Command) -> None:
    precious = synced.folder / "precious"
    precious.write_text("kept")
    synced.database.with_name(f"{synced.database.name}.lock").symlink_to(precious)
    ended = synced("sync")
    assert ended.code == 1
    assert is_told_well(ended, "lock")
    assert precious.read_text() == "kept"
