"""The rows of a warehouse as of one moment: tables and views, as Arrow batches in a fixed order.

All commands that read a warehouse of any kind use this package. If its engine has no views, DuckDB computes them here
over a copy of the tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import duckdb

from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.views import VIEWS
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from fine_tuning_warehouse.warehouses.working_directory import working_directory

from .relations import Conditions, Relation, Rows, readable, relation

__all__ = ["Conditions", "Relation", "Rows", "open_rows", "readable", "relation"]


@contextmanager
def open_rows(warehouse: Warehouse, *, names: Collection[str] | None = None) -> Iterator[Rows]:
    """Open a warehouse for reading, in one transaction if it has those. Nothing is written to it.

    Args:
        warehouse: The warehouse.
        names: The tables and views to read; None for all. Others are not looked at.

    Raises:
        CommandError: The warehouse does not exist or cannot be read.
    """
    ours = [*TABLES, *(view.name for view in VIEWS)]
    wanted = [name for name in ours if names is None or name in names]
    with ExitStack() as stack:
        directory = stack.enter_context(working_directory())
        with readable(warehouse):
            rows = warehouse.read(wanted, directory, stack)
        try:
            yield rows
        except duckdb.Error:
            if rows.failure is not None:
                raise rows.failure from None
            raise
