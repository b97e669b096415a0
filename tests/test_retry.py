"""When a failed request is sent again, and after how long."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.errors import CommandError
from harness import DAY, NOW, Database
from openai_fine_tuning import settings
from openai_fine_tuning.api import retry


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_sent_again(status: int) -> None:
    assert retry.should_retry(status, {}, None)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422])
def test_what_stays_wrong_is_not_sent_again(status: int) -> None:
    assert not retry.should_retry(status, {}, None)


def test_the_host_may_say_whether_to_send_again() -> None:
    assert retry.should_retry(400, {"x-should-retry": "true"}, None)
    assert not retry.should_retry(500, {"x-should-retry": "false"}, None)
    assert retry.should_retry(500, {"x-should-retry": "perhaps"}, None)


@pytest.mark.parametrize("headers", [{}, {"x-should-retry": "true"}])
def test_a_used_up_quota_is_never_worth_another_request(headers: dict[str, str]) -> None:
    assert not retry.should_retry(429, headers, "insufficient_quota")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "20", "retry-after": "7"}, 0.02),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "later"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": formatdate(NOW + 30, usegmt=True), "date": formatdate(NOW, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True), "date": formatdate(NOW, usegmt=True)}, 0.0),
    ],
)
def test_the_wait_that_the_host_asks_for(headers: dict[str, str], expected: float | None) -> None:
    assert retry.retry_after(headers) == expected


def test_a_date_is_taken_by_this_machines_clock_where_the_host_tells_no_time() -> None:
    wait = retry.retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)})
    assert wait is not None
    assert 28 < wait <= 30


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text(max_size=30)))
def test_no_header_is_an_error(headers: dict[str, str]) -> None:
    wait = retry.retry_after(headers)
    assert wait is None or wait >= 0


@given(st.integers(1, 50))
def test_the_wait_doubles_from_half_a_second_to_eight_less_a_quarter_at_most(attempt: int) -> None:
    whole = min(0.5 * 2 ** (attempt - 1), 8)
    assert 0.75 * whole <= retry.backoff(attempt, settings.RequestPolicy()) <= whole


@pytest.mark.parametrize(
    ("reset", "expected"),
    [("12s", 12.0), ("20ms", 0.02), ("6m0s", 360.0), ("1h2m3s", 3723.0), ("1.5", 1.5), ("1.5s", 1.5), ("soon", None)],
)
def test_the_reset_of_a_rate_limit_counts_once_no_request_is_left(reset: str, expected: float | None) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
    assert retry.exhausted_for(headers) == pytest.approx(expected)
    assert retry.exhausted_for({**headers, "x-ratelimit-remaining-requests": "1"}) is None


def test_faults_on_the_way_cost_retries_and_no_row(world: ScriptedWorld, host: Simulator, database: Database) -> None:
    for number in range(6):
        world.add_job(id=f"job-{number}", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
        world.add_checkpoint(f"job-{number}")
    host.faults.extend(
        [
            Fault("status", path="/jobs$", status=503),
            Fault("truncate", path="/jobs$"),
            Fault("reset", path="job-1/checkpoints"),
            Fault("reset_body", path="job-2/checkpoints"),
            Fault("html", path="job-3/checkpoints"),
            Fault("status", path="job-4/checkpoints", status=429, headers={"retry-after-ms": "20"}),
            Fault("status", path="job-5/checkpoints", status=400, headers={"x-should-retry": "true"}),
        ]
    )
    summary = database.sync()
    assert summary.retries == 7
    assert summary.skipped == []
    assert database.rows("SELECT count(*) FROM checkpoints") == [(6,)]


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "code": "insufficient_quota"},
        {"status": 429, "headers": {"retry-after": "121"}},
        {"status": 503, "headers": {"retry-after": "3600"}},
    ],
    ids=["quota", "429 for long", "503 for long"],
)
def test_a_wait_that_does_not_help_or_is_too_long_ends_the_sync_at_once(
    fault: dict[str, Any], world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    world.add_job(id="job-a", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
    host.faults.append(Fault("status", path="/jobs$", times=None, **fault))
    with pytest.raises(CommandError):
        database.sync()
    assert len(host.requests) == 1


def test_each_retry_is_logged_without_a_secret(
    world: ScriptedWorld, host: Simulator, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    world.add_job(id="ftjob-1", created_at=NOW - DAY)
    host.faults.append(Fault("status", status=503, body=b'{"error": {"message": "busy, key sk-secret-1234"}}', times=2))
    with caplog.at_level("INFO", logger="openai_fine_tuning"):
        database.sync(key="sk-secret-1234")
    lines = [record.getMessage() for record in caplog.records if "follows in" in record.getMessage()]
    assert [line.split(" follows")[0].split(". ")[-1] for line in lines] == ["Attempt 2", "Attempt 3"]
    assert all("503" in line and "sk-secret" not in line for line in lines)
