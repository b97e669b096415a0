"""The worker threads: what their tasks yield comes in order, bounded, with one end for each task."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from typing import Any

import pytest

from openai_fine_tuning.api.concurrency import Limiter
from openai_fine_tuning.extract.workers import Ended, Workers


def counting(items: int, log: list[int] | None = None) -> Generator[int, None, str]:
    """Yields numbers, and returns a text."""
    for number in range(items):
        if log is not None:
            log.append(number)
        yield number
    return "all of them"


def failing() -> Generator[int, None, None]:
    """Yields a number and fails."""
    yield 1
    raise KeyError("nope")


def collect(workers: Workers[str], tasks: int) -> dict[str, list[Any]]:
    """What each of so many tasks yielded, with its end last."""
    found: dict[str, list[Any]] = {}
    while sum(isinstance(one[-1], Ended) for one in found.values()) < tasks:
        task, item = workers.next()
        found.setdefault(task, []).append(item)
    return found


def test_each_task_yields_in_its_order_and_ends_once_with_its_result() -> None:
    workers: Workers[str] = Workers(Limiter(4), 4)
    for task in "abcdefgh":
        workers.start(task, counting(20))
    found = collect(workers, 8)
    workers.stop()
    assert found == {task: [*range(20), Ended(result="all of them")] for task in "abcdefgh"}


def test_an_error_is_the_end_of_its_task_alone() -> None:
    workers: Workers[str] = Workers(Limiter(2), 2)
    workers.start("bad", failing())
    workers.start("good", counting(3))
    found = collect(workers, 2)
    workers.stop()
    assert isinstance(found["bad"][-1].error, KeyError)
    assert found["good"] == [0, 1, 2, Ended(result="all of them")]


def test_a_slow_consumer_keeps_the_threads_waiting() -> None:
    log: list[int] = []
    workers: Workers[str] = Workers(Limiter(1), 1)
    workers.start("a", counting(100, log))
    workers.next()
    seen = -1
    while seen != len(log):  # until it has come to rest
        seen = len(log)
        time.sleep(0.1)
    assert len(log) < 6
    workers.stop()


@pytest.mark.parametrize("is_full", [True, False])
def test_no_thread_is_left_after_a_stop(is_full: bool) -> None:
    before = set(threading.enumerate())
    workers: Workers[str] = Workers(Limiter(2), 2)
    for task in "abcd":
        workers.start(task, counting(100 if is_full else 1))
    workers.next()
    workers.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
