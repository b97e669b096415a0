"""Whole columns at once: records that are alike become Arrow arrays without a look at each of their values.

Of nearly all that hosts send, every value of a column is of the one type that the column is for, or null. What is not
is typed one by one, by `values`.

None of Arrow's compute functions is called for a page: each lets go of the interpreter's lock, and with the crew's
threads about, getting it back takes longer than what it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from openai_fine_tuning.schema import Flattened, Type, arrow_types

from . import values

_NULL = type(None)
_KINDS: dict[Type, frozenset[type]] = {
    "text": frozenset({str, _NULL}),
    "double": frozenset({float, int, _NULL}),
    "bigint": frozenset({int, _NULL}),
    "bool": frozenset({bool, _NULL}),
    "timestamp": frozenset({int, _NULL}),
}

Block = dict[str, pa.Array]
"""Rows, a column each; times are of whole seconds."""

Shape = tuple[Any, ...]
"""The names of a record's fields, in order, and of those of its flattened objects."""


class Slot(NamedTuple):
    """Where a field goes: its column, and what makes the column's values of JSON's. `is_id`: it may not be empty."""

    name: str
    type: Type
    convert: Callable[[Any], Any]
    is_id: bool


@dataclass
class Place:
    """Where fields stand: in the record itself (no prefix), or in one of its objects. `slots`: those known so far."""

    prefix: str = ""
    how: Flattened = field(default_factory=Flattened)
    slots: dict[str, Slot] = field(default_factory=dict)


@dataclass
class Places:
    """All places of a table's records: the records themselves, and their flattened objects by name."""

    top: Place
    inner: dict[str, Place]

    @classmethod
    def of(cls, flattened: dict[str, Flattened]) -> Places:
        """The places of a table that flattens these objects."""
        return cls(Place(), {key: Place(key, how) for key, how in flattened.items()})


def shape_of(record: Any, places: Places) -> Shape | None:
    """What records have in common that become a block together; None for one that can be in none."""
    if type(record) is not dict:
        return None
    shape: list[Any] = [tuple(record)]
    for key in places.inner:
        value = record.get(key)
        if value is not None and type(value) is not dict:
            return None
        shape.append(None if value is None else tuple(value))
    return tuple(shape)


def block_of(records: Sequence[dict[str, Any]], places: Places) -> Block | None:
    """Records of one shape as a block; None where one of them must be looked at by itself."""
    block: Block = {}
    for key, column in zip(records[0], zip(*(record.values() for record in records), strict=True), strict=True):
        place = places.inner.get(key)
        if place is None:
            is_kept = _put(block, places.top, key, column)
        elif column[0] is None:
            continue
        else:
            is_kept = _put_flattened(block, place, column)
        if not is_kept:
            return None
    return block


def _put_flattened(block: Block, place: Place, column: Sequence[dict[str, Any]]) -> bool:
    how = place.how
    if how.keeps_json:
        if place.prefix in block:
            return False
        block[place.prefix] = pa.array([values.to_json(value) for value in column], arrow_types()["json"])
    for key, inner in zip(column[0], zip(*(value.values() for value in column), strict=True), strict=True):
        if how.keys is not None and key not in how.keys:
            continue
        if how.numbers_only and {float, int}.isdisjoint(map(type, inner)):
            continue
        if not _put(block, place, key, inner):
            return False
    return True


def _put(block: Block, place: Place, key: str, column: Sequence[Any]) -> bool:
    slot = place.slots.get(key)
    if slot is None or slot.name in block:
        return all(value is None for value in column)
    array = plain(column, slot.type)
    if array is None or (slot.is_id and "" in column):
        return False
    block[slot.name] = array
    return True


def plain(column: Sequence[Any], type_: Type) -> pa.Array | None:
    """The column as Arrow holds it; None where its values must be looked at one by one.

    Args:
        column: JSON values.
        type_: The type of the column.

    Returns:
        An array of the type `arrow_types()[type_]`, but that times are of whole seconds.
    """
    if type_ == "json":
        return pa.array([None if value is None else values.to_json(value) for value in column], arrow_types()["json"])
    if not (_KINDS[type_].issuperset(map(type, column)) and _IS_PLAIN.get(type_, _always)(column)):
        return None
    try:
        return pa.array(column, pa.timestamp("s", "UTC") if type_ == "timestamp" else arrow_types()[type_])
    except (pa.ArrowInvalid, OverflowError):  # a whole number that does not fit
        return None


def _are_seconds(column: Sequence[int | None]) -> bool:
    times = [time for time in column if time is not None]
    return not times or (min(times) >= 0 and max(times) < values.FIRST_MILLISECONDS)


def _always(_: Sequence[Any]) -> bool:
    return True


_IS_PLAIN: dict[Type, Callable[[Sequence[Any]], bool]] = {"text": values.are_clean, "timestamp": _are_seconds}
