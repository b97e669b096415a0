"""The rows of a warehouse as they stood at one moment: tables and views, as Arrow batches in a fixed order.

The one way in for all that reads a warehouse of whatever kind. Where its engine knows no views, they are computed here,
by DuckDB over a copy of the tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

from fine_tuning_warehouse.views import VIEWS
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from fine_tuning_warehouse.warehouses.working_directory import working_directory
from openai_fine_tuning.schema import TABLES

from .relations import Relation, Rows, readable, relation

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
    with ExitStack() as stack:
        directory = stack.enter_context(working_directory())
        with readable(warehouse):
            rows = warehouse.read(wanted, directory, stack, lock_wait_seconds)
        yield rows
