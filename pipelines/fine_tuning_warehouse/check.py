"""`ftw check`: is all set up? Every part is tried on its own, and what is wrong says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from openai_fine_tuning import ConfigurationError, FineTuningSourceError, RequestError
from openai_fine_tuning.api import JOBS_PATH, FineTuningApi, quoted

from .accounts import Account
from .destinations import Warehouse, check_database_file
from .errors import CommandError, UsageError
from .workspace import working_directory


@dataclass(frozen=True)
class Finding:
    """What one trial found: `is_fine` None where it could not be tried."""

    what: str
    is_fine: bool | None
    words: str


def check(account: Account, warehouse: Warehouse) -> Iterator[Finding]:
    """Try the key, its scopes and the destination; at most five requests, and nothing is written but a probe file."""
    yield from _check_host(account)
    yield _check_destination(account, warehouse)


def _check_host(account: Account) -> Iterator[Finding]:
    headers = {"OpenAI-Organization": account.org_id or "", "OpenAI-Project": account.project_id or ""}
    try:
        api = FineTuningApi(
            account.base_url, account.api_key, headers={name: value for name, value in headers.items() if value}
        )
    except ConfigurationError as error:
        raise UsageError(str(error)) from None
    try:
        listing = api.get_json(JOBS_PATH, {"limit": 1}, attempts=2).content
    except FineTuningSourceError as error:
        is_answered = isinstance(error, RequestError) and error.status is not None
        yield Finding("host", is_answered, account.base_url if is_answered else _advice(error))
        if is_answered:
            yield Finding("jobs", False, _advice(error))
        return
    yield Finding("host", True, account.base_url)
    data = listing.get("data") if isinstance(listing, dict) else None
    if not isinstance(data, list):
        yield Finding("jobs", False, f"{api.url(JOBS_PATH)} answers, but not with a listing. Check the base URL.")
        return
    more = " and more" if listing.get("has_more") else ""
    yield Finding("jobs", True, f"{len(data)}{more}" if data else "none yet: a sync will make empty tables")
    job_id = data[0].get("id") if data and isinstance(data[0], dict) else None
    trials = {
        "checkpoints": f"{JOBS_PATH}/{quoted(str(job_id))}/checkpoints" if job_id else None,
        "events": f"{JOBS_PATH}/{quoted(str(job_id))}/events" if job_id else None,
        "result_metrics": "/files",
    }
    for what, path in trials.items():
        if path is None:
            yield Finding(what, None, "there is no job to try it with")
            continue
        try:
            api.get_json(path, {"limit": 1}, attempts=2)
        except FineTuningSourceError as error:
            yield Finding(what, False, _advice(error))
        else:
            yield Finding(what, True, "can be read")
    api.close()


def _check_destination(account: Account, warehouse: Warehouse) -> Finding:
    try:
        if warehouse.database is not None:
            check_database_file(warehouse.database)
            return Finding("destination", True, f"{warehouse.shown} can be written")
        with working_directory() as directory:
            pipeline = warehouse.pipeline(account.pipeline_name, directory)
            with pipeline.destination_client():
                return Finding("destination", True, f"{warehouse.shown} answers")
    except CommandError as error:
        return Finding("destination", False, str(error))
    except Exception as error:
        return Finding("destination", False, f"{warehouse.shown}: {str(error).strip().splitlines()[0]}")


def _advice(error: FineTuningSourceError) -> str:
    if isinstance(error, RequestError):
        if error.is_missing_scope:
            return f"{error}. Give the key the scopes api.fine_tuning.jobs.read and api.files.read."
        if error.status == 401:
            return f"{error}. The key was refused: check OPENAI_API_KEY."
        if error.status == 404:
            return f"{error}. The base URL may lack its version path, such as /v1."
        if error.status is None:
            return f"{error}. Is the host up, and the base URL right?"
    return str(error)
