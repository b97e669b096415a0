"""Listings are walked to their end, whatever order the host lists in and whatever stands in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.working_directory import working_directory
from harness import DAY, HOUR, NOW, Database
from openai_fine_tuning.api.pagination import Order


def add_jobs(world: ScriptedWorld, numbers: range) -> None:
    """Jobs that closed long ago, ten minutes apart, each with a checkpoint and an event."""
    for number in numbers:
        job_id = f"ftjob-{number:03}"
        world.add_job(id=job_id, created_at=NOW - 2 * DAY + 600 * number, finished_at=NOW - DAY)
        world.add_checkpoint(job_id, id=f"ckpt-{number:03}")
        world.add_event(job_id, id=f"event-{number:03}")


def expected(kind: str, count: int) -> list[str]:
    """The ids that `add_jobs` gives."""
    return [f"{kind}-{number:03}" for number in range(count)]


@pytest.mark.first_only
@pytest.mark.parametrize(
    "world", [ScriptedWorld("newest_first"), ScriptedWorld("oldest_first")], ids=lambda w: w._order
)
def test_several_pages_of_jobs_are_read_in_either_order_and_new_jobs_later(
    world: ScriptedWorld, database: Database
) -> None:
    world.page_limit = 2
    add_jobs(world, range(5))
    database.sync()
    assert database.ids("jobs") == expected("ftjob", 5)
    assert database.ids("checkpoints") == expected("ckpt", 5)

    add_jobs(world, range(5, 8))
    database.sync()
    assert database.ids("jobs") == expected("ftjob", 8)
    assert database.ids("checkpoints") == expected("ckpt", 8)
    assert database.ids("events") == expected("event", 8)
    assert not [path for path in database.paths() if "ftjob-004" in path]


@pytest.mark.thorough
@pytest.mark.parametrize("world", [ScriptedWorld("as_added")], ids=["as_added"])
def test_a_host_without_any_order_is_read_to_its_end(world: ScriptedWorld, database: Database) -> None:
    world.page_limit = 2
    for number in (3, 0, 4, 1, 2):
        add_jobs(world, range(number, number + 1))
    database.sync()
    add_jobs(world, range(7, 8))
    add_jobs(world, range(5, 6))
    add_jobs(world, range(6, 7))
    database.sync()
    assert database.ids("jobs") == expected("ftjob", 8)
    assert database.ids("checkpoints") == expected("ckpt", 8)


@pytest.mark.first_only
@pytest.mark.parametrize(
    "world", [ScriptedWorld(order) for order in ("newest_first", "oldest_first", "as_added")], ids=lambda w: w._order
)
def test_several_pages_of_checkpoints_and_events_are_read_in_any_order(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.page_limit = 3
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="running", finished_at=None)

    def add(numbers: list[int]) -> None:
        for number in numbers:
            world.add_checkpoint("ftjob-a", id=f"ckpt-{number:03}", created_at=NOW - 600 + number, step_number=number)
            world.add_event("ftjob-a", id=f"event-{number:03}", created_at=NOW - 600 + number)

    add([2, 0, 3, 1, 5, 4, 6])
    database.sync()
    assert database.ids("checkpoints") == expected("ckpt", 7)
    assert database.ids("events") == expected("event", 7)
    add([9, 7, 10, 8])
    clock.advance(1)
    database.sync()
    assert database.ids("checkpoints") == expected("ckpt", 11)
    assert database.ids("events") == expected("event", 11)


def test_the_same_id_twice_in_a_listing_is_one_row(world: ScriptedWorld, database: Database) -> None:
    world.page_limit = 2
    add_jobs(world, range(3))
    for record in list(world.jobs()):
        world.add_raw_job(dict(record))
    for _ in range(2):
        world.add_checkpoint("ftjob-000", id="twice", step_number=4)
        world.add_event("ftjob-000", id="twice")
    database.sync()
    assert database.rows("SELECT count(*), count(DISTINCT id) FROM jobs") == [(3, 3)]
    assert database.rows("SELECT count(*) FROM checkpoints WHERE id = 'twice'") == [(1,)]
    assert database.rows("SELECT count(*) FROM events WHERE id = 'twice'") == [(1,)]
    paths = database.paths()
    assert (
        len([path for path in paths if path.endswith("/checkpoints")])
        == 3 + paths.count("/fine_tuning/jobs/ftjob-000/checkpoints") - 1
    )


@pytest.mark.parametrize("world", [ScriptedWorld("as_added")], ids=["as_added"])
def test_a_record_without_an_id_at_the_end_of_a_page_hides_nothing(world: ScriptedWorld, database: Database) -> None:
    world.page_limit = 2
    world.add_job(id="ftjob-1", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
    world.add_raw_job({"object": "fine_tuning.job", "created_at": NOW - DAY, "model": "nameless"})
    world.add_job(id="ftjob-2", created_at=NOW - DAY + 600, finished_at=NOW - DAY + 660)
    world.add_checkpoint("ftjob-1", id="ckpt-1")
    world.add_raw_checkpoint("ftjob-1", {"created_at": NOW - DAY, "step_number": 3})
    world.add_checkpoint("ftjob-1", id="ckpt-2")
    summary = database.sync()
    assert database.ids("jobs") == ["ftjob-1", "ftjob-2"]
    assert database.ids("checkpoints") == ["ckpt-1", "ckpt-2"]
    assert database.rows("SELECT resource, reason LIKE '%it is missing%' FROM rejected_records ORDER BY 1") == [
        ("checkpoints", True),
        ("jobs", True),
    ]
    assert summary.status == "done"


@pytest.mark.thorough
def test_times_in_milliseconds_or_in_the_future_hold_no_later_job_back(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.page_limit = 2
    world.add_job(id="ftjob-0", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
    world.add_job(id="ftjob-ms", created_at=(NOW - DAY + 600) * 1000, finished_at=(NOW - DAY + 660) * 1000)
    world.add_job(id="ftjob-future", created_at=NOW + 3 * DAY, status="running", finished_at=None)
    world.add_job(id="ftjob-soon", created_at=NOW + 1800, status="running", finished_at=None)
    database.sync()
    assert database.rows("SELECT epoch(created_at), epoch(finished_at) FROM jobs WHERE id = 'ftjob-ms'") == [
        (NOW - DAY + 600, NOW - DAY + 660)
    ]
    clock.advance(60)
    world.add_job(id="ftjob-1", created_at=NOW + 30, status="running", finished_at=None)
    world.add_checkpoint("ftjob-1", id="ckpt-1")
    database.sync()
    clock.advance(60)
    world.add_job(id="ftjob-2", created_at=NOW + 90, status="running", finished_at=None)
    database.sync()
    assert database.ids("jobs") == ["ftjob-0", "ftjob-1", "ftjob-2", "ftjob-future", "ftjob-ms", "ftjob-soon"]
    assert database.ids("checkpoints") == ["ckpt-1"]


@pytest.mark.thorough
def test_a_job_without_a_time_is_read_and_closed_like_any_other(world: ScriptedWorld, database: Database) -> None:
    world.add_job(id="ftjob-0", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
    world.add_job(id="ftjob-timeless", finished_at=NOW - DAY)
    world.update_job("ftjob-timeless", created_at=None)
    world.add_checkpoint("ftjob-timeless", id="ckpt-a")
    assert database.sync().jobs["open"] == 0
    assert database.ids("checkpoints") == ["ckpt-a"]
    database.sync()
    assert database.paths() == ["/fine_tuning/jobs"]


@pytest.mark.parametrize("kind", ["stuck_cursor", "empty_more"])
def test_a_job_listing_without_an_end_fails_with_its_address(
    kind: str, world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    world.page_limit = 2
    add_jobs(world, range(5))
    host.faults.append(Fault(kind, path=r"/fine_tuning/jobs$", times=None))  # type: ignore[arg-type]
    with pytest.raises(CommandError, match=f"{host.base_url}/fine_tuning/jobs "):
        database.sync()
    assert len(host.requests) < 10


@pytest.mark.thorough
def test_a_cursor_that_the_host_forgets_on_the_way_costs_no_record(
    world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    world.page_limit = 2
    add_jobs(world, range(5))
    host.faults.append(Fault("lost_cursor", path=r"/fine_tuning/jobs$", times=1))
    database.sync()
    assert database.ids("jobs") == expected("ftjob", 5)


def test_a_cut_listing_whose_place_the_host_forgets_is_read_from_its_start(
    world: ScriptedWorld, database: Database
) -> None:
    world.page_limit = 2
    add_jobs(world, range(12))
    with working_directory() as directory:
        pipeline = DuckDb(database.path).pipeline(directory, label="default")
        part = Account("default", "key", database.host.base_url).source(
            ("jobs",), fine_tuning_concurrency=1, fine_tuning_stop_after_seconds=0
        )
        pipeline.run(part)
        (source,) = pipeline.state["sources"].values()
        (frontier,) = source["resources"]["jobs"]["frontiers"]["default"].values()
    forgotten = frontier["cut"]["after"]
    world.remove_job(forgotten)
    database.sync(resources=("jobs",))
    assert 404 in {request.status for request in database.host.requests}
    assert {*database.ids("jobs"), forgotten} == set(expected("ftjob", 12))


@pytest.mark.nightly
def test_a_sync_that_commits_as_it_goes_reads_all_and_each_job_once(world: ScriptedWorld, database: Database) -> None:
    world.page_limit = 4
    add_jobs(world, range(11))
    world.add_job(id="ftjob-open", created_at=NOW - HOUR, status="running", finished_at=None)
    summary = database.sync(commit_seconds=0, concurrency=1)
    assert len(summary.load_ids) > 1
    assert database.ids("jobs") == [*expected("ftjob", 11), "ftjob-open"]
    assert database.ids("checkpoints") == expected("ckpt", 11)
    children = [path for path in database.paths() if path.endswith("/checkpoints")]
    assert len(children) == len(set(children)) == 12
    database.sync()
    assert database.paths() == [
        "/fine_tuning/jobs",
        "/fine_tuning/jobs/ftjob-open/checkpoints",
        "/fine_tuning/jobs/ftjob-open/events",
    ]


TIMES = st.lists(st.one_of(st.none(), st.integers(0, 2 * NOW).map(float)))


@given(TIMES)
def test_order_believes_in_newest_first_exactly_as_long_as_it_is(times: list[float | None]) -> None:
    order = Order()
    order.see(times, NOW)
    known = [time for time in times if time is not None and time <= NOW + HOUR]
    assert order.is_newest_first == (known == sorted(known, reverse=True))
    assert order.newest == max(known, default=None)


@given(TIMES, st.integers(0, 2 * NOW).map(float))
def test_order_is_past_a_bound_only_where_a_newest_first_listing_can_show_nothing_newer(
    times: list[float | None], bound: float
) -> None:
    order = Order()
    order.see(times, NOW)
    known = [time for time in times if time is not None and time <= NOW + HOUR]
    if order.is_past(bound):
        assert known == sorted(known, reverse=True)
        assert bound > known[-1]
        assert known[0] >= bound or known[0] > known[-1]


@given(TIMES)
def test_order_does_not_depend_on_where_pages_are_cut(times: list[float | None]) -> None:
    whole, paged = Order(), Order()
    whole.see(times, NOW)
    for time in times:
        paged.see([time], NOW)
    assert vars(whole) == vars(paged)
