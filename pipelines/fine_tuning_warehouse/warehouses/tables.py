"""The tables of a SQL database compared with what syncs have left there: what is missing is made again.

dlt looks at the tables only when its schema has changed, and adds a column that is never null as NOT NULL, which no
engine does to a table that has rows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.destination.client import WithStagingDataset
from dlt.common.schema import Schema
from dlt.common.schema.utils import pipeline_state_table
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.destinations.job_client_impl import SqlJobClientBase

from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.schema import SCHEMA, SYNCS, TABLES

from .dlt_seam import stored_states
from .rows.types import arrow_type
from .warehouse import PIPELINE_PREFIX

ADDED = "x-added"
"""The hint, in dlt's schema, of a column that no sync has made."""

LOAD_ID = "_dlt_load_id"
"""The column that says which load brought a row."""

logger = logging.getLogger(__name__)

Columns = Mapping[str, Any]
"""The columns of a table as dlt describes them, by name."""


def add_stored_columns(pipeline: dlt.Pipeline, schema: Schema, *, check_types: bool) -> list[str]:
    """Compare the tables with what was read into them; forget what was read if a table or a column is missing.

    A new account and a pipeline whose stored schema was dropped learn from the database which columns are there, so
    that a value is read as the type of its column.

    Args:
        pipeline: A pipeline that has restored its state. Its state is emptied if something is missing.
        schema: The schema that is about to be loaded; gets the columns that the database has beside the declared ones.
        check_types: Refuse a column of another type than declared.

    Returns:
        What was missing, in words. Everything is read once more, by each account.

    Raises:
        CommandError: A column has another type than the rows need.
    """
    with pipeline.destination_client() as client:
        if not isinstance(client, SqlJobClientBase) or not client.is_storage_initialized():
            return []
        tables = {name: columns for name, columns in client.get_storage_tables(list(TABLES)) if columns}
        if check_types:
            _check_types(tables)
        stored, made = _stored_schema(pipeline, client), _made(pipeline, client)
        missing = list(_missing(made, stored, tables))
        for name, columns in tables.items():
            if missing or name not in {*made, SYNCS.name}:  # what no state knows is read from the start in any case
                _set_aside(client, name, [key for key in TABLES[name].keys if key not in columns])
        if missing:
            _forget(client)
            with pipeline.managed_state() as state:
                state.get("sources", {}).pop(SCHEMA, None)
    for name, columns in tables.items():
        known = stored.get(name, {}).get("columns", {})
        added: Any = {
            column: {
                "name": column,
                "data_type": hints["data_type"],
                "nullable": True,
                **({} if _is_read(known.get(column)) else {ADDED: True}),
            }
            for column, hints in columns.items()
            if column not in TABLES[name].types and not column.startswith("_dlt_") and hints.get("data_type")
        }
        schema.update_table({"name": name, "columns": added})
    return missing


def _is_read(column: Any) -> bool:
    return column is not None and ADDED not in column


def added_columns(schema: Schema, name: str) -> dict[str, pa.DataType]:
    """Return the columns of a table that somebody has added, each with its type."""
    columns = schema.tables.get(name, {}).get("columns", {})
    return {column: arrow_type(hints) for column, hints in columns.items() if ADDED in hints}


def set_aside_changed(pipeline: dlt.Pipeline, *, check_types: bool) -> list[str]:
    """Rename those of dlt's own tables that lack a column or have one of another type: dlt makes them again.

    dlt then finds no earlier sync, so that everything is read once more.

    Args:
        pipeline: A pipeline that has not restored its state yet.
        check_types: Compare the types of columns too.

    Returns:
        What was changed, in words.
    """
    changed = []
    with pipeline.destination_client() as client:
        if not isinstance(client, SqlJobClientBase) or not client.is_storage_initialized():
            return []
        schema = client.schema.clone()
        schema.update_table(pipeline_state_table())
        expected = {name: schema.tables[name]["columns"] for name in schema.dlt_table_names()}
        for name, columns in client.get_storage_tables(list(expected)):
            types = {column.lower(): data_type for column, data_type in _types(columns).items()}
            unlike = [
                column
                for column, hints in expected[name].items()
                if column not in types or (check_types and types[column] != hints["data_type"])
            ]
            if columns and unlike:
                aside = f"{name}_{_now()}"
                table = client.sql_client.make_qualified_table_name(name)
                client.sql_client.execute_sql(f"ALTER TABLE {table} RENAME TO {aside}")
                changed.append(f"in the table {name} the columns {', '.join(unlike)} (its rows are kept in {aside})")
    return changed


def _made(pipeline: dlt.Pipeline, client: Any) -> dict[str, str]:
    """Return the tables that syncs have made, each with the digest of the columns that it was made with.

    The states of the other accounts are only read if this account has not made all tables.
    """
    made = _made_by(pipeline.state.get("sources", {}).get(SCHEMA, {}))
    if not TABLES.keys() - {SYNCS.name} <= made.keys():
        for state in stored_states(client):
            made = {**_made_by(state), **made}
    return made


def _made_by(state: Mapping[str, Any]) -> dict[str, str]:
    resources = state.get("resources", {}).values()
    return {name: digest for resource in resources for name, digest in resource.get("tables", {}).items()}


def _stored_schema(pipeline: dlt.Pipeline, client: Any) -> Mapping[str, Any]:
    """Return the tables of the schema that the last load has left; none if it is gone."""
    if SCHEMA in pipeline.schema_names:
        return pipeline.schemas[SCHEMA].tables
    stored = client.get_stored_schema(SCHEMA)
    return {} if stored is None else Schema.from_dict(json.loads(stored.schema)).tables


def _missing(made: Mapping[str, str], stored: Mapping[str, Any], tables: Mapping[str, Columns]) -> Iterator[str]:
    """Yield the tables and columns that syncs have made, and that are not there."""
    for name, digest in made.items():
        if name not in tables:
            yield f"the table {name}"
            continue
        known = set(stored.get(name, {}).get("columns", {})) - {LOAD_ID}
        # What a later release declares is made when the resource is next read.
        known = known | set(TABLES[name].types) if digest == TABLES[name].digest else known - set(TABLES[name].types)
        lacking = sorted(known - set(tables[name]))
        if lacking:
            yield f"of the table {name} the columns {', '.join(lacking)}"


def _check_types(tables: Mapping[str, Columns]) -> None:
    for name, columns in tables.items():
        for column, declared in TABLES[name].types.items():
            expected = "text" if declared == "json" else declared
            found = columns.get(column, {}).get("data_type", expected)
            if found != expected:
                raise CommandError(
                    f"The column {column} of the table {name} has the type {found}, expected {expected}: it was "
                    "changed. Change it back, or drop the column: the next sync makes it again and reads its values."
                )


def _set_aside(client: SqlJobClientBase, table: str, lacking_keys: list[str]) -> None:
    """Move rows that have lost a key column to a table of their own: nothing can be merged into them any more."""
    if not lacking_keys:
        return
    aside = f"{table}_without_{'_'.join(lacking_keys)}_{_now()}"
    old, new = (client.sql_client.make_qualified_table_name(name) for name in (table, aside))
    for statement in (f"CREATE TABLE {new} AS SELECT * FROM {old}", f"DELETE FROM {old} WHERE 1 = 1"):  # noqa: S608
        client.sql_client.execute_sql(statement)
    logger.warning("The rows of %s have lost their key. They are kept in the table %s.", table, aside)


def _now() -> str:
    return f"{datetime.now(timezone.utc):%Y%m%d%H%M%S}"


def _forget(client: SqlJobClientBase) -> None:
    """Forget what every account has read: the rows of all of them are gone with a table or a column."""
    state = client.sql_client.make_qualified_table_name(client.schema.state_table_name)
    try:
        ours = f"{PIPELINE_PREFIX}%"
        client.sql_client.execute_sql(f"DELETE FROM {state} WHERE pipeline_name LIKE %s", ours)  # noqa: S608
    except DatabaseUndefinedRelation:
        return


def make_lacking(pipeline: dlt.Pipeline) -> None:
    """Make the tables and columns that the pending load needs and that its SQL database lacks.

    A column that is added to a table can be null, whatever the schema says. dlt's own tables are made too.
    """
    loaded = {
        job.job_file_info.table_name
        for load_id in pipeline.list_normalized_load_packages()
        for jobs in pipeline.get_load_package_info(load_id).jobs.values()
        for job in jobs
    }
    with pipeline.destination_client() as client:
        if not isinstance(client, SqlJobClientBase):
            return
        _make(client, loaded | set(client.schema.dlt_table_names()))
        if isinstance(client, WithStagingDataset):
            staged = {table for table in loaded if client.should_load_data_to_staging_dataset(table)}
            made = dict(client.get_storage_tables([*staged, client.schema.version_table_name]))
            with client.with_staging_dataset():
                _drop_unlike(client, made)
                _make(client, staged | {client.schema.version_table_name})


def _drop_unlike(client: SqlJobClientBase, loaded: Mapping[str, Columns]) -> None:
    """Drop the staging tables that do not fit the tables that they are merged into; they are made again."""
    if not client.is_storage_initialized():
        return
    for name, columns in client.get_storage_tables(list(loaded)):
        declared: Columns = client.schema.tables[name]["columns"]
        refuses_null = any(
            not hints.get("nullable", True) and declared.get(column, {}).get("nullable", True)
            for column, hints in columns.items()
        )
        if refuses_null or _types(columns) != _types(loaded[name]):
            client.sql_client.drop_tables(name)


def _types(columns: Columns) -> dict[str, str]:
    return {column: hints["data_type"] for column, hints in columns.items()}


def _make(client: SqlJobClientBase, needed: Iterable[str]) -> None:
    """Make tables that are needed, and add columns to those and to all others that are there."""
    if not client.is_storage_initialized():
        return  # dlt makes all of it
    schema = client.schema
    is_case_sensitive = client.capabilities.generates_case_sensitive_identifiers()
    present = {name: columns for name, columns in client.get_storage_tables(list(schema.tables)) if columns}
    names = sorted({*present, *needed})
    lacking = {
        name: schema.get_new_table_columns(name, present.get(name, {}), case_sensitive=is_case_sensitive)
        for name in names
    }
    if not any(lacking.values()):
        return
    never_null = [
        (name, str(column["name"])) for name in present for column in lacking[name] if not column.get("nullable", True)
    ]
    if never_null:
        relaxed = schema.clone().to_dict()
        for name, column in never_null:
            relaxed["tables"][name]["columns"][column]["nullable"] = True
            relaxed["tables"][name]["columns"][column].pop("primary_key", None)
        client.schema = Schema.from_dict(dict(relaxed))
        try:
            client.update_stored_schema(only_tables=names, force=True)
        finally:
            client.schema = schema
    client.update_stored_schema(only_tables=names, force=True)


def add_load_ids(resources: Iterable[Any]) -> None:
    """Add `_dlt_load_id` to every Arrow table that dlt resources yield.

    The column can be null. dlt's own setting for Arrow tables (`add_dlt_load_id`) makes it NOT NULL, and no database
    adds such a column to a table with rows; it also holds for every other pipeline of the process.
    """
    for resource in resources:
        resource.add_map(_with_load_id)


def _with_load_id(table: pa.Table) -> pa.Table:
    load_id = dlt.current.load_package_state()["load_id"]
    if LOAD_ID in table.column_names:
        table = table.drop_columns([LOAD_ID])
    return table.append_column(LOAD_ID, pa.repeat(load_id, table.num_rows))
