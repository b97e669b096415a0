"""What is still owed: which jobs a resource has read to the end, kept in dlt's state and committed with the rows.

The state of one resource, for each identity (account, host and key):

    newest         `created_at` of the newest job read (unix seconds): every older job is read, but for the open ones
    newest_first   whether the host's listing was newest first when it was last read
    open           job id -> what is known of a job that must be read again
    recent         closed jobs within the overlap behind `newest`: id -> `created_at`
    cut            where a listing that was not read to its end goes on: everything from `newest` down to `oldest` is
                   accounted for, and the rest stands after the record `after`
    tally          how many jobs were closed, and a checksum of which (see `tally`); missing where an earlier release
                   has closed some without counting
    own            set where it is decided that this identity takes over no other's frontier (see `handover`)
    part           set where another part of the same sync is to follow: which one wrote this (see `parts`)

It holds the open jobs, never the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from openai_fine_tuning import settings
from openai_fine_tuning.api.jobs import Job
from openai_fine_tuning.api.pagination import Order
from openai_fine_tuning.errors import StateTooNewError

from .checksum import Tally


class Frontier:
    """The frontier of one resource, for one identity.

    Args:
        state: The dict in dlt's resource state that it lives in; changed in place.
        overlap: Seconds behind the newest job within which ids, not times, decide.
        grace: Seconds after a job's end until it can be closed.
    """

    def __init__(self, state: dict[str, Any], *, overlap: float, grace: float) -> None:
        self._state = state
        self._overlap = overlap
        self._grace = grace
        if not has_begun(state):
            state["tally"] = Tally().as_state()
        state.setdefault("newest", None)
        state.setdefault("newest_first", True)
        state.setdefault("open", {})
        state.setdefault("recent", {})
        state.setdefault("cut", None)

    @property
    def open(self) -> dict[str, dict[str, Any]]:
        """Job id to what is known of it, for the jobs that must be read again."""
        opened: dict[str, dict[str, Any]] = self._state["open"]
        return opened

    @property
    def cut(self) -> dict[str, Any] | None:
        """Where a listing that was cut goes on."""
        cut: dict[str, Any] | None = self._state["cut"]
        return cut

    @property
    def trusts_order(self) -> bool:
        """Whether the host's listing was newest first when it was last read."""
        return bool(self._state["newest_first"])

    @property
    def bound(self) -> float | None:
        """Every job created before this (unix seconds) is accounted for; None where the listing must be read whole."""
        newest: float | None = self._state["newest"]
        return None if newest is None else newest - self._overlap

    @property
    def cut_bound(self) -> float | None:
        """The same for the upper end of a listing that was cut."""
        return None if self.cut is None else self.cut["newest"] - self._overlap

    def owes(self, job: Job) -> bool:
        """Whether the job is new to this resource, or still open."""
        if job.id in self.open:
            return True
        if job.id in self._state["recent"]:
            return False
        if job.created_at is None:
            return True
        if self.bound is not None and job.created_at < self.bound:
            return False
        accounted = self.cut is not None and self.cut["oldest"] < job.created_at < self.cut["newest"] - self._overlap
        return not accounted

    def settle(self, job: Job, **known: Any) -> None:
        """A read of the job has succeeded: close it where nothing can come any more.

        Args:
            job: The job as it was shown before that read began.
            known: What the next read of it wants to know, if it stays open.
        """
        entry = {**self.open.get(job.id, {}), **known}
        if self.is_over(job):
            self._count(job)
            self._close(job.id, job.created_at)
            return
        if job.is_terminal:
            entry.setdefault("terminal_at", job.seen_at)
        else:
            entry.pop("terminal_at", None)
        self.keep_open(job, **entry)

    def is_over(self, job: Job) -> bool:
        """Whether a read that begins now is the last one: the job ended longer ago than the grace period."""
        if not job.is_terminal:
            return False
        ended = job.finished_at
        if ended is None:
            ended = self.open.get(job.id, {}).get("terminal_at")
        return ended is not None and job.seen_at - ended > self._grace

    def keep_open(self, job: Job, **known: Any) -> None:
        """The job was not read, or not to its end: it is owed."""
        self.open[job.id] = {"created_at": job.created_at, **self.open.get(job.id, {}), **known}

    def close_gone(self, job_id: str) -> None:
        """The host no longer has the job: nothing can come any more. It is not counted, since no listing shows it."""
        self._close(job_id, self.open.get(job_id, {}).get("created_at"))

    def _close(self, job_id: str, created_at: float | None) -> None:
        self.open.pop(job_id, None)
        self._state["recent"][job_id] = created_at

    def _count(self, job: Job) -> None:
        if "tally" in self._state and job.id not in self._state["recent"]:
            tally = Tally(**self._state["tally"])
            tally.add(job.id, job.created_at)
            self._state["tally"] = tally.as_state()

    def listing_ended(self, order: Order, began_at: float, met: Iterable[str]) -> None:
        """The listing reached its stop: move the frontier.

        Args:
            order: The order of what was read of it.
            began_at: The host's time when the listing began: the frontier never moves beyond it.
            met: Ids of the jobs that it showed.
        """
        candidates = [self._state["newest"], order.newest]
        if self.cut is not None:
            candidates.append(self.cut["newest"])
        known = [time for time in candidates if time is not None]
        self._state["newest"] = min(max(known), began_at) if known else None
        self._state["cut"] = None
        self._note_order(order)
        met = set(met)
        self._prune(lambda job_id, time: job_id in met if time is None else self.bound is None or time >= self.bound)

    def listing_cut(self, order: Order, began_at: float, cursor: str) -> None:
        """The listing was left before its stop: remember where it goes on."""
        newest = min(order.newest if order.newest is not None else began_at, began_at)
        if self.cut is not None:
            newest = max(newest, self.cut["newest"])
        self._state["cut"] = {"newest": newest, "oldest": order.last, "after": cursor}
        self._note_order(order)
        kept_from = [bound for bound in (self.cut_bound,) if bound is not None]
        self._prune(
            lambda _, time: (
                time is None
                or any(time >= bound for bound in kept_from)
                or (self.bound is not None and self.bound <= time <= self._state["newest"])
            )
        )

    def _note_order(self, order: Order) -> None:
        # A listing that was left early was in order so far, and had been when it was last read whole.
        self._state["newest_first"] = order.is_newest_first

    def _prune(self, keep: Any) -> None:
        self._state["recent"] = {job_id: time for job_id, time in self._state["recent"].items() if keep(job_id, time)}


def has_begun(state: Mapping[str, Any]) -> bool:
    """Whether a state holds anything that was read."""
    return state.get("newest") is not None or any(state.get(name) for name in ("open", "recent", "cut"))


def check_version(resource_state: Mapping[str, Any]) -> None:
    """Raise `StateTooNewError` where a later release wrote a resource's state."""
    version = resource_state.get("version", settings.STATE_VERSION)
    if version > settings.STATE_VERSION:
        raise StateTooNewError(
            f"The destination's state has version {version}, and this release knows versions up to "
            f"{settings.STATE_VERSION}: a later release has synced into it. Upgrade fine-tuning-warehouse."
        )


def frontier_states(resource_state: dict[str, Any], account: str) -> dict[str, dict[str, Any]]:
    """What is kept for an account in a resource's state: identity to frontier.

    Raises:
        StateTooNewError: A later release wrote it.
    """
    resource_state.setdefault("version", settings.STATE_VERSION)
    check_version(resource_state)
    frontiers: dict[str, dict[str, Any]] = resource_state.setdefault("frontiers", {}).setdefault(account, {})
    return frontiers


def frontier_state(resource_state: dict[str, Any], account: str, identity: str, *, now: float) -> dict[str, Any]:
    """The part of a resource's state that belongs to an account, host and key; the oldest of too many are dropped.

    Args:
        resource_state: `dlt.current.resource_state(...)`.
        account: The account's label.
        identity: The fingerprint of host and key.
        now: This machine's time in unix seconds, to know later which were used last.

    Raises:
        StateTooNewError: A later release wrote it.
    """
    frontiers = frontier_states(resource_state, account)
    state = frontiers.setdefault(identity, {})
    if max(frontiers, key=lambda key: frontiers[key].get("used_at", 0)) != identity or "used_at" not in state:
        state["used_at"] = now  # only where another was used last: a sync without news leaves the state as it is
    for stale in sorted(frontiers, key=lambda key: frontiers[key].get("used_at", 0), reverse=True)[
        settings.KEPT_IDENTITIES :
    ]:
        del frontiers[stale]
    return state
