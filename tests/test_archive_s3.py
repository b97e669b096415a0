"""An archive in a bucket is the archive that a folder holds."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from command import Command, is_told_well
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from histories import add_history

if TYPE_CHECKING:
    from bucket import Bucket

pytest_plugins = ["bucket"]

JOBS = 3


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator, world: ScriptedWorld, bucket: Bucket) -> Command:
    """The command, with a key for the host and for the bucket."""
    add_history(world, range(JOBS))
    for number in range(JOBS):
        world.add_file(f"train-{number}", bytes([65 + number]) * 100_000, purpose="fine-tune")
        world.update_job(f"ftjob-{number:03}", training_file=f"train-{number}")
    command = Command(tmp_path, host.base_url)
    command.env.update(bucket.env)
    return command


def test_a_bucket_holds_what_a_folder_holds(ftw: Command, bucket: Bucket, world: ScriptedWorld) -> None:
    where = f"{bucket.url}/our/history"
    first = ftw("archive", where, "--training-files")
    assert first.code == 0, first.err
    assert ftw("archive", "kept", "--no-sync").code == 0
    keys = bucket.objects()
    folder = {
        file.relative_to(ftw.folder / "kept").as_posix(): file for file in (ftw.folder / "kept").rglob("*.parquet")
    }
    assert folder
    for path, file in folder.items():
        assert bucket.get(f"our/history/{path}") == file.read_bytes()
    for number in range(JOBS):
        key = f"our/history/training_files/train-{number}.jsonl"
        assert bucket.get(key) == world.file_content(f"train-{number}")
    manifest = json.loads(bucket.get("our/history/manifest.json"))
    assert {f"our/history/{path}" for path in manifest["files"]} | {"our/history/manifest.json"} == set(keys)
    for path, about in manifest["files"].items():
        assert hashlib.sha256(bucket.get(f"our/history/{path}")).hexdigest() == about["sha256"]
    checked = ftw("archive", "--check", where)
    assert checked.code == 0, checked.err
    assert list(ftw.temporary.rglob("*.parquet")) == []


@pytest.mark.nightly
def test_it_gains_and_is_checked_as_a_folder_is(
    ftw: Command, bucket: Bucket, world: ScriptedWorld, host: Simulator
) -> None:
    where = f"{bucket.url}/history/"
    assert ftw("archive", where).code == 0
    unchanged = ftw("archive", where, "--no-sync", "--output", "json").json
    assert unchanged["files"]["written"] == 0
    add_history(world, [JOBS])
    host.requests.clear()
    assert ftw("archive", where).code == 0
    fetched = [request.path for request in host.requests if request.path.endswith("content")]
    assert set(fetched) == {f"/v1/files/file-{JOBS:03}/content"}
    assert ftw("archive", "--check", where).code == 0
    bucket.put("history/result_files/file-001.csv", b"other")
    bucket.put("history/notes.txt", b"")
    damaged = ftw("archive", "--check", where)
    assert damaged.code == 1
    assert "result_files/file-001.csv: has 5 bytes" in damaged.err
    assert "notes.txt: is not listed" in damaged.err
    assert ftw("archive", where).code == 0
    assert bucket.get("history/result_files/file-001.csv") == world.file_content("file-001")
    assert ftw("archive", where, "--database", "other.duckdb").code == 2, "another warehouse"


@pytest.mark.nightly
def test_a_killed_run_is_made_good_by_the_next(ftw: Command, bucket: Bucket, host: Simulator) -> None:
    where = f"{bucket.url}/history"
    silent = Fault("silent", path="train-1/content$", times=None)
    host.faults.append(silent)
    with ftw.start("archive", where, "--training-files", "--concurrency", "1") as running:
        while silent.hits == 0:
            assert running.process.poll() is None
        running.process.kill()
    assert "history/archive.unfinished" in bucket.objects()
    assert ftw("archive", "--check", where).code == 1
    host.faults.clear()
    host.requests.clear()
    assert ftw("archive", where, "--training-files").code == 0
    assert not [request for request in host.requests if "train-0/content" in request.path], "it is there already"
    assert ftw("archive", "--check", where).code == 0
    assert "history/archive.unfinished" not in bucket.objects()
    assert list(ftw.temporary.rglob("*.jsonl")) == [], "what users wrote stays nowhere else"


@pytest.mark.nightly
def test_what_a_bucket_refuses_is_told_in_a_line(ftw: Command, bucket: Bucket) -> None:
    bucket.put("mine/notes.txt", b"mine")
    bucket.put("folder/", b"")  # as the console of S3 marks one
    assert ftw("sync").code == 0
    assert ftw("archive", "--no-sync", f"{bucket.url}/folder").code == 0
    assert ftw("archive", "--check", f"{bucket.url}/folder").code == 0
    assert is_told_well(ftw("archive", "--no-sync", f"{bucket.url}/mine/notes.txt"), "is an object")
    assert is_told_well(ftw("archive", "--no-sync", f"{bucket.url}/mine"), "is not an archive and not empty")
    assert is_told_well(ftw("archive", "--no-sync", "s3://no-such-bucket/x"), "does not exist")
    assert is_told_well(ftw("archive", "--no-sync", "s3://"), "s3://")
    of_dlt = {f"DESTINATION__FILESYSTEM__CREDENTIALS__{name}": value for name, value in bucket.env.items()}
    of_dlt["DESTINATION__FILESYSTEM__CREDENTIALS__ENDPOINT_URL"] = bucket.env["AWS_ENDPOINT_URL"]
    of_dlt["DESTINATION__FILESYSTEM__BUCKET_URL"] = "s3://no-such-bucket/lake"
    lake = ftw("check", "--destination", "filesystem", "--table-format", "iceberg", env=of_dlt)
    assert lake.code == 1
    assert "There is no bucket no-such-bucket, or these credentials may not see it." in lake.all
    alone = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
    ended = ftw("archive", "--no-sync", f"{bucket.url}/x", env=alone)
    assert ended.code == 1
    assert is_told_well(ended, "credentials")


def test_without_the_library_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['s3fs'] = None; sys.argv = ['ftw', 'archive', '--no-sync', 's3://bucket/x'];"
        "from fine_tuning_warehouse.cli import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert ran.returncode == 2
    assert "pip install 'fine-tuning-warehouse[s3]'" in ran.stderr
