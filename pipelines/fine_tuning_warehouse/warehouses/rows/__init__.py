"""The rows of a warehouse as they stood at one moment: tables and views, as Arrow batches in a fixed order.

The one way in for all that reads a warehouse of whatever kind. Where its engine knows no views, they are computed here,
by DuckDB over a copy of the tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from fine_tuning_warehouse.views import VIEWS
from fine_tuning_warehouse.warehouses.sql_text import quoted
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from fine_tuning_warehouse.warehouses.working_directory import working_directory
from openai_fine_tuning.schema import TABLES

from .relations import Relation, Rows, readable, relation

if TYPE_CHECKING:
    import duckdb

__all__ = ["Relation", "Rows", "open_connection", "open_rows", "readable", "relation"]


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
    with ExitStack() as stack:
        directory = stack.enter_context(working_directory())
        with readable(warehouse):
            rows = warehouse.read(wanted, directory, stack, lock_wait_seconds)
        yield rows


@contextmanager
def open_connection(warehouse: Warehouse, *, lock_wait_seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB connection that can read a warehouse of any kind, and write nothing to it.

    A DuckDB file is opened, and a DuckLake attached, read-only. PostgreSQL is attached where the extension's package is
    installed. Of every other warehouse the connection has a copy of the tables and views, in a temporary file. Tables
    and views are found by their names alone, and times are in UTC. Files outside the warehouse, and extension servers,
    are out of reach.

    Args:
        warehouse: The warehouse.
        lock_wait_seconds: How long to wait for a sync that holds the database.

    Raises:
        UsageError: A setting or a package is missing.
        CommandError: There is no such warehouse, or it cannot be read.

    Example:
        >>> with open_connection(DuckLake(), lock_wait_seconds=10) as connection:
        ...     connection.execute("SELECT count(*) FROM jobs").fetchone()
        (42,)
    """
    with ExitStack() as stack:
        directory = stack.enter_context(working_directory())
        with readable(warehouse):
            connection = warehouse.connect(directory, stack, lock_wait_seconds)
            exists = connection.execute(
                "SELECT 1 FROM duckdb_schemas() WHERE schema_name = ? AND database_name = current_database()",
                [warehouse.dataset],
            ).fetchone()
            if exists:
                catalog = (connection.execute("SELECT current_database()").fetchone() or [""])[0]
                connection.execute(f"USE {quoted(str(catalog), warehouse.dataset)}")
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_external_access = false")
        yield connection
