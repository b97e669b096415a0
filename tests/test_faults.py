"""What goes wrong on the way to the host is tried again or told: no row is lost, and nothing goes on for ever."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.sync.run import AccountResult, SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from harness import DAY, NOW, QUICK, Database
from histories import add_history, assert_holds, mixed_faults, truth_of
from openai_fine_tuning import EndlessListingError, HostError, RequestError, settings
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.pagination import pages

JOBS = "/fine_tuning/jobs"
CHECKPOINTS = f"{JOBS}/ftjob-a/checkpoints"


@pytest.fixture
def api(host: Simulator) -> Iterator[FineTuningApi]:
    """A client of the host that bears no long silence."""
    api = FineTuningApi(host.base_url, "key", policy=replace(QUICK, read_timeout=0.5))
    yield api
    api.close()


def ids(api: FineTuningApi, path: str = CHECKPOINTS) -> list[str]:
    """The ids of a listing, walked to its end."""
    return [record["id"] for page in pages(api, path) for record in page.records]


def add_checkpoints(world: ScriptedWorld, count: int) -> list[str]:
    """A job with some checkpoints; their ids, newest first."""
    world.add_job(id="ftjob-a", created_at=NOW - DAY, finished_at=NOW - DAY + 600)
    for number in range(count):
        world.add_checkpoint("ftjob-a", id=f"ftckpt-{number}", created_at=NOW - DAY + number)
    return [f"ftckpt-{number}" for number in reversed(range(count))]


# one request ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault("status", times=2, status=status) for status in (408, 409, 429, 500, 502, 503, 504, 529)),
        Fault("status", times=2, status=500, body=b"\xff\x00 no JSON"),
        Fault("status", times=2, status=400, headers={"x-should-retry": "true"}),
        Fault("reset", times=2),
        Fault("reset_body", times=2),
        Fault("truncate", times=2),
        Fault("html", times=2),
        Fault("html", times=2, status=502),
        Fault("html", times=2, body=b""),
        Fault("silent", times=1),
    ],
    ids=lambda fault: "-".join(
        [fault.kind, *(str(fault.details[k]) for k in ("status", "headers") if k in fault.details)]
    ),
)
def test_what_passes_is_tried_again(world: ScriptedWorld, host: Simulator, api: FineTuningApi, fault: Fault) -> None:
    expected = add_checkpoints(world, 3)
    host.faults.append(fault)
    assert ids(api) == expected
    assert api.retries == fault.times
    assert api.requests == len(host.requests) == api.retries + 1


def test_a_slow_answer_is_waited_for(world: ScriptedWorld, host: Simulator, api: FineTuningApi) -> None:
    expected = add_checkpoints(world, 3)
    host.faults.append(Fault("slow", seconds=0.2, times=None))
    assert ids(api) == expected
    assert api.retries == 0


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (400, {}),
        (401, {}),
        (403, {}),
        (404, {}),
        (422, {}),
        (500, {"x-should-retry": "false"}),
        (429, {"X-Should-Retry": "False"}),
    ],
)
def test_what_does_not_pass_is_not_tried_again(
    host: Simulator, api: FineTuningApi, status: int, headers: dict[str, str]
) -> None:
    host.faults.append(Fault("status", times=None, status=status, headers=headers, message="No."))
    with pytest.raises(RequestError, match=rf"fine_tuning/jobs answered {status}.*No\.") as raised:
        api.get_page(JOBS)
    assert raised.value.status == status
    assert len(host.requests) == 1


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("headers", "at_least", "at_most"),
    [
        ({"retry-after": "1"}, 1.0, 10),
        ({"retry-after": "0.4"}, 0.4, 10),
        ({"retry-after": formatdate(NOW + 1, usegmt=True)}, 1.0, 10),  # by the host's clock, which stands at NOW
        ({"retry-after": formatdate(NOW - 60, usegmt=True)}, 0, 10),
        ({"retry-after-ms": "400", "retry-after": "60"}, 0.4, 10),
        ({"retry-after": "soon"}, 0, 10),
        ({"retry-after": "-5"}, 0, 10),
        ({"retry-after": "nan"}, 0, 10),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_the_host_asks_for_is_kept(
    *, host: Simulator, api: FineTuningApi, status: int, headers: dict[str, str], at_least: float, at_most: float
) -> None:
    if status == 503 and at_least >= 1:
        pytest.skip("the same code, and a second of waiting")
    host.faults.append(Fault("status", status=status, headers=headers))
    began = time.monotonic()
    api.get_page(JOBS)
    assert at_least <= time.monotonic() - began < at_most
    assert len(host.requests) == 2


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"retry-after": "121"}, "121 s"),
        ({"retry-after-ms": "3600000"}, "3600 s"),
        ({"retry-after": formatdate(NOW + 600, usegmt=True)}, "600 s"),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_of_more_than_two_minutes_is_refused_at_once(
    host: Simulator, api: FineTuningApi, status: int, headers: dict[str, str], named: str
) -> None:
    host.faults.append(Fault("status", times=None, status=status, headers=headers))
    with pytest.raises(HostError, match=named):
        api.get_page(JOBS)
    assert len(host.requests) == 1


# listings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stuck_cursor", "empty_more"])
def test_a_listing_without_an_end_is_an_error_that_names_it(
    world: ScriptedWorld, host: Simulator, api: FineTuningApi, kind: Any
) -> None:
    world.page_limit = 2
    add_checkpoints(world, 5)
    host.faults.append(Fault(kind, times=None))
    with pytest.raises(EndlessListingError, match=r"http://127\.0\.0\.1:\d+/v1/fine_tuning/jobs/ftjob-a/checkpoints"):
        ids(api)
    assert len(host.requests) <= 3


def test_a_page_that_was_met_before_is_an_error(world: ScriptedWorld, host: Simulator, api: FineTuningApi) -> None:
    world.page_limit = 2
    add_checkpoints(world, 6)
    host.faults.append(LaterFault("stuck_cursor", after=3, times=None))  # the third page is the first one again
    with pytest.raises(EndlessListingError, match="ftjob-a/checkpoints"):
        ids(api)
    assert len(host.requests) == 3


def test_a_listing_of_more_pages_than_any_has_is_an_error(world: ScriptedWorld, api: FineTuningApi) -> None:
    world.page_limit = 1
    add_checkpoints(world, 4)
    with pytest.raises(EndlessListingError, match="ftjob-a/checkpoints did not end within 3 pages"):
        list(pages(api, CHECKPOINTS, max_pages=3))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"data": []}, []),
        ({"data": [{"id": "a"}], "has_more": False, "error": None}, ["a"]),
        ({"data": [{"id": "a"}], "has_more": False, "error": {}, "success": True}, ["a"]),
        ({"data": [{"id": "a"}], "has_more": False, "error": {"code": None, "message": None}}, ["a"]),
        ({"data": [{"id": 7}], "has_more": False}, [7]),
    ],
    ids=["data alone", "error null", "error empty", "error of nulls", "an id that is a number"],
)
def test_listings_as_gateways_write_them(host: Simulator, api: FineTuningApi, answer: Any, found: list[str]) -> None:
    host.faults.append(Fault("status", status=200, body=json.dumps(answer)))
    assert ids(api) == found


ERROR = {"message": "The upstream is overloaded.", "code": "upstream"}

FAILURES: list[tuple[str, str]] = [
    (json.dumps(answer), words)
    for answer, words in [
        ({"object": "list", "data": None, "error": ERROR}, "The upstream is overloaded."),
        ({"object": "list", "data": [], "error": ERROR}, "The upstream is overloaded."),
        ({"object": "list", "data": [{"id": "a"}], "error": "overloaded"}, "overloaded"),
        ({"data": [], "errors": [ERROR]}, "The upstream is overloaded."),
        ({"data": [], "success": False, "message": "overloaded"}, "overloaded"),
        ({"error": ERROR}, "The upstream is overloaded."),
        ({"detail": "overloaded"}, "overloaded"),
        ({"message": "overloaded"}, "overloaded"),
        ({"data": None, "has_more": False}, "`data` is null"),
        ({"object": "list"}, "`data` is missing"),
        ({"jobs": []}, "`data` is missing"),
        ({"data": {}}, "`data` is an object"),
        ({"data": "none"}, "`data` is a string"),
        ([{"id": "a"}], "it is an array"),
        ([], "it is an array"),
        (7, "it is a number"),
        ("text", "it is a string"),
        (None, "it is null"),
    ]
] + [("", "an empty body"), (" ", "an empty body"), ('{"data": [', "not JSON")]


@pytest.mark.parametrize(("answer", "words"), FAILURES, ids=[answer[:50] for answer, _ in FAILURES])
def test_what_is_not_a_listing_is_tried_again_and_told_in_the_hosts_words(
    host: Simulator, api: FineTuningApi, answer: str, words: str
) -> None:
    host.faults.append(Fault("status", times=None, status=200, body=answer))
    with pytest.raises(RequestError) as raised:
        ids(api)
    assert raised.value.status == 200
    assert raised.value.url.endswith("ftjob-a/checkpoints")
    assert words in str(raised.value)
    assert len(host.requests) == settings.MAX_ATTEMPTS


def test_an_empty_answer_by_its_status_is_a_failure(host: Simulator, api: FineTuningApi) -> None:
    host.faults.append(Fault("status", status=204, body=""))
    assert ids(api, JOBS) == []
    assert api.retries == 1


@pytest.mark.parametrize("answer", [{"error": ERROR}, {"detail": "no"}, {"object": "error", "id": "x"}, {}, [], None])
def test_what_is_not_a_record_is_tried_again(
    world: ScriptedWorld, host: Simulator, api: FineTuningApi, answer: Any
) -> None:
    add_checkpoints(world, 1)
    host.faults.append(Fault("status", times=2, status=200, body=json.dumps(answer)))
    assert api.get_json(f"{JOBS}/ftjob-a").content["id"] == "ftjob-a"
    assert api.retries == 2


@pytest.mark.parametrize("error", [None, {}, {"code": "bad_file", "message": "Broken.", "param": None}])
def test_the_error_of_a_job_is_its_own(
    world: ScriptedWorld, host: Simulator, api: FineTuningApi, error: dict[str, Any] | None
) -> None:
    world.add_job(id="ftjob-a", status="failed", error=error)
    assert api.get_json(f"{JOBS}/ftjob-a").content["error"] == error
    assert api.retries == 0


def test_a_page_whose_records_have_no_ids_goes_on_behind_what_the_host_calls_its_last(
    world: ScriptedWorld, host: Simulator, api: FineTuningApi
) -> None:
    expected = add_checkpoints(world, 3)
    page = {"data": [{"step_number": 9}], "has_more": True, "last_id": expected[0]}
    host.faults.append(Fault("status", status=200, body=page))
    listed = [record.get("id") for each in pages(api, CHECKPOINTS) for record in each.records]
    assert listed == [None, *expected[1:]]
    host.faults.append(Fault("status", status=200, body={**page, "last_id": None}))
    with pytest.raises(EndlessListingError, match="no record on this one has an id"):
        ids(api)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_listing_whose_cursor_is_lost_starts_again_and_gives_every_row_once(
    world: ScriptedWorld, host: Simulator, api: FineTuningApi, at: int
) -> None:
    world.page_limit = 2
    expected = add_checkpoints(world, 7)
    for page in pages(api, CHECKPOINTS):  # up to the page whose cursor is to be lost
        if len(host.requests) == at:
            assert page.cursor is not None
            break
    host.requests.clear()
    host.faults.append(LaterFault("lost_cursor", after=at, times=1))
    assert ids(api) == expected
    assert len(host.requests) == 4 + 1 + at


def test_a_cursor_that_is_lost_again_and_again_is_an_error(
    world: ScriptedWorld, host: Simulator, api: FineTuningApi
) -> None:
    world.page_limit = 2
    add_checkpoints(world, 5)
    host.faults.append(Fault("lost_cursor", times=None))
    with pytest.raises(RequestError, match="404"):
        ids(api)
    assert len(host.requests) < 20


class LaterFault(Fault):
    """A fault that strikes only once so many matching requests have passed."""

    def __init__(self, kind: Any, *, after: int, **details: Any) -> None:
        super().__init__(kind, **details)
        self.after = after
        self.matched = 0

    def strikes(self, path: str, query: Any) -> bool:
        if self.path.search(path) is None or (self.kind == "lost_cursor" and "after" not in query):
            return False
        self.matched += 1
        return self.matched >= self.after and super().strikes(path, query)


class MovingWorld(ScriptedWorld):
    """While it is listed, new checkpoints push the others down, and the one that a page ended with is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0
        self.at_first: list[str] = []

    def checkpoints(self, job_id: str) -> Sequence[Any] | None:
        found = super().checkpoints(job_id)
        if found:
            self.at_first = self.at_first or [record["id"] for record in found]
            self.answers += 1
            self.add_checkpoint(job_id, id=f"ftckpt-pushed-{self.answers}", created_at=NOW + self.answers)
            if self.answers == 3:
                self.remove_checkpoint(found[5]["id"])
        return found


@pytest.mark.parametrize("world", [MovingWorld()], ids=["moving"])
def test_rows_that_move_between_pages_are_all_read_and_none_twice(
    world: MovingWorld, host: Simulator, api: FineTuningApi
) -> None:
    world.page_limit = 2
    add_checkpoints(world, 9)
    read = ids(api)
    assert len(set(read)) == len(read)
    assert set(world.at_first) <= set(read)
    assert len(host.requests) < 20


class DoublingWorld(ScriptedWorld):
    """A host that shows every record twice in a row."""

    def checkpoints(self, job_id: str) -> Sequence[Any] | None:
        found = super().checkpoints(job_id)
        return None if found is None else [twin for record in found for twin in (record, record)]


@pytest.mark.parametrize("world", [DoublingWorld()], ids=["doubling"])
def test_records_that_are_listed_twice_are_read_once(world: ScriptedWorld, host: Simulator, api: FineTuningApi) -> None:
    world.page_limit = 3
    expected = add_checkpoints(world, 7)
    assert ids(api) == expected


# whole syncs ---------------------------------------------------------------------------------------------------------


@pytest.mark.first_only
@pytest.mark.parametrize("seed", [1, 2])
def test_with_15_percent_of_all_answers_faulty_every_row_is_loaded_once(
    world: ScriptedWorld, host: Simulator, database: Database, seed: int
) -> None:
    world.page_limit = 7
    add_history(world, range(30))
    host.faults.extend(mixed_faults(0.15, seed))
    summary = database.sync()
    assert_holds(database.rows, truth_of(world))
    assert summary.skipped == []
    hits = sum(fault.hits for fault in host.faults)
    lost_cursors = sum(fault.hits for fault in host.faults if fault.kind == "lost_cursor")
    assert hits > 0.08 * len(host.requests)
    assert summary.retries == hits - lost_cursors
    assert summary.requests == len(host.requests)
    assert database.rows("SELECT requests, retries FROM syncs") == [(summary.requests, summary.retries)]


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(
    "answer",
    [
        {"object": "list", "data": None, "error": ERROR},
        {"object": "list", "data": [], "error": ERROR},
        {"error": ERROR},
    ],
    ids=["data null", "data empty", "error alone"],
)
def test_an_error_inside_a_200_closes_no_job_and_loses_no_checkpoint(
    world: ScriptedWorld, host: Simulator, database: Database, answer: dict[str, Any]
) -> None:
    add_history(world, range(3))
    host.faults.append(Fault("status", path="ftjob-001/checkpoints$", times=None, status=200, body=answer))
    summary = database.sync()
    assert [skip["job"] for skip in summary.skipped] == ["ftjob-001"]
    assert "The upstream is overloaded." in str(summary.skipped)
    assert summary.jobs["open"] == 1
    host.faults.clear()
    assert database.sync().jobs["open"] == 0
    assert_holds(database.rows, truth_of(world))


@pytest.mark.parametrize("answer", [{"data": [], "error": ERROR}, {"error": ERROR}, {"data": None}, [], None])
def test_an_error_inside_a_200_on_the_job_listing_ends_the_sync(
    world: ScriptedWorld, host: Simulator, database: Database, answer: Any
) -> None:
    add_history(world, range(1))
    host.faults.append(Fault("status", path="/jobs$", times=None, status=200, body=json.dumps(answer)))
    with pytest.raises(CommandError, match="/fine_tuning/jobs answered 200 with"):
        database.sync()
    assert len(host.requests) == settings.MAX_ATTEMPTS


def test_an_html_page_in_place_of_a_result_file_is_tried_again(
    world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    add_history(world, range(2))
    host.faults.append(Fault("html", path="content$", times=2))
    summary = database.sync(resources=("result_metrics",))
    assert summary.rejected == 0
    assert summary.retries == 2
    assert len(database.rows("FROM result_metrics")) == 6


def test_words_in_place_of_a_result_file_are_asked_for_again_before_they_count_as_the_file(
    world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    add_history(world, range(2))
    host.faults.append(Fault("status", path="content$", times=1, status=200, body="Service Unavailable"))
    assert database.sync(resources=("result_metrics",)).rejected == 0
    assert len(database.rows("FROM result_metrics")) == 6


def test_a_host_that_fails_more_often_than_it_answers_ends_the_sync(
    world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    account = Account("default", "key", host.base_url, policy=replace(QUICK, free_retries=20))
    add_history(world, range(40), children=1)
    host.faults.append(Fault("status", path="ftjob-", times=None, probability=0.75, status=500))
    summary = AccountResult("default")
    with pytest.raises(CommandError, match=r"fails more often than it answers \(\d+ retries\)"):
        run_sync(account, DuckDb(database.path), SyncOptions(), result=summary)
    answered = sum(request.status == 200 for request in host.requests)
    assert 20 < summary.retries <= 21 + answered + settings.CONCURRENCY
    assert summary.load_ids == []


def test_a_used_up_quota_ends_the_sync_with_one_request(host: Simulator, database: Database) -> None:
    host.faults.append(Fault("status", times=None, status=429, code="insufficient_quota", headers={"retry-after": "1"}))
    with pytest.raises(CommandError, match="quota"):
        database.sync()
    assert len(host.requests) == 1


def test_a_quota_that_ends_in_between_ends_the_sync_too(
    world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    add_history(world, range(5))
    host.faults.append(Fault("status", path="/events$", times=None, status=429, code="insufficient_quota"))
    with pytest.raises(CommandError, match="quota"):
        database.sync(concurrency=1)
    assert sum(request.path.endswith("/events") for request in host.requests) == 1
    host.faults.clear()
    database.sync()
    assert_holds(database.rows, truth_of(world))


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (Fault("status", path="ftjob-001/events$", times=None, status=500, message="Out of order."), "Out of order."),
        (Fault("stuck_cursor", path="ftjob-001/checkpoints$", times=None), "ftjob-001/checkpoints"),
        (Fault("html", path="ftjob-001/events$", times=None), "<!DOCTYPE html>"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_a_failure_that_concerns_one_job_skips_it_and_the_next_sync_reads_it(
    world: ScriptedWorld, host: Simulator, database: Database, fault: Fault, word: str
) -> None:
    world.page_limit = 2
    add_history(world, range(3))
    host.faults.append(fault)
    summary = database.sync()
    ((skipped, reason),) = [(skip["job"], skip["reason"]) for skip in summary.skipped]
    assert skipped == "ftjob-001"
    assert reason is not None
    assert word in reason
    assert summary.jobs["open"] == 1
    assert database.rows("SELECT DISTINCT fine_tuning_job_id FROM result_metrics ORDER BY 1") == [
        ("ftjob-000",),
        ("ftjob-001",),
        ("ftjob-002",),
    ]
    host.faults.clear()
    assert database.sync().jobs["open"] == 0
    assert_holds(database.rows, truth_of(world))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("stuck_cursor", path="/jobs$", times=None), "/v1/fine_tuning/jobs"),
        (Fault("empty_more", path="/jobs$", times=None), "has_more"),
        (Fault("html", path="/jobs$", times=None), "a web page (text/html"),
        (Fault("reset", times=None), "no whole answer"),
        (Fault("status", times=None, status=503, message="Come back later."), "Come back later."),
        (Fault("status", times=None, status=429, headers={"retry-after": "600"}), "600 s"),
    ],
    ids=lambda value: f"{value.kind}-{value.details.get('status', '')}" if isinstance(value, Fault) else "",
)
def test_a_failure_that_concerns_all_ends_the_sync_and_says_why(
    world: ScriptedWorld, host: Simulator, database: Database, fault: Fault, words: str
) -> None:
    world.page_limit = 2
    add_history(world, range(4), children=1)
    host.faults.append(fault)
    with pytest.raises(CommandError) as raised:
        database.sync()
    assert words in str(raised.value)
    assert "http://127.0.0.1" in str(raised.value)
    listings = [request for request in host.requests if request.path.endswith("/jobs")]
    assert len(listings) <= settings.MAX_ATTEMPTS


@pytest.mark.nightly
def test_the_time_that_a_host_may_stay_silent_can_be_set(
    world: ScriptedWorld, host: Simulator, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_history(world, range(2))
    monkeypatch.setenv("SOURCES__OPENAI_FINE_TUNING__FINE_TUNING_TIMEOUT_SECONDS", "0.5")
    host.faults.extend(
        [Fault("silent", path="/jobs$"), Fault("silent", path="/events$"), Fault("silent", path="content$")]
    )
    began = time.monotonic()
    summary = database.sync()
    assert time.monotonic() - began < 30
    assert summary.retries == 3
    assert_holds(database.rows, truth_of(world))


def test_the_host_clock_decides_and_not_this_machines(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, clock: Clock, api: FineTuningApi
) -> None:
    clock.advance(10 * DAY)
    host.faults.append(Fault("status", status=429, headers={"retry-after": formatdate(clock.now() + 1, usegmt=True)}))
    began = time.monotonic()
    assert api.get_page(JOBS).host_time == clock.now()
    assert 1 <= time.monotonic() - began < 10
