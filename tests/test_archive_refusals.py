"""A host that refuses every file is asked for a few of them, and the archive says why the others are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from command import Command
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.archive.fetch import FEW, MANY
from histories import add_history

JOBS = 18

FREE_ACCOUNT = "downloading of fine-tune training files is disabled for free accounts"


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator, world: ScriptedWorld) -> Command:
    """The command, with a database of jobs that each name a training file."""
    add_history(world, range(JOBS), children=1)
    for number in range(JOBS):
        world.add_file(f"train-{number:02}", b"{}\n" * 9, purpose="fine-tune")
        validation = f"train-{number - 1:02}" if number == JOBS - 1 else None
        world.update_job(f"ftjob-{number:03}", training_file=f"train-{number:02}", validation_file=validation)
    world.update_job(f"ftjob-{JOBS - 2:03}", training_file="train-00")
    command = Command(tmp_path, host.base_url)
    assert command("sync", "--quiet").code == 0
    host.requests.clear()
    return command


def requested(host: Simulator, kind: str) -> int:
    """How many contents of files were requested."""
    return sum(f"/files/{kind}" in one.path and one.path.endswith("/content") for one in host.requests)


def missing(ftw: Command) -> list[dict[str, Any]]:
    """What the manifest lists as missing."""
    listed: list[dict[str, Any]] = json.loads((ftw.folder / "kept/manifest.json").read_text())["missing"]
    return listed


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (400, {"message": FREE_ACCOUNT}, f"400: {FREE_ACCOUNT}"),
        (403, {"message": "Not allowed.", "code": "no_access"}, "403 (no_access): Not allowed."),
        (403, {"body": b""}, "the host answered 403"),
        (404, {"body": b"<html>Not here</html>"}, "the host answered 404"),
        (404, {"body": {"detail": "Not Found"}}, "404: Not Found"),
        (405, {"message": "Method not allowed"}, "405: Method not allowed"),
    ],
)
def test_a_refusal_of_all_training_files_costs_a_few_requests_and_is_said_once(
    ftw: Command, host: Simulator, status: int, answer: dict[str, Any], reason: str
) -> None:
    host.faults.append(Fault("status", path="/train-.*/content$", times=None, status=status, **answer))
    ended = ftw("archive", "kept", "--training-files")
    assert ended.code == 0, ended.err
    assert requested(host, "train-") == FEW
    assert requested(host, "file-") == JOBS, "result files come all the same"
    assert {one["reason"] for one in missing(ftw)} == {reason}
    assert len(missing(ftw)) == JOBS
    lines = [line for line in ended.err.splitlines() if line.startswith("Missing ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"Missing {JOBS} files, such as train-00 of ftjob-000: {reason}")
    assert ftw("archive", "kept", "--training-files", "--strict").code == 3


def test_a_refusal_of_all_result_files_is_not_one_of_training_files(ftw: Command, host: Simulator) -> None:
    host.faults.append(Fault("status", path="/file-.*/content$", times=None, status=400, message="No."))
    ended = ftw("archive", "kept", "--training-files")
    assert ended.code == 0, ended.err
    assert (requested(host, "file-"), requested(host, "train-")) == (FEW, JOBS)
    assert [one["kind"] for one in missing(ftw)] == ["result_file"] * JOBS


def test_request_ids_in_a_refusal_do_not_make_it_another(ftw: Command, host: Simulator) -> None:
    for number in range(JOBS):
        words = f"Disabled for free accounts (request req_{number:x}abc, {number:08}-1234-1234-1234-123456789abc)"
        path = f"/train-{number:02}/content$"
        host.faults.append(Fault("status", path=path, times=None, status=400, message=words))
    assert ftw("archive", "kept", "--training-files").code == 0
    assert requested(host, "train-") == FEW


@pytest.mark.parametrize(
    ("status", "words"), [(400, "File train-{number:02} was deleted."), (404, "No such file."), (410, "Expired.")]
)
def test_a_refusal_that_is_about_one_file_says_nothing_of_the_others(
    ftw: Command, host: Simulator, status: int, words: str
) -> None:
    for number in range(JOBS - 1):
        message, path = words.format(number=number), f"/train-{number:02}/content$"
        host.faults.append(Fault("status", path=path, times=None, status=status, message=message))
    assert ftw("archive", "kept", "--training-files").code == 0
    assert requested(host, "train-") == JOBS
    assert len(missing(ftw)) == JOBS - 1
    assert (ftw.folder / f"kept/training_files/train-{JOBS - 1:02}.jsonl").exists()


def test_the_same_refusal_of_some_files_does_not_keep_the_others_away(ftw: Command, host: Simulator) -> None:
    host.faults.append(Fault("status", path="/train-0[12]/content$", times=None, status=403, message="Not allowed."))
    assert ftw("archive", "kept", "--training-files").code == 0
    assert {one["id"] for one in missing(ftw)} == {f"train-{number:02}" for number in (1, 2)}


def test_a_host_that_stops_to_serve_files_is_not_asked_for_every_one(ftw: Command, host: Simulator) -> None:
    host.faults.append(Fault("status", path="/train-(?!00).*/content$", times=None, status=403, message="No more."))
    assert ftw("archive", "kept", "--training-files", "--concurrency", "1").code == 0
    assert FEW <= requested(host, "train-") <= MANY + FEW


def test_files_that_are_allowed_later_come_with_the_next_run(ftw: Command, host: Simulator) -> None:
    host.faults.append(Fault("status", path="/train-.*/content$", times=None, status=400, message=FREE_ACCOUNT))
    assert ftw("archive", "kept", "--training-files").code == 0
    host.faults.clear()
    assert ftw("archive", "kept", "--training-files", "--strict").code == 0
    assert missing(ftw) == []


def test_a_host_without_records_of_files_is_asked_for_one_record(
    ftw: Command, host: Simulator, world: ScriptedWorld
) -> None:
    """The table `files` knows nothing, so that the archive asks for sizes."""
    ftw.database.unlink()
    host.faults.append(Fault("status", path=r"/files(/[^/]+)?$", times=None, status=404, body={"detail": "Not Found"}))
    assert ftw("sync", "--quiet").code == 0
    host.requests.clear()
    assert ftw("archive", "kept", "--training-files").code == 0
    assert sum("/files/train-" in one.path and not one.path.endswith("content") for one in host.requests) <= 2
    assert missing(ftw) == []
