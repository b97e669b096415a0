"""The rows and the state of one account in a warehouse: delete them, or give them another label."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from dlt.common.destination.client import WithStagingDataset
from dlt.common.destination.exceptions import DestinationUndefinedEntity

from fine_tuning_warehouse.schema import SCHEMA, TABLES

from .dlt_seam import is_sql, read_stored_schema, source_state, stored_states
from .rows.lake import open_tables
from .rows.sql import where_clause
from .sql_text import literal
from .warehouse import Warehouse

if TYPE_CHECKING:
    import dlt

Condition = Mapping[str, list[str]]
"""Columns with the values that a row must have: all columns, one value of each."""

Result = TypeVar("Result")


def conditions(label: str, job: str | None = None, files: list[str] | None = None) -> dict[str, Condition]:
    """Return for each table the rows of an account, or those of one of its jobs and of the files of that job."""
    if job is None:
        return {name: {"account": [label]} for name in TABLES}
    of_job = {name: "fine_tuning_job_id" for name in TABLES if "fine_tuning_job_id" in TABLES[name].types}
    found: dict[str, Condition] = {name: {"account": [label], column: [job]} for name, column in of_job.items()}
    found["jobs"] = {"account": [label], "id": [job]}
    if files:
        found["files"] = {"account": [label], "id": files}
    return found


class AccountRows:
    """Writes to the rows of one account, outside a sync. The warehouse is locked by the caller.

    Args:
        warehouse: The warehouse.
        pipeline: The pipeline of the account, with its state restored.
    """

    def __init__(self, warehouse: Warehouse, pipeline: dlt.Pipeline) -> None:
        self._warehouse = warehouse
        self._pipeline = pipeline

    def delete(self, wanted: Mapping[str, Condition]) -> dict[str, int]:
        """Delete rows, also those that the last merge has staged. Returns the number of rows, by table."""

        def delete(client: Any) -> dict[str, int]:
            if not is_sql(client):
                return {name: _delete_files(table, wanted[name]) for name, table in self._tables(client, wanted)}
            with _transaction(client):
                deleted = _delete_sql(client, wanted)
                self._delete_materialized(client, wanted)
            if isinstance(client, WithStagingDataset):
                with client.with_staging_dataset(), _transaction(client):
                    _delete_sql(client, wanted)
            return deleted

        return self._write(delete)

    def update(self, wanted: Mapping[str, Condition], column: str, value: str) -> None:
        """Set a column to a text in the rows that meet the conditions."""

        def update(client: Any) -> None:
            if is_sql(client):
                with _transaction(client):
                    if "events" in wanted:  # what an earlier release has left of the new label
                        self._delete_materialized(client, {"events": {column: [value]}})
                    for name, where, values in (*_wheres(client, wanted), *self._materialized(client, wanted)):
                        query = f"UPDATE {name} SET {column} = %s {where}"  # noqa: S608 - names of our own tables
                        client.sql_client.execute_sql(query, value, *values)
                return
            for name, table in self._tables(client, wanted):
                _update_files(table, wanted[name], column, value)

        self._write(update)

    def delete_state(self) -> None:
        """Delete the state of the account: the next sync of it reads everything."""

        def delete(client: Any) -> None:
            table, name = client.schema.state_table_name, self._pipeline.pipeline_name
            with suppress(DestinationUndefinedEntity):
                if is_sql(client):
                    place = client.sql_client.make_qualified_table_name(table)
                    client.sql_client.execute_sql(f"DELETE FROM {place} WHERE pipeline_name = %s", name)  # noqa: S608
                    return
                for file in client.list_table_files(table):
                    if client.pathlib.basename(file).startswith(f"{name}__"):
                        client.fs_client.rm(file)

        self._write(delete)

    def change_state(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the state of the source, and load it. `change` gets the state, which it changes in place."""
        pipeline = self._pipeline
        if SCHEMA not in pipeline.schema_names:
            return

        with pipeline.managed_state(extract_state=True) as state:
            change(state.setdefault("sources", {}).setdefault(SCHEMA, {}))
        pipeline.normalize()
        if pipeline.has_pending_data:
            self._warehouse.load(pipeline)

    def state(self) -> dict[str, Any]:
        """Return the state of the source; empty if no sync of the account has completed."""
        return source_state(self._pipeline) or {}

    def schema(self) -> dlt.Schema:
        """Return the schema of the tables, as the last load has left it."""
        return self._pipeline.schemas[SCHEMA].clone()

    def _materialized(self, client: Any, wanted: Mapping[str, Condition]) -> Iterator[tuple[str, str, list[str]]]:
        """Yield each table with rows of views, with the WHERE clause and its values, where events are wanted too."""
        if "events" not in wanted:
            return
        for table, columns in self._warehouse.materialized_tables(client.sql_client).items():
            condition = {column: values for column, values in wanted["events"].items() if column in columns}
            if condition:
                yield table, *where_clause(client.sql_client, {column: column for column in columns}, condition)

    def _delete_materialized(self, client: Any, wanted: Mapping[str, Condition]) -> None:
        for table, where, values in self._materialized(client, wanted):
            client.sql_client.execute_sql(f"DELETE FROM {table} {where}", *values)  # noqa: S608 - our own tables

    def _tables(self, client: Any, wanted: Mapping[str, Condition]) -> Iterator[tuple[str, Any]]:
        if read_stored_schema(client) is not None:
            yield from open_tables(client, self._warehouse, list(wanted))

    def _write(self, step: Callable[[Any], Result]) -> Result:
        def attempt() -> Result:
            with (
                self._warehouse.session(self._pipeline),
                self._pipeline.destination_client() as client,
            ):
                return step(client)

        with self._warehouse.exclusive_load(self._pipeline):
            return self._warehouse.attempt(attempt)


def label_of(pipeline: dlt.Pipeline, identity: str) -> str | None:
    """Return the account that a host and key have been read as; None if they have not been.

    Args:
        pipeline: A pipeline into the warehouse.
        identity: The fingerprint of host and key.
    """
    destination: Any = pipeline.destination_client()
    with destination as client:
        for state in stored_states(client):
            for resource in state.get("resources", {}).values():
                for label, states in resource.get("frontiers", {}).items():
                    if identity in states:
                        return str(label)
    return None


def _transaction(client: Any) -> Any:
    return client.sql_client.begin_transaction() if client.capabilities.supports_transactions else nullcontext()


def _delete_sql(client: Any, wanted: Mapping[str, Condition]) -> dict[str, int]:
    deleted = dict.fromkeys(wanted, 0)
    names = {client.sql_client.make_qualified_table_name(name): name for name in wanted}
    for table, where, values in _wheres(client, wanted):
        query = f"SELECT count(*) FROM {table} {where}"  # noqa: S608 - names of our own tables
        deleted[names[table]] = int(client.sql_client.execute_sql(query, *values)[0][0])
        if deleted[names[table]]:
            client.sql_client.execute_sql(f"DELETE FROM {table} {where}", *values)  # noqa: S608
    return deleted


def _wheres(client: Any, wanted: Mapping[str, Condition]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each table that exists, with the WHERE clause and its values."""
    if not client.is_storage_initialized():
        return
    for name, columns in list(client.get_storage_tables(list(wanted))):
        if not columns:
            continue
        names = {str(column).lower(): str(column) for column in columns}
        yield client.sql_client.make_qualified_table_name(name), *where_clause(client.sql_client, names, wanted[name])


def _delete_files(table: Any, condition: Condition) -> int:
    if hasattr(table, "to_pyarrow_dataset"):
        return int(table.delete(_predicate(condition))["num_deleted_rows"])
    from .iceberg_merge import row_filter, without_retries  # noqa: PLC0415 - needs pyiceberg

    number = int(table.scan(row_filter=row_filter(condition)).count())
    if number:
        without_retries(table).delete(row_filter(condition))
    return number


def _update_files(table: Any, condition: Condition, column: str, value: str) -> None:
    if hasattr(table, "to_pyarrow_dataset"):
        table.update(predicate=_predicate(condition), updates={column: literal(value)})
        return
    import pyarrow as pa  # noqa: PLC0415 - see accounts

    from .iceberg_merge import row_filter, without_retries  # noqa: PLC0415 - needs pyiceberg

    rows = table.scan(row_filter=row_filter(condition)).to_arrow()
    if len(rows):
        index = rows.schema.get_field_index(column)
        rows = rows.set_column(index, rows.schema.field(index), pa.array([value] * len(rows), rows.schema.types[index]))
        without_retries(table).overwrite(rows, overwrite_filter=row_filter(condition))


def _predicate(condition: Condition) -> str:
    return " AND ".join(f"{column} IN ({', '.join(map(literal, values))})" for column, values in condition.items())


def without_job(skipped: str | None, job: str) -> str | None:
    """Return the column `skipped` of a sync without what it says of a job; None if it says nothing of the job."""
    found = json.loads(skipped or "[]")
    kept = [one for one in found if one.get("job") != job]
    return None if len(kept) == len(found) else json.dumps(kept)
