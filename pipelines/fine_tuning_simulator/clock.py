"""The time of the simulated host: frozen, or faster than real time."""

import threading
import time

DEFAULT_START = 1_780_000_000
"""The default start of a clock (2026-05-28), the same in every run, so that runs can be compared."""


class Clock:
    """Unix seconds that stand still (`speed=0`) or pass `speed` times as fast as real ones."""

    def __init__(self, start: float = DEFAULT_START, speed: float = 0) -> None:
        self.start = start
        self.speed = speed
        self._advanced = 0.0
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the simulated time in Unix seconds."""
        with self._lock:
            return self.start + self._advanced + (time.monotonic() - self._began) * self.speed

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        with self._lock:
            self._advanced += seconds
