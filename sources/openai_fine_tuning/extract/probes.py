"""Find out with one request whether a resource can be read at all, before the requests of all other jobs follow."""

from __future__ import annotations

import threading
from collections.abc import Collection

from openai_fine_tuning.api.concurrency import Limiter
from openai_fine_tuning.api.urls import quoted
from openai_fine_tuning.errors import EndlessListingError, RequestError

_CANCEL_CHECK_SECONDS = 0.5

_CONVINCING_FAILURES = 3
"""A resource that failed for this many jobs, and worked for none, counts as unavailable."""


class UnavailableError(Exception):
    """The host does not offer the resource, or not to this key."""


class Probes:
    """Know which resources the host and the key offer. Safe to share between threads.

    An endpoint that the host lacks, or a scope that the key lacks, fails for every job alike. So the first read of a
    resource goes alone, as its probe, and the same reads of other jobs wait until its first page has come.

    Args:
        limiter: Ends the waiting once it is cancelled.
        available: Whether each resource is available, as far as it is known. It is changed in place, so that the next
            part of a sync knows it too.
        read_before: The resources that an earlier sync has read: a host does not lack their endpoints.
    """

    def __init__(self, limiter: Limiter, available: dict[str, bool], *, read_before: Collection[str] = ()) -> None:
        self.available = available
        self.failures: dict[str, RequestError] = {}
        """Why a resource is unavailable, for those that these probes found to be so."""
        self._limiter = limiter
        self._read_before = read_before
        self._probing: set[str] = set()
        self._failed: dict[str, int] = {}
        self._changed = threading.Condition()

    def is_available(self, resource: str) -> bool | None:
        """Return whether the resource can be read; None if that is not known yet."""
        return self.available.get(resource)

    def admit(self, resource: str) -> None:
        """Return once a job's read of the resource may begin. Wait while another job probes the resource.

        The job that is admitted while nothing is known is the probe: `succeeded`, `failed` or `withdraw` must follow.

        Raises:
            UnavailableError: The resource is known to be unavailable.
            CancelledError: The sync was stopped.
        """
        with self._changed:
            while resource not in self.available and resource in self._probing:
                self._changed.wait(_CANCEL_CHECK_SECONDS)
                self._limiter.raise_if_cancelled()
            if resource not in self.available:
                self._probing.add(resource)
            elif not self.available[resource]:
                raise UnavailableError(resource)

    def succeeded(self, resource: str) -> None:
        """Note that the resource can be read: let the reads of all other jobs begin."""
        if resource not in self.available:
            self._end(resource, is_available=True)

    def failed(self, resource: str, job_id: str, error: RequestError | EndlessListingError) -> None:
        """Note that a read of the resource failed. Decide whether that concerns only its job, or every job."""
        if resource in self.available:
            return
        if isinstance(error, EndlessListingError):
            self._end(resource, is_available=True)
            return
        failures = self._failed[resource] = self._failed.get(resource, 0) + 1
        if error.is_missing_scope:
            is_unavailable = True
        elif error.is_missing_endpoint:
            # Hosts that decode %2F take an id with a slash for another address.
            is_unavailable = quoted(job_id) == job_id and (failures > 1 or resource not in self._read_before)
        else:
            is_unavailable = failures >= _CONVINCING_FAILURES
        if is_unavailable:
            self.failures[resource] = error
        self._end(resource, is_available=False if is_unavailable else None)

    def withdraw(self, resource: str) -> None:
        """Note that a read did not show whether the resource is available: the next job is the probe."""
        self._end(resource, is_available=None)

    def _end(self, resource: str, *, is_available: bool | None) -> None:
        with self._changed:
            if is_available is not None:
                self.available.setdefault(resource, is_available)
            self._probing.discard(resource)
            self._changed.notify_all()
