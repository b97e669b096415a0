"""Read everything that is due of one job, in one worker thread."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.files import Files
from openai_fine_tuning.api.jobs import Job
from openai_fine_tuning.errors import EndlessListingError, RequestError

from .failures import is_gone, raise_if_general
from .probes import Probes
from .resources import RESOURCES, Due, Found


@dataclass(frozen=True, eq=False)
class JobTask:
    """A job to read.

    Attributes:
        job: The job, as the host showed it.
        due: What is due of it, by resource.
        includes_job: Whether the row of the job itself is due.
    """

    job: Job
    due: Mapping[str, Due]
    includes_job: bool


@dataclass
class JobResult:
    """What came of reading a job.

    Attributes:
        next_states: What the next read of the job must know, for each resource that was read to its end.
        failures: Why a resource could not be read.
        gone: The error that says that the host no longer has the job; None where it has.
    """

    next_states: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    gone: RequestError | None = None


class JobReader:
    """Reads jobs. Safe to share between threads.

    Args:
        api: The host.
        probes: Keep the reads of a resource back until it is known that the host offers it.
    """

    def __init__(self, api: FineTuningApi, probes: Probes) -> None:
        self._api = api
        self._probes = probes
        files = Files(api)
        self._resources = {resource.name: resource(api, files, probes) for resource in RESOURCES}

    def probed_by(self, task: JobTask) -> set[str]:
        """Return the resources that a job requests, and of which it is not yet known whether the host has them."""
        return {
            name
            for name, due in task.due.items()
            if self._probes.is_available(name) is None and self._resources[name].has_requests(due)
        }

    def read(self, task: JobTask) -> Generator[Found, None, JobResult]:
        """Yield what is found of a job, page by page, one resource after the other.

        Raises:
            HostError: A failure concerns all jobs.
            CancelledError: The sync was stopped.
        """
        result = JobResult()
        for name, due in task.due.items():
            resource = self._resources[name]
            if resource.has_requests(due) and not self._probes.admit(name):
                continue
            try:
                result.next_states[name] = yield from resource.read(due)
            except (RequestError, EndlessListingError) as error:
                if isinstance(error, RequestError):
                    raise_if_general(self._api, error)
                    if self._is_of_gone_job(name, task.job, error):
                        self._probes.withdraw(name)
                        result.gone = error
                        return result
                self._probes.failed(name, task.job.id, error)
                result.failures[name] = error
        return result

    def _is_of_gone_job(self, name: str, job: Job, error: RequestError) -> bool:
        """Whether a read failed because the host no longer has the job."""
        if error.status != 404 or (error.is_missing_endpoint and not self._probes.is_available(name)):
            return False
        return is_gone(self._api, job.id)
