"""Nothing is lost, whenever and in whatever order the host shows it."""

from __future__ import annotations

from typing import Any

import pytest

from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from harness import DAY, HOUR, NOW, Database
from openai_fine_tuning.api.jobs import Job
from openai_fine_tuning.state.watermark import Watermark

RETAINED = """
    SELECT c.id, c.last_listed_at >= coalesce(
        j.checkpoints_listed_at, max(c.last_listed_at) OVER (PARTITION BY c.fine_tuning_job_id)
    )
    FROM checkpoints c JOIN jobs j ON j.account = c.account AND j.id = c.fine_tuning_job_id ORDER BY c.id
"""
"""Whether the host keeps each checkpoint, by the rule that the views use: where only one of the two tables was read,
the job's time is older, or unknown."""


@pytest.mark.thorough
def test_a_checkpoint_that_surfaces_later_with_an_older_time_is_loaded(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-long", created_at=NOW - 5 * HOUR, status="running", finished_at=None)
    world.add_job(id="ftjob-short", created_at=NOW - 3 * HOUR, status="succeeded", finished_at=NOW - 2 * HOUR)
    world.add_checkpoint("ftjob-short", id="ftckpt-new", created_at=NOW - 2 * HOUR, step_number=9)
    database.sync()
    assert database.ids("checkpoints") == ["ftckpt-new"]

    world.update_job("ftjob-long", status="succeeded", finished_at=NOW)
    world.add_checkpoint("ftjob-long", id="ftckpt-old", created_at=NOW - 4 * HOUR, step_number=5)
    clock.advance(60)
    database.sync()

    assert database.ids("checkpoints") == ["ftckpt-new", "ftckpt-old"]
    assert database.rows("SELECT status FROM jobs WHERE id = 'ftjob-long'") == [("succeeded",)]


@pytest.mark.thorough
def test_a_status_that_changes_while_created_at_stays_is_updated_in_place(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="queued", finished_at=None)
    database.sync()
    world.update_job("ftjob-a", status="running")
    clock.advance(60)
    database.sync()
    assert database.rows("SELECT id, status, finished_at FROM jobs") == [("ftjob-a", "running", None)]


@pytest.mark.thorough
def test_a_checkpoint_and_an_event_that_appear_seconds_after_the_end_are_loaded(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="succeeded", finished_at=NOW)
    database.sync()
    clock.advance(3)
    world.add_checkpoint("ftjob-a", id="ftckpt-late", created_at=NOW - 60)
    world.add_event("ftjob-a", id="ftevent-late", created_at=NOW + 2)
    database.sync()
    assert database.ids("checkpoints") == ["ftckpt-late"]
    assert database.ids("events") == ["ftevent-late"]


def test_a_job_is_read_once_more_after_the_grace_period_and_then_never_again(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="succeeded", finished_at=NOW)
    database.sync()
    world.add_checkpoint("ftjob-a", id="ftckpt-late", created_at=NOW - 60)
    clock.advance(HOUR + 1)
    assert database.sync().jobs["open"] == 0
    assert database.ids("checkpoints") == ["ftckpt-late"]
    assert database.paths() == [
        "/fine_tuning/jobs",
        "/fine_tuning/jobs/ftjob-a/checkpoints",
        "/fine_tuning/jobs/ftjob-a/events",
    ]

    world.add_checkpoint("ftjob-a", id="ftckpt-impossible", created_at=NOW)
    clock.advance(DAY)
    database.sync()
    assert database.paths() == ["/fine_tuning/jobs"]
    assert database.ids("checkpoints") == ["ftckpt-late"]


@pytest.mark.nightly
def test_a_job_that_was_already_old_when_it_was_first_seen_running_is_not_closed_unread(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    # It was running at the last sync, and by the next one it ended longer ago than the grace period.
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="running", finished_at=None)
    database.sync()
    world.update_job("ftjob-a", status="succeeded", finished_at=NOW + 60)
    world.add_checkpoint("ftjob-a", id="ftckpt-a", created_at=NOW)
    world.add_event("ftjob-a", id="ftevent-a", created_at=NOW - 30)
    world.add_file("file-a", b"step,train_loss\n1,0.5\n")
    world.update_job("ftjob-a", result_files=["file-a"])
    clock.advance(DAY)
    assert database.sync().jobs["open"] == 0
    assert database.ids("checkpoints") == ["ftckpt-a"]
    assert database.ids("events") == ["ftevent-a"]
    assert database.rows("SELECT step, train_loss FROM result_metrics") == [(1, 0.5)]


def watch(record: dict[str, Any], *seconds: float) -> list[bool]:
    """Whether a job is closed, after it was read at each of so many seconds after NOW."""
    state: dict[str, Any] = {}
    watermark = Watermark(state, overlap=60, grace=HOUR)
    closed = []
    for later in seconds:
        job = Job.of({"id": "ftjob-a", "created_at": NOW - DAY, **record}, NOW + later)
        assert job is not None
        watermark.mark_read(job)
        closed.append("ftjob-a" not in watermark.open)
    return closed


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled", "canceled", "Succeeded"])
@pytest.mark.parametrize("none", [None, 0, -1, "0", NOW - 2 * DAY, NOW + 30 * DAY, 253_402_300_799])
def test_an_ended_job_without_a_usable_time_closes_a_grace_period_after_it_was_first_seen_so(
    status: str, none: Any
) -> None:
    record = {"status": status, "finished_at": none}
    assert watch({**record, "created_at": NOW - 60}, 0, HOUR, 2 * HOUR) == [False, False, True]
    if status.lower() == "succeeded":
        assert watch(record, 0, HOUR, HOUR + 1) == [False, False, True]
    else:
        assert watch(record, 0) == [True], "it failed long before it was first seen"


@pytest.mark.parametrize("status", ["completed", "error", "expired", "user_error", "something new", None, 7, ["ended"]])
def test_any_other_status_closes_a_grace_period_after_the_end(status: Any) -> None:
    ended = {"status": status, "finished_at": NOW + HOUR}
    assert watch(ended, 0, HOUR, 2 * HOUR, 2 * HOUR + 1) == [False, False, False, True]
    assert watch({"finished_at": NOW}, 0, HOUR + 1) == [False, True], "no status at all"


@pytest.mark.parametrize("status", ["notRunning", "canceling", "pending", "pausing", "resuming", "completed", None])
@pytest.mark.parametrize("finished_at", [None, 0, NOW + 30 * DAY])
def test_a_job_that_has_no_end_yet_stays_open(status: Any, finished_at: Any) -> None:
    assert not any(watch({"status": status, "finished_at": finished_at}, 0, HOUR, DAY, 20 * DAY))


@pytest.mark.nightly
def test_a_job_that_ended_by_another_word_is_read_to_its_end_and_keeps_its_status(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_file("file-a", b"step,train_loss\n1,0.5\n")
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="expired", finished_at=NOW, result_files=["file-a"])
    assert database.sync().jobs["open"] == 1
    world.add_checkpoint("ftjob-a", id="ftckpt-late")
    clock.advance(HOUR + 1)
    assert database.sync().jobs["open"] == 0
    assert database.ids("checkpoints") == ["ftckpt-late"]
    assert database.rows("SELECT train_loss FROM result_metrics") == [(0.5,)]
    assert database.rows("SELECT status FROM jobs") == [("expired",)]
    assert database.sync().requests == 1


@pytest.mark.thorough
def test_a_result_file_that_grows_while_its_job_runs_replaces_what_was_read_of_it(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="running", finished_at=None, result_files=["file-a"])
    lines = ["step,train_loss\n", "1,0.5\n", "2,0.4\n", "3,0.3\n"]
    for number in range(1, 4):
        world.add_file("file-a", "".join(lines[: number + 1]).encode())
        database.sync()
        clock.advance(60)
        assert database.rows("SELECT step FROM result_metrics ORDER BY 1") == [(n,) for n in range(1, number + 1)]
    lines[1] = "1,0.55\n"
    world.add_file("file-a", "".join([*lines, "4,0.2\n"]).encode())
    world.update_job("ftjob-a", status="succeeded", finished_at=int(clock.now()))
    clock.advance(2 * HOUR)
    assert database.sync().jobs["open"] == 0
    assert database.rows("SELECT step, train_loss FROM result_metrics ORDER BY 1") == [
        (1, 0.55),
        (2, 0.4),
        (3, 0.3),
        (4, 0.2),
    ]
    assert database.rows("SELECT bytes FROM files WHERE id = 'file-a'") == [(len("".join(lines)) + 6,)]


@pytest.mark.nightly
def test_a_result_file_that_is_listed_before_it_exists_is_reported_once_and_read_later(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="running", finished_at=None, result_files=["file-a"])
    resources = ("result_metrics",)
    assert [skip["job"] for skip in database.sync(resources=resources).skipped] == ["ftjob-a"]
    assert database.sync(resources=resources).skipped == []
    world.add_file("file-a", b"step,train_loss\n1,0.5\n")
    assert database.sync(resources=resources).skipped == []
    assert database.rows("SELECT train_loss FROM result_metrics") == [(0.5,)]


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(("resource", "table"), [("checkpoints", "checkpoints"), ("events", "events")])
def test_an_answer_with_another_jobs_records_does_not_close_a_job(
    resource: str, table: str, world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    for name in ("a", "b"):
        world.add_job(id=f"ftjob-{name}", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
        world.add_checkpoint(f"ftjob-{name}", id=f"id-{name}")
        world.add_event(f"ftjob-{name}", id=f"id-{name}")
    foreign = {"object": "list", "has_more": False, "data": [{"id": "id-x", "fine_tuning_job_id": "ftjob-a"}]}
    host.faults.append(Fault("status", path=f"ftjob-b/{resource}$", times=None, status=200, body=foreign))
    (skip,) = database.sync().skipped
    assert (skip["job"], skip["resource"]) == ("ftjob-b", resource)
    assert "ftjob-a" in (skip["reason"] or "")
    host.faults.clear()
    assert database.sync().skipped == []
    assert database.ids(table) == ["id-a", "id-b"]


@pytest.mark.thorough
def test_two_checkpoints_of_one_second_on_either_side_of_a_sync_are_both_loaded(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="running", finished_at=None)
    world.add_checkpoint("ftjob-a", id="ftckpt-1", created_at=NOW - 60)
    world.add_event("ftjob-a", id="ftevent-1", created_at=NOW - 60)
    database.sync()
    world.add_checkpoint("ftjob-a", id="ftckpt-2", created_at=NOW - 60)
    world.add_event("ftjob-a", id="ftevent-2", created_at=NOW - 60)
    clock.advance(1)
    database.sync()
    assert database.ids("checkpoints") == ["ftckpt-1", "ftckpt-2"]
    assert database.ids("events") == ["ftevent-1", "ftevent-2"]


def test_an_event_older_than_the_newest_one_is_loaded_when_the_job_closes(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - 2 * HOUR, status="running", finished_at=None)
    world.add_event("ftjob-a", id="ftevent-new", created_at=NOW - 60)
    database.sync()
    world.add_event("ftjob-a", id="ftevent-old", created_at=NOW - HOUR)
    world.update_job("ftjob-a", status="succeeded", finished_at=NOW)
    clock.advance(2 * HOUR)
    database.sync()
    assert database.ids("events") == ["ftevent-new", "ftevent-old"]


@pytest.mark.thorough
def test_jobs_of_the_newest_second_and_late_ones_within_the_overlap_are_loaded(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-first", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
    database.sync()
    world.add_job(id="ftjob-same-second", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
    world.add_job(id="ftjob-late", created_at=NOW - DAY - 30, finished_at=NOW - DAY + 60)
    for job_id in ("ftjob-same-second", "ftjob-late"):
        world.add_checkpoint(job_id, id=f"ckpt-{job_id}")
    database.sync()
    assert database.ids("jobs") == ["ftjob-first", "ftjob-late", "ftjob-same-second"]
    assert database.ids("checkpoints") == ["ckpt-ftjob-late", "ckpt-ftjob-same-second"]
    assert "/fine_tuning/jobs/ftjob-first/checkpoints" not in database.paths()


@pytest.mark.thorough
def test_a_resource_that_is_switched_on_after_the_jobs_closed_is_loaded_whole(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    for number in range(3):
        job_id = f"ftjob-{number}"
        world.add_job(
            id=job_id,
            created_at=NOW - DAY + number * 600,
            finished_at=NOW - DAY + 9000,
            result_files=[f"file-{number}"],
        )
        world.add_checkpoint(job_id)
        world.add_event(job_id)
        world.add_file(f"file-{number}", b"step,train_loss\n1,0.5\n")
    first = database.sync(resources=("checkpoints",))
    assert first.rows["checkpoints"] == 3
    second = database.sync()
    expected = {"jobs": 3, "checkpoints": 0, "events": 3, "result_metrics": 3, "files": 4, "rejected_records": 0}
    assert second.rows == {**expected, "models": 7}
    assert not [path for path in database.paths() if path.endswith("/checkpoints")]
    database.sync()
    assert database.paths() == ["/fine_tuning/jobs"]


@pytest.mark.thorough
def test_a_checkpoint_that_the_host_drops_stays_and_is_told_from_those_it_keeps(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - 2 * HOUR, status="running", finished_at=None)
    world.add_checkpoint("ftjob-a", id="ftckpt-dropped")
    world.add_checkpoint("ftjob-a", id="ftckpt-kept")
    database.sync()
    assert database.rows(RETAINED) == [("ftckpt-dropped", True), ("ftckpt-kept", True)]
    world.remove_checkpoint("ftckpt-dropped")
    clock.advance(60)
    database.sync()
    assert database.rows(RETAINED) == [("ftckpt-dropped", False), ("ftckpt-kept", True)]
    assert database.rows(
        "SELECT last_listed_at < (SELECT checkpoints_listed_at FROM jobs) FROM checkpoints ORDER BY id"
    ) == [(True,), (False,)]


@pytest.mark.nightly
def test_the_time_of_the_last_listing_survives_a_sync_of_jobs_alone(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - 2 * HOUR, status="running", finished_at=None)
    world.add_checkpoint("ftjob-a", id="ftckpt-a")
    database.sync()
    world.update_job("ftjob-a", status="paused")
    clock.advance(60)
    database.sync(resources=("jobs",))
    assert database.rows("SELECT status FROM jobs") == [("paused",)]
    assert database.rows(RETAINED) == [("ftckpt-a", True)]


@pytest.mark.nightly
def test_a_kept_checkpoint_counts_as_kept_after_a_sync_of_checkpoints_alone(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - 2 * HOUR, status="running", finished_at=None)
    world.add_checkpoint("ftjob-a", id="ftckpt-a")
    database.sync()
    clock.advance(60)
    database.sync(resources=("checkpoints",))
    assert database.rows(RETAINED) == [("ftckpt-a", True)]


@pytest.mark.nightly
def test_a_kept_checkpoint_counts_as_kept_when_jobs_are_switched_on_later(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - DAY, finished_at=NOW - DAY + 600)
    world.add_checkpoint("ftjob-a", id="ftckpt-a")
    database.sync(resources=("checkpoints",))
    database.sync()
    assert database.rows(RETAINED) == [("ftckpt-a", True)]


@pytest.mark.nightly
def test_a_kept_checkpoint_counts_as_kept_after_a_full_refresh_of_jobs_alone(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - DAY, finished_at=NOW - DAY + 600)
    world.add_checkpoint("ftjob-a", id="ftckpt-a")
    database.sync()
    database.sync(resources=("jobs",), full_refresh=True)
    assert database.rows(RETAINED) == [("ftckpt-a", True)]


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(
    ("age", "last_event", "is_closed"), [(5, 2, True), (5, 0, False), (5, None, True), (0, None, False)]
)
def test_a_job_that_failed_without_an_end_closes_by_its_last_event_or_when_it_is_first_seen(
    world: ScriptedWorld, database: Database, age: int, last_event: int | None, is_closed: bool
) -> None:
    world.add_job(id="ftjob-failed", created_at=NOW - age * HOUR, status="failed", finished_at=None)
    if last_event is not None:
        world.add_event("ftjob-failed", id="ftevent-last", created_at=NOW - last_event * HOUR)
    first = database.sync()
    assert first.jobs["open"] == (not is_closed)
    assert first.jobs_in_progress == 0
    assert (database.sync().requests == 1) == is_closed


@pytest.mark.nightly
def test_a_job_that_fails_without_an_end_while_it_is_open_closes_when_that_was_seen_before(
    world: ScriptedWorld, database: Database, clock: Clock
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - 5 * HOUR, status="running", finished_at=None)
    world.add_event("ftjob-a", id="ftevent-old", created_at=NOW - 3 * HOUR)
    assert database.sync().jobs_in_progress == 1
    world.update_job("ftjob-a", status="failed")
    seen = database.sync()
    assert (seen.jobs["open"], seen.jobs_in_progress) == (1, 0)
    world.add_event("ftjob-a", id="ftevent-late", created_at=NOW - 4 * HOUR)
    assert database.sync().jobs["open"] == 0
    assert database.ids("events") == ["ftevent-late", "ftevent-old"]
    assert database.sync().requests == 1
