"""Holding a warehouse while something is written to it: one at a time, where it could not take two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from fine_tuning_warehouse.errors import BusyError, CommandError

from .preflight import check_database_file, check_ready
from .warehouse import Warehouse
from .working_directory import working_directory

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
    if warehouse.database is not None:
        check_database_file(warehouse.database)
        with _locked(warehouse.database, warehouse.shown):
            yield None
        return
    with working_directory() as directory:
        pipeline = warehouse.pipeline(directory)
        check_ready(warehouse, pipeline)
        if not warehouse.is_lake:
            yield None
            return
        from .lake import hold, lease_of  # noqa: PLC0415 - dlt's libraries for files

        with hold(lease_of(pipeline, warehouse.shown)) as lease:
            yield lease


@contextmanager
def _locked(database: Path, shown: str) -> Iterator[None]:
    """Hold a DuckDB file, by a file beside it."""
    lock_file = database.with_name(database.name + ".lock")
    lock = FileLock(lock_file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        if not lock_file.exists():
            raise CommandError(f"The database {shown} cannot be written: its folder takes no files.") from None
        raise BusyError(
            f"Another sync is running on {shown}: wait for it to end (it holds {lock_file.name})."
        ) from None
    except OSError as error:
        raise CommandError(f"The database {shown} cannot be written: {error.strerror or error}.") from None
    try:
        yield
    finally:
        lock.release()
