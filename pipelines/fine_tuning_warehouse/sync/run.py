"""One sync of one account or several: the only way in, for the command, for schedulers and for Python.

It owns what a sync needs beside the source: the lock, the working directory, the pipeline's name, the row in `syncs`,
the comments on tables, and the views.
"""

from __future__ import annotations

import logging
import shlex
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass
from datetime import date, datetime, timezone
from typing import Any

import dlt
import pyarrow as pa

from fine_tuning_warehouse import __version__
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.accounts.diagnosis import to_command_error
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.schema import SCHEMA, SYNCS, schema
from fine_tuning_warehouse.warehouses.account_rows import label_of
from fine_tuning_warehouse.warehouses.changes import Changes, Tables
from fine_tuning_warehouse.warehouses.dlt_seam import active_pipeline_kept, source_state
from fine_tuning_warehouse.warehouses.errors import destination_errors
from fine_tuning_warehouse.warehouses.preflight import merge_hints
from fine_tuning_warehouse.warehouses.tables import (
    add_load_ids,
    add_stored_columns,
    added_columns,
    set_aside_changed,
)
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from fine_tuning_warehouse.warehouses.working_directory import working_directory
from openai_fine_tuning import CancelledError, FineTuningSourceError, Report
from openai_fine_tuning.convert.table_builder import Batches
from openai_fine_tuning.schema import REJECTED_RECORDS
from openai_fine_tuning.settings import CONCURRENCY, MERGE, RESOURCES

from .summary import AccountResult, SyncResult, now

__all__ = ["AccountResult", "SyncOptions", "SyncResult", "Watch", "run_sync", "sync_accounts", "watch_nothing"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SyncOptions:
    """The options of one sync: what it reads, and how.

    Attributes:
        resources: Names of the resources, in any order.
        job_ids: Read only these jobs; empty for all.
        since: Read only jobs created on or after this date (UTC, or text in ISO 8601).
        full_refresh: Read everything once more.
        concurrency: The highest number of requests in flight.
        commit_seconds: A long sync loads what it has read, together with its state, about this often.
        commit_rows: A large sync loads what it has read after about this many rows, which bounds its memory.
    """

    resources: Sequence[str] = RESOURCES
    job_ids: Sequence[str] = ()
    since: date | str | None = None
    full_refresh: bool = False
    concurrency: int = CONCURRENCY
    commit_seconds: float = 300.0
    commit_rows: int = 200_000

    @property
    def tables(self) -> list[str]:
        """The tables that a sync with these options writes to, `syncs` excepted."""
        return [*(name for name in RESOURCES if name in self.resources), REJECTED_RECORDS.name]


Watch = Callable[[Report], AbstractContextManager[None]]
"""Shows a report while it grows."""


def watch_nothing(_: Report) -> AbstractContextManager[None]:
    """Show nothing."""
    return nullcontext()


def run_sync(
    account: Account,
    warehouse: Warehouse,
    options: SyncOptions,
    *,
    result: AccountResult | None = None,
) -> AccountResult:
    """Load what is new of one account into a warehouse.

    `result` is filled in as the sync goes, so that it also says what a failed sync did.

    Raises:
        CommandError: It failed; what was loaded before stays, and the next sync goes on there.
    """
    result = result if result is not None else AccountResult(account.label)
    with active_pipeline_kept(), warehouse.lock([account.label]):
        sync = _AccountSync(account, warehouse, options, result)
        try:
            sync.run(watch_nothing)
        except CommandError as error:
            sync.note_failure(error)
            raise
    return result


def sync_accounts(
    accounts: Sequence[Account],
    warehouse: Warehouse,
    options: SyncOptions,
    *,
    watch: Watch = watch_nothing,
    on_account_done: Callable[[Account, AccountResult], None] | None = None,
    result: SyncResult | None = None,
) -> SyncResult:
    """Sync accounts one after another into one warehouse, which is locked for all of them.

    Args:
        accounts: The accounts to read.
        warehouse: The warehouse to load into.
        options: What to read, and how.
        watch: Shows the progress of each account.
        on_account_done: Called with each account and its result when it has ended.
        result: Filled in as they go, so that it also says what an interrupted sync did.

    Returns:
        The result of all, with the failures of accounts: an account that fails does not stop the others.

    Raises:
        CommandError: The warehouse cannot be locked: nothing was done.
    """
    result = result if result is not None else SyncResult.of(accounts)
    began = time.monotonic()
    try:
        labels = [account.label for account in accounts]
        with active_pipeline_kept(), warehouse.lock(labels), ExitStack() as at_end:
            for account in accounts:
                done = AccountResult(account.label)
                result.accounts.append(done)
                sync = _AccountSync(account, warehouse, options, done)
                try:
                    sync.run(watch)
                except CommandError as error:
                    done.status, done.error = "failed", str(error)
                    result.failures[account.label] = error
                    at_end.callback(sync.note_failure, error)  # another account may make the warehouse
                    if isinstance(error.__cause__, CancelledError):
                        raise
                if on_account_done is not None:
                    on_account_done(account, done)
    except CommandError as error:
        for account in accounts[len(result.accounts) :]:
            rows = dict.fromkeys(options.tables, 0)
            result.accounts.append(AccountResult(account.label, "failed", str(error), rows=rows))
        result.error = str(error)
        raise
    finally:
        result.seconds, result.finished_at = time.monotonic() - began, now()
    return result


class _AccountSync:
    """The sync of one account into a warehouse that is locked already."""

    def __init__(
        self,
        account: Account,
        warehouse: Warehouse,
        options: SyncOptions,
        result: AccountResult,
    ) -> None:
        self._account = account
        self._warehouse = warehouse
        self._options = options
        self._result = result
        self._report = Report()
        self._loaded: Counter[str] = Counter()
        self._passed_on: Counter[str] = Counter()
        self._is_first = False
        self._log = _Log(account, options.tables, self._report)
        self._record()

    def note_failure(self, error: CommandError) -> None:
        """Write a row into `syncs` that says that the sync has failed, where syncs have made that table.

        What keeps it from being written is logged alone: the failure itself says more.
        """
        if isinstance(error.__cause__, CancelledError) or not self._warehouse.exists():
            return
        warehouse = self._warehouse.waiting(0)
        self._log.error = str(error)
        try:
            with working_directory() as directory:
                pipeline = warehouse.pipeline(directory, label=self._account.label)
                warehouse.restore(pipeline)
                with pipeline.destination_client() as client:
                    is_made = bool(warehouse.columns(client, [SYNCS.name]).get(SYNCS.name))
                if is_made:
                    self._load_log(pipeline, warehouse)
        except Exception as reason:  # noqa: BLE001 - a bug shows in a sync that succeeds too
            logger.info("The failure could not be written into %s: %s", SYNCS.name, reason)

    def _load_log(self, pipeline: dlt.Pipeline, warehouse: Warehouse) -> None:
        pipeline.extract(_prepared(self._log.source(), merge_hints(warehouse, pipeline)))
        pipeline.normalize()
        warehouse.load(pipeline)

    def run(self, watch: Watch) -> None:
        """Read and load until everything is read, then describe the tables. Raises `CommandError`."""
        began = time.monotonic()
        is_new = not self._warehouse.exists()
        try:
            with working_directory() as directory, watch(self._report):
                pipeline = self._warehouse.pipeline(directory, label=self._account.label)
                self._run_parts(pipeline)
                with self._errors():
                    self._report.warnings += self._warehouse.describe(pipeline)
        except FineTuningSourceError as error:
            raise to_command_error(self._account, error) from error
        finally:
            if is_new:
                self._warehouse.discard_empty()
            self._record()
            self._result.seconds, self._result.finished_at = time.monotonic() - began, now()

    def _run_parts(self, pipeline: dlt.Pipeline) -> None:
        """Read and load in turn until everything is read."""
        options = self._options
        source = self._account.source(
            options.resources,
            fine_tuning_job_ids=list(options.job_ids) or None,
            fine_tuning_since=options.since,
            fine_tuning_full_refresh=options.full_refresh,
            fine_tuning_concurrency=options.concurrency,
            fine_tuning_stop_after_seconds=options.commit_seconds,
            fine_tuning_stop_after_rows=options.commit_rows,
            fine_tuning_report=self._report,
        )
        source.resources["account"].add_map(self._changes(pipeline, source, self._log.started_at))
        hints = merge_hints(self._warehouse, pipeline)
        _prepared(source, hints)
        while not self._report.is_complete:
            log = _prepared(self._log.source(), hints)
            with self._errors():
                self._result.load_ids.extend(self._run_part(pipeline, source, log))
            self._loaded = Counter(self._passed_on)

    def _run_part(self, pipeline: dlt.Pipeline, source: Any, log: Any) -> list[str]:
        """Extract, normalise and load. Returns the ids of the loads."""
        if pipeline.first_run:
            other = self._warehouse.attempt(lambda: self._restore(pipeline, source))
            self._is_first = not pipeline.state.get("sources", {}).get(SCHEMA)
            if other is not None:
                logger.warning(
                    "Host and key of account %s were read as account %s before: everything is read again, and is "
                    "there twice. To go on with what is there, run `ftw accounts rename %s %s` first.",
                    *(self._account.label, other, shlex.quote(other), shlex.quote(self._account.label)),
                )
        pipeline.extract([source, log])
        pa.default_memory_pool().release_unused()  # the C library keeps what Arrow's tables took, beside a load's
        pipeline.normalize()
        return list(self._warehouse.load(pipeline, largest_batch=self._report.largest_batch).loads_ids)

    def _restore(self, pipeline: dlt.Pipeline, source: Any) -> str | None:
        """Restore the state. Returns the label that host and key had before, if the account is new."""
        other = None
        with self._warehouse.session(pipeline):
            check_types = self._warehouse.keeps_types
            missing = set_aside_changed(pipeline, check_types=check_types)
            pipeline.sync_destination()
            missing += add_stored_columns(pipeline, source.schema, check_types=check_types)
            if not missing and not source_state(pipeline):
                with closing(self._account.api()) as api:
                    other = label_of(pipeline, api.identity)
        if missing:
            self._report.notes.append(
                f"Missing or changed in the warehouse: {'; '.join(missing)}. They are made again, and all is read "
                "once more, for each account at its next sync. What the host no longer has cannot be read again."
            )
        return other

    def _changes(self, pipeline: dlt.Pipeline, source: Any, started_at: datetime) -> Callable[[Tables], Tables]:
        """Return the function that drops the rows that the warehouse holds already."""
        clients: list[Any] = []

        def look_up(name: str, conditions: Mapping[str, Sequence[Any]]) -> pa.Table | None:
            return self._warehouse.rows_with(clients[-1], name, {"account": [self._account.label], **conditions})

        changes = Changes(
            look_up,
            lambda name: added_columns(source.schema, name),
            began_at=int(started_at.timestamp() * 1_000_000),
            writes_all=self._options.full_refresh,
        )
        self._passed_on = self._log.rows = changes.rows

        def apply(tables: Tables) -> Tables:
            with (
                self._warehouse.session(pipeline),
                pipeline.destination_client() as client,
            ):
                clients.append(client)
                return changes(tables)

        def new_or_changed(tables: Tables) -> Tables:
            if self._is_first or not any(table.num_rows for table in tables.values()):
                return changes.all_of(tables)
            return self._warehouse.attempt(lambda: apply(tables))

        return new_or_changed

    def _errors(self) -> AbstractContextManager[None]:
        return destination_errors(self._warehouse, f"The sync into {self._warehouse.shown} failed")

    def _record(self) -> None:
        """Fill in the result from the report."""
        report, result = self._report, self._result
        result.rows = {name: self._loaded[name] for name in self._options.tables}
        result.requests, result.retries = report.requests, report.retries
        result.jobs = {"seen": report.jobs_seen, "open": report.jobs_open}
        result.jobs_in_progress = report.jobs_in_progress
        result.skipped = [asdict(skip) for skip in report.skipped]
        result.rejected = report.rejected
        result.notes, result.warnings = list(report.notes), list(report.warnings)


def _prepared(source: Any, hints: Mapping[str, Any]) -> Any:
    """Have a source write the column `_dlt_load_id`, and merge its rows by some hints. Return the source."""
    add_load_ids(source.selected_resources.values())
    for resource in source.selected_resources.values():
        resource.apply_hints(**hints)
    return source


class _Log:
    """The row of a sync in `syncs`: what it did, and how fresh the data is.

    Args:
        account: The account that is read.
        tables: The tables that the sync writes to.
        report: The figures of the sync.

    Attributes:
        started_at: When the sync started.
        rows: The rows that are loaded, by table.
        error: Why it failed; None if it did not.
    """

    def __init__(self, account: Account, tables: Sequence[str], report: Report) -> None:
        self._account = account
        self._tables = tables
        self._report = report
        self._id = str(uuid.uuid4())
        self.started_at = datetime.now(timezone.utc)
        self.rows: Mapping[str, int] = Counter()
        self.error: str | None = None

    def source(self) -> Any:
        """Return the row as a source of dlt, under the schema of the real one, to be loaded after it in one package."""

        @dlt.source(section="openai_fine_tuning", schema=schema())
        def log() -> Any:
            @dlt.resource(name=SYNCS.name, write_disposition=MERGE)
            def syncs() -> Iterator[Any]:
                yield self._row()

            return syncs

        return log()

    def _row(self) -> pa.Table:
        batches, report = (
            Batches(self._account.label, dlt.current.source_schema(), tables=(SYNCS, REJECTED_RECORDS)),
            self._report,
        )
        record = {
            "id": self._id,
            "started_at": self.started_at.isoformat(),
            "finished_at": datetime.now(timezone.utc).isoformat(),
            "requests": report.requests,
            "retries": report.retries,
            "jobs_seen": report.jobs_seen,
            "jobs_known": report.jobs_known,
            "jobs_open": report.jobs_open,
            "skipped": [asdict(skip) for skip in report.skipped],
            "rejected": report.rejected,
            "version": __version__,
            "host": self._account.host,
            "status": "done" if self.error is None else "failed",
            "error": self.error,
            "rows_loaded": {name: self.rows.get(name, 0) if self.error is None else 0 for name in self._tables},
            "newest_job_at": report.newest_job_at,
        }
        batches.add(SYNCS.name, record, job_id=None)
        return batches.take()[SYNCS.name]
