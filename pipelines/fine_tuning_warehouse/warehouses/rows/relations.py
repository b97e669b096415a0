"""Tables and views with the descriptions of their columns, and the interface to read their rows."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.views import VIEWS
from fine_tuning_warehouse.warehouses.errors import destination_errors
from fine_tuning_warehouse.warehouses.warehouse import Warehouse

BATCH_ROWS = 20_000

Kind = Literal["table", "view"]

Conditions = Mapping[str, Sequence[str]]
"""Column to the values that a row may have there."""

_LOAD_ID = "Id of the load that brought the row: dlt's, a time in unix seconds."


@dataclass(frozen=True)
class Relation:
    """A table or a view.

    Attributes:
        name: Its name, in lower case.
        kind: Which of the two it is.
        schema: Its columns, each with its description, as far as it has one, in the metadata.
    """

    name: str
    kind: Kind
    schema: pa.Schema

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that identify a row of a table of ours; none for a view, or a table of dlt's."""
        return TABLES[self.name].keys if self.name in TABLES else ()

    def only(self, *columns: str) -> Relation:
        """Return a copy with only those of these columns that exist."""
        return replace(self, schema=pa.schema([field for field in self.schema if field.name in columns]))

    @property
    def order(self) -> str:
        """The ORDER BY that fixes the order of its rows: column numbers."""
        columns = self.schema.names
        if self.keys and set(self.keys) <= set(columns):
            return ", ".join(str(columns.index(key) + 1) for key in self.keys)
        return ", ".join(str(number) for number in range(1, len(columns) + 1))


def relation(name: str, columns: Mapping[str, pa.DataType]) -> Relation:
    """Return a table or view, with the descriptions of its columns as metadata of the schema."""
    view = next((view for view in VIEWS if view.name == name), None)
    kind: Kind = "table" if view is None else "view"
    about, described = ("", {}) if view is None else (view.description, dict(view.columns))
    if name in TABLES:  # else dlt's table of loads, which views read
        about = TABLES[name].description
        described = {"_dlt_load_id": _LOAD_ID, **{column.name: column.description for column in TABLES[name].columns}}
    described = {column: described[column] for column in columns if column in described}
    fields = [
        pa.field(column, type_, metadata={"description": described[column]} if column in described else None)
        for column, type_ in columns.items()
    ]
    # All descriptions once more, for the file: DuckDB and others read Parquet's own metadata, but not that of a column.
    metadata = {"description": about, "columns": json.dumps(described, ensure_ascii=True)}
    return Relation(name, kind, pa.schema(fields, metadata))


def relations_of(found: Mapping[str, Mapping[str, pa.DataType]], wanted: Sequence[str]) -> list[Relation]:
    """Return those of the wanted tables and views that exist."""
    return [relation(name, found[name]) for name in wanted if found.get(name)]


class Rows(ABC):
    """Read the rows of a warehouse as they are at one moment.

    Attributes:
        relations: The tables and views, in the order of their definition; empty if nothing was synced yet.
        failure: The error that ended a stream of `reader`: DuckDB, which reads it, has a traceback for its message.
    """

    relations: list[Relation]
    failure: CommandError | None = None

    def relation(self, name: str) -> Relation | None:
        """Return a table or view by its name; None if it does not exist."""
        return next((one for one in self.relations if one.name == name), None)

    @abstractmethod
    def batches(self, relation: Relation, conditions: Conditions | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a table or view in its order, with its schema. Read them to the end before others.

        Args:
            relation: The table or view.
            conditions: Only the rows with one of some values in each of some columns.
        """

    @abstractmethod
    def counts(self, relation: Relation) -> dict[str, int]:
        """Return the accounts that have rows in a table or view, with the number of rows."""

    def accounts(self) -> list[str]:
        """Return the accounts that have rows in any table or view, in the order of their labels."""
        return sorted({label for relation in self.relations for label in self.counts(relation)})

    def reader(self, relation: Relation, conditions: Conditions | None = None) -> pa.RecordBatchReader:
        """Return the rows of `batches` as a stream that DuckDB reads."""

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                yield from self.batches(relation, conditions)
            except CommandError as error:
                self.failure = error
                raise

        return pa.RecordBatchReader.from_batches(relation.schema, batches())


def where_clause(
    conditions: Mapping[str, Sequence[Any]], written: Callable[[str], str], placeholder: str
) -> tuple[str, list[Any]]:
    """Return the WHERE clause for rows with one of some values in each of some columns, and its parameters.

    Args:
        conditions: Column to values.
        written: Returns the name of a column as SQL has it.
        placeholder: What stands for a parameter.
    """
    parts = [f"{written(name)} IN ({', '.join([placeholder] * len(values))})" for name, values in conditions.items()]
    where = f"WHERE {' AND '.join(parts)}" if parts else ""
    return where, [value for values in conditions.values() for value in values]


def readable(warehouse: Warehouse) -> AbstractContextManager[None]:
    """Raise errors of reading a warehouse as `CommandError`, in one line."""
    return destination_errors(warehouse, f"{warehouse.shown} cannot be read")
