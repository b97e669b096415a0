"""Each fault, over a real socket."""

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from fine_tuning_simulator import Fault, ScriptedWorld, Simulator

Get = Callable[..., requests.Response]
JOBS = "/fine_tuning/jobs"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    world = ScriptedWorld()
    for number in range(5):
        world.add_job(id=f"ftjob-{number}", created_at=1_700_000_000 + number)
    with Simulator(world) as running:
        yield running


def ids(answer: requests.Response) -> list[str]:
    return [job["id"] for job in answer.json()["data"]]


@pytest.mark.parametrize("status", [400, 403, 404, 408, 409, 418, 429, 500, 503])
def test_a_status_comes_with_an_error_object(simulator: Simulator, get: Get, status: int) -> None:
    simulator.faults.append(Fault("status", status=status, headers={"Retry-After": 7}))
    answer = get(simulator, JOBS)
    assert answer.status_code == status
    assert answer.headers["retry-after"] == "7"
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert get(simulator, JOBS).status_code == 200


def test_quota_is_not_a_rate_limit(simulator: Simulator, get: Get) -> None:
    simulator.faults.append(Fault("status", status=429, code="insufficient_quota"))
    error = get(simulator, JOBS).json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")


@pytest.mark.parametrize("body", [{"detail": "no"}, "plain words", b"\x00\xff"])
def test_a_status_may_have_any_body(simulator: Simulator, get: Get, body: object) -> None:
    simulator.faults.append(Fault("status", status=502, body=body))
    answer = get(simulator, JOBS)
    received = answer.json() if isinstance(body, dict) else answer.content if isinstance(body, bytes) else answer.text
    assert received == body


def test_a_reset_comes_before_any_byte(simulator: Simulator, get: Get) -> None:
    simulator.faults.append(Fault("reset"))
    with pytest.raises(requests.ConnectionError, match=r"reset|forcibly"):
        get(simulator, JOBS)
    assert simulator.requests[0].status is None
    assert get(simulator, JOBS).status_code == 200


def test_a_reset_in_the_body_leaves_half_of_it(simulator: Simulator, get: Get) -> None:
    whole = get(simulator, JOBS).content
    simulator.faults.append(Fault("reset_body"))
    answer = get(simulator, JOBS, stream=True)
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(whole)
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)):
        answer.content  # noqa: B018 - reading it is the test


def test_a_truncated_answer_is_whole_http_and_broken_json(simulator: Simulator, get: Get) -> None:
    whole = get(simulator, JOBS).content
    simulator.faults.append(Fault("truncate"))
    answer = get(simulator, JOBS)
    assert answer.status_code == 200
    assert whole.startswith(answer.content)
    assert len(answer.content) == len(whole) // 2
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()


def test_an_html_page_comes_with_a_200(simulator: Simulator, get: Get) -> None:
    simulator.faults.append(Fault("html"))
    answer = get(simulator, JOBS)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")


def test_a_slow_answer_is_late_and_right(simulator: Simulator, get: Get) -> None:
    simulator.faults.append(Fault("slow", seconds=0.2))
    began = time.monotonic()
    assert len(ids(get(simulator, JOBS))) == 5
    assert time.monotonic() - began >= 0.2


def test_a_slow_answer_may_also_be_wrong(simulator: Simulator, get: Get) -> None:
    simulator.faults.extend([Fault("slow", seconds=0.01), Fault("status", status=503)])
    assert get(simulator, JOBS).status_code == 503


def test_silence_outlasts_the_client(simulator: Simulator, get: Get) -> None:
    simulator.faults.append(Fault("silent"))
    with pytest.raises(requests.ReadTimeout):
        get(simulator, JOBS, timeout=0.1)
    assert get(simulator, JOBS).status_code == 200


def test_silence_may_end_in_a_reset(simulator: Simulator, get: Get) -> None:
    simulator.faults.append(Fault("silent", seconds=0.05))
    with pytest.raises(requests.ConnectionError):
        get(simulator, JOBS)


def test_silence_ends_with_the_simulator(get: Get) -> None:
    ended = threading.Event()
    with Simulator(ScriptedWorld()) as running:
        running.faults.append(Fault("silent"))

        def wait() -> None:
            try:
                get(running, JOBS, timeout=60)
            except requests.ConnectionError:
                ended.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        while not running.requests:
            time.sleep(0.005)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    waiting.join(5)
    assert ended.is_set()


def test_a_stuck_cursor_shows_the_first_page_for_ever(simulator: Simulator, get: Get) -> None:
    simulator.faults.append(Fault("stuck_cursor", times=None))
    for after in (None, "ftjob-3", "ftjob-0"):
        answer = get(simulator, JOBS, params={"limit": "2", "after": after})
        assert ids(answer) == ["ftjob-4", "ftjob-3"]
        assert answer.json()["has_more"] is True


def test_an_empty_page_may_promise_more(simulator: Simulator, get: Get) -> None:
    simulator.faults.append(Fault("empty_more"))
    assert get(simulator, JOBS).json() == {"object": "list", "data": [], "has_more": True}


def test_a_lost_cursor_spares_the_first_page(simulator: Simulator, get: Get) -> None:
    simulator.faults.append(Fault("lost_cursor"))
    assert get(simulator, JOBS).status_code == 200
    assert get(simulator, JOBS, params={"after": "ftjob-3"}).status_code == 404
    assert get(simulator, JOBS, params={"after": "ftjob-3"}).status_code == 200


def test_a_redirect_points_elsewhere(simulator: Simulator, get: Get) -> None:
    simulator.faults.append(Fault("redirect", location="https://elsewhere.example/v1/fine_tuning/jobs"))
    answer = get(simulator, JOBS)
    assert answer.status_code == 307
    assert answer.headers["location"].startswith("https://elsewhere.example/")


def test_a_fault_strikes_only_the_paths_that_match(simulator: Simulator, get: Get) -> None:
    simulator.faults.append(Fault("status", path=r"/ftjob-1/events$", status=500))
    assert get(simulator, f"{JOBS}/ftjob-2/events").status_code == 200
    assert get(simulator, f"{JOBS}/ftjob-1/events").status_code == 500


def test_a_fault_strikes_as_often_as_it_says(simulator: Simulator, get: Get) -> None:
    fault = Fault("status", status=500, times=2)
    simulator.faults.append(fault)
    assert [get(simulator, JOBS).status_code for _ in range(4)] == [500, 500, 200, 200]
    assert fault.hits == 2


def test_faults_strike_one_after_the_other(simulator: Simulator, get: Get) -> None:
    simulator.faults.extend([Fault("status", status=500), Fault("status", status=429)])
    assert [get(simulator, JOBS).status_code for _ in range(3)] == [500, 429, 200]


def test_chance_is_repeatable(simulator: Simulator, get: Get) -> None:
    runs = []
    for _ in range(2):
        simulator.faults[:] = [Fault("status", status=500, times=None, probability=0.5, seed=4)]
        runs.append([get(simulator, JOBS).status_code for _ in range(30)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 500}


def test_faults_can_be_cleared(simulator: Simulator, get: Get) -> None:
    simulator.faults.append(Fault("status", status=500, times=None))
    simulator.faults.clear()
    assert get(simulator, JOBS).status_code == 200


def test_a_fault_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown fault"):
        Fault("earthquake")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="strength"):
        Fault("slow", strength=3)
    with pytest.raises(TypeError, match="location"):
        Fault("redirect")


def test_a_fault_shows_what_it_is_and_how_often_it_struck(simulator: Simulator, get: Get) -> None:
    fault = Fault("status", path="/jobs$", times=2, status=503)
    simulator.faults.append(fault)
    get(simulator, JOBS)
    assert repr(fault) == "Fault('status', path='/jobs$', times=2, hits=1)"


def test_no_fault_makes_noise(
    simulator: Simulator, get: Get, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for fault in (Fault("reset"), Fault("reset_body"), Fault("silent", seconds=0.01)):
            simulator.faults.append(fault)
            with pytest.raises(requests.RequestException):
                get(simulator, JOBS)
        simulator.stop()
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if not record.name.startswith("urllib3")] == []
