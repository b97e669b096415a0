"""The rows of a warehouse as they stood at one moment: tables and views, as Arrow batches in a fixed order.

The one way in for all that reads a warehouse of whatever kind. Where its engine knows no views, they are computed here,
by DuckDB over a copy of the tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fine_tuning_warehouse.views import VIEWS
from fine_tuning_warehouse.views.build import DIALECTS
from fine_tuning_warehouse.warehouses.waiting import Patience
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from fine_tuning_warehouse.warehouses.working_directory import working_directory
from openai_fine_tuning.schema import TABLES

from .computed import copied, needed_tables
from .database import DuckdbRows, open_file
from .lake import lake_tables
from .relations import Relation, Rows, readable, relation
from .sql import PostgresRows, SqlRows

__all__ = ["Relation", "Rows", "open_rows", "readable", "relation"]


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
        with readable(warehouse):
            if warehouse.is_duckdb_file:
                connection = stack.enter_context(patience.apply(lambda: open_file(warehouse, directory)))
                rows: Rows = DuckdbRows(connection, warehouse, wanted)
            else:
                rows = _of_destination(warehouse, wanted, directory, stack)
        yield rows


def _of_destination(warehouse: Warehouse, wanted: list[str], directory: Path, stack: ExitStack) -> Rows:
    from dlt.destinations.job_client_impl import SqlJobClientBase  # noqa: PLC0415 - see accounts

    pipeline = warehouse.pipeline(directory / "pipeline")
    destination: Any = pipeline.destination_client()
    client = stack.enter_context(destination)
    if not isinstance(client, SqlJobClientBase):
        # Tables that are files.
        return copied(lake_tables(client, warehouse, needed_tables(wanted)), warehouse, wanted, directory, stack)
    dialect = client.capabilities.sqlglot_dialect
    asked = wanted if dialect in DIALECTS else needed_tables(wanted)
    stored = {name: columns for name, columns in client.get_storage_tables(asked) if columns}
    if dialect == "postgres":
        stack.enter_context(client.sql_client.begin_transaction())
        client.sql_client.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return PostgresRows(client.sql_client, stored, warehouse, asked)
    rows = SqlRows(client.sql_client, stored, warehouse, asked)
    if dialect in DIALECTS:
        return rows
    return copied({one.name: rows.reader(one) for one in rows.relations}, warehouse, wanted, directory, stack)
