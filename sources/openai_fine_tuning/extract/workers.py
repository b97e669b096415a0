"""Threads that read, and a bounded queue through which they hand over what they read."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from openai_fine_tuning.api.concurrency import Limiter
from openai_fine_tuning.errors import CancelledError

Task = TypeVar("Task")

_CANCEL_CHECK_SECONDS = 0.5


@dataclass(frozen=True)
class Ended:
    """The end of a task.

    Attributes:
        result: What its work returned.
        error: The exception that its work raised, or None.
    """

    result: Any = None
    error: Exception | None = None


class Workers(Generic[Task]):
    """Run generators in threads, and pass on what they yield to one consumer.

    The queue between them is bounded: if the consumer is slow, the threads wait, and memory stays flat. The threads are
    daemons: a process that was interrupted ends without the answers that are still under way. The threads of a
    `ThreadPoolExecutor` would keep it until the host has answered.

    Args:
        limiter: Ends the waiting of the threads once it is cancelled.
        size: The number of threads.
    """

    def __init__(self, limiter: Limiter, size: int) -> None:
        self._limiter = limiter
        self._size = size
        self._threads: list[threading.Thread] = []
        self._tasks: queue.SimpleQueue[tuple[Task, Generator[Any, None, Any]] | None] = queue.SimpleQueue()
        self._found: queue.Queue[tuple[Task, Any]] = queue.Queue(maxsize=size)

    def start(self, task: Task, work: Generator[Any, None, Any]) -> None:
        """Run a generator as soon as a thread is free; `task` comes back with everything that it yields."""
        self._tasks.put((task, work))
        if len(self._threads) < self._size:
            thread = threading.Thread(target=self._work, name=f"fine-tuning_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def next(self) -> tuple[Task, Any]:
        """Wait for the next thing that a task yields, or for the `Ended` of a task, which is its last."""
        return self._found.get()

    def stop(self) -> None:
        """Cancel all tasks. Answers that are still under way are not waited for."""
        self._limiter.cancel()
        for _ in self._threads:
            self._tasks.put(None)

    def _work(self) -> None:
        with suppress(CancelledError):  # the consumer has gone
            while (one := self._tasks.get()) is not None:
                self._limiter.raise_if_cancelled()
                self._run(*one)

    def _run(self, task: Task, work: Generator[Any, None, Any]) -> None:
        try:
            while True:
                self._put(task, next(work))
        except StopIteration as end:
            self._put(task, Ended(result=end.value))
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the consumer raises it
            self._put(task, Ended(error=error))

    def _put(self, task: Task, found: Any) -> None:
        while True:
            self._limiter.raise_if_cancelled()
            try:
                self._found.put((task, found), timeout=_CANCEL_CHECK_SECONDS)
            except queue.Full:
                continue
            return
