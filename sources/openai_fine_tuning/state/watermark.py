"""Know which jobs are still to be read. The answer is kept in dlt's state and committed with the rows.

The state of one resource, for each identity (account, host and key), under the keys that every release reads:

    newest         `created_at` of the newest job read (unix seconds): every older job is read, except the open ones
    newest_first   whether the host's listing was newest first when it was last read
    open           job id -> what is known of a job that must be read again
    recent         closed jobs within the overlap behind `newest`: id -> `created_at`
    cut            the resume point of a listing that was not read to its end: everything from `newest` down to
                   `oldest` is accounted for, and the rest follows the record `after`
    tally          the checksum of the closed jobs; missing if an early release has closed some without it
    host           the host that it was last read from; missing if an early release has read it
    own            set once it is decided that this identity takes over the state of no other (see `takeover`)
    part           set if another load of the same sync is to follow: which one wrote this (see `run`)

It grows with the number of open jobs, not with the history.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from openai_fine_tuning import settings
from openai_fine_tuning.api.jobs import Job
from openai_fine_tuning.api.pagination import Order
from openai_fine_tuning.errors import StateTooNewError

State = dict[str, Any]


@dataclass
class JobSetChecksum:
    """A set of jobs as two numbers: equal numbers mean the same set.

    Attributes:
        count: The number of jobs.
        total: The sum of the hashes of their ids and times, modulo 2**62: the order does not matter.
    """

    count: int = 0
    total: int = 0

    def add(self, job_id: str, created_at: float | None) -> None:
        """Add a job that was not added before, with its time (unix seconds): some hosts number their jobs from 1."""
        text = f"{job_id}\n{'' if created_at is None else int(created_at)}"
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        self.count += 1
        self.total = (self.total + int.from_bytes(digest[:8], "big")) % (1 << 62)


class Watermark:
    """Know which jobs one resource has read to the end, for one identity.

    Args:
        state: The dict in dlt's resource state that holds it; changed in place.
        overlap: Seconds behind the newest job within which ids, not times, decide.
        grace: Seconds after a job's end until it can be closed.
    """

    def __init__(self, state: State, *, overlap: float, grace: float) -> None:
        self._state = state
        self._overlap = overlap
        self._grace = grace
        if not has_begun(state):
            state["tally"] = asdict(JobSetChecksum())
        for name, empty in (("newest", None), ("newest_first", True), ("open", {}), ("recent", {}), ("cut", None)):
            state.setdefault(name, empty)

    @property
    def open(self) -> dict[str, State]:
        """The jobs that must be read again: their ids, each with what is known of the job."""
        opened: dict[str, State] = self._state["open"]
        return opened

    @property
    def known_jobs(self) -> int:
        """The number of jobs that were read so far, open ones included."""
        return _known_jobs(self._state)

    @property
    def resume_point(self) -> State | None:
        """The resume point of a listing that was not read to its end."""
        point: State | None = self._state["cut"]
        return point

    @property
    def trusts_order(self) -> bool:
        """Whether the host's listing was newest first when it was last read."""
        return bool(self._state["newest_first"])

    @property
    def bound(self) -> float | None:
        """Every job created before this (unix seconds) is accounted for; None if the listing must be read whole."""
        newest: float | None = self._state["newest"]
        return None if newest is None else newest - self._overlap

    @property
    def resume_bound(self) -> float | None:
        """Jobs created before this, down to the resume point, are accounted for (unix seconds)."""
        return None if self.resume_point is None else self.resume_point["newest"] - self._overlap

    def needs_read(self, job: Job) -> bool:
        """Return whether the job is new to this resource, or still open."""
        if job.id in self.open or job.id in self._state["recent"]:
            return job.id in self.open
        if job.created_at is None:
            return True
        if self.bound is not None and job.created_at < self.bound:
            return False
        point, upper = self.resume_point, self.resume_bound
        return point is None or upper is None or not point["oldest"] < job.created_at < upper

    def mark_read(self, job: Job, *, last_event: float | None = None, **known: Any) -> None:
        """Note that a read of the job has succeeded, and close the job if nothing more can come.

        Args:
            job: The job as the host showed it before that read began.
            last_event: When the job's last event happened (unix seconds), as far as it is known.
            known: What the next read of the job must know, if it stays open.
        """
        if self.is_over(job, last_event):
            if "tally" in self._state and job.id not in self._state["recent"]:
                checksum = JobSetChecksum(**self._state["tally"])
                checksum.add(job.id, job.created_at)
                self._state["tally"] = asdict(checksum)
            self._close(job.id, job.created_at)
            return
        self.mark_pending(job, **known)

    def mark_pending(self, job: Job, **known: Any) -> None:
        """Note that the job must be read again."""
        self.open[job.id] = {"created_at": job.created_at, **self.open.get(job.id, {}), **known}
        if job.is_terminal:
            self.open[job.id].setdefault("terminal_at", job.seen_at)
        else:
            self.open[job.id].pop("terminal_at", None)

    def mark_gone(self, job_id: str) -> None:
        """Close a job that the host no longer has. The checksum leaves it out, since no listing shows it."""
        self._close(job_id, self.open.get(job_id, {}).get("created_at"))

    def is_over(self, job: Job, last_event: float | None = None) -> bool:
        """Return whether a read that begins now is the last one: the job ended longer ago than the grace period.

        Without a `finished_at`, it ended when it was first seen so. A job that had failed or was cancelled when it was
        first seen at all ended with its last event, or as it was created.

        Args:
            job: The job as the host shows it now.
            last_event: When its last event happened (unix seconds), as far as it is known.
        """
        if not job.is_terminal:
            return False
        known = self.open.get(job.id)
        ended = job.finished_at
        if ended is None or ended > job.seen_at:  # no host knows the end of a job beforehand
            ended = None if known is None else known.get("terminal_at")
            if job.has_failed and (known is None or ended is not None):
                times = [time for time in (ended, last_event) if time is not None]
                ended = min(times, default=job.created_at)
        return ended is not None and job.seen_at - ended > self._grace

    def listing_ended(self, order: Order, began_at: float, met: Iterable[str]) -> None:
        """Move the watermark, since the listing was read as far back as needed.

        Args:
            order: The order of what was read of it.
            began_at: The host's time when the listing began, in unix seconds: the watermark never moves beyond it.
            met: Ids of the jobs that it showed.
        """
        times = [self._state["newest"], order.newest, (self.resume_point or {}).get("newest")]
        known = [time for time in times if time is not None]
        self._state["newest"] = min(max(known), began_at) if known else None
        self._state["cut"] = None
        self._state["newest_first"] = order.is_newest_first
        met = set(met)
        self._prune(lambda job_id, time: job_id in met if time is None else self.bound is None or time >= self.bound)

    def listing_stopped(self, order: Order, began_at: float, cursor: str) -> None:
        """Store the resume point of a listing that was not read to its end."""
        newest = min(order.newest if order.newest is not None else began_at, began_at)
        if self.resume_point is not None:
            newest = max(newest, self.resume_point["newest"])
        self._state["cut"] = {"newest": newest, "oldest": order.last, "after": cursor}
        # A listing that was left early was in order so far, and had been when it was last read whole.
        self._state["newest_first"] = order.is_newest_first
        before, upper = self._state["newest"], newest - self._overlap
        self._prune(
            lambda _, time: (
                time is None or time >= upper or (before is not None and before - self._overlap <= time <= before)
            )
        )

    def _close(self, job_id: str, created_at: float | None) -> None:
        self.open.pop(job_id, None)
        self._state["recent"][job_id] = created_at

    def _prune(self, keep: Callable[[str, float | None], bool]) -> None:
        """Forget the closed jobs that are not to be kept, given their ids and `created_at`."""
        self._state["recent"] = {job_id: time for job_id, time in self._state["recent"].items() if keep(job_id, time)}


def has_begun(state: Mapping[str, Any]) -> bool:
    """Return whether a state says that anything was read."""
    return state.get("newest") is not None or any(state.get(name) for name in ("open", "recent", "cut"))


def other_hosts(resource_states: Iterable[State], account: str, host: str) -> list[str]:
    """Return the hosts that an account was read from; none if this host may be one of them, or nothing was read."""
    states = [state for one in resource_states for state in one.get("frontiers", {}).get(account, {}).values()]
    hosts = {state.get("host", host) for state in states if has_begun(state) or state.get("own")}
    return [] if host in hosts else sorted(hosts)


def known_jobs(resource_states: Iterable[State], account: str) -> int:
    """Return how many jobs of an account were read so far, by the states of its resources, with any key."""
    states = [state for one in resource_states for state in one.get("frontiers", {}).get(account, {}).values()]
    return max(map(_known_jobs, states), default=0)


def _known_jobs(state: Mapping[str, Any]) -> int:
    closed = state["tally"]["count"] if "tally" in state else len(state.get("recent", ()))
    return int(closed) + len(state.get("open", ()))


def short_listing(account: str, *, listed: int, known: int) -> str | None:
    """Return a warning if a whole listing has less than half of the jobs that were read before; else None."""
    if 2 * listed >= known:
        return None
    return (
        f"The host lists {listed:,} jobs of account {account}, of {known:,} that were read before. Are host, key and "
        "project right? Nothing was deleted. If they are right, a full refresh (--full-refresh) accepts it."
    )


def check_version(resource_state: Mapping[str, Any]) -> None:
    """Raise `StateTooNewError` if a later release wrote a resource's state."""
    version = resource_state.get("version", settings.STATE_VERSION)
    if version > settings.STATE_VERSION:
        raise StateTooNewError(
            f"The destination's state has version {version}, and this release knows versions up to "
            f"{settings.STATE_VERSION}: a later release has synced into it. Upgrade fine-tuning-warehouse."
        )


def watermark_states(resource_state: State, account: str) -> dict[str, State]:
    """Return an account's part of a resource's state: identity to the state of its watermark.

    Raises:
        StateTooNewError: A later release wrote it.
    """
    resource_state.setdefault("version", settings.STATE_VERSION)
    check_version(resource_state)
    states: dict[str, State] = resource_state.setdefault("frontiers", {}).setdefault(account, {})
    return states


def watermark_state(resource_state: State, account: str, identity: str, *, now: float) -> State:
    """Return the state of the watermark of an account, host and key; the oldest of too many identities are dropped.

    Args:
        resource_state: `dlt.current.resource_state(...)`.
        account: The account's label.
        identity: The fingerprint of host and key.
        now: This machine's time in unix seconds, to know later which identity was used last.

    Raises:
        StateTooNewError: A later release wrote it.
    """
    states = watermark_states(resource_state, account)
    state = states.setdefault(identity, {})
    if max(states, key=lambda key: states[key].get("used_at", 0)) != identity or "used_at" not in state:
        state["used_at"] = now  # only if another was used last: a sync without news does not change the state
    by_use = sorted(states, key=lambda key: states[key].get("used_at", 0), reverse=True)
    for stale in by_use[settings.KEPT_IDENTITIES :]:
        del states[stale]
    return state
