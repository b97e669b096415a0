"""What tests share: the simulated host's time, and a database that is fed from it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
from filelock import FileLock

from fine_tuning_simulator import Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.sync.run import AccountResult, SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from openai_fine_tuning.settings import RequestPolicy

NOW = 1_780_000_000
"""The simulated host's time at the start of a test (2026-05-28)."""

HOUR, DAY = 3600, 86400

MODELS = "/models"
"""The listing of models."""

QUICK = RequestPolicy(backoff=0.001, max_backoff=0.01)
"""Retries without long waits."""


class Database:
    """A DuckDB file, and syncs into it from one host.

    Args:
        path: The file.
        host: The host.
        begun: A folder for what `begin` makes, which all tests share.
    """

    def __init__(self, path: Path, host: Simulator, begun: Path | None = None) -> None:
        self.path = path
        self.host = host
        self._begun = begun

    def begin(self, *, key: str = "key") -> None:
        """Have the database that a first sync makes, which is made once for all tests whose host shows the same.

        For tests of what comes after a first sync.
        """
        assert self._begun is not None, "only the fixture's database knows where"
        assert not self.host.faults, "what is copied must be whole"
        shown = [self.host.base_url.split("/", 3)[3], self.host.clock.now(), key, _shown(self.host.world)]
        digest = hashlib.sha256(json.dumps(shown, default=repr).encode()).hexdigest()
        made = self._begun / f"{digest}.duckdb"
        self._begun.mkdir(exist_ok=True)
        with FileLock(made.with_suffix(".lock")):
            if not made.exists():
                unfinished = made.with_suffix(".unfinished")
                self.sync(key=key, database=unfinished)
                unfinished.rename(made)
        shutil.copyfile(made, self.path)
        self.host.requests.clear()

    def sync(
        self, *, account: str = "default", key: str = "key", database: Path | None = None, **reading: Any
    ) -> AccountResult:
        """Sync once, as the command does; clears the host's record of requests first."""
        self.host.requests.clear()
        return run_sync(
            Account(account, key, self.host.base_url, policy=QUICK),
            DuckDb(database or self.path),
            SyncOptions(**reading),
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
        """What was requested since the last sync began, without the base path: all but the listing of models."""
        return sorted(path for path in self.all_paths() if path != MODELS)

    def all_paths(self) -> list[str]:
        """The same in order, with the listing of models, which a sync reads once a day (`test_models`)."""
        return [request.path.removeprefix("/v1") for request in self.host.requests]


def _shown(world: Any) -> list[Any]:
    """All that a host shows."""
    ids = [job["id"] for job in world.jobs()]
    children = [(world.job(job), world.checkpoints(job), world.events(job)) for job in ids]
    return [
        world.page_limit,
        ids,
        children,
        [(file, world.file_content(file["id"])) for file in world.files()],
        world.models(),
    ]
