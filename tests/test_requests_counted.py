"""What a sync costs, in requests."""

from __future__ import annotations

from fine_tuning_simulator import Clock, ScriptedWorld
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
