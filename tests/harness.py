"""What tests share: the simulated host's time, and a database that is fed from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from fine_tuning_simulator import Simulator
from fine_tuning_warehouse.accounts import Account
from fine_tuning_warehouse.destinations import Warehouse
from fine_tuning_warehouse.sync import Reading, Summary, run_sync

NOW = 1_780_000_000
"""The simulated host's time at the start of a test (2026-05-28)."""

HOUR, DAY = 3600, 86400


class Database:
    """A DuckDB file, and syncs into it from one host."""

    def __init__(self, path: Path, host: Simulator) -> None:
        self.path = path
        self.host = host

    def sync(
        self, *, account: str = "default", key: str = "key", database: Path | None = None, **reading: Any
    ) -> Summary:
        """Sync once, as the command does; clears the host's record of requests first."""
        self.host.requests.clear()
        return run_sync(
            Account(account, key, self.host.base_url),
            Warehouse("duckdb", database or self.path),
            Reading(**reading),
        )

    def execute(self, statement: str) -> None:
        """Run a statement that gives no rows."""
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(statement)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query; table names need no dataset."""
        with duckdb.connect(str(self.path), read_only=True) as connection:
            connection.execute("SET search_path = 'fine_tuning'")
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(sql).fetchall()

    def ids(self, table: str) -> list[str]:
        """The ids of a table in order."""
        return [row[0] for row in self.rows(f'SELECT id FROM "{table}" ORDER BY id')]

    def paths(self) -> list[str]:
        """What was requested since the last sync began, without the base path."""
        return sorted(request.path.removeprefix("/v1") for request in self.host.requests)
