"""Rows and values as JSON and CSV, for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from .text import safe

# The last four are = + - @ as Chinese and Japanese keyboards write them.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


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


def as_text(value: Any) -> str:
    """Return a value of a row as text: times with a blank before the hour, lists and dictionaries as JSON."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return as_json(value) if isinstance(value, (dict, list, tuple)) else str(value)


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

    def cell(value: Any) -> str:
        text = "" if value is None else as_text(value)
        if spreadsheet_safe and isinstance(value, str) and text.startswith(_FORMULA):
            text = f"'{text}"
        return safe(text) if terminal else text

    lines = []
    for row in [names, *rows]:
        line = io.StringIO()
        csv.writer(line).writerow(map(cell, row))  # asked to end lines with \n, it would not quote a \r
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)
