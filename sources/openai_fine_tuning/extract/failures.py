"""Distinguish a failure that concerns one job from one that concerns all, by asking the host once more."""

from __future__ import annotations

from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.jobs import get_job
from openai_fine_tuning.api.urls import JOBS_PATH
from openai_fine_tuning.errors import HostError, RequestError


def raise_if_general(api: FineTuningApi, error: RequestError) -> None:
    """Raise `HostError` if the host, the key or the network fails, and not only this request.

    Args:
        api: The host.
        error: The failed request.
    """
    if error.status == 429:
        raise HostError(f"{error}. The host keeps throttling; lower the concurrency or try again later.")
    if error.status not in (None, 401):
        return
    again = listing_failure(api)
    if again is not None and again.status in (None, 401):
        raise HostError.of(again, api.base_url)


def listing_failure(api: FineTuningApi) -> RequestError | None:
    """Ask for one job of the listing. Return the error, or None if the host answers."""
    try:
        api.get_page(JOBS_PATH, {"limit": 1}, attempts=3)
    except RequestError as error:
        return error
    return None


def is_gone(api: FineTuningApi, job_id: str) -> bool:
    """Ask for a job by its id. Return whether the host says that it has no such job."""
    try:
        get_job(api, job_id)
    except RequestError as error:
        return error.status == 404 and not error.is_missing_endpoint
    return False
