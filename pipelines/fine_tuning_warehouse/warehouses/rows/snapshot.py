"""Copy tables and views of any warehouse into a temporary DuckDB file, so that DuckDB's SQL can ask it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from fine_tuning_warehouse.warehouses.locking import READ_WAIT_SECONDS
from fine_tuning_warehouse.warehouses.sql_text import quoted
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from fine_tuning_warehouse.warehouses.working_directory import working_directory

from . import open_rows


@contextmanager
def snapshot(warehouse: Warehouse, names: Collection[str] | None = None) -> Iterator[Path]:
    """Make a DuckDB file that holds rows of a warehouse as tables, and remove it at the end.

    The rows are those of one moment if the warehouse has transactions. The file is private to the user.

    Args:
        warehouse: The warehouse, which is only read.
        names: The tables and views to copy; None for all of them.

    Raises:
        CommandError: The warehouse does not exist or cannot be read.
    """
    with working_directory() as directory:
        file = directory / "warehouse-snapshot.duckdb"
        with (
            open_rows(warehouse.waiting(READ_WAIT_SECONDS), names=names) as rows,
            duckdb.connect(str(file)) as connection,
        ):
            connection.execute(f"CREATE SCHEMA {quoted(warehouse.dataset)}")
            for relation in rows.relations:
                connection.register("incoming", rows.reader(relation))
                connection.execute(f"CREATE TABLE {quoted(warehouse.dataset, relation.name)} AS FROM incoming")
                connection.unregister("incoming")
        yield file
