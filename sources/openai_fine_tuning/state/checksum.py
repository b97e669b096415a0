"""A set of jobs in two numbers: enough to tell whether another set is the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

_MODULUS = 1 << 62


@dataclass
class Tally:
    """How many jobs were added, and the sum of the hashes of their ids and times: the order does not matter.

    Attributes:
        count: How many.
        total: The sum, modulo 2**62.
    """

    count: int = 0
    total: int = 0

    def add(self, job_id: str, created_at: float | None) -> None:
        """Take in a job that was not taken in before.

        Args:
            job_id: Its id.
            created_at: Unix seconds, since some hosts count their jobs from 1.
        """
        told = f"{job_id}\n{'' if created_at is None else int(created_at)}"
        digest = hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest()
        self.count += 1
        self.total = (self.total + int.from_bytes(digest[:8], "big")) % _MODULUS

    def as_state(self) -> dict[str, Any]:
        """As it is kept in dlt's state."""
        return {"count": self.count, "total": self.total}
