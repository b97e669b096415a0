"""`ftw maintain`: keep the files of a warehouse few and small, and let go of old versions of its tables."""

from __future__ import annotations

from collections.abc import Iterator

from .warehouses.errors import destination_errors
from .warehouses.warehouse import Warehouse
from .warehouses.working_directory import working_directory

KEEP_SECONDS = 7 * 86_400.0
"""How long old versions of tables stay, and with them the files that a long query may still read."""


def maintain(warehouse: Warehouse, *, keep_seconds: float = KEEP_SECONDS) -> Iterator[str]:
    """Keep the files of a warehouse few and small. No load runs meanwhile; readers go on.

    DuckDB: checkpoint and vacuum. DuckLake: merge small files, rewrite those
    with deleted rows, expire snapshots, and remove files that nothing names. Iceberg: merge small files and expire
    snapshots.

    Args:
        warehouse: The warehouse.
        keep_seconds: How old a snapshot or an unnamed file must be to be removed, in seconds. It should be longer than
            the longest query.

    Yields:
        What was done, a line each.

    Raises:
        BusyError: A sync is running.
        CommandError: There is no such warehouse, or it refuses.
    """
    warehouse.require()
    with working_directory() as directory, destination_errors(warehouse, f"{warehouse.shown} cannot be maintained"):
        yield from warehouse.maintain(directory, keep_seconds)
