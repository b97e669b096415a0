"""Rows into an Iceberg table by their keys, in one commit.

dlt's own way upserts a thousand rows a commit, reads the table once for each, and fails once a column has been added
since the last one: pyiceberg then compares the rows with the columns of the last snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.schema.utils import get_columns_names_with_prop
from dlt.destinations.impl.filesystem.filesystem import IcebergLoadFilesystemJob


class IcebergJob(IcebergLoadFilesystemJob):
    """Loads what one package brings for one table."""

    def run(self) -> None:
        """See dlt."""
        from dlt.common.libs.pyiceberg import ensure_iceberg_compatible_arrow_data  # noqa: PLC0415 - an extra of dlt

        if self._load_table["write_disposition"] != "merge":
            super().run()
            return
        try:
            table = self._job_client.load_open_table("iceberg", self.load_table_name, schema=self.arrow_dataset.schema)
        except DestinationUndefinedEntity:
            super().run()  # makes the table, and comes back here
            return
        rows = ensure_iceberg_compatible_arrow_data(self.arrow_dataset.to_table())
        hints: Any = self._load_table
        merge(table, rows, get_columns_names_with_prop(hints, "primary_key"))


def merge(table: Any, rows: pa.Table, keys: Sequence[str]) -> None:
    """Put rows into a table, each in the place of the one with its key, where there is one.

    Args:
        table: pyiceberg's table, which has all the columns.
        rows: No two of the same key.
        keys: The columns that identify a row, the one with the most values last.
    """
    if not len(rows):
        return
    present = None
    if table.current_snapshot() is not None:
        present = table.scan(row_filter=_those(rows, keys), selected_fields=tuple(keys)).to_arrow()
    if present is None or not len(present):
        table.append(rows)
    else:
        table.overwrite(rows, overwrite_filter=_those(present, keys))


def _those(rows: pa.Table, keys: Sequence[str]) -> Any:
    """The condition that holds for exactly these keys."""
    from pyiceberg.expressions import And, EqualTo, In, Or  # noqa: PLC0415 - an extra of dlt

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
