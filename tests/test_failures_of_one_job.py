"""What fails for one job is reported, skipped and read once it can be; everything else is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.errors import CommandError
from harness import DAY, HOUR, NOW, Database

MISSING_ENDPOINT = {"error": {"message": "Invalid URL (GET /v1/...)", "type": "invalid_request_error"}}


def add_jobs(world: ScriptedWorld, count: int = 4, *, start: int = 0) -> None:
    """Jobs that ended long ago, each with two checkpoints and an event."""
    for number in range(start, count):
        job_id = f"job-{number}"
        world.add_job(id=job_id, created_at=NOW - DAY + 600 * number, finished_at=NOW - DAY + 9000)
        world.add_checkpoint(job_id, id=f"ckpt-{number}a")
        world.add_checkpoint(job_id, id=f"ckpt-{number}b")
        world.add_event(job_id, id=f"event-{number}")


def checkpoints(*numbers: int) -> list[str]:
    """The ids of the checkpoints of some of the jobs of `add_jobs`."""
    return [f"ckpt-{number}{letter}" for number in numbers for letter in "ab"]


@pytest.mark.first_only
@pytest.mark.parametrize(
    ("number", "status"),
    [(3, 403), (0, 403), (1, 404), (2, 500)],
    ids=["newest job 403", "oldest job 403", "404", "500"],
)
def test_a_job_whose_checkpoints_cannot_be_read_is_skipped_and_read_once_they_can(
    number: int, status: int, world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    add_jobs(world)
    host.faults.append(Fault("status", path=rf"job-{number}/checkpoints", times=None, status=status))
    summary = database.sync()
    assert summary.status == "done"
    assert [(skip["job"], skip["resource"]) for skip in summary.skipped] == [(f"job-{number}", "checkpoints")]
    assert str(status) in (summary.skipped[0]["reason"] or "")
    assert summary.jobs["open"] == 1
    assert database.ids("checkpoints") == checkpoints(*sorted({0, 1, 2, 3} - {number}))
    assert database.ids("events") == [f"event-{each}" for each in range(4)]
    host.faults.clear()
    assert database.sync().skipped == []
    assert database.ids("checkpoints") == checkpoints(0, 1, 2, 3)
    assert len(database.paths()) == 2


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("kind", ["stuck_cursor", "empty_more"])
def test_a_job_whose_checkpoints_have_no_end_is_skipped_with_the_address(
    kind: Any, world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    world.page_limit = 2
    add_jobs(world, 3)
    host.faults.append(Fault(kind, path=r"job-2/checkpoints", times=None))
    (skip,) = database.sync().skipped
    assert (skip["job"], skip["resource"]) == ("job-2", "checkpoints")
    assert f"{host.base_url}/fine_tuning/jobs/job-2/checkpoints" in (skip["reason"] or "")
    assert set(checkpoints(0, 1)) <= set(database.ids("checkpoints"))
    host.faults.clear()
    assert database.sync().skipped == []
    assert database.ids("checkpoints") == checkpoints(0, 1, 2)


@pytest.mark.first_only
@pytest.mark.parametrize("status", [202, 204])
def test_a_result_file_that_is_answered_with_nothing_keeps_its_job_open(
    status: int, world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    world.add_file("file-a", b"step,train_loss\n1,0.5\n")
    world.add_job(id="job-a", created_at=NOW - DAY, finished_at=NOW - DAY + 9000, result_files=["file-a"])
    host.faults.append(Fault("status", path="/content$", times=None, status=status, body=b""))
    summary = database.sync(resources=("result_metrics",))
    assert [(skip["job"], skip["resource"]) for skip in summary.skipped] == [("job-a", "result_metrics")]
    assert str(status) in (summary.skipped[0]["reason"] or "")
    host.faults.clear()
    assert database.sync(resources=("result_metrics",)).jobs["open"] == 0
    assert database.rows("SELECT train_loss FROM result_metrics") == [(0.5,)]


def test_several_jobs_that_cannot_be_read_do_not_keep_the_others_from_being_read(
    world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    add_jobs(world, 6)
    host.faults.append(Fault("status", path=r"job-[05]/checkpoints", times=None, status=403))
    summary = database.sync()
    assert database.ids("checkpoints") == checkpoints(1, 2, 3, 4)
    assert sorted(skip["job"] or "" for skip in summary.skipped) == ["job-0", "job-5"]


@pytest.mark.nightly
def test_one_listing_that_is_no_url_where_others_were_read_before_concerns_its_job_only(
    world: ScriptedWorld, database: Database
) -> None:
    add_jobs(world, 1)
    database.sync()
    add_jobs(world, 4, start=1)
    world.hide("job-3", "checkpoints")  # the newest, which is read first
    summary = database.sync()
    assert [skip["job"] for skip in summary.skipped] == ["job-3"]
    assert database.ids("checkpoints") == checkpoints(0, 1, 2)


@pytest.mark.thorough
def test_a_job_whose_id_the_host_cannot_route_keeps_no_other_job_from_being_read(
    world: ScriptedWorld, database: Database
) -> None:
    add_jobs(world, 2)
    world.add_job(id="a/b", created_at=NOW - HOUR, status="running", finished_at=None)
    summary = database.sync()
    assert database.ids("checkpoints") == checkpoints(0, 1)
    assert database.ids("events") == ["event-0", "event-1"]
    assert {skip["job"] for skip in summary.skipped} <= {"a/b"}


@pytest.mark.thorough
def test_a_job_that_is_gone_is_reported_once_and_closed(world: ScriptedWorld, clock: Clock, database: Database) -> None:
    add_jobs(world, 2)
    world.add_job(id="job-gone", created_at=NOW - 2 * DAY, status="running", finished_at=None)
    database.sync()
    world.remove_job("job-gone")
    clock.advance(60)
    summary = database.sync()
    assert [skip["job"] for skip in summary.skipped] == ["job-gone"]
    assert summary.jobs["open"] == 0
    summary = database.sync()
    assert (summary.requests, summary.skipped) == (1, [])
    assert database.ids("jobs") == ["job-0", "job-1", "job-gone"]


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("of_children", [None, MISSING_ENDPOINT], ids=["the same error", "no such URL"])
def test_a_job_that_goes_between_its_listing_and_its_children_is_reported_once_and_closed(
    of_children: Any, world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    add_jobs(world)
    gone: dict[str, Any] = {"status": 404, "code": "fine_tune_not_found", "message": "Could not find fine tune: job-1"}
    host.faults.append(Fault("status", path=r"/jobs/job-1$", times=None, **gone))
    children: dict[str, Any] = gone if of_children is None else {"status": 404, "body": of_children}
    host.faults.append(Fault("status", path=r"/jobs/job-1/", times=None, **children))
    summary = database.sync(concurrency=1)
    assert [skip["job"] for skip in summary.skipped] == ["job-1"]
    assert "no longer has this job" in (summary.skipped[0]["reason"] or "")
    assert summary.jobs["open"] == 0
    assert database.ids("checkpoints") == checkpoints(0, 2, 3)
    summary = database.sync()
    assert (summary.requests, summary.skipped) == (1, [])


@pytest.mark.thorough
def test_an_endpoint_that_the_host_lacks_costs_one_probe_and_is_loaded_whole_once_it_appears(
    world: ScriptedWorld, clock: Clock, host: Simulator, database: Database
) -> None:
    world.page_limit = 2
    add_jobs(world, 5)
    host.faults.append(Fault("status", path="/events$", times=None, status=404, body=MISSING_ENDPOINT))
    for sync in range(2):
        summary = database.sync()
        assert [(skip["job"], skip["resource"]) for skip in summary.skipped] == [(None, "events")]
        assert len([path for path in database.paths() if path.endswith("/events")]) == 1
        assert database.paths().count("/fine_tuning/jobs") == (3 if sync == 0 else 1)
    assert database.ids("checkpoints") == checkpoints(0, 1, 2, 3, 4)
    host.faults.clear()
    assert database.sync().skipped == []
    assert database.ids("events") == [f"event-{number}" for number in range(5)]
    assert database.sync().requests == 1


@pytest.mark.nightly
def test_an_open_job_that_cannot_be_asked_for_stays_open(
    world: ScriptedWorld, clock: Clock, host: Simulator, database: Database
) -> None:
    world.page_limit = 2
    world.add_job(id="job-old", created_at=NOW - 9 * DAY, status="running", finished_at=None)
    add_jobs(world, 5)
    database.sync()
    world.update_job("job-old", status="succeeded", finished_at=NOW)
    world.add_checkpoint("job-old", id="ckpt-old")
    clock.advance(2 * HOUR)
    host.faults.append(Fault("status", path="job-old$", times=None, status=500))
    summary = database.sync()
    assert ([skip["job"] for skip in summary.skipped], summary.jobs["open"]) == (["job-old"], 1)
    host.faults.clear()
    assert database.sync().jobs["open"] == 0
    assert "ckpt-old" in database.ids("checkpoints")
    assert database.rows("SELECT status FROM jobs WHERE id = 'job-old'") == [("succeeded",)]


@pytest.mark.first_only
@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_job_listing_that_cannot_be_read_ends_the_sync_and_keeps_what_was_loaded(
    status: int, world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    add_jobs(world, 1)
    host.faults.append(Fault("status", path="/jobs$", times=None, status=status))
    with pytest.raises(CommandError, match=str(status)):
        database.sync()
    host.faults.clear()
    database.sync()
    assert database.ids("checkpoints") == checkpoints(0)
