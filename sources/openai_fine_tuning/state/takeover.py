"""Take over what was read with an earlier key or host, if the new one shows the same history.

A watermark belongs to one fingerprint of host and key. A new fingerprint of the same account takes over an earlier
one's state if the whole job listing shows exactly the jobs that the earlier one has closed: as many, with the same ids
and times. All other jobs are read in any case. If the listing shows fewer or others, or the earlier state cannot tell,
everything is read again, into the same rows.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass

from openai_fine_tuning import settings
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.jobs import Job, job_pages
from openai_fine_tuning.api.pagination import Order
from openai_fine_tuning.errors import ConfigurationError, FineTuningSourceError
from openai_fine_tuning.report import Report

from .watermark import JobSetChecksum, State, Watermark, has_begun


@dataclass(frozen=True)
class Candidate:
    """The state of a watermark that may take over another's.

    Attributes:
        state: The state; changed in place.
        earlier: States of the same account's earlier fingerprints, of the same resource.
    """

    state: State
    earlier: tuple[State, ...]

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever read with it, but something with others, so that there is something to decide."""
        has_own = self.state.get("own") or has_begun(self.state)
        return not has_own and any(has_begun(earlier) for earlier in self.earlier)

    @property
    def usable(self) -> list[State]:
        """The earlier states that can be taken over at all, the one that was used last before the others."""
        usable = [
            earlier
            for earlier in self.earlier
            if earlier.get("newest") is not None
            and earlier.get("cut") is None  # else only its place in that host's listing says what was read
            and earlier.get("tally", {}).get("count")
        ]
        return sorted(usable, key=lambda earlier: earlier.get("used_at", 0), reverse=True)


def take_over(
    api: FineTuningApi,
    account: str,
    candidates: Mapping[str, Candidate],
    report: Report,
    *,
    others: Collection[str] = (),
) -> None:
    """Decide once for each new fingerprint whether it takes over an earlier state.

    Reads the whole job listing if there is something to decide, and nothing otherwise.

    Args:
        api: The host, as the new key sees it.
        account: Label of the account, for the report.
        candidates: By resource.
        report: Its `notes` say what was decided, and why.
        others: The hosts that the account was read from, if this is not one of them.

    Raises:
        HostError: The listing cannot be read, and nothing is decided.
        ConfigurationError: Another host than before does not show the same jobs.
    """
    new = {resource: candidate for resource, candidate in candidates.items() if candidate.is_new}
    trials = {resource: [_Trial(earlier) for earlier in candidate.usable] for resource, candidate in new.items()}
    order, listed = Order(), 0
    if any(trials.values()):
        try:
            for page in job_pages(api):
                order.see(page.times, page.host_time)
                jobs = [job for record in page.records if (job := Job.of(record, page.host_time)) is not None]
                listed += len(jobs)
                for trial in (trial for tried in trials.values() for trial in tried):
                    trial.see(jobs)
        except FineTuningSourceError:
            report.requests += api.requests  # the reader, which counts otherwise, is never reached
            report.retries += api.retries
            raise
    taken: list[str] = []
    left: list[str] = []
    for resource, candidate in new.items():
        candidate.state["own"] = True
        match = next((trial for trial in trials[resource] if trial.is_same), None)
        if match is not None:
            own = {name: candidate.state[name] for name in ("used_at", "own") if name in candidate.state}
            candidate.state.update(copy.deepcopy(match.earlier), **own, newest_first=order.is_newest_first)
        (left if match is None else taken).append(resource)
    if others and (left or not taken):
        report.requests += api.requests
        raise ConfigurationError(
            f"Account {account} was read from {', '.join(others)}, and its host is {api.host} now, with other jobs. "
            "Nothing was loaded. Set the host back (openai_base_url), or give this one a label of its own. If it "
            "replaces the other, a full refresh (--full-refresh) reads everything from it, into the same rows.",
            setting="base_url",
        )
    if taken:
        report.notes.append(
            f"The key or host of account {account} is new, and shows the jobs of the one before: what was read of "
            f"{', '.join(taken)} is not read again."
        )
    if left:
        why = (
            f"it does not show exactly the jobs that were read with the one before ({listed:,} are listed)"
            if any(trials[resource] for resource in left)
            else "what was read with the one before was not yet complete, or was stored by an earlier release"
        )
        report.notes.append(
            f"The key or host of account {account} is new, and {why}: {', '.join(left)} are read again, "
            "into the same rows. If they are another account's jobs, give it a label of its own."
        )


def state_in_force(resource_state: State, account: str, identity: str) -> State:
    """Return the state that says what was read of an account: that of its key and host, else the one used last.

    Args:
        resource_state: A resource's state, which is not changed.
        account: The account's label.
        identity: The fingerprint of host and key.
    """
    states: dict[str, State] = resource_state.get("frontiers", {}).get(account, {})
    own = states.get(identity, {})
    if has_begun(own) or own.get("own"):
        return own
    return max(states.values(), key=lambda state: state.get("used_at", 0), default={})


class _Trial:
    """Tries an earlier state: collects the listed jobs that it counts as closed."""

    def __init__(self, earlier: State) -> None:
        self.earlier = earlier
        self._watermark = Watermark(copy.deepcopy(earlier), overlap=settings.OVERLAP_SECONDS, grace=0)
        self._closed = JobSetChecksum()

    def see(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if not self._watermark.needs_read(job):
                self._closed.add(job.id, job.created_at)

    @property
    def is_same(self) -> bool:
        return bool(asdict(self._closed) == self.earlier["tally"])
