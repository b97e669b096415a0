"""When `ftw sync --every` syncs again: on the interval, not all of a fleet at once, and sooner after a failure."""

from __future__ import annotations

import random

JITTER = 0.1
"""The share of a pause by which it is shorter or longer, at random: many that began together drift apart."""

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 30.0, 3600.0
"""The pause after a failure, and the longest after many. Never longer than the interval."""


class Interval:
    """The pauses between syncs.

    Attributes:
        every: The interval between two beginnings, in seconds.
        failures: How many syncs have failed since the last success.
        has_begun: Whether a first sync has ended, and a pause has followed it.
    """

    def __init__(self, every: float) -> None:
        self.every = every
        self.failures = 0
        self.has_begun = False

    def pause(self, *, seconds: float, failed: bool) -> float:
        """Return the seconds to wait after a sync that took `seconds`."""
        self.has_begun = True
        around = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load, guards nothing
        if not failed:
            self.failures = 0
            # A sync that takes longer than the interval still lets readers in before the next.
            return max(self.every * around - seconds, self.every * JITTER)
        factor = 2.0 ** min(self.failures, 10)
        self.failures += 1
        return min(FIRST_RETRY_SECONDS * factor, LONGEST_RETRY_SECONDS, self.every) * around
