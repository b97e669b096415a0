"""An archive writes into its own folder alone, whatever links are put there, and for its user alone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from command import Command, is_told_well
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.archive import open_store
from fine_tuning_warehouse.archive.store import DRAFTS, is_ours
from histories import add_history

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs links and modes of POSIX")


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator, world: ScriptedWorld) -> Command:
    """The command, with a database that was synced."""
    add_history(world, range(2))
    for number in range(2):
        world.update_job(f"ftjob-{number:03}", training_file=None)
    command = Command(tmp_path, host.base_url)
    assert command("sync", "--quiet").code == 0
    return command


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no archive may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    return folder


def assert_untouched(outside: Path) -> None:
    assert [file.name for file in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", ["tables", "views", "result_files", "training_files"])
def test_a_link_in_the_place_of_a_folder_is_refused(ftw: Command, outside: Path, name: str) -> None:
    kept = ftw.folder / "kept"
    assert ftw("archive", "kept").code == 0
    if (kept / name).exists():
        (kept / name).rename(kept / "away")
    (kept / name).symlink_to(outside, target_is_directory=True)
    ended = ftw("archive", "kept", "--no-sync")
    assert ended.code == 2
    assert is_told_well(ended, f"holds {name}, which is a link", "Nothing was changed")
    assert_untouched(outside)
    checked = ftw("archive", "--check", "kept")
    assert (checked.code, f"{name}: is not listed" in checked.err) == (1, True)
    (kept / name).unlink()
    assert ftw("archive", "kept").code == 0


@pytest.mark.parametrize(
    "path", ["tables/jobs.parquet", "result_files/file-000.csv", "manifest.json", "README.md", "archive.unfinished"]
)
@pytest.mark.parametrize("target", ["precious", "new"])
def test_a_link_in_the_place_of_a_file_is_refused(ftw: Command, outside: Path, path: str, target: str) -> None:
    assert ftw("archive", "kept").code == 0
    (ftw.folder / "kept" / path).unlink(missing_ok=True)
    (ftw.folder / "kept" / path).symlink_to(outside / target)
    ended = ftw("archive", "kept", "--no-sync")
    assert ended.code == 2
    assert is_told_well(ended, f"holds {path}, which is a link")
    assert_untouched(outside)


def test_a_link_to_the_true_content_is_named_by_a_check(ftw: Command, tmp_path: Path) -> None:
    assert ftw("archive", "kept").code == 0
    file = ftw.folder / "kept/tables/jobs.parquet"
    file.rename(tmp_path / "jobs.parquet")
    file.symlink_to(tmp_path / "jobs.parquet")
    assert "tables/jobs.parquet: is a link" in ftw("archive", "--check", "kept").err


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(ftw: Command) -> None:
    assert ftw("archive", "kept").code == 0
    (ftw.folder / "kept/SHA256SUMS").unlink()
    os.mkfifo(ftw.folder / "kept/SHA256SUMS")
    assert ftw("archive", "kept", "--no-sync").code == 2
    assert ftw("archive", "--check", "kept").code == 1


def test_a_link_in_a_new_folder_is_refused(ftw: Command, outside: Path) -> None:
    (ftw.folder / "kept").mkdir()
    (ftw.folder / "kept/tables").symlink_to(outside, target_is_directory=True)
    assert ftw("archive", "kept", "--no-sync").code == 2
    assert_untouched(outside)


def test_links_that_are_swapped_in_during_a_run_are_not_followed(tmp_path: Path, outside: Path) -> None:
    """After the look for links: in the place of a table's folder, and of a file."""
    store = open_store(str(tmp_path / "kept"))
    assert store.folder is not None
    store.folder.mkdir()
    store.draft("tables/jobs.parquet").write_bytes(b"rows")
    (store.folder / "tables").symlink_to(outside, target_is_directory=True)
    with pytest.raises(OSError, match=r"tables"):
        store.publish("tables/jobs.parquet")
    assert_untouched(outside)
    (store.folder / "README.md").symlink_to(outside / "precious")
    store.write("README.md", b"text")
    assert (store.folder / "README.md").read_bytes() == b"text"
    assert_untouched(outside)
    store.clear_drafts()


def test_a_folder_of_drafts_that_is_a_link_is_not_emptied(ftw: Command, outside: Path) -> None:
    assert ftw("archive", "kept").code == 0
    (ftw.folder / f"kept/{DRAFTS}x").symlink_to(outside, target_is_directory=True)
    assert ftw("archive", "kept", "--no-sync").code == 0
    assert_untouched(outside)
    (ftw.folder / "kept/tables/jobs.parquet.part").symlink_to(outside / "precious")  # a draft, to earlier releases
    assert ftw("archive", "kept", "--no-sync").code == 2
    assert_untouched(outside)


def test_the_archive_itself_may_be_a_link_that_its_user_named(ftw: Command, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (ftw.folder / "kept").symlink_to(tmp_path / "disk", target_is_directory=True)
    (ftw.folder / "new").symlink_to(tmp_path / "none", target_is_directory=True)
    for name, true in (("kept", "disk"), ("new", "none")):
        ended = ftw("archive", name, "--output", "json")
        assert (ended.code, ended.json["archive"]) == (0, name)
        assert (ftw.folder / name).is_symlink()
        assert (tmp_path / true / "manifest.json").is_file()
        assert ftw("archive", "--check", name).code == 0


def test_a_manifest_that_names_other_paths_is_not_followed(ftw: Command, tmp_path: Path) -> None:
    """Whoever can write to the archive can forge its manifest, with its checksum."""
    from test_archive import resign

    assert ftw("archive", "kept").code == 0
    for number, path in enumerate(("../mine.csv", "result_files/.mine", "/tmp/mine", "tables/../../mine")):
        manifest = ftw.folder / "kept/manifest.json"
        before = manifest.read_bytes()
        resign(manifest, '"result_files/file-000.csv"', json.dumps(path))
        ended = ftw("archive", "kept")
        assert ended.code == 1, number
        assert is_told_well(ended, "manifest.json is damaged", path)
        manifest.write_bytes(before)
    assert not (ftw.folder / "mine.csv").exists()


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(file.lstat().st_mode) for file in folder.rglob("*") if file.is_file()}


def folder_modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(file.lstat().st_mode) for file in (folder, *folder.rglob("*")) if file.is_dir()}


def test_files_are_for_their_user_alone_unless_that_user_says_otherwise(ftw: Command, world: ScriptedWorld) -> None:
    kept = ftw.folder / "kept"
    assert ftw("archive", "kept", "--no-sync").code == 0
    assert (modes(kept), folder_modes(kept)) == ({0o600}, {0o700})
    readme = kept / "manifest.json"
    readme.chmod(0o640)
    kept.chmod(0o750)
    add_history(world, [2])
    assert ftw("archive", "kept").code == 0
    assert (stat.S_IMODE(readme.stat().st_mode), modes(kept)) == (0o640, {0o600, 0o640})
    assert stat.S_IMODE(kept.stat().st_mode) == 0o750
    assert ftw("archive", "shared", "--no-sync", env={"FTW_UMASK": "027"}).code == 0
    assert (modes(ftw.folder / "shared"), folder_modes(ftw.folder / "shared")) == ({0o640}, {0o750})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tables/jobs.parquet", True),
        ("result_files/-old.csv", True),  # an archive of an earlier release may have it
        ("manifest.json", True),
        ("tables/.hidden", False),
        ("tables/a/b", False),
        ("tables/", False),
        ("tables/a\nb", False),
        ("notes.txt", False),
        ("../tables/jobs.parquet", False),
        ("/tables/jobs.parquet", False),
        ("tables\\jobs.parquet", False),
    ],
)
def test_an_archive_has_few_paths(path: str, expected: bool) -> None:
    assert is_ours(path) == expected
