"""Convert one JSON value to what a column of a given type holds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

INT64 = range(-(2**63), 2**63)

# 9999-12-30T23:59:59Z: a later time is beyond the year 9999, where Python's datetime ends, in some time zone.
LATEST_SECONDS = 253_402_214_399

_FIRST_MILLISECONDS = 253_402_300_800
"""From here on a time is not in seconds: seconds reach this number in the year 10000, milliseconds did in 1978."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_YEAR_ONE_SECONDS = -62_135_596_800

# json.dumps makes a new encoder at each call that is not its default.
_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_ENCODE_ASCII = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode

_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")
_FRACTION = re.compile(r"\.(\d+)")


class UnfitError(ValueError):
    """A value that a column of this type cannot hold; the message says what the value is."""


def unix_seconds(value: Any) -> float | None:
    """Return a time as unix seconds, or None if it is missing, 0, negative, or not a time. Never raises."""
    try:
        microseconds = None if value is None else to_microseconds(value)
    except UnfitError:
        return None
    return None if microseconds is None else microseconds / 1e6


def to_microseconds(value: Any) -> int | None:
    """Return a time as microseconds since 1970-01-01 UTC; None for 0 and below, which hosts send for "no time".

    Hosts send whole seconds. Milliseconds, microseconds and nanoseconds are recognised by their size. Numbers as text
    and ISO 8601 are accepted too.

    Raises:
        UnfitError: It is not a time, or a time that Python's datetime cannot hold in every time zone.
    """
    if type(value) is int and 0 < value <= LATEST_SECONDS:  # seconds, as hosts send them
        return value * 1_000_000
    seconds = _iso_seconds(value) if isinstance(value, str) else None
    if seconds is None:
        number = number_from_text(value) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, (int, float)) or number != number:  # noqa: PLR0124 - NaN
            raise UnfitError(f"{shown(value)} is not a time")
        if number <= 0 and number != -math.inf:
            return None
        seconds = number
        for _ in range(3):
            if _FIRST_MILLISECONDS <= seconds < 1e20:
                # Whole numbers are divided as such: a float would lose microseconds.
                seconds = seconds / 1000 if isinstance(seconds, float) or seconds % 1000 else seconds // 1000
    if not _YEAR_ONE_SECONDS <= seconds <= LATEST_SECONDS:
        raise UnfitError(f"{shown(value)} is a time outside the years 1 to 9999")
    return None if seconds <= 0 else round(seconds * 1_000_000)


def to_double(value: Any) -> float:
    """Return a number, or the text of one, as a 64-bit float. NaN and infinities are numbers; booleans are not.

    Raises:
        UnfitError: It is not a number, or too large.
    """
    if type(value) is float:
        return value
    number = number_from_text(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise UnfitError(f"{shown(value)} is not a number")
    try:
        return float(number)
    except OverflowError:
        raise UnfitError(f"{shown(value)} is too large for a 64-bit float") from None


def to_bigint(value: Any) -> int:
    """Return a whole number, or the text of one, as a 64-bit integer: `100.0` is whole, `100.5` is not.

    Raises:
        UnfitError: It is not a whole number, or does not fit 64 bits.
    """
    number = number_from_text(value) if isinstance(value, str) else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise UnfitError(f"{shown(value)} is not a whole number")
    if number not in INT64:
        raise UnfitError(f"{shown(value)} does not fit 64 bits")
    return number


def to_bool(value: Any) -> bool:
    """Return a boolean unchanged. Raises `UnfitError` for everything else."""
    if not isinstance(value, bool):
        raise UnfitError(f"{shown(value)} is neither true nor false")
    return value


def to_text(value: Any) -> str:
    """Return a string as it can be stored, and anything else as JSON text."""
    return escaped(value) if isinstance(value, str) else to_json(value)


def to_id(value: Any) -> str:
    """Return a string or a whole number as text. Raises `UnfitError` for everything else, the empty string too."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise UnfitError(f"{shown(value)} is not an id")
    return to_text(value)


def to_json(value: Any, *, ascii_only: bool = False) -> str:
    """Return any JSON value as JSON text. NaN and infinities, which JSON does not have, become strings.

    Args:
        value: The value, however deeply nested.
        ascii_only: Write every other character as an escape, so that every destination stores the text unchanged.
    """
    encode = _ENCODE_ASCII if ascii_only else _ENCODE
    try:
        text = encode(value)
    except (ValueError, RecursionError):  # a number that JSON does not have; more levels than the encoder goes down
        text = _json_step_by_step(value, encode)
    return text if ascii_only else escaped(text)


def escaped(text: str) -> str:
    """Return a text with NUL and lone surrogates, which PostgreSQL and UTF-8 do not hold, as JSON's own escapes."""
    if text.isascii() and "\x00" not in text:
        return text
    return _NOT_STORABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def are_storable(texts: Iterable[str | None]) -> bool:
    """Return whether `escaped` would leave all texts as they are."""
    text = "".join(filter(None, texts))
    return "\x00" not in text if text.isascii() else _NOT_STORABLE.search(text) is None


def number_from_text(text: str) -> Any:
    """Return the number that a text is, or the text itself."""
    try:
        if "_" in text or not text.isascii():
            return text
        return int(text) if text.strip().lstrip("+-").isdigit() and len(text) < 400 else float(text)
    except ValueError:
        return text


def file_ids(value: Any) -> list[Any]:
    """Return the ids of the files that a field of a job names, in whichever form the host names them.

    Example:
        >>> file_ids("file-a"), file_ids(["file-a", {"id": "file-b", "bytes": 7}]), file_ids(None)
        (['file-a'], ['file-a', 'file-b'], [])

    Args:
        value: An id, an object that has one, or a list of either, which may stand in an object's `data`. A value
            without an id is returned unchanged.
    """
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    named = value if isinstance(value, list) else [value]
    ids = [one.get("id", one.get("file_id", one)) if isinstance(one, dict) else one for one in named]
    return [one for one in ids if one not in (None, "", {})]


def stored_file_ids(text: str | None) -> list[str]:
    """Return the ids of the files that a column of a job holds: an id, or what the host sent as JSON text."""
    named: Any = text
    if text is not None and text[:1] in ("{", "["):
        with suppress(ValueError):
            named = json.loads(text)
    ids = [one for one in file_ids(named) if not isinstance(one, dict)]
    return [one if isinstance(one, str) else json.dumps(one) for one in ids]


def _iso_seconds(text: str) -> int | float | None:
    """Return an ISO 8601 time (UTC if it names no zone) as unix seconds; None if the text is not one."""
    if "-" not in text:  # digits alone are a number, not a date
        return None
    # Python 3.10 reads neither the Z that stands for UTC nor fractions of other than 3 or 6 digits.
    text = _FRACTION.sub(lambda match: f".{match[1]:0<6.6}", re.sub("[zZ]$", "+00:00", text.strip()))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)) - _EPOCH
    return since // timedelta(seconds=1) if since.microseconds == 0 else since / timedelta(seconds=1)


def _json_step_by_step(value: Any, encode: Any) -> str:
    """Return JSON without recursion, with numbers that are not finite as strings."""
    parts: list[str] = []
    left: list[tuple[Any, bool]] = [(value, False)]  # the last one comes next; whether it is JSON text already
    while left:
        item, is_text = left.pop()
        if is_text:
            parts.append(item)
        elif isinstance(item, (dict, list)) and item:
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            opening, closing = "{}" if isinstance(item, dict) else "[]"
            inner: list[tuple[Any, bool]] = []
            for key, one in pairs:
                name = f"{encode(key)}: " if isinstance(item, dict) else ""
                inner += [((", " if inner else opening) + name, True), (one, False)]
            left += [(closing, True), *reversed(inner)]
        else:
            is_number = not isinstance(item, float) or math.isfinite(item)
            parts.append(encode(item if is_number else str(item)))
    return "".join(parts)


def shown(value: Any) -> str:
    """Return the beginning of a value as JSON text, for a message."""
    text = to_json(value, ascii_only=True)
    return text if len(text) <= 60 else text[:57] + "..."
