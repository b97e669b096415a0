"""A rotated key, or a changed host: what the last one has read need not be read again, where it is the same history.

A frontier belongs to one fingerprint of host and key. A new fingerprint of the same account takes over the frontier of
an earlier one where the whole job listing shows exactly the jobs that the earlier one has closed: as many, with the
same ids and times. Everything else is owed by that frontier anyway. Where the listing shows fewer, or others, or the
earlier frontier cannot tell, everything is read again, into the same rows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from openai_fine_tuning import settings
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.jobs import Job, job_pages
from openai_fine_tuning.api.pagination import Order
from openai_fine_tuning.errors import FineTuningSourceError
from openai_fine_tuning.report import Report

from .checksum import Tally
from .watermark import Frontier, has_begun


@dataclass(frozen=True)
class Heir:
    """A frontier that may take over another's.

    Attributes:
        state: Its state; changed in place.
        earlier: States of the same account's earlier fingerprints, of the same resource.
    """

    state: dict[str, Any]
    earlier: tuple[dict[str, Any], ...]

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever read with it, though with others: then what to do is to be decided."""
        return (
            not self.state.get("own")
            and not has_begun(self.state)
            and any(has_begun(earlier) for earlier in self.earlier)
        )


def hand_over(api: FineTuningApi, account: str, heirs: Mapping[str, Heir], report: Report) -> None:
    """Decide once for each new fingerprint whether it takes over an earlier frontier.

    Reads the whole job listing where there is something to decide, and nothing otherwise.

    Args:
        api: The host, as the new key sees it.
        account: Label of the account, for the report.
        heirs: By resource.
        report: Its `notes` tell what was decided, and why.

    Raises:
        HostError: The listing cannot be read: nothing is decided.
    """
    new = {resource: heir for resource, heir in heirs.items() if heir.is_new}
    if not new:
        return
    trials = {resource: [_Trial.of(earlier) for earlier in _usable(heir)] for resource, heir in new.items()}
    order = Order()
    shown = 0
    if any(trials.values()):
        try:
            for page in job_pages(api):
                order.see(page.times, page.host_time)
                jobs = [job for record in page.records if (job := Job.of(record, page.host_time)) is not None]
                shown += len(jobs)
                for trial in (trial for tried in trials.values() for trial in tried):
                    trial.see(jobs)
        except FineTuningSourceError:
            report.requests += api.requests  # a reader, which counts otherwise, never comes to it
            report.retries += api.retries
            raise
    taken: list[str] = []
    left: list[str] = []
    for resource, heir in new.items():
        heir.state["own"] = True
        match = next((trial for trial in trials[resource] if trial.is_same), None)
        if match is not None:
            own = {name: heir.state[name] for name in ("used_at", "own") if name in heir.state}
            heir.state.update(copy.deepcopy(match.earlier), **own, newest_first=order.is_newest_first)
        (left if match is None else taken).append(resource)
    if taken:
        report.notes.append(
            f"The key or host of account {account} is new, and shows the jobs of the one before: what was read of "
            f"{', '.join(taken)} is not read again."
        )
    if left:
        why = (
            f"it does not show exactly the jobs that were read with the one before ({shown:,} are listed)"
            if any(trials[resource] for resource in left)
            else "what was read with the one before was not yet whole, or was kept by an earlier release"
        )
        report.notes.append(
            f"The key or host of account {account} is new, and {why}: {', '.join(left)} are read again, "
            "into the same rows. If they are another account's jobs, give it a label of its own."
        )


def frontier_in_force(resource_state: dict[str, Any], account: str, identity: str) -> dict[str, Any]:
    """The frontier that says what was read of an account: that of its key and host, else the one used last before.

    Args:
        resource_state: A resource's state, which is not changed.
        account: The account's label.
        identity: The fingerprint of host and key.
    """
    states: dict[str, dict[str, Any]] = resource_state.get("frontiers", {}).get(account, {})
    own = states.get(identity, {})
    if has_begun(own) or own.get("own"):
        return own
    return max(states.values(), key=lambda state: state.get("used_at", 0), default={})


@dataclass(frozen=True)
class _Trial:
    """An earlier frontier, and of the jobs that are listed now those that it would not read."""

    earlier: dict[str, Any]
    frontier: Frontier
    closed: Tally

    @classmethod
    def of(cls, earlier: dict[str, Any]) -> _Trial:
        kept = Frontier(copy.deepcopy(earlier), overlap=settings.OVERLAP_SECONDS, grace=0)
        return cls(earlier, kept, Tally())

    def see(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if not self.frontier.owes(job):
                self.closed.add(job.id, job.created_at)

    @property
    def is_same(self) -> bool:
        return bool(self.closed.as_state() == self.earlier["tally"])


def _usable(heir: Heir) -> list[dict[str, Any]]:
    """The earlier frontiers that can be taken over at all, the one that was used last before the others."""
    return sorted(
        (
            earlier
            for earlier in heir.earlier
            if earlier.get("newest") is not None
            and earlier.get("cut") is None  # only the place where its listing broke off tells what it has read
            and earlier.get("tally", {}).get("count")
        ),
        key=lambda earlier: earlier.get("used_at", 0),
        reverse=True,
    )
