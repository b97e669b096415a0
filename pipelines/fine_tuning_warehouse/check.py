"""Check whether everything is set up. Each part is tried on its own, and each failure says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from openai_fine_tuning import FineTuningSourceError, RequestError
from openai_fine_tuning.api.client import Answer, FineTuningApi
from openai_fine_tuning.api.jobs import Job
from openai_fine_tuning.api.urls import FILES_PATH, JOBS_PATH, MODELS_PATH, content_path, listing_path
from openai_fine_tuning.settings import PAGE_LIMIT
from openai_fine_tuning.state.watermark import known_jobs, short_listing

from .accounts.account import Account
from .accounts.diagnosis import advice_on_resource, describe_settings, diagnose
from .errors import CommandError
from .warehouses.locking import READ_WAIT_SECONDS
from .warehouses.state import find_stored
from .warehouses.warehouse import Warehouse
from .warehouses.working_directory import working_directory


@dataclass(frozen=True)
class Finding:
    """The result of one trial.

    Attributes:
        what: The part that was tried.
        is_fine: Whether it works; None if it could not be tried.
        words: What was found, and what to do if it does not work.
    """

    what: str
    is_fine: bool | None
    words: str


def check(accounts: Sequence[Account], warehouse: Warehouse) -> Iterator[tuple[str | None, Finding]]:
    """Try every key and its scopes, and the destination; nothing is written but a probe file.

    Yields:
        An account's label and what was found of it, with at most six requests each if all is well, and a few more
        to find out what is wrong; last, without a label, what was found of the destination.
    """
    for account in accounts:
        for finding in _check_account(account, warehouse):
            yield account.label, finding
    yield None, _check_destination(accounts, warehouse)


def _check_account(account: Account, warehouse: Warehouse) -> Iterator[Finding]:
    if account.problem:
        yield Finding("settings", False, account.problem)
        return
    yield Finding("settings", True, describe_settings(account))
    with account.api() as api:
        try:
            known = _known_jobs(account, warehouse)
            # A whole listing is needed for a comparison; one page of a long one is enough to see that it is long.
            listing = api.get_page(JOBS_PATH, {"limit": PAGE_LIMIT if known else 1}, attempts=2)
        except FineTuningSourceError as error:
            is_answered = isinstance(error, RequestError) and error.status is not None
            words = diagnose(account, error)
            yield Finding("host", is_answered, account.host if is_answered else words)
            if is_answered:
                yield Finding("jobs", False, words)
        else:
            yield Finding("host", True, account.host)
            yield from _check_resources(account, api, listing, known)


def _known_jobs(account: Account, warehouse: Warehouse) -> int:
    """Return how many jobs syncs have read into the warehouse; 0 if it cannot be read, which another check reports."""
    if not warehouse.exists():
        return 0
    try:
        with working_directory() as directory:
            stored = find_stored(account.label, warehouse.waiting(0), directory)
    except CommandError:
        return 0
    return known_jobs(stored.state.get("resources", {}).values(), account.label)


def _check_resources(account: Account, api: FineTuningApi, listing: Answer, known: int) -> Iterator[Finding]:
    def tried(what: str, request: Callable[[], object]) -> Finding:
        try:
            request()
        except FineTuningSourceError as error:
            return Finding(what, False, advice_on_resource(account, error))
        return Finding(what, True, "can be read")

    records = listing.content["data"]
    more = " and more" if listing.content.get("has_more") else ""
    none = "none yet: a sync will make empty tables. Some gateways list none, ever"
    warning = None if more else short_listing(account.label, listed=len(records), known=known)
    yield Finding("jobs", warning is None, warning or (f"{len(records)}{more}" if records else none))
    job = Job.of(records[0], listing.host_time) if records else None
    for what in ("checkpoints", "events"):
        if job is None:
            yield Finding(what, None, "there is no job to try it with")
        else:
            yield tried(what, partial(api.get_page, listing_path(job.path, what), {"limit": 1}, attempts=2))
    files = tried("files", partial(api.get_page, FILES_PATH, {"limit": 1}, attempts=2))
    results = job.result_files if job else []
    if files.is_fine and results:
        yield tried("result_metrics", partial(api.get_bytes, content_path(str(results[0]))))
    else:
        yield Finding("result_metrics", files.is_fine, files.words)
    yield files
    yield _check_models(api)


def _check_models(api: FineTuningApi) -> Finding:
    """Try the listing of models. A sync does without it, so that nothing is wrong if it cannot be read."""
    try:
        api.get_page(MODELS_PATH, attempts=2)
    except FineTuningSourceError as error:
        is_refused = isinstance(error, RequestError) and error.status in (401, 403)
        advice = "The scope is api.model.read. " if is_refused else ""
        return Finding("models", None, f"{error}. {advice}A sync reads everything else; is_callable stays null")
    return Finding("models", True, "can be read")


def _check_destination(accounts: Sequence[Account], warehouse: Warehouse) -> Finding:
    try:
        with working_directory() as directory:
            pipeline = warehouse.pipeline(directory, label=accounts[0].label)
            was_tried = warehouse.waiting(READ_WAIT_SECONDS).preflight(pipeline)
    except CommandError as error:
        return Finding("destination", False, str(error))
    return Finding("destination", True, f"{warehouse.shown} {'can be written' if was_tried else 'answers'}")
