"""The resource `files`: what is told of the files that jobs name, and how many requests that takes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from harness import DAY, HOUR, NOW, Database
from openai_fine_tuning import settings
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.files import Files


def add_job(world: ScriptedWorld, name: str, *, training: Any, **fields: Any) -> None:
    world.add_job(id=name, created_at=NOW - DAY, finished_at=NOW - DAY + 60, training_file=training, **fields)


def asked_for(database: Database) -> list[str]:
    """The requests of the last sync that concern files' descriptions."""
    paths = (path for path in database.paths() if path.startswith("/files") and not path.endswith("/content"))
    return sorted(paths)


def test_what_the_host_tells_of_a_file_is_a_row(world: ScriptedWorld, database: Database) -> None:
    world.add_file(
        "file-t", b"x" * 7, filename="../tone.jsonl", purpose="fine-tune", created_at=NOW - DAY, expires_at=NOW + DAY
    )
    add_job(world, "job", training="file-t")
    assert database.sync().rows["files"] == 1
    row = database.rows(
        "SELECT account, id, object, filename, bytes, purpose, status, epoch(created_at), epoch(expires_at) FROM files"
    )
    assert row == [
        ("default", "file-t", "file", "../tone.jsonl", 7, "fine-tune", "processed", NOW - DAY, NOW + DAY),
    ]


def test_files_of_three_kinds_are_read_and_strangers_are_not(world: ScriptedWorld, database: Database) -> None:
    for name in ("file-t", "file-v", "file-r", "file-of-a-batch"):
        world.add_file(name, b"step,train_loss\n1,0.5\n")
    add_job(world, "job", training="file-t", validation_file="file-v", result_files=["file-r"])
    database.sync()
    assert database.ids("files") == ["file-r", "file-t", "file-v"]


@pytest.mark.thorough
def test_a_file_of_many_jobs_is_asked_for_once_and_then_never_again(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_file("file-t")
    for number in range(30):
        add_job(world, f"job-{number}", training="file-t")
    world.add_job(id="runs", created_at=NOW - HOUR, status="running", training_file="file-t")
    assert database.sync().rows["files"] == 1
    assert asked_for(database) == ["/files/file-t"]
    clock.advance(HOUR)
    assert database.sync().rows["files"] == 0
    assert asked_for(database) == []


def test_many_files_come_from_one_listing(world: ScriptedWorld, database: Database) -> None:
    for number in range(40):
        world.add_file(f"file-{number}")
        add_job(world, f"job-{number}", training=f"file-{number}")
    assert database.sync().rows["files"] == 40
    asked = asked_for(database)
    assert asked.count("/files") == 1
    assert len(asked) == settings.FEW_FILES + 1


@pytest.mark.thorough
def test_what_a_short_listing_leaves_out_is_asked_for_by_id(
    world: ScriptedWorld, database: Database, host: Simulator
) -> None:
    for number in range(40):
        world.add_file(f"file-{number}")
        add_job(world, f"job-{number}", training=f"file-{number}")
    world.page_limit = 2
    assert database.sync().rows["files"] == 40
    asked = asked_for(database)
    assert asked.count("/files") == settings.MAX_FILES_PAGES


@pytest.mark.thorough
def test_a_listing_that_fails_costs_requests_and_no_rows(
    world: ScriptedWorld, database: Database, host: Simulator
) -> None:
    for number in range(15):
        world.add_file(f"file-{number}")
        add_job(world, f"job-{number}", training=f"file-{number}")
    host.faults.append(Fault("status", path="/files$", times=3, status=403))
    summary = database.sync()
    assert (summary.rows["files"], summary.skipped) == (15, [])


@pytest.mark.thorough
def test_a_file_that_is_gone_is_reported_once(world: ScriptedWorld, clock: Clock, database: Database) -> None:
    add_job(world, "job", training="file-gone")
    world.add_job(id="runs", created_at=NOW - HOUR, status="running", training_file="file-gone")
    summary = database.sync()
    assert sorted((skip["job"], skip["resource"]) for skip in summary.skipped) == [("job", "files"), ("runs", "files")]
    assert all("no longer has its file file-gone" in str(skip["reason"]) for skip in summary.skipped)
    assert asked_for(database) == ["/files/file-gone"]
    clock.advance(HOUR)
    assert database.sync().skipped == []
    assert asked_for(database) == []


@pytest.mark.nightly
def test_a_result_file_that_is_gone_is_told_once_however_many_resources_miss_it(
    world: ScriptedWorld, database: Database
) -> None:
    add_job(world, "job", training="file-scripted-training", result_files=["file-gone"])
    (skip,) = database.sync().skipped
    assert skip["resource"] == "result_metrics"
    (skip,) = database.sync(resources=("files",), full_refresh=True).skipped
    assert skip["resource"] == "files"


@pytest.mark.thorough
def test_result_files_that_a_job_writes_later_are_read(world: ScriptedWorld, clock: Clock, database: Database) -> None:
    world.add_job(id="job", created_at=NOW - HOUR, status="running")
    assert database.sync().rows["files"] == 1
    world.add_file("file-r", b"step,train_loss\n1,0.5\n")
    world.update_job("job", status="succeeded", finished_at=NOW + 60, result_files=["file-r"])
    clock.advance(2 * HOUR)
    assert database.sync().rows["files"] == 1
    assert database.ids("files") == ["file-r", "file-scripted-training"]
    assert database.sync().requests == 1


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("odd", [7, [["file-a"]], {"id": 7}, {"name": "file-a"}, "..", True])
def test_an_id_that_is_none_is_kept_with_the_reason(world: ScriptedWorld, database: Database, odd: object) -> None:
    world.add_job(id="job", created_at=NOW - DAY, finished_at=NOW - DAY + 60, training_file=odd)
    assert database.sync().rejected == 1
    assert database.rows("SELECT resource, fine_tuning_job_id FROM rejected_records") == [("files", "job")]
    assert database.sync().rejected == 0


@pytest.mark.thorough
def test_a_file_that_stands_as_an_object_is_read_by_its_id(world: ScriptedWorld, database: Database) -> None:
    for name in ("file-t", "file-v", "file-r"):
        world.add_file(name, b"step,train_loss\n1,0.5\n")
    results: Any = [{"id": "file-r", "object": "file"}]
    named = {"training": {"id": "file-t", "bytes": 9}, "validation_file": {"id": "file-v"}, "result_files": results}
    add_job(world, "job", **named)
    assert database.sync().rejected == 0
    assert database.ids("files") == ["file-r", "file-t", "file-v"]
    assert database.rows("SELECT file_id, train_loss FROM result_metrics") == [("file-r", 0.5)]


@pytest.mark.thorough
def test_another_file_than_the_one_asked_for_is_rejected(
    world: ScriptedWorld, database: Database, host: Simulator
) -> None:
    add_job(world, "job", training="file-t")
    other = {"id": "file-other", "object": "file", "created_at": NOW}
    host.faults.append(Fault("status", path="/files/file-t$", status=200, body=other))
    assert database.sync().rejected == 1
    assert database.ids("files") == []
    assert database.rows("SELECT reason FROM rejected_records") == [("the host was asked for the file file-t",)]


@pytest.mark.thorough
def test_a_failure_of_one_file_keeps_its_job_open(world: ScriptedWorld, database: Database, host: Simulator) -> None:
    for name in ("a", "b", "c", "d"):
        world.add_file(f"file-{name}")
        add_job(world, f"job-{name}", training=f"file-{name}")
    host.faults.append(Fault("status", path="/files/file-b$", times=1, status=403))
    summary = database.sync()
    assert [(skip["job"], skip["resource"]) for skip in summary.skipped] == [("job-b", "files")]
    assert database.ids("files") == ["file-a", "file-c", "file-d"]
    assert database.sync().skipped == []
    assert database.ids("files") == ["file-a", "file-b", "file-c", "file-d"]


def test_questions_at_once_for_one_file_are_one_request(world: ScriptedWorld, host: Simulator) -> None:
    world.add_file("file-t")
    host.faults.append(Fault("slow", path="/files/file-t$", seconds=0.3))
    files = Files(FineTuningApi(host.base_url, "key"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(files.find, ["file-t"] * 8))
    assert [one.record["id"] for one in found] == ["file-t"] * 8
    assert sum(one.is_first for one in found) == 1
    assert len(host.requests) == 1
