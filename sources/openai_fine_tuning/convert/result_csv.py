"""Result files: CSV with a row a step, base64-encoded on newer OpenAI jobs, plain on older ones and elsewhere."""

from __future__ import annotations

import base64
import binascii
import csv
import io
from collections.abc import Iterator
from typing import Any

from .values import UnfitError, to_bigint

_STEP = "step"


def rows(content: bytes) -> Iterator[dict[str, Any]]:
    """The rows of a result file: column name to text, blank cells left out.

    Several lines of one step are one row, as far as they agree.

    Raises:
        UnfitError: The content is no such file.
    """
    reader = csv.reader(io.StringIO(_text(content), newline=""))
    try:
        header = [_STEP if name.strip().lower() == _STEP else name.strip() for name in next(reader, [])]
        steps: dict[Any, list[dict[str, Any]]] = {}
        for cells in reader:
            named = zip(header, cells, strict=False)
            row = {name: cell.strip() for name, cell in named if name and cell.strip()}
            if len(cells) > len(header):
                row["unnamed"] = ",".join(cells[len(header) :])
            if isinstance(step := _step(row), int):
                row[_STEP] = str(step)
            if row:
                _merge(steps.setdefault(step, []), row)
    except csv.Error as error:
        raise UnfitError(f"the file is no CSV: {error}") from None
    for same_step in steps.values():
        yield from same_step


def _text(content: bytes) -> str:
    """The CSV text, decoded from base64 where it is not plain."""
    plain = content.decode("utf-8-sig", errors="replace")
    if _has_header(plain) or not plain.strip():
        return plain
    try:
        decoded = base64.b64decode("".join(plain.split()), validate=True).decode("utf-8-sig", errors="replace")
    except (binascii.Error, ValueError):
        decoded = ""
    if not _has_header(decoded):
        raise UnfitError("the file is neither CSV with a column named step nor base64 of it")
    return decoded


def _has_header(text: str) -> bool:
    first = text.lstrip().split("\n", 1)[0]
    return _STEP in [name.strip().strip('"').lower() for name in first.split(",")]


def _step(row: dict[str, Any]) -> Any:
    try:
        return to_bigint(row[_STEP])
    except (KeyError, UnfitError):
        return object()  # no step to share with any other line


def _merge(same_step: list[dict[str, Any]], row: dict[str, Any]) -> None:
    for known in same_step:
        if all(known.get(name, cell) == cell for name, cell in row.items()):
            known.update(row)
            return
    same_step.append(row)
