"""Threads that read, and hand over what they read in the order in which it comes."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.errors import CancelledError


@dataclass
class Read:
    """One read under way: the children of a job for one resource, or a job itself.

    Attributes:
        resource: What is read.
        job_id: The job that it is read for.
        work: Yields batches of whatever it reads, in a thread.
        context: The reader's own note of what it is for.
        error: What ended it, where it did not succeed.
        is_done: Whether it has ended.
    """

    resource: str
    job_id: str
    work: Callable[[], Iterator[Any]]
    context: Any = None
    error: Exception | None = None
    is_done: bool = False


class Crew:
    """A bounded number of threads. What they find waits in a bounded queue, so that memory stays flat.

    Args:
        api: Whose limiter stops them.
        size: How many threads.
    """

    def __init__(self, api: FineTuningApi, size: int) -> None:
        self._api = api
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="fine-tuning")
        self._found: queue.Queue[tuple[Read, Any]] = queue.Queue(maxsize=2 * size)

    def start(self, read: Read) -> None:
        """Let a thread do a read as soon as one is free."""
        self._pool.submit(self._run, read)

    def next(self) -> tuple[Read, Any]:
        """The next thing found: a read with a batch, or a read that `is_done`, with None. Waits for it."""
        read, found = self._found.get()
        if found is _DONE:
            read.is_done = True
            return read, None
        return read, found

    def dismiss(self) -> None:
        """Stop everything, without waiting for answers that are still under way."""
        self._api.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, read: Read) -> None:
        try:
            for found in read.work():
                self._put(read, found)
        except Exception as error:  # noqa: BLE001 - raised in the thread that takes what was read
            read.error = error
        try:
            self._put(read, _DONE)
        except CancelledError:
            return

    def _put(self, read: Read, found: Any) -> None:
        while not self._api.limiter.cancelled:
            try:
                self._found.put((read, found), timeout=0.5)
            except queue.Full:
                continue
            return
        raise CancelledError("The sync was stopped.")


_DONE = object()
