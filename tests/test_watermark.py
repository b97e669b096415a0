"""The watermark knows which jobs are still to be read; states that earlier releases wrote are read as they are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_fine_tuning.api.jobs import Job
from openai_fine_tuning.api.pagination import Order
from openai_fine_tuning.state.run import Run
from openai_fine_tuning.state.takeover import Candidate, state_in_force
from openai_fine_tuning.state.watermark import JobSetChecksum, Watermark, has_begun, watermark_state

NOW, HOUR = 1_780_000_000, 3600


def job(job_id: str, created_at: float | None, **fields: Any) -> Job:
    """A job as the host shows it at `NOW`."""
    record = {"id": job_id, "created_at": created_at, "status": "succeeded", "finished_at": NOW - 2 * HOUR, **fields}
    shown = Job.of(record, NOW)
    assert shown is not None
    return shown


def watermark(state: dict[str, Any] | None = None) -> Watermark:
    """A watermark with an overlap of a minute and a grace of an hour."""
    return Watermark({} if state is None else state, overlap=60, grace=HOUR)


def order_of(*times: float) -> Order:
    """The order of a listing that showed these times."""
    order = Order()
    order.see(list(times), NOW)
    return order


OLD, NEW = job("ftjob-old", NOW - 10 * HOUR), job("ftjob-new", NOW - 5 * HOUR)


def test_a_new_watermark_needs_every_job() -> None:
    mark = watermark()
    assert mark.needs_read(OLD)
    assert mark.bound is None
    assert not has_begun({})


def test_a_closed_job_is_not_read_again_before_and_after_the_listing_ended() -> None:
    mark = watermark()
    for one in (NEW, OLD):
        mark.mark_read(one)
        assert not mark.needs_read(one)
    mark.listing_ended(order_of(NOW - 5 * HOUR, NOW - 10 * HOUR), NOW, ["ftjob-new", "ftjob-old"])
    assert not mark.needs_read(NEW)
    assert not mark.needs_read(OLD)
    assert mark.needs_read(job("ftjob-tie", NOW - 5 * HOUR)), "of the same second, but not read"


@pytest.mark.parametrize(
    "fields", [{"status": "running", "finished_at": None}, {"finished_at": NOW - 60}, {"finished_at": 0}]
)
def test_a_job_that_runs_or_has_just_ended_stays_open_with_what_is_known_of_it(fields: dict[str, Any]) -> None:
    mark = watermark()
    mark.mark_read(job("ftjob-a", NOW - 5 * HOUR, **fields), newest_event=7)
    mark.listing_ended(order_of(NOW - 5 * HOUR), NOW, ["ftjob-a"])
    assert mark.needs_read(job("ftjob-a", NOW - 5 * HOUR))
    assert mark.open["ftjob-a"]["newest_event"] == 7


def test_a_job_that_is_pending_is_read_again_however_old_it_is() -> None:
    mark = watermark()
    mark.mark_pending(OLD)
    mark.listing_ended(order_of(NOW - 5 * HOUR), NOW, [])
    assert mark.needs_read(OLD)
    mark.mark_gone(OLD.id)
    assert not mark.needs_read(OLD)


def test_a_listing_that_stopped_early_goes_on_behind_what_is_accounted_for() -> None:
    mark = watermark()
    mark.mark_read(NEW)
    mark.listing_stopped(order_of(NOW - 5 * HOUR, NOW - 6 * HOUR), NOW, "ftjob-cursor")
    assert mark.resume_point == {"newest": NOW - 5 * HOUR, "oldest": NOW - 6 * HOUR, "after": "ftjob-cursor"}
    assert mark.resume_bound == NOW - 5 * HOUR - 60
    assert not mark.needs_read(job("ftjob-between", NOW - 5.5 * HOUR))
    assert mark.needs_read(OLD)
    assert mark.bound is None
    mark.listing_ended(order_of(NOW - 10 * HOUR), NOW, [])
    assert mark.resume_point is None
    assert mark.bound == NOW - 5 * HOUR - 60


def test_the_watermark_never_moves_beyond_the_time_of_the_host() -> None:
    mark = watermark()
    mark.listing_ended(order_of(NOW - 5 * HOUR), NOW - 6 * HOUR, [])
    assert mark.bound == NOW - 6 * HOUR - 60


@given(st.permutations(["a", "b", "c"]))
def test_the_checksum_of_jobs_does_not_depend_on_their_order(ids: list[str]) -> None:
    first, second = JobSetChecksum(), JobSetChecksum()
    for job_id in sorted(ids):
        first.add(job_id, NOW)
    for job_id in ids:
        second.add(job_id, NOW + 0.5)
    assert first == second
    second.add("a", None)
    assert first != second


def test_a_state_of_an_earlier_release_is_read_as_it_is_and_keeps_its_keys() -> None:
    stored: dict[str, Any] = {
        "newest": float(NOW - 5 * HOUR),
        "newest_first": True,
        "open": {"ftjob-open": {"created_at": NOW - 20 * HOUR, "newest_event": 3}},
        "recent": {"ftjob-new": NOW - 5 * HOUR},
        "cut": {"newest": NOW - 2 * HOUR, "oldest": NOW - 3 * HOUR, "after": "ftjob-x"},
        "tally": {"count": 7, "total": 11},
        "own": True,
        "part": "0f",
        "used_at": 1.0,
    }
    state = copy.deepcopy(stored)
    mark = watermark(state)
    assert state == stored
    assert mark.needs_read(job("ftjob-open", NOW - 20 * HOUR))
    assert not mark.needs_read(NEW)
    assert mark.resume_point == stored["cut"]
    mark.mark_read(job("ftjob-3", NOW - 2.5 * HOUR))
    assert state["tally"]["count"] == 8
    assert state.keys() == stored.keys()
    resource_state: dict[str, Any] = {"frontiers": {"mine": {"key-1": state}}}
    assert state_in_force(resource_state, "mine", "key-2") is state
    watermark_state(resource_state, "mine", "key-2", now=2.0)
    assert resource_state["frontiers"]["mine"].keys() == {"key-1", "key-2"}


def test_a_state_without_a_checksum_is_not_taken_over() -> None:
    state = {"newest": 1.0, "tally": {"count": 1, "total": 1}}
    assert Candidate({}, (state,)).usable == [state]
    assert Candidate({}, ({"newest": 1.0},)).usable == []
    assert Candidate({}, ({**state, "cut": {"newest": 1.0}},)).usable == []
    assert not Candidate({"own": True}, (state,)).is_new


def test_a_sync_goes_on_only_with_the_states_that_its_earlier_load_stored() -> None:
    run = Run()
    states: list[dict[str, Any]] = [{}, {}]
    assert not run.begin(states)
    run.done.add("ftjob-a")
    run.end(states, is_complete=False)
    assert run.begin(copy.deepcopy(states))
    assert run.done == {"ftjob-a"}
    run.end(states, is_complete=False)
    assert not run.begin([states[0], {}]), "another database knows nothing of it"
    assert run.done == set()
    run.end(states, is_complete=True)
    assert states == [{}, {}]
