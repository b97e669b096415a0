"""`ftw sync`."""

from __future__ import annotations

import re
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from fine_tuning_warehouse import output
from fine_tuning_warehouse.errors import DONE, INCOMPLETE, CommandError, UsageError

from .options import account_options, warehouse_options

if TYPE_CHECKING:
    from fine_tuning_warehouse.destinations import TableFormat

_RESOURCES = ("jobs", "checkpoints", "events", "result_metrics")


@click.command()
@click.option("--demo", is_flag=True, help="Sync from a simulated host: no key, no network.")
@warehouse_options
@account_options
@click.option("--job", "jobs", metavar="ID", multiple=True, help="Read only this job (repeatable).")
@click.option("--resources", metavar="A,B", help=f"Some of {','.join(_RESOURCES)}.  [default: all]")
@click.option("--since", metavar="DATE", help="Read only jobs created since, such as 2026-01-31.")
@click.option("--full-refresh", is_flag=True, help="Read everything once more, into the same rows.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=16, show_default=True, help="Requests in flight.")
@click.option(
    "--lock-wait", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds to wait for a reader."
)
@click.option("--every", metavar="TIME", help="Stay, and sync again every 15m, 6h, 1d ...")
@click.option("--output", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--strict", is_flag=True, help="Exit 3 where something was rejected or skipped.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--verbose", is_flag=True, help="Log what is done.")
def sync(
    *,
    demo: bool,
    database: str | None,
    destination: str | None,
    table_format: TableFormat | None,
    dataset: str | None,
    account: str | None,
    base_url: str | None,
    jobs: tuple[str, ...],
    resources: str | None,
    since: str | None,
    full_refresh: bool,
    concurrency: int,
    lock_wait: float,
    every: str | None,
    form: str,
    strict: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Load what is new.

    Reads the jobs, checkpoints, events and result files of an account, only what the warehouse lacks, and loads them
    as typed tables. What is interrupted is taken up by the next sync.
    """
    with _told_as(form, account or "default") as told:
        from fine_tuning_warehouse.logs import set_up_logging  # noqa: PLC0415

        set_up_logging(quiet=quiet, verbose=verbose)  # before dlt is imported, which starts its own
        pause = None if every is None else _seconds(every)
        chosen = _chosen_resources(resources)
        _check_since(since)
        if demo and base_url is not None:
            raise UsageError("--demo has a host of its own: leave --base-url out.")
        if full_refresh and (jobs or since):
            raise UsageError("--full-refresh reads everything: it goes neither with --job nor with --since.")
        from fine_tuning_warehouse.accounts import checked_label, find_account  # noqa: PLC0415
        from fine_tuning_warehouse.demo import DEMO_DATABASE, DEMO_LABEL, demo_account  # noqa: PLC0415
        from fine_tuning_warehouse.destinations import DEFAULT_DATABASE, find_warehouse  # noqa: PLC0415

        warehouse = find_warehouse(
            database=database,
            destination=destination,
            dataset=dataset,
            table_format=table_format,
            default=DEMO_DATABASE if demo else DEFAULT_DATABASE,
        )
        from fine_tuning_warehouse.progress import progress_bar  # noqa: PLC0415
        from fine_tuning_warehouse.sync import Reading, Summary, run_sync  # noqa: PLC0415

        reading = Reading(chosen, jobs, since, full_refresh, concurrency, lock_wait_seconds=lock_wait)
        watch = progress_bar if sys.stderr.isatty() and not quiet and not verbose else None
        stop = threading.Event()
        while True:
            with ExitStack() as stack:
                if demo:
                    label = checked_label(account or DEMO_LABEL)
                    whose = stack.enter_context(demo_account(label, warehouse))
                else:
                    whose = find_account(account, base_url)
                told.summary = Summary(whose.label)
                try:
                    run_sync(whose, warehouse, reading, watch=watch, summary=told.summary)
                except CommandError as error:
                    if pause is None:
                        raise
                    told.summary.status, told.summary.error = "failed", str(error)
            _show(told.summary, whose.base_url, warehouse.shown, form=form, quiet=quiet, demo=demo)
            if pause is None:
                return INCOMPLETE if strict and told.summary.is_incomplete else DONE
            stop.wait(pause)


class _told_as:  # noqa: N801 - a context manager that reads as a sentence
    """Tells a failure as JSON too, where that was asked for."""

    def __init__(self, form: str, label: str) -> None:
        self._form = form
        self._label = label
        self.summary: Any = None

    def __enter__(self) -> _told_as:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if self._form == "json" and isinstance(error, CommandError):
            from fine_tuning_warehouse.sync import Summary  # noqa: PLC0415

            summary = self.summary or Summary(self._label)
            summary.status, summary.error = "failed", str(error)
            click.echo(output.as_json(summary.as_json()))


def _show(summary: Any, host: str, warehouse: str, *, form: str, quiet: bool, demo: bool) -> None:
    if form == "json":
        click.echo(output.as_json(summary.as_json()))
    elif summary.status == "failed":
        click.echo(f"Error: {output.safe(str(summary.error))}", err=True)
    elif not quiet:
        for line in output.summary_lines(summary, "a simulated host" if demo else host, warehouse):
            click.echo(line)
    if not quiet:
        for line in output.skip_lines(summary):
            click.echo(line, err=True)


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


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--every {text!r} is no time: it looks like 30s, 15m, 6h or 1d.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
