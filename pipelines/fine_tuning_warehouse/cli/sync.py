"""`ftw sync`."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fine_tuning_warehouse.errors import DONE, INCOMPLETE, CommandError, UsageError
from fine_tuning_warehouse.warehouses.locking import LOCK_WAIT_SECONDS

from . import output
from .failures import json_on_failure
from .options import (
    AccountOptions,
    WarehouseOptions,
    account_options,
    concurrency_option,
    prepare,
    seconds_of,
    warehouse_options,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fine_tuning_warehouse.accounts.account import Account
    from fine_tuning_warehouse.sync.run import SyncOptions, Watch
    from fine_tuning_warehouse.sync.summary import AccountResult, SyncResult
    from fine_tuning_warehouse.warehouses.warehouse import Warehouse

_RESOURCES = ("jobs", "checkpoints", "events", "result_metrics", "files")


@click.command()
@click.option("--demo", is_flag=True, help="Sync from a simulated host: no key, no network.")
@warehouse_options
@account_options
@click.option("--job", "jobs", metavar="ID", multiple=True, help="Read only this job (repeatable).")
@click.option("--resources", metavar="A,B", help=f"Some of {','.join(_RESOURCES)}.  [default: all]")
@click.option("--since", metavar="DATE", help="Read only jobs created since, such as 2026-01-31.")
@click.option("--full-refresh", is_flag=True, help="Read everything once more, into the same rows.")
@concurrency_option
@click.option(
    "--lock-wait",
    type=click.FloatRange(0),
    default=LOCK_WAIT_SECONDS,
    show_default=True,
    help="Seconds to wait for a reader.",
)
@click.option("--every", metavar="TIME", help="Stay, and sync again every 15m, 6h, 1d ...")
@click.option("--health-file", metavar="PATH", help="Write when a sync succeeded, for `ftw health`.")
@click.option("--output", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--strict", is_flag=True, help="Exit 3 where something was rejected or skipped.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--verbose", is_flag=True, help="Log what is done.")
def sync(
    *,
    demo: bool,
    target: WarehouseOptions,
    chosen_accounts: AccountOptions,
    jobs: tuple[str, ...],
    resources: str | None,
    since: str | None,
    full_refresh: bool,
    concurrency: int,
    lock_wait: float,
    every: str | None,
    health_file: str | None,
    form: str,
    strict: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Load what is new.

    Reads the jobs, checkpoints, events and result files of every configured account (or of the one that OPENAI_API_KEY
    is for), only what the warehouse lacks, and loads them as typed tables. What is interrupted is taken up by the next
    sync, and an account that fails does not stop the others.
    """
    with json_on_failure(form, lambda: _nothing_done(chosen_accounts.label)):
        prepare(quiet=quiet, verbose=verbose)
        interval = None if every is None else seconds_of(every, "--every")
        chosen = _chosen_resources(resources)
        _check_since(since)
        label = chosen_accounts.demo_label() if demo else None
        if full_refresh and (jobs or since):
            raise UsageError("--full-refresh reads everything: it goes neither with --job nor with --since.")
        from fine_tuning_warehouse.sync.demo import DEMO_DATABASE  # noqa: PLC0415

        warehouse = target.find(DEMO_DATABASE if demo else None)
        accounts = [] if demo else chosen_accounts.find(without_key="`ftw sync --demo` needs none.")
        if jobs and len(accounts) > 1:
            raise UsageError("--job names a job of one account: say of which with --account.")
        from fine_tuning_warehouse.sync.health import HealthFile  # noqa: PLC0415
        from fine_tuning_warehouse.sync.interval import Rhythm  # noqa: PLC0415
        from fine_tuning_warehouse.sync.run import SyncOptions  # noqa: PLC0415

        reading = SyncOptions(
            resources=chosen,
            job_ids=jobs,
            since=since,
            full_refresh=full_refresh,
            concurrency=concurrency,
            lock_wait_seconds=lock_wait,
        )
        watch = _progress() if sys.stderr.isatty() and not quiet and not verbose else None
        healthy = None if health_file is None else HealthFile(Path(health_file).expanduser().absolute(), interval)
        rhythm = None if interval is None else Rhythm(interval)
        shown = _Shown if rhythm is None else _ShownInALine
        show = shown(warehouse.shown, several=len(accounts) > 1, form=form, quiet=quiet, demo=demo)
    while True:
        totals, failure = _synced(accounts, label, warehouse, reading, watch=watch, show=show)
        is_short = strict and totals.is_incomplete
        if healthy is not None and failure is None and not is_short:
            try:
                healthy.succeeded(totals)
            except CommandError as error:
                failure = error
        # A key that was good once may be so again; one that is refused from the start has to be changed.
        if rhythm is None or (failure is not None and failure.is_lasting and not rhythm.has_begun):
            if failure is not None:
                raise failure
            return INCOMPLETE if is_short else DONE
        pause = rhythm.pause(seconds=totals.seconds, failed=failure is not None)
        if failure is not None:
            text = output.safe(totals.text or str(failure))
            click.echo(f"{_now()} Error: {text} Trying again in {pause:.0f} s.", err=True)
        time.sleep(pause)


def _synced(
    accounts: Sequence[Account],
    demo_label: str | None,
    warehouse: Warehouse,
    reading: SyncOptions,
    *,
    watch: Watch | None,
    show: _Shown,
) -> tuple[SyncResult, CommandError | None]:
    """Sync the accounts once, or that of the demo, and show it. Returns what was done, and what went wrong."""
    from fine_tuning_warehouse.sync.demo import demo_account  # noqa: PLC0415
    from fine_tuning_warehouse.sync.run import sync_accounts, watch_nothing  # noqa: PLC0415
    from fine_tuning_warehouse.sync.summary import SyncResult  # noqa: PLC0415

    totals = SyncResult(demo_label) if demo_label is not None else SyncResult.of(accounts)
    with ExitStack() as stack:
        try:
            if demo_label is not None:
                wait = reading.lock_wait_seconds
                accounts = [stack.enter_context(demo_account(demo_label, warehouse, lock_wait_seconds=wait))]
            sync_accounts(
                accounts, warehouse, reading, watch=watch or watch_nothing, on_account_done=show.account, result=totals
            )
            failure = totals.failure
        except CommandError as error:
            failure, totals.error = error, str(error)
        except Exception as error:
            totals.error = f"A bug in ftw: {type(error).__name__}"
            show.totals(totals)
            raise
    show.totals(totals)
    return totals, failure


def _nothing_done(label: str | None) -> dict[str, Any]:
    """The fields of a sync that has not begun."""
    from fine_tuning_warehouse.sync.summary import SyncResult  # noqa: PLC0415

    return SyncResult(label).as_json()


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Shown:
    """Shows what was done of each account, and of all."""

    def __init__(self, warehouse: str, *, several: bool, form: str, quiet: bool, demo: bool) -> None:
        self._warehouse = warehouse
        self._several = several
        self._form = form
        self._quiet = quiet
        self._demo = demo

    def account(self, account: Account, summary: AccountResult) -> None:
        """One account has ended. Where it is the only one, whoever calls tells its failure."""
        if summary.status == "failed":
            if self._several:
                click.echo(f"Account {account.label} failed: {output.safe(str(summary.error))}", err=True)
        elif self._form == "text" and not self._quiet:
            host = "a simulated host" if self._demo else account.host
            for line in output.summary_lines(summary, host, self._warehouse):
                click.echo(line)
        if not self._quiet:
            for note in summary.notes:
                click.echo(output.safe(f"Account {account.label}: {note}" if self._several else note), err=True)
            # What was skipped by one that failed before it loaded anything says no more than its failure.
            if summary.status == "done" or summary.load_ids:
                for line in output.skip_lines(summary, several=self._several):
                    click.echo(line, err=True)

    def totals(self, totals: SyncResult) -> None:
        """All have ended."""
        if self._form == "json":
            click.echo(output.as_json(totals.as_json()))
        elif self._several and not self._quiet and any(summary.status == "done" for summary in totals.accounts):
            click.echo(output.totals_line(totals))


class _ShownInALine(_Shown):
    """Shows a line for a sync of one that stays, with its time; what was skipped stands in the warehouse."""

    def account(self, account: Account, summary: AccountResult) -> None:
        """One account has ended. Its failure is told with all others."""
        if not self._quiet:
            for note in summary.notes:
                click.echo(f"{_now()} {output.safe(f'Account {account.label}: {note}')}", err=True)

    def totals(self, totals: SyncResult) -> None:
        """All have ended."""
        if self._form == "json":
            click.echo(output.as_json(totals.as_json()))
        elif not self._quiet and any(summary.status == "done" for summary in totals.accounts):
            click.echo(f"{_now()} {output.sync_line(totals, self._warehouse)}")


def _progress() -> Watch:
    from fine_tuning_warehouse.cli.progress import progress_bar  # noqa: PLC0415 - a terminal's, which nobody else pays for

    return progress_bar


def _chosen_resources(resources: str | None) -> tuple[str, ...]:
    if resources is None:
        return _RESOURCES
    chosen = [name.strip() for name in resources.split(",") if name.strip()]
    for name in chosen:
        if name not in _RESOURCES:
            raise UsageError(f"There is no resource {name!r}: choose from {', '.join(_RESOURCES)}.")
    if not chosen:
        raise UsageError(f"--resources names none: choose from {', '.join(_RESOURCES)}.")
    return tuple(name for name in _RESOURCES if name in chosen)


def _check_since(since: str | None) -> None:
    from datetime import datetime  # noqa: PLC0415

    try:
        if since is not None:
            datetime.fromisoformat(since.strip().replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(f"--since {since!r} is no date: it looks like 2026-01-31 or 2026-01-31T12:00.") from None
