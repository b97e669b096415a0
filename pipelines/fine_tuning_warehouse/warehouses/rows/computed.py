"""Views for engines that have none: DuckDB computes them over a copy of the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb

from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.views.build import READ_TABLES, Builder
from fine_tuning_warehouse.warehouses.sql_text import quoted
from fine_tuning_warehouse.warehouses.warehouse import Warehouse

from .database import DuckdbRows, bounded
from .lake import LOADS
from .relations import Rows
from .types import dlt_type, kept_type


def needed_tables(wanted: Sequence[str]) -> list[str]:
    """Return the wanted tables, and those from which wanted views are computed."""
    has_views = any(name not in TABLES for name in wanted)
    return [name for name in (*TABLES, LOADS) if name in wanted or (has_views and name in READ_TABLES)]


def copied(
    tables: Mapping[str, Any], warehouse: Warehouse, wanted: Sequence[str], directory: Path, stack: ExitStack
) -> Rows:
    """Copy tables into a temporary DuckDB file, make the views there, and return its rows."""
    connection = stack.enter_context(duckdb.connect(str(directory / "rows.duckdb"), config=bounded(directory)))
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"CREATE SCHEMA {quoted(warehouse.dataset)}")
    types: dict[str, dict[str, str]] = {}

    def path(name: str) -> str:
        return f"{quoted(warehouse.dataset)}.{quoted(name)}"

    for name, rows in tables.items():
        connection.register("rows_to_copy", rows)
        connection.execute(f"CREATE TABLE {path(name)} AS FROM rows_to_copy")
        connection.unregister("rows_to_copy")
        types[name] = {field.name: dlt_type(kept_type(field.type)) for field in rows.schema}
    builder = Builder("duckdb", types, lambda name: [warehouse.dataset, name])
    for view in builder.views:
        connection.execute(f"CREATE VIEW {path(view.name)} AS {builder.select(view)}")
    return DuckdbRows(connection, warehouse, wanted)
