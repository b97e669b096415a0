"""What the command prints: for people, and for programs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from .text import counted

if TYPE_CHECKING:
    from .sync.summary import AccountResult, SyncResult

_SHOWN_SKIPS = 10

_UNCUT = 32  # an id has about 30 characters
_GAP = 3
_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
)  # the last four are = + - @, wide


def without_credentials(text: str) -> str:
    """A text without the user names and passwords of the URLs in it."""
    return re.sub(r"(\w://)[^/\s]*@", r"\1", text)


def safe(text: str) -> str:
    """A text of unknown origin, without characters that could steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def safe_lines(text: str) -> str:
    """Return a text of several lines with each line made safe."""
    return "\n".join(map(safe, text.splitlines()))


def summary_lines(summary: AccountResult, host: str, warehouse: str) -> list[str]:
    """A finished sync for people: one line a table."""
    width = max((len(name) for name in summary.rows), default=0)
    lines = [f"Synced account {summary.account} from {host} into {warehouse} in {summary.seconds:.1f} s."]
    for name, rows in summary.rows.items():
        if name != "rejected_records" or rows:
            lines.append(f"{table_line(name, rows, width)} new or changed")
    retries = f" ({counted(summary.retries, 'of them a retry', 'of them retries')})" if summary.retries else ""
    seen, still_open = summary.jobs["seen"], summary.jobs["open"]
    requests = counted(summary.requests, "request")
    lines.append(f"{requests}{retries}, {counted(seen, 'job')} seen, {still_open:,} still open.")
    return lines


def table_line(name: str, rows: int, width: int) -> str:
    """A table, or a view, with the number of its rows; the numbers of several stand below one another."""
    number, _, noun = counted(rows, "row").partition(" ")
    return f"  {name:<{width}}  {number:>9} {noun}"


def totals_line(totals: SyncResult) -> str:
    """A sync of several accounts for people."""
    done, rows = len(totals.accounts) - len(totals.failures), sum(totals.rows.values())
    requests = sum(summary.requests for summary in totals.accounts)
    return (
        f"Synced {done} of {len(totals.accounts)} accounts: {counted(rows, 'row')} new or changed, "
        f"{counted(requests, 'request')}, {totals.seconds:.1f} s."
    )


def sync_line(totals: SyncResult, warehouse: str) -> str:
    """A sync in one line, for a log."""
    told, several = totals.as_json(), len(totals.accounts) > 1
    done = [summary.account for summary in totals.accounts if summary.status == "done"]
    who = f"{len(done)} of {len(totals.accounts)} accounts" if several else f"account {done[0]}"
    line = (
        f"Synced {who} into {warehouse} in {totals.seconds:.1f} s: "
        f"{counted(sum(totals.rows.values()), 'row')} new or changed, {counted(told['requests'], 'request')}, "
        f"{counted(told['jobs']['seen'], 'job')} seen, {told['jobs']['open']:,} still open"
    )
    missing = {"skipped (see sync_history)": len(told["skipped"]), "rejected (see rejected_records)": told["rejected"]}
    return ", ".join([line, *(f"{count:,} {what}" for what, count in missing.items() if count)]) + "."


def skip_lines(summary: AccountResult, *, several: bool = False) -> list[str]:
    """What was skipped or rejected, for people; of which account, where there are several."""
    lines = []
    whose = f"Account {summary.account}: " if several else ""
    for skip in summary.skipped[:_SHOWN_SKIPS]:
        what = f"{skip['resource']} of {skip['job']}" if skip["job"] else str(skip["resource"])
        lines.append(f"Skipped {safe(what)}: {safe(str(skip['reason']))}")
    if len(summary.skipped) > _SHOWN_SKIPS:
        lines.append(f"Skipped {len(summary.skipped) - _SHOWN_SKIPS:,} more (all of them: --output json).")
    if summary.rejected:
        records = counted(summary.rejected, "record")
        lines.append(f"Rejected {records} that could not be typed: see the table rejected_records.")
    return [f"{whose}{line}" for line in lines]


def as_json(value: Any) -> str:
    """Return a value as JSON.

    Times are in ISO 8601, decimals are numbers with all their digits, NaN and infinities (which JSON lacks) are null.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {as_json(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(as_json, value)) + "]"
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() else "null"
    if isinstance(value, float):
        return json.dumps(value if math.isfinite(value) else None)
    if isinstance(value, (datetime, date, time)):
        value = value.isoformat()
    return json.dumps(value if value is None or isinstance(value, (str, int)) else str(value))


def as_csv(
    names: Sequence[str], rows: Sequence[Sequence[Any]], *, spreadsheet_safe: bool = False, terminal: bool = False
) -> str:
    """Return CSV with a header; null is an empty cell.

    Args:
        names: Column names.
        rows: Rows of values.
        spreadsheet_safe: Put `'` before a text that a spreadsheet would run: one that starts with = + - @, or with a
            tab or a line break.
        terminal: Write control characters as escapes, so that they cannot steer a terminal.
    """

    def shown(value: Any) -> str:
        text = _cell(value, null="")
        if spreadsheet_safe and isinstance(value, str) and text.startswith(_FORMULA):
            text = f"'{text}"
        return safe(text) if terminal else text

    lines = []
    for row in [names, *rows]:
        line = io.StringIO()
        csv.writer(line).writerow([shown(value) for value in row])  # with \n as its end, it would not quote a \r
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def print_csv(names: Sequence[str], rows: Sequence[Sequence[Any]], *, spreadsheet_safe: bool) -> None:
    """Print CSV: in a pipe or a file the bytes of the data in UTF-8, on a terminal with control characters escaped."""
    text = as_csv(names, rows, spreadsheet_safe=spreadsheet_safe, terminal=sys.stdout.isatty())
    click.echo(text.encode(), nl=False)


spreadsheet_safe_option = click.option(
    "--spreadsheet-safe",
    is_flag=True,
    help="For --output csv: put ' before texts that a spreadsheet would run as a formula (those that start with "
    "= + - @, a tab or a line break).",
)


def terminal_width() -> int | None:
    """Columns of the terminal; None where the output is not one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def as_table(names: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None = None) -> str:
    """A table that fits the terminal; texts of unknown origin cannot steer it.

    Where not all columns fit, a single row is shown as a line a column. Of several rows, what is the same in all of
    them is told once, the columns that fit are shown, and the others are named.

    Args:
        names: Column names.
        rows: Rows of values.
        width: Columns of the terminal; None for no limit, where the output is not one.
    """
    heads, cells = _texts(names, rows)
    numeric = [any(isinstance(row[index], (int, float, Decimal)) for row in rows) for index in range(len(names))]
    natural = _widths(heads, cells)
    if width is None or sum(natural) + _GAP * (len(natural) - 1) <= width:
        return _table(heads, cells, numeric, natural)
    if len(rows) == 1:
        return _lines(heads, cells[0], width)
    same = {index for index in range(len(heads)) if rows and len({row[index] for row in cells}) == 1}
    same = set() if len(same) == len(heads) else same
    widths = _fitting({index: wanted for index, wanted in enumerate(natural) if index not in same}, width)
    table = _table(
        [heads[index] for index in widths],
        [[row[index] for index in widths] for row in cells],
        [numeric[index] for index in widths],
        list(widths.values()),
    )
    notes = []
    if same:
        notes.append(
            "The same in every row: " + ", ".join(f"{heads[index]} {cells[0][index]}" for index in sorted(same))
        )
    left_out = [head for index, head in enumerate(heads) if index not in same and index not in widths]
    if left_out:
        more = counted(len(left_out), "more column does", "more columns do")
        notes.append(f"{more} not fit here: {', '.join(left_out)} (--output csv or json shows all)")
    return "\n".join([table, *(textwrap.fill(note, width, break_on_hyphens=False) for note in notes)])


def table_width(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
    """The columns of a terminal that a table needs to be shown whole."""
    return sum(_widths(*_texts(names, rows))) + _GAP * (len(names) - 1)


def _texts(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[list[str], list[list[str]]]:
    return [safe(name) for name in names], [[safe(_cell(value, null="NULL")) for value in row] for row in rows]


def _widths(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len  # noqa: PLC0415 - see _table

    return [max(map(cell_len, column)) for column in zip(heads, *cells, strict=True)]


def _fitting(wanted: Mapping[int, int], width: int) -> dict[int, int]:
    """The columns that fit, in order, with their widths. Ids are never cut, only what is longer than they are."""
    widths: dict[int, int] = {}
    spare = width + _GAP
    for index, natural in wanted.items():
        least = min(natural, _UNCUT)
        if not widths or least + _GAP <= spare:
            widths[index] = min(least, width)
            spare -= widths[index] + _GAP
    for index, least in widths.items():
        more = min(spare, wanted[index] - least)
        widths[index] += more
        spare -= more
    return widths


def _table(heads: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], widths: Sequence[int]) -> str:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - rich costs 50 ms, which csv and json need not pay
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, head in enumerate(heads):
        table.add_column(
            Text(head),
            justify="right" if numeric[index] else "left",
            overflow="ellipsis",
            no_wrap=True,
            width=widths[index],
        )
    for row in cells:
        table.add_row(*map(Text, row))
    console = Console(width=100_000, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())


def _lines(heads: Sequence[str], cells: Sequence[str], width: int) -> str:
    """One row: a line a column, long values folded."""
    margin = max(map(len, heads))
    lines = []
    for head, cell in zip(heads, cells, strict=True):
        folded = textwrap.wrap(cell, max(width - margin - _GAP, 20), break_on_hyphens=False) or [""]
        lines.append(f"{head:<{margin + _GAP}}{folded[0]}")
        lines.extend(" " * (margin + _GAP) + line for line in folded[1:])
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any, *, null: str) -> str:
    if value is None:
        return null
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}" if abs(value) < 1e15 and null == "NULL" else repr(value)
    return as_json(value) if isinstance(value, (dict, list, tuple)) else str(value)
