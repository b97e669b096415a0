"""Whether a resource can be read at all: an endpoint that the host lacks, or a scope of the key, costs one request.

The first read of a resource goes alone, as a probe. Once one has worked, all may go; where the probes tell that the
resource is unavailable, none does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from openai_fine_tuning.api.urls import quoted
from openai_fine_tuning.errors import RequestError

from .workers import Read

_CONVINCING_FAILURES = 3
"""After so many jobs of which a resource could not be read, and none of which it could, it is taken as unavailable."""


@dataclass
class _Gate:
    """One resource's: `is_open` None until it is known. `failed` are probes that may concern only their own job."""

    is_open: bool | None = None
    probe: Read | None = None
    waiting: list[Read] = field(default_factory=list)
    failed: list[Read] = field(default_factory=list)


class Gates:
    """The gates of the resources that are read job by job.

    Args:
        resources: Their names.
        start: Lets a read begin.
        drop: Ends a read that will not begin.
    """

    def __init__(self, resources: Iterable[str], start: Callable[[Read], None], drop: Callable[[Read], None]) -> None:
        self._gates = {resource: _Gate() for resource in resources}
        self._start = start
        self._drop = drop

    def admit(self, read: Read) -> None:
        """Let a read begin, wait, or end, by what is known of its resource."""
        gate = self._gates[read.resource]
        if gate.is_open is False:
            self._drop(read)
        elif gate.is_open:
            self._start(read)
        elif gate.probe is None:
            gate.probe = read
            self._start(read)
        else:
            gate.waiting.append(read)

    def is_open(self, resource: str) -> bool | None:
        """True where a read has worked, False where the resource is unavailable, None where it is not known."""
        return self._gates[resource].is_open if resource in self._gates else True

    def is_probing(self, resource: str) -> bool:
        """Whether the read that is to tell is under way."""
        return resource in self._gates and self._gates[resource].probe is not None

    def open(self, resource: str) -> None:
        """A read has worked: let all go that wait."""
        gate = self._gates[resource]
        if gate.is_open is not None:
            return
        gate.is_open, gate.probe = True, None
        waiting, gate.waiting = gate.waiting, []
        for read in waiting:
            self._start(read)

    def close(self, resource: str) -> None:
        """The resource is unavailable: end all that wait."""
        gate = self._gates[resource]
        gate.is_open, gate.probe = False, None
        waiting, gate.waiting, gate.failed = gate.waiting, [], []
        for read in waiting:
            self._drop(read)

    def probe_failed(self, read: Read) -> None:
        """A probe failed in a way that may concern only its job: keep it, and send another."""
        self._gates[read.resource].failed.append(read)
        self.probe_again(read.resource)

    def probe_again(self, resource: str) -> None:
        """Send the next probe, if a read waits."""
        gate = self._gates[resource]
        # The oldest job that waits: what is wrong with a job is less likely to be wrong with one far from it.
        gate.probe = gate.waiting.pop() if gate.waiting else None
        if gate.probe is not None:
            self._start(gate.probe)

    def is_convincing(self, read: Read, error: RequestError, *, has_worked_before: bool) -> bool:
        """Whether a failed probe tells that the whole resource is unavailable, and not only that of its job."""
        if error.is_missing_scope:
            return True
        failures = len(self._gates[read.resource].failed) + 1
        if error.is_missing_endpoint:
            # Hosts that decode %2F take an id with a slash for another address; and what was there before is there.
            return quoted(read.job_id) == read.job_id and (failures > 1 or not has_worked_before)
        return failures >= _CONVINCING_FAILURES

    def conclude(self) -> list[Read]:
        """The probes that failed and were not followed by a verdict that explains them: each concerns its own job."""
        failed = [read for gate in self._gates.values() for read in gate.failed]
        for gate in self._gates.values():
            gate.failed = []
        return failed
