"""`ftw check`: is all set up? Every part is tried on its own, and what is wrong says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from openai_fine_tuning import FineTuningSourceError, RequestError
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.urls import (
    FILES_PATH,
    JOBS_PATH,
    content_path,
    job_path,
    listing_path,
)

from .accounts.account import Account
from .accounts.diagnosis import advice_on_resource, describe_settings, diagnose
from .errors import CommandError
from .warehouses.warehouse import Warehouse
from .warehouses.working_directory import working_directory


@dataclass(frozen=True)
class Finding:
    """What one trial found: `is_fine` None where it could not be tried."""

    what: str
    is_fine: bool | None
    words: str


def check(accounts: Sequence[Account], warehouse: Warehouse) -> Iterator[tuple[str | None, Finding]]:
    """Try every key and its scopes, and the destination; nothing is written but a probe file.

    Yields:
        An account's label and what was found of it, with at most five requests each where all is well, and a few more
        to find out what is wrong; last, without a label, what was found of the destination.
    """
    for account in accounts:
        for finding in _check_host(account):
            yield account.label, finding
    yield None, _check_destination(accounts, warehouse)


def _check_host(account: Account) -> Iterator[Finding]:
    if account.problem:
        yield Finding("settings", False, account.problem)
        return
    yield Finding("settings", True, describe_settings(account))
    api = account.api()
    try:
        listing = api.get_page(JOBS_PATH, {"limit": 1}, attempts=2).content
        yield Finding("host", True, account.host)
        yield from _check_resources(account, api, listing)
    except FineTuningSourceError as error:
        is_answered = isinstance(error, RequestError) and error.status is not None
        yield Finding("host", is_answered, account.host if is_answered else diagnose(account, error))
        if is_answered:
            yield Finding("jobs", False, diagnose(account, error))
    finally:
        api.close()


def _check_resources(account: Account, api: FineTuningApi, listing: dict[str, Any]) -> Iterator[Finding]:
    jobs = [job for job in listing["data"] if isinstance(job, dict)]
    more = " and more" if listing.get("has_more") else ""
    words = f"{len(jobs)}{more}" if jobs else "none yet: a sync will make empty tables. Some gateways list none, ever"
    yield Finding("jobs", True, words)
    job = job_path(str(jobs[0].get("id"))) if jobs else None
    for what in ("checkpoints", "events"):
        yield _tried(
            what, account, api, None if job is None else listing_path(job, what), "there is no job to try it with"
        )
    files = _tried("files", account, api, FILES_PATH, "")
    results = jobs[0].get("result_files") if jobs else None
    if files.is_fine and isinstance(results, list) and results and isinstance(results[0], str):
        yield _tried("result_metrics", account, api, content_path(results[0]), "", is_file=True)
    else:
        yield Finding("result_metrics", files.is_fine, files.words)
    yield files


def _tried(
    what: str, account: Account, api: FineTuningApi, path: str | None, otherwise: str, *, is_file: bool = False
) -> Finding:
    if path is None:
        return Finding(what, None, otherwise)
    try:
        if is_file:
            api.get_bytes(path)
        else:
            api.get_page(path, {"limit": 1}, attempts=2)
    except FineTuningSourceError as error:
        return Finding(what, False, advice_on_resource(account, error))
    return Finding(what, True, "can be read")


def _check_destination(accounts: Sequence[Account], warehouse: Warehouse) -> Finding:
    try:
        with working_directory() as directory:
            was_tried = warehouse.preflight(warehouse.pipeline(directory, label=accounts[0].label))
    except CommandError as error:
        return Finding("destination", False, str(error))
    return Finding("destination", True, f"{warehouse.shown} {'can be written' if was_tried else 'answers'}")
