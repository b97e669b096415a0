"""The rows of a warehouse as they stood at one moment: tables and views, as Arrow batches in a fixed order.

The one way in for all that reads a warehouse of whatever kind. Where its engine knows no views, they are computed here,
by DuckDB over a copy of the tables.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from openai_fine_tuning.tables import ARROW, TABLES, schema

from .destinations import Warehouse
from .errors import CommandError
from .patience import Patience
from .refusals import told
from .views import VIEWS
from .views.build import DIALECTS, READ_TABLES, Builder
from .workspace import working_directory

BATCH_ROWS = 20_000

SCHEMA = schema().name
"""dlt's name of the schema that all accounts of a warehouse share."""

Kind = Literal["table", "view"]

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
        """The columns that identify a row of a table; none for a view."""
        return TABLES[self.name].keys if self.kind == "table" else ()

    def only(self, *columns: str) -> Relation:
        """The same with these columns alone, as far as it has them."""
        return replace(self, schema=pa.schema([field for field in self.schema if field.name in columns]))

    @property
    def order(self) -> str:
        """What fixes the order of its rows."""
        columns = self.schema.names
        if self.keys and set(self.keys) <= set(columns):
            return ", ".join(str(columns.index(key) + 1) for key in self.keys)
        return ", ".join(str(number) for number in range(1, len(columns) + 1))


def relation(name: str, columns: Mapping[str, pa.DataType]) -> Relation:
    """A table or view with its descriptions."""
    kind: Kind = "table" if name in TABLES else "view"
    if kind == "table":
        about = TABLES[name].description
        described = {"_dlt_load_id": _LOAD_ID, **{column.name: column.description for column in TABLES[name].columns}}
    else:
        view = next(view for view in VIEWS if view.name == name)
        about, described = view.description, dict(view.columns)
    described = {column: described[column] for column in columns if column in described}
    fields = [
        pa.field(column, type_, metadata={"description": described[column]} if column in described else None)
        for column, type_ in columns.items()
    ]
    # Also beside the schema: what reads Parquet's own metadata, such as DuckDB, does not see that of Arrow's columns.
    metadata = {"description": about, "columns": json.dumps(described, ensure_ascii=True)}
    return Relation(name, kind, pa.schema(fields, metadata))


class Rows(ABC):
    """A warehouse at one moment.

    Attributes:
        relations: Its tables and views, in the order of their definition; none where nothing was synced yet.
    """

    relations: list[Relation]

    def relation(self, name: str) -> Relation | None:
        """A table or view by its name; None where there is none."""
        return next((one for one in self.relations if one.name == name), None)

    @abstractmethod
    def batches(self, relation: Relation, *, account: str | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of a table or view in its order, with its schema. Read them to the end before you ask for others.

        Args:
            relation: Which.
            account: Only the rows of this account.
        """

    @abstractmethod
    def accounts(self, relation: Relation) -> list[str]:
        """The accounts that have rows in a table or view."""

    def reader(self, relation: Relation, *, account: str | None = None) -> pa.RecordBatchReader:
        """The same as a stream that DuckDB reads."""
        return pa.RecordBatchReader.from_batches(relation.schema, self.batches(relation, account=account))


@contextmanager
def open_rows(
    warehouse: Warehouse, *, names: Collection[str] | None = None, lock_wait_seconds: float
) -> Iterator[Rows]:
    """Read a warehouse in one transaction, where it has those. Nothing is written to it.

    Args:
        warehouse: Which.
        names: The tables and views that are wanted; None for all. Others are not looked at.
        lock_wait_seconds: How long to wait for a sync that holds the DuckDB file.

    Raises:
        CommandError: There is none, or it cannot be read.
    """
    ours = [*TABLES, *(view.name for view in VIEWS)]
    wanted = [name for name in ours if names is None or name in names]
    patience = Patience(warehouse, lock_wait_seconds)
    with ExitStack() as stack:
        directory = stack.enter_context(working_directory())
        with told(warehouse, f"{warehouse.shown} cannot be read"):
            if warehouse.is_duckdb_file:
                connection = stack.enter_context(patience.apply(lambda: _opened(warehouse, directory)))
                rows: Rows = _File(connection, warehouse, wanted)
            else:
                rows = _of_destination(warehouse, wanted, directory, stack)
        yield rows


def _relations(found: Mapping[str, Mapping[str, pa.DataType]], wanted: Sequence[str]) -> list[Relation]:
    return [relation(name, found[name]) for name in wanted if found.get(name)]


# a DuckDB file --------------------------------------------------------------------------------------------------------


def _opened(warehouse: Warehouse, directory: Path) -> duckdb.DuckDBPyConnection:
    assert warehouse.database is not None  # noqa: S101 - a DuckDB file has a path
    if not warehouse.database.is_file():
        raise CommandError(f"There is no database {warehouse.database}: `ftw sync` makes it.")
    try:
        connection = duckdb.connect(str(warehouse.database), read_only=True, config=_bounded(directory))
    except duckdb.Error as error:
        if "Could not set lock on file" in str(error):
            raise  # it is waited for
        raise CommandError(f"The database {warehouse.database} cannot be opened: {_first_line(error)}") from None
    return connection


def _bounded(directory: Path) -> dict[str, str | bool | int | float | list[str]]:
    # What sorting takes beyond this goes to disk.
    return {"temp_directory": str(directory), "memory_limit": "1GB"}


class _File(Rows):
    """A DuckDB file: no one can write to it as long as it is open."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, wanted: Sequence[str]) -> None:
        self._connection = connection
        self._warehouse = warehouse
        self._unread = f"{warehouse.shown} cannot be read"
        self._dataset = _quoted(warehouse.dataset)
        connection.execute("SET enable_external_access = false")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("BEGIN TRANSACTION")
        rows = connection.execute(
            "SELECT DISTINCT table_name FROM duckdb_columns() WHERE schema_name = ?", [warehouse.dataset]
        ).fetchall()
        found = {}
        for name in {str(name) for (name,) in rows}.intersection(wanted):
            empty = connection.execute(f"SELECT * FROM {self._dataset}.{_quoted(name)} LIMIT 0")  # noqa: S608
            found[name] = {field.name: _plain(field.type) for field in _reader(empty).schema}
        self.relations = _relations(found, wanted)

    def batches(self, relation: Relation, *, account: str | None = None) -> Iterator[pa.RecordBatch]:
        """See `Rows`."""
        columns = ", ".join(map(_quoted, relation.schema.names))
        where, parameters = ("", []) if account is None else ("WHERE account = ?", [account])
        query = f"SELECT {columns} FROM {self._dataset}.{_quoted(relation.name)} {where} ORDER BY {relation.order}"  # noqa: S608
        with told(self._warehouse, self._unread):
            for batch in _reader(self._connection.execute(query, parameters)):
                arrays = [array.cast(field.type) for array, field in zip(batch.columns, relation.schema, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=relation.schema)

    def accounts(self, relation: Relation) -> list[str]:
        """See `Rows`."""
        query = f"SELECT DISTINCT account FROM {self._dataset}.{_quoted(relation.name)}"  # noqa: S608
        with told(self._warehouse, self._unread):
            return [str(label) for (label,) in self._connection.execute(query).fetchall()]


# any destination of dlt -----------------------------------------------------------------------------------------------


def _of_destination(warehouse: Warehouse, wanted: list[str], directory: Path, stack: ExitStack) -> Rows:
    from dlt.destinations.job_client_impl import SqlJobClientBase  # noqa: PLC0415 - see accounts

    pipeline = warehouse.pipeline("fine_tuning_rows", directory / "pipeline")
    destination: Any = pipeline.destination_client()
    client = stack.enter_context(destination)
    if not isinstance(client, SqlJobClientBase):
        # Tables that are files.
        return _copied(_lake_tables(client, warehouse, _needed(wanted)), warehouse, wanted, directory, stack)
    dialect = client.capabilities.sqlglot_dialect
    asked = wanted if dialect in DIALECTS else _needed(wanted)
    stored = {name: columns for name, columns in client.get_storage_tables(asked) if columns}
    if dialect == "postgres":
        stack.enter_context(client.sql_client.begin_transaction())
        client.sql_client.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return _Postgres(client.sql_client, stored, warehouse, asked)
    rows = _Sql(client.sql_client, stored, warehouse, asked)
    if dialect in DIALECTS:
        return rows
    return _copied({one.name: rows.reader(one) for one in rows.relations}, warehouse, wanted, directory, stack)


class _Sql(Rows):
    """A SQL database. Its rows come as tuples; the types are those that dlt knows its columns by."""

    def __init__(
        self, sql: Any, stored: Mapping[str, Mapping[str, Any]], warehouse: Warehouse, wanted: Sequence[str]
    ) -> None:
        self._sql = sql
        self._warehouse = warehouse
        self._unread = f"{warehouse.shown} cannot be read"
        # The destination may write names in upper case.
        self._names = {
            name: {str(column).lower(): str(column) for column in columns} for name, columns in stored.items()
        }
        types = {
            name: {str(column).lower(): _arrow_type(hints) for column, hints in columns.items()}
            for name, columns in stored.items()
        }
        self.relations = _relations(types, wanted)

    def batches(self, relation: Relation, *, account: str | None = None) -> Iterator[pa.RecordBatch]:
        """See `Rows`."""
        names = [self._names[relation.name][column] for column in relation.schema.names]
        columns = ", ".join(self._sql.escape_column_name(name) for name in names)
        table = self._sql.make_qualified_table_name(relation.name)
        where, parameters = "", ()
        if account is not None:
            name = self._sql.escape_column_name(self._names[relation.name]["account"])
            where, parameters = f"WHERE {name} = %s", (account,)  # type: ignore[assignment]
        query = f"SELECT {columns} FROM {table} {where} ORDER BY {relation.order}"  # noqa: S608
        with told(self._warehouse, self._unread):
            for rows in self._fetched(query, *parameters):
                values = zip(*rows, strict=True)
                arrays = [_array(column, field.type) for column, field in zip(values, relation.schema, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=relation.schema)

    def accounts(self, relation: Relation) -> list[str]:
        """See `Rows`."""
        name = self._sql.escape_column_name(self._names[relation.name]["account"])
        query = f"SELECT DISTINCT {name} FROM {self._sql.make_qualified_table_name(relation.name)}"  # noqa: S608
        with told(self._warehouse, self._unread):
            return [str(label) for (label,) in self._sql.execute_sql(query) or ()]

    def _fetched(self, query: str, *parameters: str) -> Iterator[list[tuple[Any, ...]]]:
        with self._sql.execute_query(query, *parameters) as cursor:
            yield from cursor.iter_fetch(BATCH_ROWS)


class _Postgres(_Sql):
    """PostgreSQL, whose client would fetch all rows at once but for a cursor in the server."""

    def _fetched(self, query: str, *parameters: str) -> Iterator[list[tuple[Any, ...]]]:
        self._sql.execute_sql(f"DECLARE fetched NO SCROLL CURSOR FOR {query}", *parameters)
        while rows := self._sql.execute_sql(f"FETCH FORWARD {BATCH_ROWS} FROM fetched"):
            yield list(rows)
        self._sql.execute_sql("CLOSE fetched")


# tables without views -------------------------------------------------------------------------------------------------

_LOADS = "_dlt_loads"


def _needed(wanted: Sequence[str]) -> list[str]:
    """The tables that are wanted, and those that views are computed from."""
    has_views = any(name not in TABLES for name in wanted)
    return [name for name in (*TABLES, _LOADS) if name in wanted or (has_views and name in READ_TABLES)]


def _copied(
    tables: Mapping[str, Any], warehouse: Warehouse, wanted: Sequence[str], directory: Path, stack: ExitStack
) -> Rows:
    """A DuckDB file with a copy of the tables, and the views over them: it lies beside, until the reading is done."""
    connection = stack.enter_context(duckdb.connect(str(directory / "rows.duckdb"), config=_bounded(directory)))
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"CREATE SCHEMA {_quoted(warehouse.dataset)}")
    types: dict[str, dict[str, str]] = {}

    def path(name: str) -> str:
        return f"{_quoted(warehouse.dataset)}.{_quoted(name)}"

    for name, rows in tables.items():
        connection.register("rows_to_copy", rows)
        connection.execute(f"CREATE TABLE {path(name)} AS FROM rows_to_copy")
        connection.unregister("rows_to_copy")
        types[name] = {field.name: _dlt_type(_plain(field.type)) for field in rows.schema}
    builder = Builder("duckdb", types, lambda name: [warehouse.dataset, name])
    for view in builder.views:
        connection.execute(f"CREATE VIEW {path(view.name)} AS {builder.select(view)}")
    return _File(connection, warehouse, wanted)


def _lake_tables(client: Any, warehouse: Warehouse, names: Sequence[str]) -> dict[str, Any]:
    """For each table that is there something that DuckDB can scan; its own readers of such tables are a download."""
    from dlt.common.destination.exceptions import (  # noqa: PLC0415 - see accounts
        DestinationUndefinedEntity,
        OpenTableFormatNotSupported,
    )
    from dlt.common.schema import Schema  # noqa: PLC0415

    # The schema that the last sync left beside the tables says which there are.
    stored = client.get_stored_schema(SCHEMA)
    if stored is None:
        return {}
    client.schema = Schema.from_stored_schema(json.loads(stored.schema))
    tables: dict[str, Any] = {}
    for name in names:
        if name == _LOADS:
            # One file a load, which is written at its end.
            files = [Path(file).stem for file in client.list_table_files(client.schema.loads_table_name)]
            ids = [file.partition("__")[2] for file in files if file.startswith(f"{SCHEMA}__")]
            tables[name] = pa.table({"load_id": pa.array(ids, pa.string()), "status": pa.array([0] * len(ids))})
            continue
        try:
            table = client.load_open_table(warehouse.table_format, name)
        except OpenTableFormatNotSupported as error:
            raise CommandError(
                f"{warehouse.shown} does not hold {name} in the format {warehouse.table_format}: "
                "say with --table-format which one it is."
            ) from error
        except DestinationUndefinedEntity:
            continue
        is_delta = warehouse.table_format == "delta"
        tables[name] = table.to_pyarrow_dataset() if is_delta else table.scan().to_arrow_batch_reader()
    return tables


# types ----------------------------------------------------------------------------------------------------------------


def _reader(cursor: duckdb.DuckDBPyConnection) -> pa.RecordBatchReader:
    read = getattr(cursor, "to_arrow_reader", None) or cursor.fetch_record_batch  # DuckDB 1.5 renamed it
    return read(BATCH_ROWS)


def _plain(type_: pa.DataType) -> pa.DataType:
    """The type that is kept: sums of integers come as decimals, times in the zone of whoever reads."""
    if pa.types.is_decimal(type_) and type_.scale == 0:
        return pa.int64()
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        return pa.timestamp("us", "UTC")
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    return type_


def _arrow_type(hints: Mapping[str, Any]) -> pa.DataType:
    """The type of a column by dlt's name of it; what has no better one is kept as text."""
    more = {"decimal": pa.float64(), "date": pa.date32(), "time": pa.time64("us"), "binary": pa.binary()}
    return {**ARROW, **more}.get(str(hints.get("data_type")), pa.string())


def _dlt_type(type_: pa.DataType) -> str:
    """dlt's name of a type."""
    return next((name for name, known in ARROW.items() if known == type_), "text")


def _array(values: Any, type_: pa.DataType) -> pa.Array:
    if pa.types.is_floating(type_):
        values = [None if value is None else float(value) for value in values]
    elif pa.types.is_integer(type_):
        values = [None if value is None else int(value) for value in values]
    elif pa.types.is_string(type_):
        values = [value if value is None or isinstance(value, str) else _text(value) for value in values]
    elif pa.types.is_binary(type_):
        values = [None if value is None else bytes(value) for value in values]
    return pa.array(values, type_)


def _text(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, (dict, list)) else str(value)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
