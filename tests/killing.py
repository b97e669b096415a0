"""Syncs in processes that kill themselves at a chosen point."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from command import forking
from fine_tuning_simulator import Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.warehouse import Warehouse


@dataclass(frozen=True)
class Deadly:
    """Where a sync is to be killed.

    Attributes:
        where: `request` (as the n-th request is sent), `normalize` or `load` (as the n-th of them begins), `statement`
            (before the n-th SQL statement), `commit` (before the n-th transaction is committed).
        number: The n, from 1.
    """

    where: str
    number: int = 1


def killing(deadly: Deadly, counts: Counter[str]) -> None:
    """Make this process kill itself at the given point, and count every point that it passes."""

    def passing(where: str) -> None:
        counts[where] += 1
        if (where, counts[where]) == (deadly.where, deadly.number):
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def patch(owner: Any, name: str, where: str) -> None:
        original = getattr(owner, name)

        def patched(*args: Any, **kwargs: Any) -> Any:
            passing(where)
            return original(*args, **kwargs)

        setattr(owner, name, patched)

    import dlt
    from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient

    from openai_fine_tuning.api.client import FineTuningApi

    patch(FineTuningApi, "_send", "request")
    patch(dlt.Pipeline, "normalize", "normalize")
    patch(dlt.Pipeline, "load", "load")
    clients: list[Any] = [DuckDbSqlClient]
    if "DESTINATION__POSTGRES__CREDENTIALS" in os.environ:
        from dlt.destinations.impl.postgres.sql_client import Psycopg2SqlClient

        clients.append(Psycopg2SqlClient)
    for client in clients:
        patch(client, "execute_query", "statement")
        patch(client, "commit_transaction", "commit")


def sync_in_child(
    sender: Any, *, env: dict[str, str], base_url: str, warehouse: Warehouse, deadly: Deadly, reading: SyncOptions
) -> None:
    """The body of a process that syncs; it tells how many of each point it passed."""
    os.environ.update(env)
    os.chdir(env["HOME"])
    tempfile.tempdir = env["TMPDIR"]
    counts: Counter[str] = Counter()
    killing(deadly, counts)
    run_sync(Account("default", "key", base_url), warehouse, reading)
    sender.send(dict(counts))
    sender.close()


class Syncs:
    """Syncs in processes of their own, forked from one that has imported everything."""

    def __init__(self, folder: Path, host: Simulator, warehouse: Warehouse) -> None:
        self.host = host
        self._warehouse = warehouse
        self.temporary = folder / "temporary"
        home = folder / "home"
        for made in (self.temporary, home):
            made.mkdir(exist_ok=True)
        self._env = {"HOME": str(home), "TMPDIR": str(self.temporary), "DLT_DATA_DIR": str(home / ".dlt")}
        if credentials := os.environ.get("DESTINATION__POSTGRES__CREDENTIALS"):
            self._env["DESTINATION__POSTGRES__CREDENTIALS"] = credentials

    def run(self, deadly: Deadly | None = None, **reading: Any) -> dict[str, int]:
        """A sync to its end; returns how many points it passed. With `deadly`, assert that it was killed there."""
        context = forking()
        receiver, sender = context.Pipe(duplex=False)
        self.host.requests.clear()
        work = partial(
            sync_in_child,
            env=self._env,
            base_url=self.host.base_url,
            warehouse=self._warehouse,
            deadly=deadly or Deadly(""),
            reading=SyncOptions(**reading),
        )
        process = context.Process(target=work, args=(sender,))
        process.start()
        sender.close()
        process.join(60)
        with receiver:
            passed: dict[str, int] = receiver.recv() if process.exitcode == 0 else {}
        assert process.exitcode == (-signal.SIGKILL if deadly else 0), f"{deadly}: exit {process.exitcode}"
        process.close()
        return passed

    @property
    def left_behind(self) -> list[Path]:
        """Working directories that are still there."""
        return sorted(self.temporary.glob("*/sync-*"))
