"""What a sync costs, in requests."""

from __future__ import annotations

import pytest

from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from harness import DAY, HOUR, NOW, Database


def add_closed(world: ScriptedWorld, numbers: range) -> None:
    """Jobs that closed long ago, ten minutes apart."""
    for number in numbers:
        world.add_job(id=f"ftjob-{number:03}", created_at=NOW - 2 * DAY + 600 * number, finished_at=NOW - DAY)


def test_nothing_new_costs_one_request_however_long_the_history(world: ScriptedWorld, database: Database) -> None:
    world.page_limit = 5
    add_closed(world, range(12))
    database.sync()
    summary = database.sync()
    assert database.paths() == ["/fine_tuning/jobs"]
    assert summary.requests == 1
    assert sum(summary.rows.values()) == 0


@pytest.mark.thorough
def test_each_open_job_costs_one_request_for_each_of_its_listings(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    add_closed(world, range(3))
    world.add_job(id="running-1", created_at=NOW - HOUR, status="running", finished_at=None)
    world.add_job(id="running-2", created_at=NOW - HOUR + 60, status="running", finished_at=None)
    database.sync()
    clock.advance(60)
    database.sync()
    assert database.paths() == [
        "/fine_tuning/jobs",
        "/fine_tuning/jobs/running-1/checkpoints",
        "/fine_tuning/jobs/running-1/events",
        "/fine_tuning/jobs/running-2/checkpoints",
        "/fine_tuning/jobs/running-2/events",
    ]


@pytest.mark.nightly
def test_an_open_job_that_the_first_page_does_not_show_costs_one_request_more(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.page_limit = 5
    world.add_job(id="old", created_at=NOW - 9 * DAY, status="running", finished_at=None)
    add_closed(world, range(12))
    database.sync()
    clock.advance(60)
    world.update_job("old", status="paused")
    database.sync()
    assert database.paths() == [
        "/fine_tuning/jobs",
        "/fine_tuning/jobs/old",
        "/fine_tuning/jobs/old/checkpoints",
        "/fine_tuning/jobs/old/events",
    ]
    assert database.rows("SELECT status FROM jobs WHERE id = 'old'") == [("paused",)]


@pytest.mark.nightly
def test_many_open_jobs_further_back_are_listed_and_not_asked_for_one_by_one(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.page_limit = 10
    for number in range(20):
        world.add_job(
            id=f"open-{number:02}", created_at=NOW - 3 * DAY + 600 * number, status="running", finished_at=None
        )
    add_closed(world, range(10))
    database.sync(resources=("jobs", "checkpoints"))
    clock.advance(60)
    database.sync(resources=("jobs", "checkpoints"))
    paths = database.paths()
    assert len([path for path in paths if path.endswith("/checkpoints")]) == 20
    assert len(paths) - 20 <= 4
    assert paths.count("/fine_tuning/jobs") >= 3


def test_a_first_sync_of_checkpoints_alone_costs_one_request_a_job_and_page(
    world: ScriptedWorld, database: Database
) -> None:
    world.page_limit = 5
    add_closed(world, range(12))
    summary = database.sync(resources=("checkpoints",))
    assert len(database.paths()) == summary.requests == 12 + 3


def test_an_account_without_jobs_costs_one_request(database: Database) -> None:
    assert database.sync().requests == 1
    assert database.sync().requests == 1


@pytest.mark.thorough
def test_a_result_file_is_read_at_each_sync_until_its_job_closes(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_file("file-a", b"step,train_loss\n1,0.5\n")
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="running", finished_at=None, result_files=["file-a"])
    contents: list[int] = []
    for step in (0, 60, 60, HOUR, 60):
        clock.advance(step)
        if contents == [1]:
            world.update_job("ftjob-a", status="succeeded", finished_at=clock.now())
        database.sync()
        contents.append(database.paths().count("/files/file-a/content"))
    assert contents == [1, 1, 1, 1, 0]
    assert database.rows("SELECT count(*) FROM result_metrics") == [(1,)]


def test_the_long_events_of_the_first_job_hold_up_no_other_job(
    world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    world.page_limit = 2
    add_closed(world, range(4))
    for number in range(20):
        world.add_event("ftjob-003", id=f"event-{number}")
    host.faults.append(Fault("slow", path="ftjob-003/events$", times=None, seconds=0.1))
    database.sync(resources=("events",), concurrency=4)
    asked = [request.path for request in host.requests if request.path.endswith("/events")]
    assert len(asked) == 10 + 3
    assert "ftjob-003" in asked[0], "the newest job is the probe"
    assert "ftjob-003" in asked[-1], "its last pages come after the events of all others"


@pytest.mark.nightly
def test_an_endpoint_that_is_missing_costs_one_request_however_many_parts_a_sync_has(
    world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    add_closed(world, range(20))
    for number in range(20):
        world.add_checkpoint(f"ftjob-{number:03}")
    missing = {"error": {"message": "Invalid URL (GET /v1/...)", "type": "invalid_request_error"}}
    host.faults.append(Fault("status", path="/events$", times=None, status=404, body=missing))
    summary = database.sync(commit_rows=5, concurrency=1, resources=("checkpoints", "events"))
    assert len(summary.load_ids) > 2
    assert sum(path.endswith("/events") for path in database.paths()) == 1
    assert [(skip["job"], skip["resource"]) for skip in summary.skipped] == [(None, "events")]
