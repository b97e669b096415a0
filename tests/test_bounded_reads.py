"""A read of some jobs, or of jobs since a date, hides nothing from a later read of everything."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from fine_tuning_simulator import Clock, ScriptedWorld
from harness import DAY, HOUR, NOW, Database


def add_jobs(world: ScriptedWorld) -> None:
    """Five jobs a day apart that closed long ago, each with a checkpoint and an event; the last one is a day old."""
    for number in range(5):
        created_at = NOW - (5 - number) * DAY
        world.add_job(id=f"job-{number}", created_at=created_at, finished_at=created_at + HOUR)
        world.add_checkpoint(f"job-{number}", id=f"ckpt-{number}")
        world.add_event(f"job-{number}", id=f"event-{number}")


def day(number: int) -> str:
    """The date of a moment just before a job of `add_jobs` was created."""
    return datetime.fromtimestamp(NOW - (5 - number) * DAY - 60, tz=timezone.utc).isoformat()


@pytest.mark.nightly
def test_some_jobs_by_id_and_then_everything(world: ScriptedWorld, database: Database) -> None:
    add_jobs(world)
    database.sync(job_ids=("job-4", "job-2"))
    assert database.ids("jobs") == ["job-2", "job-4"]
    assert database.ids("checkpoints") == ["ckpt-2", "ckpt-4"]
    assert database.ids("events") == ["event-2", "event-4"]
    assert "/fine_tuning/jobs" not in database.paths()
    database.sync()
    assert database.ids("jobs") == [f"job-{number}" for number in range(5)]
    assert database.ids("checkpoints") == [f"ckpt-{number}" for number in range(5)]
    assert database.ids("events") == [f"event-{number}" for number in range(5)]


@pytest.mark.thorough
def test_jobs_since_a_date_and_then_everything(world: ScriptedWorld, database: Database) -> None:
    world.page_limit = 2
    add_jobs(world)
    database.sync(since=day(3))
    assert database.ids("jobs") == ["job-3", "job-4"]
    assert database.ids("checkpoints") == ["ckpt-3", "ckpt-4"]
    assert database.paths().count("/fine_tuning/jobs") == 2
    database.sync()
    assert database.ids("checkpoints") == [f"ckpt-{number}" for number in range(5)]
    assert database.ids("events") == [f"event-{number}" for number in range(5)]


def test_since_reads_a_listing_that_is_oldest_first_to_its_end(database: Database, world: ScriptedWorld) -> None:
    world._order = "oldest_first"
    world._jobs._order = "oldest_first"
    world.page_limit = 2
    add_jobs(world)
    database.sync(since=day(3))
    assert database.ids("jobs") == ["job-3", "job-4"]


@pytest.mark.thorough
def test_a_bounded_read_closes_nothing(world: ScriptedWorld, clock: Clock, database: Database) -> None:
    world.add_job(id="job-a", created_at=NOW - HOUR, status="running", finished_at=None)
    world.add_job(id="job-b", created_at=NOW - HOUR + 60, status="running", finished_at=None)
    database.sync()
    for job_id in ("job-a", "job-b"):
        world.update_job(job_id, status="succeeded", finished_at=NOW)
        world.add_checkpoint(job_id, id=f"ckpt-{job_id}")
    clock.advance(2 * HOUR)
    database.sync(job_ids=("job-a",))
    assert database.ids("checkpoints") == ["ckpt-job-a"]
    world.add_event("job-a", id="event-a")
    summary = database.sync()
    assert summary.jobs["open"] == 0
    assert database.ids("checkpoints") == ["ckpt-job-a", "ckpt-job-b"]
    assert database.ids("events") == ["event-a"]
    assert database.rows("SELECT DISTINCT status FROM jobs") == [("succeeded",)]


@pytest.mark.thorough
def test_a_job_that_a_full_sync_closed_can_be_read_again_by_id(world: ScriptedWorld, database: Database) -> None:
    add_jobs(world)
    database.sync()
    world.update_checkpoint("ckpt-1", step_number=77)
    database.sync(job_ids=("job-1",))
    assert database.rows("SELECT step_number FROM checkpoints WHERE id = 'ckpt-1'") == [(77,)]
    assert database.sync().requests == 1


def test_a_job_id_that_does_not_exist_is_reported_and_the_others_are_read(
    world: ScriptedWorld, database: Database
) -> None:
    add_jobs(world)
    summary = database.sync(job_ids=("job-0", "no-such-job", "../../files"))
    assert summary.status == "done"
    assert sorted(skip["job"] or "" for skip in summary.skipped) == ["../../files", "no-such-job"]
    assert database.ids("jobs") == ["job-0"]


@pytest.mark.nightly
def test_a_kept_checkpoint_counts_as_kept_after_a_bounded_read_and_a_sync_of_jobs_alone(
    world: ScriptedWorld, database: Database
) -> None:
    add_jobs(world)
    database.sync(job_ids=("job-4",))
    database.sync(resources=("jobs",))
    assert database.rows(
        "SELECT c.last_listed_at >= coalesce(j.checkpoints_listed_at, c.last_listed_at) "
        "FROM checkpoints c JOIN jobs j ON j.id = c.fine_tuning_job_id"
    ) == [(True,)]
