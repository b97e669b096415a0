"""Read result files: CSV with a row per step, base64-encoded on newer OpenAI jobs, plain elsewhere."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from openai_fine_tuning import settings

from .values import UnfitError, to_bigint

_STEP = "step"

_BLANK = frozenset(
    ("", "-", "--", "n/a", "#n/a", "#n/a n/a", "na", "#na", "<na>", "nan", "-nan", "+nan", "1.#qnan", "-1.#ind")
) | {"null", "none", "nil"}
"""What writers of CSV put for a missing value, in lower case."""


def rows(content: bytes, *, max_rows: int = settings.MAX_RESULT_ROWS) -> Iterator[dict[str, str]]:
    r"""Yield the rows of a result file, each a dict of column name to text. Blank cells and placeholders are left out.

    Lines of one step that agree become one row, so that they complete each other. If they differ, as after a
    restart of the job, the last one counts. A line without a usable step is a row that has its number under `line`.

    Example:
        >>> list(rows(b"step,train_loss\n1,0.5\n1,0.4\n2,N/A\n"))
        [{'step': '1', 'train_loss': '0.4'}, {'step': '2'}]

    Raises:
        UnfitError: The content is not a result file.
    """
    text, delimiter = _text(content)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    by_step: dict[Any, dict[str, str]] = {}
    try:
        header = _column_names(next((cells for cells in reader if any(map(str.strip, cells))), []))
        beyond = "unnamed" if "unnamed" not in header else f"column ({len(header) + 1})"
        for cells in reader:
            row = {
                name: text
                for name, cell in zip(header, cells, strict=False)
                if (text := cell.strip()).lower() not in _BLANK
            }
            if any(cell.strip() for cell in cells[len(header) :]):
                row[beyond] = delimiter.join(cells[len(header) :])
            if not row:
                continue
            try:
                step: Any = to_bigint(row.get(_STEP))
                row[_STEP] = str(step)
            except UnfitError:
                step = object()  # shared with no other line
                row.setdefault("line", str(reader.line_num))
            earlier = by_step.get(step, {})
            agrees = all(earlier.get(name, cell) == cell for name, cell in row.items())
            by_step[step] = {**earlier, **row} if agrees else row
            if len(by_step) > max_rows:
                raise UnfitError(f"the file has more than {max_rows:,} rows")
    except csv.Error as error:
        raise UnfitError(f"the file is not CSV: {error}") from None
    yield from by_step.values()


def _column_names(header: list[str]) -> list[str]:
    """Return distinct names: a repeated or missing name gets the number of its column."""
    names: list[str] = []
    for number, cell in enumerate(header, start=1):
        name = _STEP if cell.strip().lower() == _STEP else cell.strip()
        names.append(name if name and name not in names else f"{name or 'column'} ({number})")
    return names


def _text(content: bytes) -> tuple[str, str]:
    """Return the CSV text, decoded from base64 if it is not plain, and the delimiter of its cells."""
    plain = _decoded(content)
    if not plain.strip():
        return plain, ","
    if (delimiter := _delimiter(plain)) is not None:
        return plain, delimiter
    # Hosts and gateways send base64 in lines, in quotes, as a data URL, in the alphabet of URLs, or without padding.
    packed = "".join(plain.split()).strip('"').rpartition("base64,")[2].translate(str.maketrans("-_", "+/"))
    try:
        text = _decoded(base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True))
    except (binascii.Error, ValueError):
        text = ""
    if (delimiter := _delimiter(text)) is None:
        raise UnfitError("the file is neither CSV with a column named step nor base64 of it")
    return text, delimiter


def _decoded(content: bytes) -> str:
    return content.decode(json.detect_encoding(content), errors="replace")


def _delimiter(text: str) -> str | None:
    """Return the delimiter of the names in the header; None if none of them is `step`."""
    header = re.split(r"[\r\n]", text.lstrip("\r\n "), maxsplit=1)[0]
    for delimiter in ",;\t|":
        if _STEP in [name.strip().strip('"').lower() for name in header.split(delimiter)]:
            return delimiter
    return None
