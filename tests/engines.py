"""A warehouse of any kind to sync into: its rows as Arrow tables and by SQL, read as the commands read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from fine_tuning_simulator import Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.sync.run import AccountResult, SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.rows import open_rows
from fine_tuning_warehouse.warehouses.warehouse import Warehouse


class Engine:
    """A warehouse that is fed from one host.

    Attributes:
        warehouse: What it is.
        env: What a command needs to find it.
        folder: Where a lake lies, where that is on this machine.
    """

    def __init__(self, warehouse: Warehouse, env: dict[str, str], folder: Path | None = None) -> None:
        self.warehouse = warehouse
        self.env = env
        self.folder = folder

    @property
    def options(self) -> tuple[str, ...]:
        """What names it on the command line."""
        table_format = ("--table-format", self.warehouse.table_format) if self.warehouse.table_format else ()
        return ("--destination", self.warehouse.destination, *table_format)

    def sync(
        self, host: Simulator, account: str = "default", *, lock_wait_seconds: float = 60, **reading: Any
    ) -> AccountResult:
        """Sync once, as the command does; clears the host's record of requests first."""
        host.requests.clear()
        warehouse = self.warehouse.waiting(lock_wait_seconds)
        return run_sync(Account(account, "key", host.base_url), warehouse, SyncOptions(**reading))

    def tables(self) -> dict[str, pa.Table]:
        """Every table, in the order of its keys; without `syncs`, ids and times of loads, which every load has anew.

        Times of reading are told by their order: when a checkpoint was listed, as 0 for the last time of all.
        """
        names = [name for name in TABLES if name != "syncs"]
        with open_rows(self.warehouse.waiting(1), names=names) as found:
            read = {
                one.name: pa.Table.from_batches(found.batches(one), pa.schema(list(one.schema)))
                for one in found.relations
            }
        return {name: _comparable(table) for name, table in read.items()}

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query over the tables."""
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for name, table in self.tables().items():
                connection.register(name, table)
            return connection.execute(sql).fetchall()


def _comparable(table: pa.Table) -> pa.Table:
    columns = {name: table[name] for name in sorted(table.column_names) if name not in ("_dlt_load_id", "synced_at")}
    for name in ("checkpoints_listed_at", "last_listed_at"):
        if name in columns:
            times = columns[name].to_pylist()
            order = sorted({time for time in times if time is not None}, reverse=True)
            columns[name] = pa.array([None if time is None else order.index(time) for time in times], pa.int64())
    return pa.table(columns)
