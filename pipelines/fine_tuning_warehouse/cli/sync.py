"""The command `ftw sync`."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fine_tuning_warehouse.errors import DONE, INCOMPLETE, CommandError, UsageError
from fine_tuning_warehouse.formats import as_json
from fine_tuning_warehouse.sync.demo import DEMO_DATABASE, demo_account
from fine_tuning_warehouse.sync.health import HealthFile
from fine_tuning_warehouse.sync.interval import Interval
from fine_tuning_warehouse.sync.summary import AccountResult, SyncResult
from fine_tuning_warehouse.text import safe
from fine_tuning_warehouse.warehouses.warehouse import DEFAULT_DATABASE

from .failures import failure_name, json_on_failure
from .options import (
    AccountOptions,
    WarehouseOptions,
    account_options,
    concurrency_option,
    lock_wait_option,
    prepare,
    seconds_of,
    warehouse_options,
)
from .terminal import output
from .terminal.lines import echo, set_style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fine_tuning_warehouse.accounts.account import Account
    from fine_tuning_warehouse.sync.run import SyncOptions, Watch
    from fine_tuning_warehouse.warehouses.warehouse import Warehouse

_RESOURCES = ("jobs", "checkpoints", "events", "result_metrics", "files", "models")


@click.command()
@click.option("--demo", is_flag=True, help=f"Sync from a simulated host into {DEMO_DATABASE}: no key, no network.")
@warehouse_options
@account_options
@click.option("--job", "jobs", metavar="ID", multiple=True, help="Read only this job (repeatable).")
@click.option("--resources", metavar="A,B", help=f"Some of {','.join(_RESOURCES)}.  [default: all]")
@click.option("--since", metavar="DATE", help="Read only jobs created since, such as 2026-01-31.")
@click.option("--full-refresh", is_flag=True, help="Read everything once more, into the same rows.")
@concurrency_option
@lock_wait_option
@click.option("--every", metavar="TIME", help="Stay, and sync again every 15m, 6h, 1d ...")
@click.option("--health-file", metavar="PATH", help="Write when each account was synced, for `ftw health`.")
@click.option("--metrics-file", metavar="PATH", help="With --health-file: write the same for Prometheus.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print lines about the sync. (Each has time and level with json, and with --every.)",
)
@output.format_option("text", "json")
@click.option("--strict", is_flag=True, help="Exit 3 if something was rejected or skipped, or a warning was given.")
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
    metrics_file: str | None,
    log_format: str,
    output_format: str,
    strict: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Load what is new.

    Reads the jobs, checkpoints, events and result files of every configured account (or of the one that OPENAI_API_KEY
    is for), only what the warehouse lacks, and loads them as typed tables. What is interrupted is taken up by the next
    sync, and an account that fails does not stop the others.
    """
    if log_format == "json":
        set_style("json")
    with json_on_failure(output_format, SyncResult(chosen_accounts.label).as_json):
        prepare(quiet=quiet, verbose=verbose)
        seconds = None if every is None else seconds_of(every, "--every")
        chosen, date = _parse_resources(resources), _parse_since(since)
        label = chosen_accounts.demo_label() if demo else None
        if jobs or since:
            _check_partial(chosen, full_refresh=full_refresh)
        warehouse = target.find(DEMO_DATABASE if demo else DEFAULT_DATABASE).waiting(lock_wait)
        accounts = [] if demo else chosen_accounts.find(without_key="`ftw sync --demo` needs none.")
        if jobs and len(accounts) > 1:
            raise UsageError("--job names a job of one account: name that account with --account.")
        from fine_tuning_warehouse.sync.run import SyncOptions, watch_nothing  # noqa: PLC0415 - imports dlt

        options = SyncOptions(
            resources=chosen,
            job_ids=jobs,
            since=date,
            full_refresh=full_refresh,
            concurrency=concurrency,
        )
        watch: Watch = watch_nothing
        if sys.stderr.isatty() and not quiet and not verbose and log_format == "text":
            from .terminal.progress import progress_bar as watch  # noqa: PLC0415 - imports rich
        health = _health_file(health_file, metrics_file, seconds, is_whole=not chosen_accounts.labels and not demo)
        interval = None if seconds is None else Interval(seconds)
        printer = _Printer(
            warehouse.shown,
            "a simulated host" if demo else None,
            several=len(accounts) > 1,
            is_log=interval is not None or log_format == "json",
            as_json=output_format == "json",
            quiet=quiet,
        )
        if interval is not None and log_format == "text":
            set_style("stamped")
    while True:
        result, failure = _sync_once(accounts, label, warehouse, options, watch=watch, printer=printer)
        is_short = strict and result.is_incomplete
        if health is not None:
            try:
                health.write(result, strict=strict)
            except CommandError as error:
                failure = failure or error
        # A key that was good once may be so again; one that is refused from the start has to be changed.
        if interval is None or (failure is not None and failure.is_lasting and not interval.has_begun):
            if failure is not None:
                raise failure
            return INCOMPLETE if is_short else DONE
        pause = interval.pause(seconds=result.seconds, failed=failure is not None)
        if failure is not None:
            text = safe(result.text or str(failure))
            echo(f"{text} Trying again in {pause:.0f} s.", "ERROR")
        time.sleep(pause)


def _health_file(
    health_file: str | None, metrics_file: str | None, every: float | None, *, is_whole: bool
) -> HealthFile | None:
    """Return what writes the health file, and the metrics beside it. Raises `UsageError`."""
    if health_file is None:
        if metrics_file is not None:
            raise UsageError("--metrics-file needs --health-file, which keeps the last success of each account.")
        return None
    path, metrics = (None if one is None else Path(one).expanduser().absolute() for one in (health_file, metrics_file))
    return None if path is None else HealthFile(path, every, metrics=metrics, is_whole=is_whole)


def _sync_once(
    accounts: Sequence[Account],
    demo_label: str | None,
    warehouse: Warehouse,
    options: SyncOptions,
    *,
    watch: Watch,
    printer: _Printer,
) -> tuple[SyncResult, CommandError | None]:
    """Sync the accounts once, or that of the demo, and print it. Returns what was done, and what went wrong."""
    from fine_tuning_warehouse.sync.run import sync_accounts  # noqa: PLC0415

    result = SyncResult(demo_label) if demo_label is not None else SyncResult.of(accounts)
    demo = nullcontext() if demo_label is None else demo_account(demo_label, warehouse)
    try:
        with demo as account:
            chosen = accounts if account is None else [account]
            sync_accounts(chosen, warehouse, options, watch=watch, on_account_done=printer.account, result=result)
        failure = result.failure
    except CommandError as error:
        failure, result.error = error, str(error)
    except Exception as error:
        result.error = failure_name(error)
        printer.result(result)
        raise
    printer.result(result)
    return result, failure


@dataclass(frozen=True)
class _Printer:
    """Print what was done for each account, and for all.

    Attributes:
        warehouse: The warehouse, as it is shown.
        host: The host, as it is shown; None for the base URL of each account.
        several: There are several accounts.
        is_log: Each sync is a line of a log (`--every`), and the warehouse knows what was skipped.
        as_json: The results are printed as JSON.
        quiet: Only errors and JSON are printed.
    """

    warehouse: str
    host: str | None
    several: bool
    is_log: bool
    as_json: bool
    quiet: bool

    def account(self, account: Account, result: AccountResult) -> None:
        """Print what was done for one account. The failure of a single account ends the command, which prints it."""
        is_done = result.status == "done"
        if not is_done and self.several and not self.is_log:
            echo(f"Account {account.label} failed: {safe(str(result.error))}", "ERROR")
        if self.quiet:
            return
        if is_done and not self.as_json and not self.is_log:
            click.echo("\n".join(output.summary_lines(result, self.host or account.host, self.warehouse)))
        prefix = f"Account {account.label}: " if self.several or self.is_log else ""
        for note in result.notes:
            echo(safe(prefix + note))
        for warning in result.warnings:
            echo(safe(warning), "WARNING", plain=f"Warning: {safe(warning)}")
        # What was skipped by one that failed before it loaded anything says no more than its failure.
        if not self.is_log and (is_done or result.load_ids):
            for line in output.skip_lines(result, several=self.several):
                click.echo(line, err=True)

    def result(self, result: SyncResult) -> None:
        """Print what was done in all."""
        if self.as_json:
            click.echo(as_json(result.as_json()))
        elif not self.quiet and any(account.status == "done" for account in result.accounts):
            if self.is_log:
                echo(safe(output.sync_line(result, self.warehouse)), err=False)
            elif self.several:
                click.echo(output.totals_line(result))


def _parse_resources(resources: str | None) -> tuple[str, ...]:
    """Return the names in `--resources`, in the order of the tables. Raises `UsageError`."""
    if resources is None:
        return _RESOURCES
    chosen = [name.strip() for name in resources.split(",") if name.strip()]
    if not chosen or not set(chosen) <= set(_RESOURCES):
        raise UsageError(f"Invalid --resources {resources!r}: expected some of {','.join(_RESOURCES)}.")
    return tuple(name for name in _RESOURCES if name in chosen)


def _check_partial(resources: tuple[str, ...], *, full_refresh: bool) -> None:
    """Raise `UsageError` if --job or --since cannot go with the other options."""
    if full_refresh:
        raise UsageError("--full-refresh reads everything: leave out --job and --since.")
    if resources == ("models",):
        raise UsageError("--resources models reads no jobs: leave out --job and --since.")


def _parse_since(since: str | None) -> datetime | None:
    """Return the time in `--since`. Raises `UsageError`."""
    from openai_fine_tuning.extract.bounds import parse_time  # noqa: PLC0415 - imports dlt

    try:
        return None if since is None else parse_time(since)
    except ValueError:
        raise UsageError(f"Invalid --since {since!r}: expected a date such as 2026-01-31.") from None
