"""What the command prints: summaries of syncs for people, rows for programs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fine_tuning_warehouse.formats import as_csv, as_json
from fine_tuning_warehouse.text import as_time, counted, safe, safe_lines, without_credentials

from .lines import STARTED
from .tables import as_table, terminal_width

if TYPE_CHECKING:
    from fine_tuning_warehouse.sync.summary import AccountResult, SyncResult

__all__ = ["as_json", "as_table", "safe", "safe_lines", "terminal_width", "without_credentials"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_SHOWN_SKIPS = 10


def summary_lines(summary: AccountResult, host: str, warehouse: str) -> list[str]:
    """Return lines that describe a finished sync of an account: a line a table, then its requests and jobs."""
    width = max((len(name) for name in summary.rows), default=0)
    lines = [f"Synced account {summary.account} from {host} into {warehouse} in {summary.seconds:.1f} s."]
    for name, rows in summary.rows.items():
        if name != "rejected_records" or rows:
            lines.append(f"{table_line(name, rows, width)} new or changed")
    retries = f" ({counted(summary.retries, 'of them a retry', 'of them retries')})" if summary.retries else ""
    requests = counted(summary.requests, "request")
    lines.append(f"{requests}{retries}, {_jobs(summary)}.")
    return lines


def table_line(name: str, rows: int, width: int) -> str:
    """Return the name of a table, padded to `width`, with the number of its rows."""
    number, _, noun = counted(rows, "row").partition(" ")
    return f"  {name:<{width}}  {number:>9} {noun}"


def totals_line(result: SyncResult) -> str:
    """Return a line that describes a finished sync of several accounts."""
    done, rows = len(result.accounts) - len(result.failures), sum(result.rows.values())
    return (
        f"Synced {done} of {len(result.accounts)} accounts: {counted(rows, 'row')} new or changed, "
        f"{counted(result.total.requests, 'request')}, {result.seconds:.1f} s."
    )


def sync_line(result: SyncResult, warehouse: str) -> str:
    """Return a line of a log that describes a finished sync."""
    total, several = result.total, len(result.accounts) > 1
    done = [one.account for one in result.accounts if one.status == "done"]
    accounts = f"{len(done)} of {len(result.accounts)} accounts" if several else f"account {done[0]}"
    line = (
        f"Synced {accounts} into {warehouse} in {result.seconds:.1f} s: "
        f"{counted(sum(total.rows.values()), 'row')} new or changed, {counted(total.requests, 'request')}, "
        f"{_jobs(total)}"
    )
    missing = {
        "skipped (see sync_history)": len(total.skipped),
        "rejected (see rejected_records)": total.rejected,
    }
    return ", ".join([line, *(f"{count:,} {what}" for what, count in missing.items() if count)]) + "."


def _jobs(result: AccountResult) -> str:
    seen, again = counted(result.jobs["seen"], "job"), result.jobs["open"]
    return f"{seen} seen, {result.jobs_in_progress:,} in progress, {again:,} to be read again"


def skip_lines(summary: AccountResult, *, several: bool = False) -> list[str]:
    """Return lines that name what was skipped or rejected, with the account if there are several."""
    lines = []
    prefix = f"Account {summary.account}: " if several else ""
    for skip in summary.skipped[:_SHOWN_SKIPS]:
        what = f"{skip['resource']} of {skip['job']}" if skip["job"] else str(skip["resource"])
        lines.append(f"Skipped {safe(what)}: {safe(str(skip['reason']))}")
    if len(summary.skipped) > _SHOWN_SKIPS:
        lines.append(f"Skipped {len(summary.skipped) - _SHOWN_SKIPS:,} more (all of them: --output json).")
    if summary.rejected:
        records = counted(summary.rejected, "record")
        lines.append(f"Rejected {records} that could not be typed: see the table rejected_records.")
    return [f"{prefix}{line}" for line in lines]


def print_result(fields: Mapping[str, Any]) -> None:
    """Print the result of a command as a JSON object, with the times when the command started and finished."""
    times = {"started_at": as_time(STARTED), "finished_at": as_time(datetime.now(timezone.utc))}
    click.echo(as_json({**fields, **{name: time for name, time in times.items() if name not in fields}}))


def print_csv(names: Sequence[str], rows: Sequence[Sequence[Any]], *, spreadsheet_safe: bool) -> None:
    """Print CSV: in a pipe or a file the bytes of the data in UTF-8, on a terminal with control characters escaped."""
    text = as_csv(names, rows, spreadsheet_safe=spreadsheet_safe, terminal=sys.stdout.isatty())
    click.echo(text.encode(), nl=False)


def print_pages(text: str) -> None:
    """Print a text, on a terminal that is too low for it by the user's pager."""
    if sys.stdin.isatty() and sys.stdout.isatty() and text.count("\n") + 1 >= shutil.get_terminal_size().lines:
        click.echo_via_pager(text + "\n", color=False)
    else:
        click.echo(text)


def format_option(*formats: str) -> Callable[[_Command], _Command]:
    """Return the option `--output`, which a command gets as its argument `output_format`; the first is the default."""
    return click.option(
        "--output",
        "output_format",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="How to print the result.",
    )


spreadsheet_safe_option = click.option(
    "--spreadsheet-safe",
    is_flag=True,
    help="For --output csv: put ' before texts that a spreadsheet would run as a formula (those that start with "
    "= + - @, a tab or a line break).",
)
