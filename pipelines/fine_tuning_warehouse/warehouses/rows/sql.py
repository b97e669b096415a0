"""The rows of a SQL database, by dlt's client of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
from typing_extensions import override

from fine_tuning_warehouse.views.build import DIALECTS
from fine_tuning_warehouse.warehouses.warehouse import Warehouse

from . import relations
from .database import reader_of
from .relations import (
    BATCH_ROWS,
    Conditions,
    Relation,
    Rows,
    readable,
    relations_of,
)
from .types import array_of, arrow_type, kept_type


def supports_views(client: Any) -> bool:
    """Return whether the views can be made in the dialect of a client."""
    return client.capabilities.sqlglot_dialect in DIALECTS


def rows_with(client: Any, name: str, conditions: Mapping[str, Sequence[Any]]) -> pa.Table | None:
    """Return the rows with one of some values in each of some columns; None if the table or a column is missing."""
    hints = dict(client.get_storage_tables([name]))[name]
    names = {str(column).lower(): str(column) for column in hints}
    if not conditions.keys() <= names.keys():
        return None
    sql = client.sql_client
    columns = ", ".join(map(sql.escape_column_name, names.values()))
    where, values = where_clause(sql, names, conditions)
    query = f"SELECT {columns} FROM {sql.make_qualified_table_name(name)} {where}"  # noqa: S608
    with sql.execute_query(query, *values) as cursor:
        if isinstance(cursor.native_cursor, duckdb.DuckDBPyConnection):
            found = reader_of(cursor.native_cursor).read_all()
            kept = [column.cast(kept_type(column.type)) for column in found.columns]
            return pa.table(dict(zip(names, kept, strict=True)))
        types = [arrow_type(hints[column]) for column in names.values()]
        rows = list(zip(*cursor.fetchall(), strict=True)) or [()] * len(types)
        return pa.table(
            {column: array_of(values, type_) for column, values, type_ in zip(names, rows, types, strict=True)}
        )


def where_clause(sql: Any, names: Mapping[str, str], conditions: Mapping[str, Sequence[Any]]) -> tuple[str, list[Any]]:
    """Return the WHERE clause for rows with one of some values in each of some columns, and its parameters.

    `names` are the columns of the table: in lower case, and as the destination writes them.
    """
    return relations.where_clause(conditions, lambda name: str(sql.escape_column_name(names.get(name, name))), "%s")


class SqlRows(Rows):
    """Read a SQL database through dlt. Its rows come as tuples; the types are those that dlt declares."""

    def __init__(
        self, sql: Any, stored: Mapping[str, Mapping[str, Any]], warehouse: Warehouse, wanted: Sequence[str]
    ) -> None:
        self._sql = sql
        self._warehouse = warehouse
        # The destination may write names in upper case.
        self._names = {
            name: {str(column).lower(): str(column) for column in columns} for name, columns in stored.items()
        }
        types = {
            name: {str(column).lower(): arrow_type(hints) for column, hints in columns.items()}
            for name, columns in stored.items()
        }
        self.relations = relations_of(types, wanted)

    @override
    def batches(self, relation: Relation, conditions: Conditions | None = None) -> Iterator[pa.RecordBatch]:
        names = [self._names[relation.name][column] for column in relation.schema.names]
        columns = ", ".join(self._sql.escape_column_name(name) for name in names)
        table = self._sql.make_qualified_table_name(relation.name)
        where, parameters = where_clause(self._sql, self._names[relation.name], conditions or {})
        query = f"SELECT {columns} FROM {table} {where} ORDER BY {relation.order}"  # noqa: S608
        with readable(self._warehouse):
            for rows in self._fetched(query, *parameters):
                values = zip(*rows, strict=True)
                arrays = [array_of(column, field.type) for column, field in zip(values, relation.schema, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=relation.schema)

    @override
    def counts(self, relation: Relation) -> dict[str, int]:
        name = self._sql.escape_column_name(self._names[relation.name]["account"])
        table = self._sql.make_qualified_table_name(relation.name)
        query = f"SELECT {name}, count(*) FROM {table} GROUP BY {name}"  # noqa: S608
        with readable(self._warehouse):
            return {str(label): int(number) for label, number in self._sql.execute_sql(query) or ()}

    def _fetched(self, query: str, *parameters: str) -> Iterator[list[tuple[Any, ...]]]:
        with self._sql.execute_query(query, *parameters) as cursor:
            yield from cursor.iter_fetch(BATCH_ROWS)


class PostgresRows(SqlRows):
    """Read PostgreSQL through a cursor in the server: its client would fetch all rows at once."""

    def _fetched(self, query: str, *parameters: str) -> Iterator[list[tuple[Any, ...]]]:
        self._sql.execute_sql(f"DECLARE fetched NO SCROLL CURSOR FOR {query}", *parameters)
        while rows := self._sql.execute_sql(f"FETCH FORWARD {BATCH_ROWS} FROM fetched"):
            yield list(rows)
        self._sql.execute_sql("CLOSE fetched")
