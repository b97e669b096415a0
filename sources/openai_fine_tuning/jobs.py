"""The jobs of a host: their listing, and one by its id."""

from __future__ import annotations

from collections.abc import Iterator

from .addresses import JOBS_PATH, quoted
from .api import FineTuningApi
from .errors import EndlessListingError, HostError, RequestError
from .frontier import Job
from .listing import Page, pages


def job_pages(api: FineTuningApi) -> Iterator[Page]:
    """The pages of the job listing.

    Raises:
        HostError: It cannot be read, which concerns everything.
    """
    try:
        yield from pages(api, JOBS_PATH)
    except EndlessListingError as error:
        raise HostError(str(error)) from None
    except RequestError as error:
        raise concerns_all(api, error) from None


def concerns_all(api: FineTuningApi, error: RequestError) -> HostError:
    """A failed request as what ends the sync, with what to check."""
    if error.status == 401:
        advice = " Check the key: it was refused."
    elif error.status == 403:
        advice = " Check that the key may read fine-tuning jobs (scope api.fine_tuning.jobs.read)."
    elif error.status == 404:
        advice = " Check the base URL: it ends in /v1 on most hosts."
    elif error.status is None:
        advice = f" Is the host up, and the base URL {api.base_url} right?"
    else:
        advice = ""
    return HostError(f"{str(error).rstrip('.')}.{advice}", request=error)


def get_job(api: FineTuningApi, job_id: str) -> Job:
    """One job. Raises as `FineTuningApi.get_json` does, and `RequestError` where the host shows another."""
    path = f"{JOBS_PATH}/{quoted(job_id)}"
    answer = api.get_json(path)
    job = Job.of(answer.content, answer.host_time)
    if job is None or job.id != job_id:
        raise RequestError(f"{api.url(path)} answered with another job or none", url=api.url(path), status=200)
    return job
