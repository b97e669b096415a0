"""The figures of a sync, which the reader updates and whoever runs it shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Skipped:
    """Something that could not be read.

    Attributes:
        account: The account's label.
        job: The job's id; None if the resource cannot be read for any job.
        resource: Name of the resource.
        reason: Why, with the host's words.
    """

    account: str
    job: str | None
    resource: str
    reason: str


@dataclass
class Report:
    """The figures of one sync, all its parts together. They grow while it runs. Another thread may read them.

    Attributes:
        requests: Requests sent, retries included.
        retries: Requests that were sent again.
        jobs_to_read: Jobs found so far that are new or open.
        jobs_read: Jobs of these that were read.
        jobs_open: Jobs that the next sync reads again.
        jobs_in_progress: Jobs of these that have not ended.
        newest_job_at: When the newest job was created that the host showed, in unix seconds.
        rows: Rows yielded, by table.
        largest_batch: Bytes of the largest Arrow table yielded.
        skipped: What could not be read.
        rejected: Records with a value that does not fit its column.
        is_complete: Whether everything due was read, or tried. False while it runs, and after a read that ended early.
        seen: Hashes of the ids of the jobs that the host listed.
        jobs_known: Jobs of the account that this sync and earlier ones have read.
        notes: Sentences with what else the user should know.
        warnings: Sentences that say what is probably wrong.
        models_failure: Why the models could not be listed; None if they were, or were not to be. Some hosts have no
            such listing, and some keys may not read it, so that this counts neither as skipped nor as wrong.
    """

    requests: int = 0
    retries: int = 0
    jobs_to_read: int = 0
    jobs_read: int = 0
    jobs_open: int = 0
    jobs_in_progress: int = 0
    newest_job_at: float | None = None
    rows: Counter[str] = field(default_factory=Counter)
    largest_batch: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    rejected: int = 0
    is_complete: bool = False
    seen: set[int] = field(default_factory=set)
    jobs_known: int = 0
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    models_failure: str | None = None

    @property
    def jobs_seen(self) -> int:
        """The number of jobs that the host listed."""
        return len(self.seen)
