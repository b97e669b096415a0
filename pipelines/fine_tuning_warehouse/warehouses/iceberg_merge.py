"""Upsert rows into an Iceberg table by their keys, in one commit.

dlt's own way upserts a thousand rows a commit, reads the table once for each, and fails once a column has been added
since the last one: pyiceberg then compares the rows with the columns of the last snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import And, EqualTo, In, Or
from pyiceberg.table import TableProperties

from .rows.types import kept_type


def merge(table: Any, rows: pa.Table, keys: Sequence[str]) -> None:
    """Upsert rows into a table by their keys, in one commit.

    Args:
        table: pyiceberg's table, which has all the columns.
        rows: The rows; each key occurs once.
        keys: The columns that identify a row, the one with the most values last.

    Raises:
        CommitFailedException: Another writer has changed the table meanwhile. Nothing was written: try again.
    """
    if not len(rows):
        return
    without_retries(table)
    present = None
    if table.current_snapshot() is not None:
        present = table.scan(row_filter=_those(rows, keys), selected_fields=tuple(keys)).to_arrow()
    if present is None or not len(present):
        table.append(rows)
    else:
        table.overwrite(rows, overwrite_filter=_those(present, keys))


def rows_with(table: Any, conditions: Mapping[str, Sequence[Any]]) -> pa.Table | None:
    """Return the rows with one of some values in each of some columns; None if a column is missing."""
    if not conditions.keys() <= set(table.schema().column_names):
        return None
    found = table.scan(row_filter=row_filter(conditions)).to_arrow()
    return found.cast(pa.schema([pa.field(field.name, kept_type(field.type)) for field in found.schema]))


def row_filter(conditions: Mapping[str, Sequence[Any]]) -> Any:
    """Return pyiceberg's condition for rows with one of some values in each of some columns."""
    first, *others = (In(column, set(values)) for column, values in conditions.items())
    return And(first, *others) if others else first


def without_retries(table: Any) -> Any:
    """Make commits to a table raise if another writer changed it. With a retry, pyiceberg appends rows twice."""
    properties = {**table.metadata.properties, TableProperties.COMMIT_NUM_RETRIES: "0"}
    table.metadata = table.metadata.model_copy(update={"properties": properties})
    return table


def _those(rows: pa.Table, keys: Sequence[str]) -> Any:
    """Return the condition that holds for exactly these keys."""
    *leading, last = keys
    groups: dict[tuple[Any, ...], set[Any]] = {}
    for row in zip(*(rows[name].to_pylist() for name in keys), strict=True):
        groups.setdefault(row[:-1], set()).add(row[-1])
    conditions = []
    for shared, values in groups.items():
        condition: Any = In(last, values)
        for name, value in zip(leading, shared, strict=True):
            condition = And(EqualTo(name, value), condition)
        conditions.append(condition)
    return conditions[0] if len(conditions) == 1 else Or(*conditions)
