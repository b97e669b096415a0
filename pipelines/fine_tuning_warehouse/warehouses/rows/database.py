"""The rows of a DuckDB file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
from typing_extensions import override

from fine_tuning_warehouse.warehouses.sql_text import quoted
from fine_tuning_warehouse.warehouses.warehouse import Warehouse

from .relations import (
    BATCH_ROWS,
    Conditions,
    Relation,
    Rows,
    readable,
    relations_of,
    where_clause,
)
from .types import kept_type


def bounded(directory: Path) -> dict[str, str | bool | int | float | list[str]]:
    """Return settings of a connection that bound its memory: sorting uses the disk beyond that."""
    return {
        "temp_directory": str(directory),
        "memory_limit": "1GB",
        "secret_directory": str(directory / "secrets"),  # none is found there, as some would be in the user's home
        "python_enable_replacements": "false",  # a table's name never means a variable of this program
    }


class DuckdbRows(Rows):
    """Read a DuckDB file. No process can write to it while it is open."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, wanted: Sequence[str]) -> None:
        self._connection = connection
        self._warehouse = warehouse
        self._dataset = quoted(warehouse.dataset)
        connection.execute("SET enable_external_access = false")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("BEGIN TRANSACTION")
        rows = connection.execute(
            "SELECT DISTINCT table_name FROM duckdb_columns() "
            "WHERE schema_name = ? AND database_name = current_database()",
            [warehouse.dataset],
        ).fetchall()
        found = {}
        for name in {str(name) for (name,) in rows}.intersection(wanted):
            empty = connection.execute(f"SELECT * FROM {self._dataset}.{quoted(name)} LIMIT 0")  # noqa: S608
            found[name] = {field.name: kept_type(field.type) for field in reader_of(empty).schema}
        self.relations = relations_of(found, wanted)

    @override
    def batches(self, relation: Relation, conditions: Conditions | None = None) -> Iterator[pa.RecordBatch]:
        columns = ", ".join(map(quoted, relation.schema.names))
        where, parameters = where_clause(conditions or {}, quoted, "?")
        query = f"SELECT {columns} FROM {self._dataset}.{quoted(relation.name)} {where} ORDER BY {relation.order}"  # noqa: S608
        with readable(self._warehouse):
            for batch in reader_of(self._connection.execute(query, parameters)):
                arrays = [array.cast(field.type) for array, field in zip(batch.columns, relation.schema, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=relation.schema)

    @override
    def counts(self, relation: Relation) -> dict[str, int]:
        query = f"SELECT account, count(*) FROM {self._dataset}.{quoted(relation.name)} GROUP BY 1"  # noqa: S608
        with readable(self._warehouse):
            return {str(label): int(number) for label, number in self._connection.execute(query).fetchall()}


def reader_of(cursor: duckdb.DuckDBPyConnection) -> pa.RecordBatchReader:
    """Return the result of a query as a stream of batches."""
    read = getattr(cursor, "to_arrow_reader", None) or cursor.fetch_record_batch  # DuckDB 1.5 renamed it
    return read(BATCH_ROWS)
