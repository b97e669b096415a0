"""The views as a script for an engine that reads the tables by itself, such as Spark over a lake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlglot import exp

from fine_tuning_warehouse.destinations import Warehouse
from fine_tuning_warehouse.errors import CommandError

from .build import DIALECTS, READ_TABLES, Builder, Tables

_UPPER_CASE = ("snowflake",)
_TABLES_AT_A_PLACE = ("spark", "databricks")
"""Dialects in which a statement makes a table of files that are there."""


def script(warehouse: Warehouse, pipeline_name: str, dialect: str | None, directory: Path) -> Iterator[str]:
    """The statements, in their order, that make a warehouse's views; over a lake, its tables too.

    Args:
        warehouse: Whose tables.
        pipeline_name: dlt's, by which a lake knows its tables.
        dialect: sqlglot's name of the dialect; None for the warehouse's own.
        directory: Where dlt may work.

    Raises:
        CommandError: There is no warehouse, or it cannot be read.
    """
    pipeline = warehouse.pipeline(pipeline_name, directory)
    places: dict[str, str] = {}
    with pipeline.destination_client() as client:
        own = str(client.capabilities.sqlglot_dialect)
        if warehouse.is_lake:
            pipeline.sync_destination()
            tables = _tables_of_schema(pipeline)
        else:
            found: Any = client
            tables = {
                name: {str(column).lower(): str(hints.get("data_type")) for column, hints in columns.items()}
                for name, columns in found.get_storage_tables(READ_TABLES)
            }
    if not any(tables.values()):
        raise CommandError(f"{warehouse.shown} holds no dataset {warehouse.dataset} yet: `ftw sync` makes it.")
    if warehouse.is_lake:
        with pipeline.destination_client() as client:
            lake: Any = client
            places = {name: lake.get_table_dir(name, remote=True).rstrip("/") for name in tables}
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


def _tables_of_schema(pipeline: Any) -> Tables:
    """What the last sync left beside a lake's tables: their columns and types."""
    if not pipeline.default_schema_name:
        return {}
    schema = pipeline.default_schema
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
