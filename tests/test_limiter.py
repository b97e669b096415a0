"""One limiter for all threads: never more in flight than asked, fewer when the host throttles, and an end at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from command import Command, wait_until
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.errors import UsageError
from harness import QUICK, Database
from histories import add_history, assert_holds, truth_of
from openai_fine_tuning import CancelledError, ConfigurationError
from openai_fine_tuning.api.client import FineTuningApi

JOBS = "/fine_tuning/jobs"


@pytest.fixture
def api(host: Simulator) -> Iterator[FineTuningApi]:
    """A client that may send eight requests at once."""
    api = FineTuningApi(host.base_url, "key", concurrency=8, policy=QUICK)
    yield api
    api.close()


@pytest.mark.parametrize("concurrency", [0, -1])
def test_a_concurrency_of_none_is_refused(host: Simulator, database: Database, concurrency: int) -> None:
    with pytest.raises(ConfigurationError, match=f"^The concurrency is {concurrency}: at least 1 request"):
        FineTuningApi(host.base_url, "key", concurrency=concurrency)
    with pytest.raises(UsageError, match="at least 1 request"):
        database.sync(concurrency=concurrency)
    assert host.requests == []


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_no_more_requests_are_in_flight_than_asked(
    world: ScriptedWorld, host: Simulator, database: Database, concurrency: int
) -> None:
    add_history(world, range(18), children=1)
    host.latency = 0.03
    database.sync(concurrency=concurrency)
    assert host.peak_in_flight == concurrency
    assert host.connections <= concurrency
    host.latency = 0
    assert_holds(database.rows, truth_of(world, children=1))


def test_concurrency_halves_on_429_and_recovers(host: Simulator, api: FineTuningApi) -> None:
    allowed = []
    for _ in range(5):
        host.faults.append(Fault("status", status=429))
        api.get_page(JOBS)
        allowed.append(api.limiter.allowed)
    # each 429 halves; the one answer after it is not enough to recover, until only one is allowed
    assert allowed == [4, 2, 2, 2, 2]

    host.latency = 0.03
    host.reset_peak()
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: api.get_page(JOBS), range(2)))
    assert host.peak_in_flight <= 2
    host.latency = 0
    for _ in range(2 + 3 + 4 + 5 + 6 + 7):
        api.get_page(JOBS)
    assert api.limiter.allowed == 8
    host.latency = 0.05
    host.reset_peak()
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: api.get_page(JOBS), range(32)))
    assert host.peak_in_flight == 8


def test_a_429_that_names_a_wait_holds_every_thread_back(host: Simulator, api: FineTuningApi) -> None:
    host.faults.append(Fault("status", status=429, headers={"retry-after": "0.5"}))
    began = time.monotonic()
    first = threading.Thread(target=api.get_page, args=(JOBS,))
    first.start()
    wait_until(lambda: api.limiter.allowed < 8)
    api.get_page(JOBS)
    assert time.monotonic() - began >= 0.5
    first.join()
    assert len(host.requests) == 3


@pytest.mark.parametrize(("reset", "seconds"), [("500ms", 0.5), ("0.4", 0.4), ("0m0.4s", 0.4), ("1s", 1.0)])
def test_no_request_starts_while_the_host_says_that_none_are_left(
    host: Simulator, api: FineTuningApi, reset: str, seconds: float
) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
    host.faults.append(Fault("status", status=200, headers=headers, body={"object": "list", "data": []}))
    began = time.monotonic()
    api.get_page(JOBS)
    with ThreadPoolExecutor(4) as threads:
        ended = list(threads.map(lambda _: (api.get_page(JOBS), time.monotonic())[1], range(4)))
    assert min(ended) - began >= seconds
    assert api.retries == 0


@pytest.mark.parametrize("headers", [("1", "60s"), ("0", ""), ("0", "soon"), ("", "60s"), ("nan", "60s")])
def test_other_rate_limit_headers_hold_nothing_back(
    host: Simulator, api: FineTuningApi, headers: tuple[str, str]
) -> None:
    names = ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
    told = dict(zip(names, headers, strict=True))
    host.faults.append(Fault("status", status=200, headers=told, body={"object": "list", "data": []}))
    began = time.monotonic()
    for _ in range(2):
        api.get_page(JOBS)
    assert time.monotonic() - began < 10


def test_what_waits_ends_at_once_when_all_is_stopped(host: Simulator, api: FineTuningApi) -> None:
    host.faults.append(Fault("status", status=429, headers={"retry-after": "100"}))
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            api.get_page(JOBS)
        except CancelledError as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    threads[0].start()
    wait_until(lambda: api.limiter.allowed < 8)
    for thread in threads[1:]:
        thread.start()
    api.close()
    for thread in threads:
        thread.join(2)
        assert not thread.is_alive()
    assert len(failures) == 4
    assert len(host.requests) == 1


# the command ---------------------------------------------------------------------------------------------------------

SILENT_AT_LISTING = Fault("silent", path="/jobs$", times=None)
SILENT_AT_CHILDREN = Fault("silent", path="/(events|content)$", times=None)
WAITING = Fault("status", path="/events$", times=None, status=429, headers={"retry-after": "100"})


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(
    ("number", "code", "fault", "path"),
    [
        (signal.SIGINT, 130, SILENT_AT_LISTING, "/jobs"),
        (signal.SIGTERM, 143, SILENT_AT_CHILDREN, "/events"),
        (signal.SIGINT, 130, WAITING, "/events"),
    ],
    ids=["interrupted-silent", "terminated-silent", "interrupted-waiting"],
)
def test_a_signal_ends_a_sync_within_two_seconds_and_leaves_nothing_behind(
    *, tmp_path: Path, world: ScriptedWorld, host: Simulator, number: int, code: int, fault: Fault, path: str
) -> None:
    add_history(world, range(4))
    ftw = Command(tmp_path, host.base_url)
    host.faults.append(fault)
    with ftw.start("sync") as running:
        wait_until(lambda: any(request.path.endswith(path) for request in host.requests))
        time.sleep(0.2)
        began = time.monotonic()
        running.signal(number)
        ended = running.end(20)
    assert time.monotonic() - began < 2
    assert ended.code == code
    assert ended.out == ""
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert ended.err.strip() == "Stopped: what was loaded stays, and the next sync goes on there."
    assert ftw.left_behind == []
    host.faults.clear()
    assert ftw("sync", "--strict").code == 0
    assert_holds(ftw.rows, truth_of(world))


@pytest.mark.thorough
def test_a_signal_ends_a_sync_that_waits_for_a_reader_of_the_database(
    tmp_path: Path, world: ScriptedWorld, host: Simulator
) -> None:
    add_history(world, range(2))
    ftw = Command(tmp_path, host.base_url)
    assert ftw("sync", "--resources", "jobs").code == 0
    reader = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import duckdb; c = duckdb.connect({str(ftw.database)!r}, read_only=True); print(1, flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        with ftw.start("sync", "--lock-wait", "50") as running:
            assert running.process.stderr is not None
            assert str(reader.pid) in running.process.stderr.readline(), "it names the process that it waits for"
            began = time.monotonic()
            running.signal(signal.SIGTERM)
            ended = running.end(20)
        assert time.monotonic() - began < 2
        reader.kill()
    assert ended.code == 143
    assert ftw.left_behind == []
    assert ftw("sync", "--strict").code == 0
    assert_holds(ftw.rows, truth_of(world))
