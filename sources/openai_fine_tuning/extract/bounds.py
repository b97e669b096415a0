"""The limits of a partial read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone

from openai_fine_tuning.api.jobs import Job
from openai_fine_tuning.errors import ConfigurationError


@dataclass(frozen=True)
class Bounds:
    """The limits of a partial read, which never moves a watermark.

    Attributes:
        job_ids: Read only these jobs, all of each.
        since: Read only jobs created at or after this time, in unix seconds.
    """

    job_ids: tuple[str, ...] = ()
    since: float | None = None

    @classmethod
    def parse(cls, job_ids: str | Sequence[str] | None, since: str | date | None) -> Bounds:
        """Make limits of the source's arguments.

        Example:
            >>> Bounds.parse("ftjob-1", "2026-01-31")
            Bounds(job_ids=('ftjob-1',), since=1769817600.0)

        Raises:
            ConfigurationError: `since` is not a date or time.
        """
        ids = [job_ids] if isinstance(job_ids, str) else job_ids or ()
        try:
            return cls(tuple(dict.fromkeys(ids)), None if since is None else parse_time(since).timestamp())
        except ValueError:
            words = "expected a date such as 2026-01-31, or a time such as 2026-01-31T12:00 (UTC)"
            raise ConfigurationError(f"Invalid fine_tuning_since {str(since)!r}: {words}.") from None

    @property
    def is_partial(self) -> bool:
        """Whether anything is left out."""
        return bool(self.job_ids) or self.since is not None

    def admit(self, job: Job) -> bool:
        """Return whether a job lies within the limits."""
        return self.since is None or job.created_at is None or job.created_at >= self.since


def parse_time(value: str | date) -> datetime:
    """Return a date or time, or its text in ISO 8601, as a time in UTC. Raises `ValueError` if it is none.

    Example:
        >>> parse_time("2026-01-31T12:00+01:00")
        datetime.datetime(2026, 1, 31, 11, 0, tzinfo=datetime.timezone.utc)
    """
    # Python 3.10 does not read the Z that stands for UTC.
    moment = datetime.fromisoformat(str(value).strip().replace("Z", "+00:00"))
    try:
        return moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    except OverflowError:
        raise ValueError(f"{value} is too far away") from None
