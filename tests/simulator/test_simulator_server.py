"""The server: its clock, its log of requests, and how it starts and stops."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from fine_tuning_simulator import Clock, GeneratedWorld, ScriptedWorld, Simulator

Get = Callable[..., requests.Response]
JOBS = "/fine_tuning/jobs"


def test_the_date_is_the_simulated_one(get: Get) -> None:
    clock = Clock(start=1_000_000_000)
    with Simulator(ScriptedWorld(), clock=clock) as running:
        assert get(running, JOBS).headers["date"] == "Sun, 09 Sep 2001 01:46:40 GMT"
        clock.advance(61)
        assert get(running, "/nothing").headers["date"] == "Sun, 09 Sep 2001 01:47:41 GMT"


def test_requests_are_logged_in_order(get: Get) -> None:
    with Simulator(ScriptedWorld()) as running:
        get(running, JOBS, params={"limit": "5", "after": ""})
        get(running, "/files", headers={})
        first, second = running.requests
        assert (first.method, first.path, first.query) == ("GET", f"/v1{JOBS}", {"limit": "5", "after": ""})
        assert (first.status, first.key) == (404, "a-key")
        assert (second.path, second.status, second.key) == ("/v1/files", 401, "")
        running.requests.clear()
        get(running, JOBS, headers={"Authorization": "Bearer k", "OpenAI-Organization": "org-1"})
        assert [request.headers["openai-organization"] for request in running.requests] == ["org-1"]


def test_the_peak_counts_requests_that_are_answered_at_once() -> None:
    with Simulator(ScriptedWorld()) as running:
        running.latency += 0.2
        headers = {"Authorization": "Bearer k"}
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: requests.get(running.base_url + JOBS, headers=headers, timeout=10), range(4)))
        assert running.peak_in_flight == 4
        running.reset_peak()
        requests.get(running.base_url + JOBS, headers=headers, timeout=10)
        assert running.peak_in_flight == 1


def test_connections_are_counted(get: Get) -> None:
    with Simulator(ScriptedWorld()) as running:
        for _ in range(3):
            get(running, JOBS)
        assert running.connections == 1
        requests.get(running.base_url + JOBS, timeout=10)
        assert running.connections == 2


def test_small_answers_do_not_wait_for_one_another(get: Get) -> None:
    with Simulator(ScriptedWorld()) as running:
        began = time.monotonic()
        for _ in range(50):
            get(running, JOBS)
        assert time.monotonic() - began < 1.5  # with Nagle's algorithm on, 40 ms each


def test_it_stops_at_once_with_a_connection_open(get: Get) -> None:
    with Simulator(ScriptedWorld()) as running:
        get(running, JOBS)
        began = time.monotonic()
    assert time.monotonic() - began < 1.5
    with pytest.raises(requests.ConnectionError):
        get(running, JOBS)


def test_it_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with Simulator(ScriptedWorld()):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_several_run_side_by_side(get: Get) -> None:
    with Simulator(ScriptedWorld()) as one, Simulator(GeneratedWorld(profile="azure")) as two:
        assert one.base_url != two.base_url
        assert len(get(one, JOBS).json()["data"]) == 0
        assert len(get(two, JOBS).json()["data"]) == 20


def test_a_world_that_fails_is_a_500_and_is_logged(get: Get, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(ScriptedWorld):
        def jobs(self) -> list[Any]:
            raise ZeroDivisionError

    with Simulator(Failing()) as running:
        answer = get(running, JOBS)
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == "server_error"
        assert get(running, "/files").status_code == 200
    (told,) = [record for record in caplog.records if record.name.startswith("fine_tuning_simulator")]
    assert told.getMessage() == f"the simulator failed on /v1{JOBS}"
    assert told.exc_info is not None
    assert told.exc_info[0] is ZeroDivisionError


def test_it_can_start_again_on_the_same_port(get: Get) -> None:
    running = Simulator(ScriptedWorld())
    running.start()
    with pytest.raises(RuntimeError, match="runs already"):
        running.start()
    url = running.base_url
    get(running, JOBS)
    running.stop()
    running.start()
    try:
        assert running.base_url == url
        assert get(running, JOBS).status_code == 200
    finally:
        running.stop()


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match=r"in use|Only one usage"):
            Simulator(ScriptedWorld(), port=taken.getsockname()[1]).start()


def test_profile_and_clock_are_those_of_the_world() -> None:
    world = GeneratedWorld(profile="azure")
    simulator = Simulator(world)
    assert simulator.profile.name == "azure"
    assert simulator.clock is world.clock


def test_a_clock_stands_still_or_runs() -> None:
    frozen, fast = Clock(start=5), Clock(start=5, speed=1_000_000)
    time.sleep(0.01)
    assert frozen.now() == 5
    assert fast.now() > 1_000
    frozen.advance(2.5)
    assert frozen.now() == 7.5


@pytest.mark.skipif(sys.platform == "win32", reason="a console interrupt cannot be sent to one child there")
def test_serve_tells_its_url_and_ends_quietly_when_interrupted() -> None:
    import signal

    code = (
        "import signal, sys; from fine_tuning_simulator import serve;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a shell's background jobs ignore it
        "serve(jobs=3, profile='azure', on_ready=lambda url: (sys.stdout.write(url + chr(10)), sys.stdout.flush()))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        page = requests.get(f"{url}{JOBS}", headers={"api-key": "x"}, timeout=10).json()
        assert len(page["data"]) == 3
        process.send_signal(signal.SIGINT)
        _, problems = process.communicate(timeout=10)
        assert (process.returncode, problems) == (0, "")
