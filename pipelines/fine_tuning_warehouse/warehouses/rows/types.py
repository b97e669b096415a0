"""Types of columns: those of engines, of dlt, and of Arrow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa

from openai_fine_tuning.schema import arrow_types


def kept_type(type_: pa.DataType) -> pa.DataType:
    """Return the Arrow type that is used for a type of an engine: all times are in UTC, all texts strings."""
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        return pa.timestamp("us", "UTC")
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    return type_


def arrow_type(hints: Mapping[str, Any]) -> pa.DataType:
    """Return the Arrow type of a column from dlt's hints; text if there is no better one."""
    more = {"decimal": pa.float64(), "date": pa.date32(), "time": pa.time64("us")}
    return {**arrow_types(), **more}.get(str(hints.get("data_type")), pa.string())


def dlt_type(type_: pa.DataType) -> str:
    """Return dlt's name of an Arrow type."""
    return next((name for name, known in arrow_types().items() if known == type_), "text")


def array_of(values: Any, type_: pa.DataType) -> pa.Array:
    """Convert values from a client of dlt to an Arrow array."""
    if pa.types.is_floating(type_):
        values = [None if value is None else float(value) for value in values]
    elif pa.types.is_integer(type_):
        values = [None if value is None else int(value) for value in values]
    elif pa.types.is_string(type_):
        values = [value if value is None or isinstance(value, str) else _text(value) for value in values]
    elif pa.types.is_boolean(type_):
        values = [None if value is None else bool(value) for value in values]
    elif pa.types.is_timestamp(type_):
        values = [_time(value) if isinstance(value, str) else value for value in values]
    return pa.array(values, type_)


def _time(value: str) -> datetime:
    """Parse a time that SQLite stores as text, in UTC."""
    time = datetime.fromisoformat(value)
    return time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)


def _text(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, (dict, list)) else str(value)
