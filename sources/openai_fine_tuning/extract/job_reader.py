"""Read everything that is due of one job, in one worker thread."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from openai_fine_tuning.api.jobs import Job, get_job, unsafe_id_error
from openai_fine_tuning.api.urls import is_safe_id
from openai_fine_tuning.errors import EndlessListingError, RequestError
from openai_fine_tuning.state.watermark import Watermark

from .bounds import Bounds
from .failures import is_gone, raise_if_general
from .probes import UnavailableError
from .resources import RESOURCES, Due, Found, Host


@dataclass(frozen=True, eq=False)
class JobTask:
    """A job to read.

    Attributes:
        job_id: Its id.
        job: The job, as the listing showed it; None to fetch it by its id.
        watermarks: Those of the resources that are due of it. A worker looks at them and changes nothing.
        last_event: When the newest event happened that an earlier read has found, in unix seconds.
    """

    job_id: str
    job: Job | None
    watermarks: Mapping[str, Watermark]
    last_event: float | None = None


@dataclass
class JobResult:
    """The result of reading a job.

    Attributes:
        job: The job; None if it could not be fetched.
        error: Why it could not be fetched, or that the host has dropped it since.
        next_states: By resource that was read to its end, what the next read of the job must know.
        failures: Why a resource could not be read.
    """

    job: Job | None = None
    error: RequestError | None = None
    next_states: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)


def read_job(host: Host, task: JobTask, bounds: Bounds) -> Generator[Found, None, JobResult]:
    """Yield what is found of a job, page by page, one resource after the other.

    Raises:
        HostError: A failure concerns all jobs.
        CancelledError: The sync was stopped.
    """
    try:
        job = task.job or get_job(host.api, task.job_id)
    except RequestError as error:
        raise_if_general(host.api, error)
        return JobResult(error=error)
    result = JobResult(job)
    if not is_safe_id(job.id):
        result.failures = dict.fromkeys(task.watermarks.keys() & RESOURCES.keys(), unsafe_id_error(host.api))
        return result
    for name, read in RESOURCES.items():
        if name not in task.watermarks or not bounds.admit(job):
            continue
        watermark = task.watermarks[name]
        due = Due(job, dict(watermark.open.get(job.id, {})), watermark.is_over(job, task.last_event))
        try:
            result.next_states[name] = yield from read(host, due)
        except UnavailableError:
            continue
        except (RequestError, EndlessListingError) as error:
            if isinstance(error, RequestError):
                raise_if_general(host.api, error)
                is_known = not error.is_missing_endpoint or host.probes.is_available(name)
                if error.status == 404 and is_known and is_gone(host.api, job.id):
                    host.probes.withdraw(name)
                    return JobResult(job, error)
            host.probes.failed(name, job.id, error)
            result.failures[name] = error
    return result
