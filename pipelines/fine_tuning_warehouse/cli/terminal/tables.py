"""Tables for people: they fit the terminal, and say which columns do not."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from rich.cells import cell_len, set_cell_size

from fine_tuning_warehouse.formats import as_text
from fine_tuning_warehouse.text import counted, safe

_UNCUT = 32  # an id has about 30 characters
_GAP = 3


def terminal_width() -> int | None:
    """Return the columns of the terminal; None if the output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def as_table(names: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None = None) -> str:
    """Return rows as a table that fits the terminal, with control characters as escapes.

    If not all columns fit, a single row becomes a line a column. Of several rows, values that are the same in every row
    are named once, the columns that fit are shown, and the other columns are named.

    Args:
        names: Column names.
        rows: Rows of values.
        width: Columns of the terminal; None for no limit.
    """
    heads, cells = [safe(name) for name in names], [[_shown(value) for value in row] for row in rows]
    numeric = [any(isinstance(row[index], (int, float, Decimal)) for row in rows) for index in range(len(names))]
    natural = _widths(heads, cells)
    everything = dict(enumerate(natural))
    if width is None or _width(natural) <= width:
        return _table(heads, cells, numeric, everything)
    if len(rows) == 1:
        return _lines(heads, cells[0], width)
    same = {index for index in everything if rows and len({row[index] for row in cells}) == 1}
    same = set() if len(same) == len(heads) else same
    widths = _fitting({index: wanted for index, wanted in everything.items() if index not in same}, width)
    notes = []
    if same:
        shared = ", ".join(f"{heads[index]} {cells[0][index]}" for index in sorted(same))
        notes.append(f"The same in every row: {shared}")
    left_out = [head for index, head in enumerate(heads) if index not in same and index not in widths]
    if left_out:
        more = counted(len(left_out), "more column does", "more columns do")
        notes.append(f"{more} not fit here: {', '.join(left_out)} (--output csv or json shows all)")
    wrapped = (textwrap.fill(note, width, break_on_hyphens=False) for note in notes)
    return "\n".join([_table(heads, cells, numeric, widths), *wrapped])


def _shown(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float) and math.isfinite(value) and abs(value) < 1e15:
        return f"{value:.6g}"
    return safe(as_text(value))


def _widths(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(heads, *cells, strict=True)]


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _fitting(wanted: Mapping[int, int], width: int) -> dict[int, int]:
    """Return the columns that fit, in order, with their widths. Only what is longer than an id is cut."""
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


def _table(
    heads: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], widths: Mapping[int, int]
) -> str:
    def line(row: Sequence[str]) -> str:
        return (" " * _GAP).join(_fitted(row[index], widths[index], numeric[index]) for index in widths).rstrip()

    return "\n".join([line(heads), "─" * _width(list(widths.values())), *map(line, cells)]) if widths else ""


def _fitted(text: str, width: int, is_number: bool) -> str:
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…"
    return " " * (width - length) + text if is_number else text + " " * (width - length)


def _lines(heads: Sequence[str], cells: Sequence[str], width: int) -> str:
    """Return one row as a line a column, with long values folded."""
    margin = max(map(len, heads)) + _GAP
    lines = []
    for head, cell in zip(heads, cells, strict=True):
        first, others = f"{head:<{margin}}", " " * margin
        columns = max(width, margin + 20)
        folded = textwrap.wrap(cell, columns, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)
        lines += folded or [head]
    return "\n".join(lines)
