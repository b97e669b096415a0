"""From JSON values to what a column of a given type holds."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

INT64 = range(-(2**63), 2**63)

# Years 1 to 9999 in unix seconds: what Arrow, DuckDB and PostgreSQL all hold, and Python can show.
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_799

FIRST_MILLISECONDS = 100_000_000_000
"""From here on a time is not in seconds: they would reach it in the year 5138."""

# json.dumps makes a new encoder at each call that is not its default.
_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_ENCODE_ASCII = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode

_UNFIT = re.compile("[\x00\ud800-\udfff]")


class UnfitError(ValueError):
    """A value that a column of this type cannot hold; the message says what the value is."""


def unix_seconds(value: Any) -> float | None:
    """A time as unix seconds, or None where it is missing or is none. Never raises.

    Hosts send whole seconds; milliseconds, microseconds and nanoseconds are known by their size (seconds reach 1e11
    in the year 5138), and numbers as texts and ISO 8601 are taken too.
    """
    try:
        return None if value is None else to_microseconds(value) / 1e6
    except UnfitError:
        return None


def to_microseconds(value: Any) -> int:
    """A time as microseconds since 1970-01-01 UTC; the units that are understood stand at `unix_seconds`."""
    if type(value) is int and 0 <= value < FIRST_MILLISECONDS:  # seconds, as hosts send them
        return value * 1_000_000
    if isinstance(value, str):
        if (moment := _iso_microseconds(value)) is not None:
            return moment
        value = number_from_text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # noqa: PLR0124 - NaN
        raise UnfitError(f"{_shown(value)} is no time")
    if not -1e20 < value < 1e20:
        raise UnfitError(f"{_shown(value)} is a time outside the years 1 to 9999")
    seconds: int | float = value
    for _ in range(3):
        if abs(seconds) >= 1e11:
            # Whole numbers are divided as such: a float would lose microseconds.
            seconds = seconds / 1000 if isinstance(seconds, float) or seconds % 1000 else seconds // 1000
    if not _EARLIEST <= seconds <= _LATEST:
        raise UnfitError(f"{_shown(value)} is a time outside the years 1 to 9999")
    return seconds * 1_000_000 if isinstance(seconds, int) else round(seconds * 1_000_000)


def to_double(value: Any) -> float:
    """A number as a 64-bit float. NaN and infinities are numbers; booleans are none."""
    if type(value) is float:
        return value
    if isinstance(value, str):
        value = number_from_text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UnfitError(f"{_shown(value)} is no number")
    try:
        return float(value)
    except OverflowError:
        raise UnfitError(f"{_shown(value)} is too large for a 64-bit float") from None


def to_bigint(value: Any) -> int:
    """A whole number as a 64-bit integer: `100.0` is one, `100.5` is none."""
    if isinstance(value, str):
        value = number_from_text(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UnfitError(f"{_shown(value)} is no whole number")
    if value not in INT64:
        raise UnfitError(f"{_shown(value)} does not fit 64 bits")
    return value


def to_bool(value: Any) -> bool:
    """A boolean, and nothing else."""
    if not isinstance(value, bool):
        raise UnfitError(f"{_shown(value)} is neither true nor false")
    return value


def to_text(value: Any) -> str:
    """A string as it is, anything else as JSON."""
    if type(value) is str and value.isascii() and "\x00" not in value:
        return value
    return escaped(value) if isinstance(value, str) else to_json(value)


def to_id(value: Any) -> str:
    """A string or a whole number as text."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise UnfitError(f"{_shown(value)} is no text")
    return to_text(value)


def to_json(value: Any, *, ascii_only: bool = False) -> str:
    """Any JSON value as JSON text. NaN and infinities, which JSON does not have, become strings.

    Args:
        value: The value.
        ascii_only: Write every other character as an escape, so that every destination stores the text unchanged.
    """
    try:
        text = _dumped(value, ascii_only=ascii_only)
    except RecursionError:
        # Parsers go deeper than Python's usual limit lets the writer go.
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(limit + 5_000)
        try:
            text = _dumped(value, ascii_only=ascii_only)
        finally:
            sys.setrecursionlimit(limit)
    return text if ascii_only else escaped(text)


def _dumped(value: Any, *, ascii_only: bool) -> str:
    write = _ENCODE_ASCII if ascii_only else _ENCODE
    try:
        return write(value)
    except ValueError:
        return write(_without_nan(value))


def escaped(text: str) -> str:
    """A text without NUL and lone surrogates, which PostgreSQL refuses and UTF-8 lacks: as JSON's own escapes."""
    if text.isascii() and "\x00" not in text:
        return text
    return _UNFIT.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def are_clean(texts: Iterable[str | None]) -> bool:
    """Whether `escaped` would leave all texts as they are."""
    text = "".join(filter(None, texts))
    return "\x00" not in text if text.isascii() else _UNFIT.search(text) is None


def number_from_text(text: str) -> Any:
    """The number that a text is, or the text itself."""
    try:
        if "_" in text or not text.isascii():
            return text
        return int(text) if text.strip().lstrip("+-").isdigit() and len(text) < 400 else float(text)
    except ValueError:
        return text


def _iso_microseconds(text: str) -> int | None:
    """An ISO 8601 time (UTC where it names no zone) as microseconds; None where the text is none."""
    try:
        # Python 3.10 does not read the Z that stands for UTC. Digits alone are a number, not a date.
        moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip())) if "-" in text else None
    except ValueError:
        return None
    if moment is None:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return value


def _shown(value: Any) -> str:
    text = to_json(value, ascii_only=True)
    return text if len(text) <= 60 else text[:57] + "..."
