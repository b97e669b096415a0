"""The probes: one request tells whether the host offers a resource, and the reads of all other jobs wait for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from openai_fine_tuning.api.concurrency import Limiter
from openai_fine_tuning.errors import CancelledError, EndlessListingError, RequestError
from openai_fine_tuning.extract.probes import Probes, UnavailableError


def error(status: int | None = 500, **about: str) -> RequestError:
    """A failed request."""
    return RequestError("It failed.", url="https://host/v1", status=status, **about)


MISSING_ENDPOINT = error(404, about="endpoint")
MISSING_SCOPE = error(403, detail="You have insufficient permissions for this operation.")


def probes(available: dict[str, bool] | None = None, *, read_before: tuple[str, ...] = ()) -> Probes:
    """New ones."""
    return Probes(Limiter(16), {} if available is None else available, read_before=read_before)


def is_admitted(asked: Probes, resource: str) -> bool:
    """Wait to be admitted; whether the resource is available, as far as is known."""
    try:
        asked.admit(resource)
    except UnavailableError:
        return False
    return True


def test_the_first_read_goes_alone_and_its_first_page_lets_all_others_begin() -> None:
    asked = probes()
    assert is_admitted(asked, "events")
    begun = threading.Barrier(9)
    with ThreadPoolExecutor(8) as pool:

        def read() -> bool:
            begun.wait()
            return is_admitted(asked, "events")

        others = [pool.submit(read) for _ in range(8)]
        begun.wait()
        assert not any(other.done() for other in others)
        asked.succeeded("events")
        assert all(other.result(10) for other in others)


def test_what_is_known_of_one_resource_says_nothing_of_another() -> None:
    asked = probes()
    assert is_admitted(asked, "events")
    assert is_admitted(asked, "checkpoints")
    asked.failed("events", "job-1", MISSING_SCOPE)
    assert not is_admitted(asked, "events")
    assert asked.is_available("checkpoints") is None


@pytest.mark.parametrize("failure", [MISSING_ENDPOINT, MISSING_SCOPE])
def test_a_missing_endpoint_or_scope_ends_the_resource_for_all_jobs(failure: RequestError) -> None:
    asked = probes()
    assert is_admitted(asked, "events")
    asked.failed("events", "job-1", failure)
    assert not is_admitted(asked, "events")
    assert asked.failures == {"events": failure}


@pytest.mark.parametrize("status", [403, 404, 500, None])
def test_other_failures_are_convincing_after_three_jobs(status: int | None) -> None:
    asked = probes()
    for number in range(3):
        assert asked.is_available("events") is None
        assert is_admitted(asked, "events")
        asked.failed("events", f"job-{number}", error(status))
    assert not is_admitted(asked, "events")


def test_one_success_after_failures_makes_the_resource_available_for_good() -> None:
    asked = probes()
    for number in range(2):
        assert is_admitted(asked, "events")
        asked.failed("events", f"job-{number}", error())
    assert is_admitted(asked, "events")
    asked.succeeded("events")
    for number in range(5):
        asked.failed("events", f"job-{number}", MISSING_ENDPOINT)
        assert is_admitted(asked, "events")
    assert asked.failures == {}


@pytest.mark.parametrize(("job_id", "before"), [("job-1", ("events",)), ("a/b", ())])
def test_an_endpoint_that_was_read_before_or_an_odd_id_takes_more_than_one_failure(
    job_id: str, before: tuple[str, ...]
) -> None:
    asked = probes(read_before=before)
    assert is_admitted(asked, "events")
    asked.failed("events", job_id, MISSING_ENDPOINT)
    assert asked.is_available("events") is None
    assert is_admitted(asked, "events")
    asked.failed("events", "job-2", MISSING_ENDPOINT)
    assert not is_admitted(asked, "events")


def test_an_endless_listing_shows_that_the_endpoint_is_there() -> None:
    asked = probes()
    assert is_admitted(asked, "events")
    asked.failed("events", "job-1", EndlessListingError("It repeats itself."))
    assert asked.is_available("events")


def test_a_probe_of_a_job_that_is_gone_leaves_the_question_to_the_next() -> None:
    asked = probes()
    assert is_admitted(asked, "events")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(is_admitted, asked, "events")
        asked.withdraw("events")
        assert other.result(10)
    assert asked.is_available("events") is None


def test_what_is_known_is_kept_for_the_next_part() -> None:
    available: dict[str, bool] = {}
    asked = probes(available)
    assert is_admitted(asked, "events")
    asked.failed("events", "job-1", MISSING_SCOPE)
    later = probes(available)
    assert not is_admitted(later, "events")
    assert later.failures == {}, "it is reported once"


def test_who_waits_for_a_probe_ends_with_the_sync() -> None:
    limiter = Limiter(1)
    asked = Probes(limiter, {})
    assert is_admitted(asked, "events")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(is_admitted, asked, "events")
        limiter.cancel()
        with pytest.raises(CancelledError):
            other.result(10)
