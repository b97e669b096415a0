"""One sync, whole, of one account or several: the one way in for the command and for every scheduler.

It owns what a sync needs beside the source: the lock, the working directory, the pipeline's name, the row in `syncs`,
the comments on tables, and the views.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import dlt
import pyarrow as pa

from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.accounts.diagnosis import to_command_error
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.version import __version__
from fine_tuning_warehouse.warehouses.errors import destination_errors
from fine_tuning_warehouse.warehouses.load_id import add_load_ids
from fine_tuning_warehouse.warehouses.locking import LOCK_WAIT_SECONDS
from fine_tuning_warehouse.warehouses.tables import add_stored_columns, make_lacking
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from fine_tuning_warehouse.warehouses.working_directory import working_directory
from openai_fine_tuning import CancelledError, FineTuningSourceError, Report
from openai_fine_tuning.convert.table_builder import Batches
from openai_fine_tuning.schema import REJECTED_RECORDS, SYNCS, schema
from openai_fine_tuning.settings import CONCURRENCY, MERGE, RESOURCES

from .summary import Summary, Totals

__all__ = [
    "COMMIT_SECONDS",
    "Reading",
    "Summary",
    "Tell",
    "Totals",
    "Watch",
    "run_sync",
    "sync_accounts",
    "watch_nothing",
]

if TYPE_CHECKING:
    from dlt.common.pipeline import LoadInfo


COMMIT_SECONDS = 300.0
"""What a long sync has read is loaded, together with its state, about this often."""

COMMIT_ROWS = 50_000
"""What a large sync has read is loaded after about so many rows, so that its memory does not grow with the history."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one sync reads, and how.

    Attributes:
        resources: Names of the resources, in any order.
        job_ids: Only these jobs, where there are any.
        since: Only jobs created on or after this date (ISO 8601).
        full_refresh: Read everything once more.
        concurrency: The highest number of requests in flight.
        commit_seconds: How often a long sync commits.
        commit_rows: After how many rows a large sync commits.
        lock_wait_seconds: How long to wait for a program that holds the DuckDB file.
    """

    resources: Sequence[str] = RESOURCES
    job_ids: Sequence[str] = ()
    since: str | None = None
    full_refresh: bool = False
    concurrency: int = CONCURRENCY
    commit_seconds: float = COMMIT_SECONDS
    commit_rows: int = COMMIT_ROWS
    lock_wait_seconds: float = LOCK_WAIT_SECONDS


Watch = Callable[[Report], AbstractContextManager[None]]
"""Shows a report while it grows."""


Tell = Callable[[Account, Summary], None]
"""Told of each account when it has ended."""


def run_sync(
    account: Account,
    warehouse: Warehouse,
    reading: Reading,
    *,
    watch: Watch | None = None,
    summary: Summary | None = None,
) -> Summary:
    """Load what is new of one account into a warehouse.

    Args:
        account: Whose history.
        warehouse: Where to.
        reading: What of it.
        watch: Shows the progress.
        summary: Filled in as the sync goes, so that a failed one can be told too.

    Raises:
        CommandError: It failed; what was loaded before stays, and the next sync goes on there.
    """
    summary = summary if summary is not None else _nothing_done(account, reading)
    with warehouse.lock([account.label], reading.lock_wait_seconds):
        _run_held(account, warehouse, reading, watch=watch, summary=summary)
    return summary


def sync_accounts(
    accounts: Sequence[Account],
    warehouse: Warehouse,
    reading: Reading,
    *,
    watch: Watch | None = None,
    tell: Tell | None = None,
    totals: Totals | None = None,
) -> Totals:
    """Sync accounts one after another into one warehouse, which is held for all of them.

    Args:
        accounts: Whose histories.
        warehouse: Where to.
        reading: What of them.
        watch: Shows the progress of each.
        tell: Told of each when it has ended.
        totals: Filled in as they go, so that a run that was ended can be told too.

    Returns:
        The totals, with the failures of accounts: none is raised.

    Raises:
        CommandError: The warehouse cannot be held: nothing was done.
    """
    totals = totals if totals is not None else Totals.of(accounts)
    began = time.monotonic()
    try:
        with warehouse.lock([account.label for account in accounts], reading.lock_wait_seconds):
            for account in accounts:
                summary = _nothing_done(account, reading)
                totals.accounts.append(summary)
                try:
                    _run_held(account, warehouse, reading, watch=watch, summary=summary)
                except CommandError as error:
                    summary.status, summary.error = "failed", str(error)
                    totals.failures[account.label] = error
                    if isinstance(error.__cause__, CancelledError):
                        raise
                if tell is not None:
                    tell(account, summary)
    except CommandError as error:
        for account in accounts[len(totals.accounts) :]:
            totals.accounts.append(_nothing_done(account, reading, str(error)))
        totals.error = str(error)
        raise
    finally:
        totals.seconds = time.monotonic() - began
    return totals


def _run_held(
    account: Account,
    warehouse: Warehouse,
    reading: Reading,
    *,
    watch: Watch | None = None,
    summary: Summary,
) -> None:
    """As `run_sync`, by one that holds the warehouse already."""
    began = time.monotonic()
    report = Report()
    was_there = warehouse.exists()
    try:
        with working_directory() as directory, (watch or watch_nothing)(report):
            pipeline = warehouse.pipeline(directory, label=account.label)
            for load_ids in _run_parts(pipeline, account, warehouse, reading, report):
                summary.load_ids.extend(load_ids)
            with _sync_errors(warehouse):
                warehouse.describe(pipeline, reading.lock_wait_seconds)
    except FineTuningSourceError as error:
        raise to_command_error(account, error) from error
    finally:
        if not was_there:
            warehouse.discard_empty()
        _fill(summary, report, reading)
        summary.seconds = time.monotonic() - began


def _nothing_done(account: Account, reading: Reading, error: str | None = None) -> Summary:
    """The summary of a sync that has not begun; of one that cannot begin, where there is an error."""
    summary = Summary(account.label, "done" if error is None else "failed", error)
    _fill(summary, Report(), reading)
    return summary


def _run_parts(
    pipeline: dlt.Pipeline,
    account: Account,
    warehouse: Warehouse,
    reading: Reading,
    report: Report,
) -> Iterator[list[str]]:
    """Read and commit in turn until everything owed is read; yields the load ids of each part."""
    sync_id, started_at = str(uuid.uuid4()), datetime.now(timezone.utc)
    source = account.source(
        reading.resources,
        fine_tuning_job_ids=list(reading.job_ids) or None,
        fine_tuning_since=reading.since,
        fine_tuning_full_refresh=reading.full_refresh,
        fine_tuning_concurrency=reading.concurrency,
        fine_tuning_stop_after_seconds=reading.commit_seconds,
        fine_tuning_stop_after_rows=reading.commit_rows,
        fine_tuning_report=report,
    )
    add_load_ids(source.selected_resources.values())
    while not report.is_complete:
        log = _sync_log(sync_id, started_at, account.label, report=report)
        add_load_ids(log.selected_resources.values())
        hints = warehouse.hints(pipeline)
        for resource in (*source.selected_resources.values(), *log.selected_resources.values()):
            resource.apply_hints(**hints)
        with _sync_errors(warehouse):
            load_ids = _run(pipeline, [source, log], warehouse, reading, report)
        yield load_ids


def _run(
    pipeline: dlt.Pipeline, sources: list[Any], warehouse: Warehouse, reading: Reading, report: Report
) -> list[str]:
    """Extract, normalise and load, into tables that are made again where they were dropped; returns the load ids."""
    if pipeline.first_run:
        warehouse.attempt(lambda: _restore(pipeline, sources[0], warehouse, report), reading.lock_wait_seconds)
    pipeline.extract(sources)
    pa.default_memory_pool().release_unused()  # the C library keeps what Arrow's tables took, beside what a load takes
    pipeline.normalize()

    def load() -> LoadInfo:
        make_lacking(pipeline)
        return pipeline.load()

    loaded = warehouse.load(pipeline, load, reading.lock_wait_seconds, largest_batch=report.largest_batch)
    return list(loaded.loads_ids)


def _restore(pipeline: dlt.Pipeline, source: Any, warehouse: Warehouse, report: Report) -> None:
    with warehouse.session(pipeline):
        pipeline.sync_destination()
        missing = add_stored_columns(pipeline, source.schema)
    if missing:
        report.notes.append(
            f"Missing in the warehouse: {'; '.join(missing)}. They are made again, and everything is read once more, "
            "for each account at its next sync. What the host no longer has cannot be read again."
        )


def _sync_errors(warehouse: Warehouse) -> AbstractContextManager[None]:
    return destination_errors(warehouse, f"The sync into {warehouse.shown} failed")


@dlt.source(section="openai_fine_tuning", schema=schema())
def _sync_log(sync_id: str, started_at: datetime, account: str, *, report: Report) -> Any:
    # Under the source's own schema, and after it: the row is loaded last, in the same package as what it tells of.
    @dlt.resource(name=SYNCS.name, write_disposition=MERGE)
    def syncs() -> Iterator[Any]:
        """A row a sync: what it did, and how fresh the data is."""
        batches = Batches(account, dlt.current.source_schema())
        record = {
            "id": sync_id,
            "started_at": started_at.isoformat(),
            "finished_at": datetime.now(timezone.utc).isoformat(),
            "requests": report.requests,
            "retries": report.retries,
            "jobs_seen": report.jobs_seen,
            "jobs_open": report.jobs_open,
            "skipped": [asdict(skip) for skip in report.skipped],
            "rejected": report.rejected,
            "version": __version__,
        }
        batches.add(SYNCS.name, record, job_id=None)
        yield batches.take()[SYNCS.name]

    return syncs


def _fill(summary: Summary, report: Report, reading: Reading) -> None:
    tables = (*(name for name in RESOURCES if name in reading.resources), REJECTED_RECORDS.name)
    summary.rows = {name: report.rows[name] for name in tables}
    summary.requests, summary.retries = report.requests, report.retries
    summary.jobs = {"seen": report.jobs_seen, "open": report.jobs_open}
    summary.skipped = [asdict(skip) for skip in report.skipped]
    summary.rejected = report.rejected
    summary.notes = list(report.notes)


def watch_nothing(_: Report) -> AbstractContextManager[None]:
    """The watch of those who do not look."""
    return nullcontext()
