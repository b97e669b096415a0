"""The limiter that all threads share: how many requests are in flight, and when none may start."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from openai_fine_tuning.errors import CancelledError, ConfigurationError


class Limiter:
    """Bounds the requests in flight. Halves the bound when the host throttles, and lets it recover slowly.

    Args:
        concurrency: The highest number of requests in flight.

    Raises:
        ConfigurationError: It is less than 1.
    """

    def __init__(self, concurrency: int) -> None:
        if concurrency < 1:
            raise ConfigurationError(f"The concurrency is {concurrency}: at least 1 request must be in flight.")
        self.concurrency = self.allowed = concurrency
        self.cancelled = False
        self._in_flight = 0
        self._successes = 0
        self._opens_at = 0.0
        self._changed = threading.Condition()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Count as a request in flight; wait until it may start. Raises `CancelledError` once cancelled."""
        with self._changed:
            while True:
                self.raise_if_cancelled()
                closed_for = self._opens_at - time.monotonic()
                if closed_for <= 0 and self._in_flight < self.allowed:
                    break
                self._changed.wait(closed_for if closed_for > 0 else None)
            self._in_flight += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify()

    def succeeded(self) -> None:
        """Count an answer. After as many answers as are allowed at once, one more request is allowed."""
        with self._changed:
            self._successes += 1
            if self.allowed < self.concurrency and self._successes >= self.allowed:
                self.allowed += 1
                self._successes = 0
                self._changed.notify()

    def throttled(self) -> None:
        """Allow half as many requests, because the host answered 429."""
        with self._changed:
            self.allowed = max(1, self.allowed // 2)
            self._successes = 0

    def close_for(self, seconds: float) -> None:
        """Let no request start for a while, because the host said when it will answer again."""
        with self._changed:
            self._opens_at = max(self._opens_at, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait. Raises `CancelledError` as soon as cancelled."""
        until = time.monotonic() + seconds
        with self._changed:
            while (left := until - time.monotonic()) > 0 and not self.cancelled:
                self._changed.wait(left)
            self.raise_if_cancelled()

    def cancel(self) -> None:
        """Wake everything that waits. Nothing starts any more."""
        with self._changed:
            self.cancelled = True
            self._changed.notify_all()

    def raise_if_cancelled(self) -> None:
        """Raise `CancelledError` once cancelled."""
        if self.cancelled:
            raise CancelledError("The sync was stopped.")
