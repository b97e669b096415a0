"""The views as a script for an engine that reads the tables by itself, such as Spark over a lake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlt.common.schema import Schema
from sqlglot import exp

from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.warehouses.errors import destination_errors
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from openai_fine_tuning.schema import SCHEMA

from .build import DIALECTS, READ_TABLES, Builder, Tables

_UPPER_CASE = ("snowflake",)
_TABLES_AT_A_PLACE = ("spark", "databricks")
"""Dialects in which a statement makes a table of files that are there."""


def script(warehouse: Warehouse, dialect: str | None, directory: Path) -> Iterator[str]:
    """The statements, in their order, that make a warehouse's views; over a lake, its tables too.

    Args:
        warehouse: Whose tables.
        dialect: sqlglot's name of the dialect; None for the warehouse's own.
        directory: Where dlt may work.

    Raises:
        CommandError: There is no warehouse, or it cannot be read.
    """
    if warehouse.database is not None and not warehouse.database.is_file():
        raise CommandError(f"There is no database {warehouse.shown}: `ftw sync` makes it.")
    pipeline = warehouse.pipeline(directory)
    places: dict[str, str] = {}
    with destination_errors(warehouse, f"{warehouse.shown} cannot be read"), pipeline.destination_client() as found:
        client: Any = found
        own = str(client.capabilities.sqlglot_dialect)
        if warehouse.is_lake:
            tables = _tables_of_lake(client)
            places = {name: client.get_table_dir(name, remote=True).rstrip("/") for name in tables}
        else:
            tables = {
                name: {str(column).lower(): str(hints.get("data_type")) for column, hints in columns.items()}
                for name, columns in client.get_storage_tables(READ_TABLES)
            }
    if not any(tables.values()):
        raise CommandError(f"{warehouse.shown} holds no dataset {warehouse.dataset} yet: `ftw sync` makes it.")
    dialect = dialect or own
    fold = str.upper if dialect in _UPPER_CASE else str
    builder = Builder(dialect, tables, lambda name: [warehouse.dataset, name], fold)
    yield f"CREATE SCHEMA IF NOT EXISTS {_name(dialect, fold(warehouse.dataset))}"
    if dialect in _TABLES_AT_A_PLACE:
        for name, place in places.items():
            kind = "json" if name.startswith("_dlt") else warehouse.table_format
            where = exp.Literal.string(place).sql(dialect)
            yield f"CREATE TABLE IF NOT EXISTS {_name(dialect, warehouse.dataset, name)} USING {kind} LOCATION {where}"
    for view in builder.views:
        name = _name(dialect, fold(warehouse.dataset), fold(view.name))
        yield f"CREATE OR REPLACE VIEW {name} AS\n{builder.select(view)}"


def _tables_of_lake(client: Any) -> Tables:
    """The columns and types of tables, by the schema that the last sync left beside them."""
    stored = client.get_stored_schema(SCHEMA)
    if stored is None:
        return {}
    schema = client.schema = Schema.from_stored_schema(json.loads(stored.schema))
    present = {*schema.data_table_names(), schema.loads_table_name}
    return {
        name: {
            column: str(hints.get("data_type")) for column, hints in table["columns"].items() if hints.get("data_type")
        }
        for name, table in schema.tables.items()
        if name in present
    }


def _name(dialect: str, *parts: str) -> str:
    return ".".join(exp.to_identifier(part, quoted=True).sql(dialect) for part in parts)


__all__ = ["DIALECTS", "script"]
