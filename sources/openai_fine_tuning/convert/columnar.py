"""Convert a whole column of JSON values at once.

Nearly every column that a host sends holds values of one type, or null. Such a column is checked as a whole, which
takes a third of the time. If one value is something else, the values of that column are converted one by one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from openai_fine_tuning.schema import Type

from . import values
from .values import UnfitError

Column = list[Any]

CONVERT: dict[Type, Callable[[Any], Any]] = {
    "text": values.to_text,
    "json": values.to_json,
    "double": values.to_double,
    "bigint": values.to_bigint,
    "bool": values.to_bool,
    "timestamp": values.to_microseconds,
}
"""How one value of each type of column is converted."""

_NULL = type(None)
_MARK = uuid.uuid4().hex
_JSON_TYPES: dict[Type, frozenset[type]] = {
    "text": frozenset({str, _NULL}),
    "double": frozenset({float, int, _NULL}),
    "bigint": frozenset({int, _NULL}),
    "bool": frozenset({bool, _NULL}),
    "timestamp": frozenset({int, _NULL}),
}


def convert_column(column: Column, type_: Type) -> tuple[Column, dict[int, str]]:
    """Convert a column's JSON values to what Arrow takes for its type: times as microseconds, JSON as text.

    Example:
        >>> convert_column([1, None, "high"], "double")
        ([1.0, None, None], {2: '"high" is not a number'})

    Returns:
        The converted values, with None for what does not fit; and why not, by position.
    """
    if type_ == "json" or _JSON_TYPES[type_].issuperset(map(type, column)):
        whole = _AS_A_WHOLE[type_](column)
        if whole is not None:
            return whole, {}
    convert = CONVERT[type_]
    converted: list[Any] = []
    unfit: dict[int, str] = {}
    for position, value in enumerate(column):
        try:
            converted.append(None if value is None else convert(value))
        except UnfitError as error:
            converted.append(None)
            unfit[position] = str(error)
    return converted, unfit


def _bigints(column: Column) -> Column | None:
    numbers = [number for number in column if number is not None]
    return column if not numbers or (min(numbers) in values.INT64 and max(numbers) in values.INT64) else None


def _seconds(column: Column) -> Column | None:
    times = [time for time in column if time is not None]
    if times and not (min(times) > 0 and max(times) <= values.LATEST_SECONDS):
        return None
    return [None if time is None else time * 1_000_000 for time in column]


def _doubles(column: Column) -> Column | None:
    if int not in map(type, column):
        return column
    try:
        return [None if number is None else float(number) for number in column]
    except OverflowError:
        return None


def _json(column: Column) -> Column | None:
    # The encoder takes longer to begin than to write a small object. So it writes all of them, with a text between
    # them that no host can know.
    given = [value for value in column if value is not None]
    if not given:
        return column
    written = values.to_json([one for value in given for one in (_MARK, value)][1:])
    texts = written[1:-1].split(f', "{_MARK}", ')
    if len(texts) != len(given):
        return None
    next_text = iter(texts)
    return [None if value is None else next(next_text) for value in column]


_AS_A_WHOLE: dict[Type, Callable[[Column], Column | None]] = {
    "text": lambda column: column if values.are_storable(column) else None,
    "double": _doubles,
    "bigint": _bigints,
    "bool": lambda column: column,
    "timestamp": _seconds,
    "json": _json,
}
"""Convert a column of plain values at once; None if each value must be looked at."""
