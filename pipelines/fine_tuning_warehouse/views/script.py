"""The views as a script for an engine that reads the tables by itself, such as Spark over a lake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlglot import exp

from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.warehouses.errors import destination_errors
from fine_tuning_warehouse.warehouses.warehouse import Warehouse

from .build import DIALECTS, READ_TABLES, Builder

_UPPER_CASE = ("snowflake",)
_TABLES_AT_A_PLACE = ("spark", "databricks")
"""Dialects in which a statement makes a table of files that are there."""


def script(warehouse: Warehouse, dialect: str | None, directory: Path) -> Iterator[str]:
    """Return the statements that make a warehouse's views, in order; over a lake, those for its tables too.

    Args:
        warehouse: The warehouse that the views read.
        dialect: sqlglot's name of the dialect; None for the warehouse's own.
        directory: Where dlt may work.

    Raises:
        CommandError: There is no warehouse, or it cannot be read.
    """
    warehouse.require()
    pipeline = warehouse.pipeline(directory)
    with destination_errors(warehouse, f"{warehouse.shown} cannot be read"), pipeline.destination_client() as found:
        client: Any = found
        own = str(client.capabilities.sqlglot_dialect)
        tables = warehouse.columns(client, READ_TABLES)
        locations = warehouse.locations(client, tables)
    if not any(tables.values()):
        raise CommandError(f"{warehouse.shown} holds no dataset {warehouse.dataset} yet: `ftw sync` makes it.")
    dialect = dialect or own
    fold = str.upper if dialect in _UPPER_CASE else str
    builder = Builder(dialect, tables, lambda name: [warehouse.dataset, name], fold)
    yield f"CREATE SCHEMA IF NOT EXISTS {_name(dialect, fold(warehouse.dataset))}"
    if dialect in _TABLES_AT_A_PLACE:
        for name, (file_format, url) in locations.items():
            table, where = _name(dialect, warehouse.dataset, name), exp.Literal.string(url).sql(dialect)
            yield f"CREATE TABLE IF NOT EXISTS {table} USING {file_format} LOCATION {where}"
    for view in builder.views:
        name = _name(dialect, fold(warehouse.dataset), fold(view.name))
        yield f"CREATE OR REPLACE VIEW {name} AS\n{builder.select(view)}"


def _name(dialect: str, *parts: str) -> str:
    return ".".join(exp.to_identifier(part, quoted=True).sql(dialect) for part in parts)


__all__ = ["DIALECTS", "script"]
