"""What a sync did and is doing: counted by the reader, shown by whoever runs it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Skipped:
    """Something that could not be read.

    Attributes:
        account: The account's label.
        job: The job's id, or None where it concerns a resource as a whole.
        resource: Name of the resource.
        reason: Why, in words, with the host's.
    """

    account: str
    job: str | None
    resource: str
    reason: str


@dataclass
class Report:
    """The figures of one sync, all its parts together. They grow while it runs, and may be read from another thread.

    Attributes:
        requests: Requests sent, retries included.
        retries: Requests that were sent again.
        jobs_to_read: Jobs found new or open so far.
        jobs_read: Those of them whose reading has ended.
        jobs_open: Jobs that the next sync will read again.
        rows: Rows handed over, by table.
        largest_batch: Bytes of the largest Arrow table handed over.
        skipped: What could not be read.
        rejected: Records that could not be typed.
        is_complete: Whether everything owed was read, or tried. False while it runs, and after a read that ended early.
        seen: Hashes of the ids of the jobs that the host showed.
        notes: What else its user should know, in words.
    """

    requests: int = 0
    retries: int = 0
    jobs_to_read: int = 0
    jobs_read: int = 0
    jobs_open: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    largest_batch: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    rejected: int = 0
    is_complete: bool = False
    seen: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @property
    def jobs_seen(self) -> int:
        """Jobs that the host showed."""
        return len(self.seen)
