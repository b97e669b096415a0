"""What the command prints: for people, and for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sync import Summary

_SHOWN_SKIPS = 10


def safe(text: str) -> str:
    """A text of unknown origin, without characters that could steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def summary_lines(summary: Summary, host: str, warehouse: str) -> list[str]:
    """A finished sync for people: one line a table."""
    width = max((len(name) for name in summary.rows), default=0)
    lines = [f"Synced account {summary.account} from {host} into {warehouse} in {summary.seconds:.1f} s."]
    for name, rows in summary.rows.items():
        if name != "rejected_records" or rows:
            lines.append(f"  {name:<{width}}  {rows:>9,} {'row' if rows == 1 else 'rows'} new or changed")
    retries = f" ({summary.retries} of them retries)" if summary.retries else ""
    seen, still_open = summary.jobs["seen"], summary.jobs["open"]
    lines.append(f"{summary.requests:,} requests{retries}, {seen:,} jobs seen, {still_open:,} still open.")
    return lines


def skip_lines(summary: Summary) -> list[str]:
    """What was skipped or rejected, for people."""
    lines = []
    for skip in summary.skipped[:_SHOWN_SKIPS]:
        what = f"{skip['resource']} of {skip['job']}" if skip["job"] else str(skip["resource"])
        lines.append(f"Skipped {safe(what)}: {safe(str(skip['reason']))}")
    if len(summary.skipped) > _SHOWN_SKIPS:
        lines.append(f"Skipped {len(summary.skipped) - _SHOWN_SKIPS:,} more (all of them: --output json).")
    if summary.rejected:
        lines.append(f"Rejected {summary.rejected:,} records that could not be typed: see the table rejected_records.")
    return lines


def as_json(value: Any) -> str:
    """JSON with times as ISO 8601; NaN and infinities, which JSON lacks, as null."""
    return json.dumps(_plain(value), ensure_ascii=True)


def as_csv(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """CSV with a header; null is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[_cell(value, null="") for value in row] for row in rows])
    return out.getvalue().rstrip("\n")


def as_table(names: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None = None) -> str:
    """A table that fits the terminal; texts of unknown origin cannot steer it.

    Args:
        names: Column names.
        rows: Rows of values.
        width: Columns of the terminal; None for no limit, where the output is not one.
    """
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - rich costs 50 ms, which csv and json need not pay
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(names):
        numeric = any(isinstance(row[index], (int, float, Decimal)) for row in rows)
        table.add_column(Text(safe(name)), justify="right" if numeric else "left", overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(safe(_cell(value, null="NULL"))) for value in row))
    console = Console(width=width or 100_000, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())


def _cell(value: Any, *, null: str) -> str:
    if value is None:
        return null
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}" if abs(value) < 1e15 and null == "NULL" else repr(value)
    return json.dumps(_plain(value)) if isinstance(value, (dict, list)) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)
