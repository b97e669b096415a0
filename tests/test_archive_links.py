"""An archive writes into its own folder alone, whatever links are put there, and for its user alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from command import Command, is_told_well
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.archive import Manifest, Plan, archive, check, open_store
from fine_tuning_warehouse.archive.manifest import Entry
from fine_tuning_warehouse.archive.store import DRAFTS, Store, is_ours
from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from histories import add_history

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs links and modes of POSIX")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no archive may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The folder of an archive, with a folder of tables."""
    folder = tmp_path / "kept"
    (folder / "tables").mkdir(parents=True)
    return folder


def assert_untouched(outside: Path) -> None:
    assert [file.name for file in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "precious"


def assert_refused(kept: Path, path: str) -> None:
    """A run refuses the path before it looks at the warehouse, which is not there."""
    before = sorted(kept.rglob("*"))
    with pytest.raises(UsageError, match=f"holds {path}, which is a link"):
        archive(open_store(str(kept)), Plan(DuckDb(kept.parent / "none.duckdb"), []))
    assert sorted(kept.rglob("*")) == before


@pytest.mark.parametrize("name", ["tables", "views", "result_files", "training_files"])
def test_a_link_in_the_place_of_a_folder_is_refused(kept: Path, outside: Path, name: str) -> None:
    (kept / "tables").rmdir()
    (kept / name).symlink_to(outside, target_is_directory=True)
    assert_refused(kept, name)
    assert_untouched(outside)


@pytest.mark.parametrize("target", ["precious", "new", "."])
@pytest.mark.parametrize(
    "path",
    ["tables/jobs.parquet", "tables/new.parquet", "manifest.json", "README.md", "SHA256SUMS", "archive.unfinished"],
)
def test_a_link_in_the_place_of_a_file_is_refused(kept: Path, outside: Path, path: str, target: str) -> None:
    (kept / path).symlink_to(outside / target)
    assert_refused(kept, path)
    assert_untouched(outside)


def test_a_link_elsewhere_in_the_folder_is_left_alone(kept: Path, outside: Path) -> None:
    (kept / "notes").symlink_to(outside, target_is_directory=True)
    (kept / "tables/my notes").symlink_to(outside / "precious")
    store = open_store(str(kept))
    store.refuse_odd_files()
    assert sorted(store.odd_files()) == ["notes", "tables/my notes"]


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(kept: Path) -> None:
    os.mkfifo(kept / "README.md")
    assert_refused(kept, "README.md")


def test_links_that_are_swapped_in_during_a_run_are_not_followed(kept: Path, outside: Path) -> None:
    """After the look for links: in the place of a table's folder, and of a file."""
    store = open_store(str(kept))
    store.draft("tables/jobs.parquet").write_bytes(b"rows")
    (kept / "tables").rmdir()
    (kept / "tables").symlink_to(outside, target_is_directory=True)
    with pytest.raises(CommandError, match="cannot be written"), store.errors():
        store.publish("tables/jobs.parquet")
    assert_untouched(outside)
    (kept / "README.md").symlink_to(outside / "precious")
    store.write("README.md", b"text")
    assert (kept / "README.md").read_bytes() == b"text"
    assert not (kept / "README.md").is_symlink()
    assert_untouched(outside)
    store.clear_drafts()


def test_drafts_that_are_links_are_neither_emptied_nor_written_to(kept: Path, outside: Path) -> None:
    (kept / f"{DRAFTS}x").symlink_to(outside, target_is_directory=True)
    (kept / "README.md.part").symlink_to(outside / "precious")  # a draft of an earlier release
    store = open_store(str(kept))
    store.clear_drafts(abandoned=True)
    store.write("README.md", b"text")
    assert_untouched(outside)
    store.clear_drafts()


def test_a_draft_that_was_deleted_is_not_published(kept: Path) -> None:
    """A download that ends after the run was stopped must not leave an empty file."""
    store = open_store(str(kept))
    store.draft("tables/jobs.parquet").write_bytes(b"rows")
    store.clear_drafts()
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            store.publish("tables/jobs.parquet")
        store.draft("README.md")  # others may have begun anew
    assert not (kept / "tables").exists()
    store.clear_drafts()


def written_manifest(store: Store, path: str, content: bytes = b"") -> Manifest:
    entry = Entry("result_file", len(content), "0" * 64, account="default", id="file", jobs=("job",))
    manifest = Manifest("fine_tuning", files={path: entry})
    manifest.write(store)
    return manifest


@pytest.mark.parametrize("path", ["../mine.csv", "result_files/.mine", "/tmp/mine", "tables/../../mine", "notes.txt"])
def test_a_manifest_that_names_other_paths_is_not_followed(kept: Path, path: str) -> None:
    """Whoever can write to the archive can forge its manifest, with its checksum."""
    store = open_store(str(kept))
    written_manifest(store, path)
    store.clear_drafts()
    with pytest.raises(CommandError, match=r"manifest\.json is damaged: .* cannot be a path of an archive"):
        archive(store, Plan(DuckDb(kept.parent / "none.duckdb"), []))
    assert [damage.path for damage in check(store).damaged] == [path]


def test_a_link_to_the_true_content_is_named_by_a_check(kept: Path, outside: Path) -> None:
    store = open_store(str(kept))
    written_manifest(store, "tables/jobs.parquet", b"precious")
    store.clear_drafts()
    (kept / "tables").mkdir(exist_ok=True)
    (kept / "tables/jobs.parquet").symlink_to(outside / "precious")
    (damage,) = check(store).damaged
    assert (damage.path, damage.reason) == ("tables/jobs.parquet", "is a link or not a plain file")


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


# the command ----------------------------------------------------------------------------------------------------------


def modes(folder: Path) -> tuple[set[int], set[int]]:
    """The modes of all files, and of all folders."""
    found = [folder, *folder.rglob("*")]
    files, folders = [one for one in found if one.is_file()], [one for one in found if one.is_dir()]
    return {stat.S_IMODE(one.stat().st_mode) for one in files}, {stat.S_IMODE(one.stat().st_mode) for one in folders}


@pytest.mark.thorough
def test_an_archive_is_private_and_may_itself_be_a_link_that_its_user_named(
    tmp_path: Path, host: Simulator, world: ScriptedWorld
) -> None:
    add_history(world, range(1))
    ftw, kept = Command(tmp_path, host.base_url), tmp_path / "disk"
    (ftw.folder / "kept").symlink_to(kept, target_is_directory=True)
    ended = ftw("archive", "kept", "--output", "json")
    assert (ended.code, ended.json["archive"]) == (0, "kept")
    assert (ftw.folder / "kept").is_symlink()
    assert modes(kept) == ({0o600}, {0o700})
    (kept / "manifest.json").chmod(0o640)
    kept.chmod(0o750)
    add_history(world, [1])
    assert ftw("archive", "kept").code == 0
    assert modes(kept) == ({0o600, 0o640}, {0o700, 0o750})
    assert ftw("archive", "shared", "--no-sync", env={"FTW_UMASK": "027"}).code == 0
    assert modes(ftw.folder / "shared") == ({0o640}, {0o750})
    (kept / "tables").rename(kept / "away")
    (kept / "tables").symlink_to(kept / "away", target_is_directory=True)
    ended = ftw("archive", "kept", "--no-sync")
    assert ended.code == 2
    assert is_told_well(ended, "holds tables, which is a link", "Nothing was changed")
    assert "tables: is not listed" in ftw("archive", "--check", "kept").err
