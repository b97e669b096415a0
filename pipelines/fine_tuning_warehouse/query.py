"""SQL over a DuckDB file that can do nothing but read it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import duckdb

from .errors import CommandError
from .warehouses.duckdb_lock import READ_WAIT_SECONDS, is_locked


def query(database: Path, sql: str, dataset: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run SQL over a database: column names and rows.

    It is opened read-only, without access to any other file or to the network, and its settings are locked.

    Raises:
        CommandError: There is no such database, a sync holds it for long, or the SQL is wrong.
    """
    with _opened(database) as connection:
        schemas = connection.execute("SELECT 1 FROM duckdb_schemas() WHERE schema_name = ?", [dataset])
        has_dataset = schemas.fetchone() is not None
        if has_dataset:
            connection.execute(f'SET search_path = "{dataset}"')
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET lock_configuration = true")
        try:
            cursor = connection.execute(sql)
            names = [column[0] for column in cursor.description or ()]
            return names, cursor.fetchall() if names else []
        except duckdb.Error as error:
            if not has_dataset:
                raise CommandError(f"{database} holds no dataset {dataset} yet: `ftw sync` makes it.") from None
            raise CommandError(f"The query failed: {' '.join(str(error).split())}") from None


def _opened(database: Path) -> duckdb.DuckDBPyConnection:
    if not database.is_file():
        raise CommandError(f"There is no database {database}: `ftw sync` makes it, or name one with --database.")
    until = time.monotonic() + READ_WAIT_SECONDS
    while True:
        try:
            return duckdb.connect(str(database), read_only=True, config={"enable_external_access": "false"})
        except duckdb.Error as error:
            if not is_locked(error):
                raise CommandError(f"The database {database} cannot be opened: {_first_line(error)}") from None
            if time.monotonic() >= until:
                raise CommandError(
                    f"Another program is writing to {database}, or holds it open, for longer than "
                    f"{READ_WAIT_SECONDS:g} s: try again when a sync is done, or close it."
                ) from None
            time.sleep(0.1)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
