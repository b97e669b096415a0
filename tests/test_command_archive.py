"""`ftw archive`: what it prints, what it ends with, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command import KEY, Command, is_told_well, wait_until
from fine_tuning_simulator import FILES_SCOPE, Clock, Fault, ScriptedWorld, Simulator
from histories import add_history

JOBS = 2

KEYS = [
    "status",
    "error",
    "archive",
    "account",
    "sync",
    "tables",
    "views",
    "files",
    "bytes",
    "manifest_sha256",
    "seconds",
    "started_at",
    "finished_at",
]


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator) -> Command:
    """The command, with a key for the host."""
    return Command(tmp_path, host.base_url)


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    add_history(world, range(JOBS))
    for number in range(JOBS):
        world.add_file(f"train-{number}", b"{}\n" * 50, purpose="fine-tune")
        world.update_job(f"ftjob-{number:03}", training_file=f"train-{number}")


@pytest.mark.thorough
def test_json_is_the_one_thing_on_stdout_and_says_what_was_done(ftw: Command, world: ScriptedWorld) -> None:
    world.remove_file("train-1")
    ended = ftw("archive", "kept", "--training-files", "--output", "json")
    assert ended.code == 0, ended.err
    assert len(ended.out.splitlines()) == 1
    told = ended.json
    assert list(told) == KEYS
    assert (told["status"], told["error"], told["account"]) == ("done", None, "default")
    assert told["archive"] == "kept"
    assert told["sync"]["rows"]["jobs"] == told["tables"]["jobs"] == JOBS
    files = [file for file in (ftw.folder / "kept").rglob("*") if file.is_file() and file.name != "manifest.json"]
    assert told["bytes"] == sum(file.stat().st_size for file in files)
    assert (told["files"]["written"], told["files"]["unchanged"]) == (len(files), 0)
    (missing,) = told["files"]["missing"]
    assert (missing["id"], missing["job"], missing["kind"]) == ("train-1", "ftjob-001", "training_file")
    assert missing["reason"] == "404: No such File object: train-1"
    assert "Fetching 2 training and validation files: 150 bytes (150 bytes), and 1 of unknown size" in ended.err
    assert "Missing training file train-1 of ftjob-001: 404" in ended.err
    assert ftw("archive", "kept", "--strict").code == 3
    assert ftw("archive", "--check", "kept").code == 0
    assert ftw("archive", "--check", "kept", "--strict").code == 3


@pytest.mark.nightly
def test_the_digest_of_the_manifest_is_printed_so_that_it_can_be_kept_elsewhere(ftw: Command) -> None:
    first = ftw("archive", "kept")
    digest = hashlib.sha256((ftw.folder / "kept/manifest.json").read_bytes()).hexdigest()
    assert digest in first.out
    again = ftw("archive", "kept", "--no-sync", "--output", "json")
    checked = ftw("archive", "--check", "kept")
    in_json = ftw("archive", "--check", "kept", "--output", "json")
    assert again.json["manifest_sha256"] == in_json.json["manifest_sha256"] == digest
    assert digest in checked.out
    assert "damage, not forgery" in checked.out
    failed = ftw("archive", "nothing", "--no-sync", "--database", "none.duckdb", "--output", "json")
    assert failed.json["manifest_sha256"] is None


@pytest.mark.thorough
def test_a_check_tells_what_is_wrong_without_a_key_or_a_host(ftw: Command, host: Simulator) -> None:
    assert ftw("archive", "kept", "--quiet").all == ""
    host.requests.clear()
    alone = {"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None}
    whole = ftw("archive", "--check", "kept", env=alone)
    assert whole.code == 0
    assert "is whole" in whole.out
    (ftw.folder / "kept/tables/jobs.parquet").write_bytes(b"no")
    (ftw.folder / "kept/more.txt").touch()
    ended = ftw("archive", "--check", "kept", env=alone)
    assert (ended.code, ended.out) == (1, "")
    assert "tables/jobs.parquet: has 2 bytes instead of" in ended.err
    assert "more.txt: is not listed in the manifest" in ended.err
    assert "Error: 2 things are wrong" in ended.err
    told = ftw("archive", "kept", "--check", "--output", "json", env=alone).json
    assert list(told) == KEYS
    assert told["status"] == "failed"
    assert {one["path"] for one in told["files"]["damaged"]} == {"tables/jobs.parquet", "more.txt"}
    assert host.requests == []


@pytest.mark.thorough
def test_the_demo_is_archived_without_a_key(tmp_path: Path) -> None:
    ftw = Command(tmp_path)
    alone = {"OPENAI_API_KEY": None}
    unset = ftw("archive", "kept", env=alone)
    assert unset.code == 2
    assert is_told_well(unset, "None is needed with --no-sync", "--demo")
    ended = ftw("archive", "--demo", "kept", "--training-files", env=alone)
    assert ended.code == 0, ended.err
    manifest = json.loads((ftw.folder / "kept/manifest.json").read_text())
    assert (manifest["account"], manifest["host"]) == ("demo", "a simulated host")
    assert manifest["tables"]["jobs"] == 24
    assert (ftw.folder / "fine_tuning_demo.duckdb").exists()
    assert ftw("archive", "kept", "--no-sync", env=alone).code == 0, "the database that there is"
    assert ftw("archive", "kept", "--check", env=alone).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "DIR"),
        ([""], "Name a folder"),
        (["kept", "--check", "--demo"], "--check"),
        (["kept", "--no-sync", "--training-files"], "--no-sync"),
        (["kept", "--demo", "--base-url", "http://127.0.0.1"], "--base-url"),
        (["nowhere://kept"], "nowhere"),
        (["s3:/bucket/kept"], "two slashes"),
        (["zip://kept.zip"], "zip://kept.zip"),
        (["reference://kept"], "reference://kept"),
        (["ftp://me:secret@127.0.0.1:9/kept"], "'ftp://127.0.0.1:9/kept'"),
        (["kept", "--destination", "filesystem"], "--table-format"),
    ],
)
def test_what_cannot_be_meant_is_told(ftw: Command, arguments: list[str], words: str) -> None:
    ended = ftw("archive", *arguments)
    assert ended.code == 2
    assert is_told_well(ended, words)
    assert "secret" not in ended.err
    assert list(ftw.folder.iterdir()) == []


def test_a_wrong_key_ends_it_before_anything_is_written(world: ScriptedWorld, clock: Clock, tmp_path: Path) -> None:
    with Simulator(world, clock=clock, api_keys={"other": frozenset()}) as host:
        ftw = Command(tmp_path, host.base_url)
        ended = ftw("archive", "kept", "--output", "json")
    assert ended.code == 1
    assert ended.json["status"] == "failed"
    assert ended.json["error"]
    assert KEY not in ended.all
    assert not (ftw.folder / "kept").exists()
    unmeant = ftw("archive", "kept", "--no-sync", "--training-files", "--output", "json")
    assert unmeant.code == 2
    assert list(unmeant.json) == KEYS
    assert (unmeant.json["status"], unmeant.json["archive"]) == ("failed", "kept")
    assert "--no-sync makes no request" in unmeant.json["error"]


@pytest.mark.nightly
def test_a_key_without_the_scope_for_files_shows_under_strict(
    world: ScriptedWorld, clock: Clock, tmp_path: Path
) -> None:
    with Simulator(world, clock=clock, api_keys={KEY: frozenset({FILES_SCOPE})}) as host:
        ftw = Command(tmp_path, host.base_url)
        ended = ftw("archive", "kept", "--strict")
        assert ended.code == 3
        assert "Missing 2 result files, such as file-000 of ftjob-000: 401: You have insufficient" in ended.err
        assert ftw("archive", "--check", "kept").code == 0


@pytest.mark.thorough
def test_no_key_stands_in_an_archive(ftw: Command, host: Simulator) -> None:
    told = f"Incorrect key {KEY}"
    host.faults.append(Fault("status", path="file-000/content$", times=None, status=403, message=told))
    ended = ftw("archive", "kept", "--training-files", "--base-url", f"{host.base_url}?key={KEY}")
    assert ended.code == 0, ended.err
    assert "Incorrect key [key]" in ended.err
    assert KEY not in ended.all
    assert [file for file in ftw.folder.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()] == []


@pytest.mark.nightly
def test_two_at_once_do_not_disturb_each_other(ftw: Command, host: Simulator) -> None:
    silent = Fault("silent", path="content$", times=1, seconds=3)
    host.faults.append(silent)
    assert ftw("sync", "--resources", "jobs,checkpoints,events").code == 0
    with ftw.start("archive", "kept") as first:
        while silent.hits == 0:
            assert first.process.poll() is None
        second = ftw("archive", "kept", "--no-sync")
        assert second.code == 75
        assert is_told_well(second, "another archive run")
        assert first.end().code == 0
    assert ftw("archive", "--check", "kept").code == 0


@pytest.mark.thorough
def test_an_interrupted_run_leaves_no_half_file(ftw: Command, host: Simulator) -> None:
    silent = Fault("silent", path="train-1/content$", times=None)
    host.faults.append(silent)
    with ftw.start("archive", "kept", "--training-files") as running:
        wait_until(lambda: silent.hits > 0)
        running.signal(signal.SIGTERM)
        assert running.end().code == 128 + signal.SIGTERM
    assert list((ftw.folder / "kept").glob(".*")) == []
    host.faults.clear()
    assert ftw("archive", "kept", "--training-files").code == 0
    assert ftw("archive", "--check", "kept").code == 0


def test_a_database_that_is_not_there_is_told(ftw: Command) -> None:
    ended = ftw("archive", "kept", "--no-sync", "--database", "none.duckdb")
    assert ended.code == 1
    assert is_told_well(ended, "no database")
    assert list(ftw.folder.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk, which takes root")
def test_a_full_disk_is_told_and_leaves_no_half_file(ftw: Command, world: ScriptedWorld) -> None:
    disk = ftw.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "none", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    try:
        world.add_file("file-large", b"step,train_loss\n" + b"1,0.5\n" * 200_000)
        world.update_job("ftjob-001", result_files=["file-large"])
        ended = ftw("archive", "disk/kept")
        assert ended.code == 1
        assert is_told_well(ended, "No space left on device")
        assert list((disk / "kept").glob(".*")) == []
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        assert ftw("archive", "disk/kept").code == 0
        assert ftw("archive", "--check", "disk/kept").code == 0
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        sealed = ftw("archive", "disk/kept", "--no-sync")
        assert sealed.code == 1
        assert is_told_well(sealed, "disk/kept cannot be written: the folder takes no files")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that takes no files even from root")
def test_a_folder_that_takes_no_files_is_told(ftw: Command) -> None:
    ended = ftw("archive", "/proc/kept")
    assert ended.code == 1
    assert is_told_well(ended, "/proc/kept cannot be written")
