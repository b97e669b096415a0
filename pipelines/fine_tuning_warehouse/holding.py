"""Holding a warehouse while something is written to it: one at a time, where it could not take two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .destinations import Warehouse, only_sync
from .readiness import check_ready, merge_strategy
from .workspace import working_directory

if TYPE_CHECKING:
    from .lake import Lease


@contextmanager
def held(warehouse: Warehouse) -> Iterator[Lease | None]:
    """Hold a warehouse that can be written; yields the lease of a lake, and None elsewhere.

    Raises:
        BusyError: Another holds it.
        UsageError: A setting of the destination is missing, or it cannot merge.
        CommandError: The destination refuses.
    """
    with only_sync(warehouse):
        if warehouse.is_duckdb_file:
            yield None
            return
        with working_directory() as directory:
            pipeline = warehouse.pipeline("fine_tuning_default", directory)
            check_ready(warehouse, pipeline)
            merge_strategy(warehouse, pipeline)
            if not warehouse.is_lake:
                yield None
                return
            from .lake import hold, lease_of  # noqa: PLC0415 - dlt's libraries for files

            with hold(lease_of(pipeline, warehouse.shown)) as lease:
                yield lease
