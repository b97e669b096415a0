"""The demo: a simulator on a free port. Its clock moves on by two hours with every sync into one warehouse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from fine_tuning_warehouse.warehouses.working_directory import working_directory

if TYPE_CHECKING:
    from fine_tuning_warehouse.accounts.account import Account

DEMO_DATABASE = "fine_tuning_demo.duckdb"
DEMO_LABEL = "demo"
_START = 1_780_272_000  # 2026-06-01 00:00 UTC
_HOURS_BETWEEN_SYNCS = 2
_JOBS = 24


@contextmanager
def demo_account(label: str, warehouse: Warehouse) -> Iterator[Account]:
    """Run a simulator as long as the context, and yield an account at it; no key, no network.

    The history is the same for everyone; every sync into one warehouse finds it two hours later.

    Args:
        label: The label of the account.
        warehouse: The warehouse that it is synced into.

    Raises:
        CommandError: The file was held for too long.
    """
    from fine_tuning_simulator import Clock, GeneratedWorld, Simulator  # noqa: PLC0415 - the constants do not need it

    hours = _HOURS_BETWEEN_SYNCS * _syncs_so_far(label, warehouse)
    clock = Clock(start=_START, speed=0)
    world = GeneratedWorld(seed=0, jobs=_JOBS, profile="openai", clock=clock)
    clock.advance(hours * 3600)
    from fine_tuning_warehouse.accounts.account import Account  # noqa: PLC0415 - loads dlt, which the constants do not need

    with Simulator(world, profile="openai", clock=clock) as simulator:
        yield Account(label, "demo", simulator.base_url)


def _syncs_so_far(label: str, warehouse: Warehouse) -> int:
    """Return how many syncs of an account the warehouse holds; 0 if it does not exist yet."""
    if not warehouse.exists():
        return 0
    import dlt  # noqa: PLC0415 - see accounts

    with working_directory() as directory:
        pipeline: dlt.Pipeline = warehouse.pipeline(directory, label=label)

        def count() -> Any:
            with pipeline.sql_client() as client:
                return client.execute_sql("SELECT count(*) FROM syncs WHERE account = %s", label)

        try:
            rows = warehouse.attempt(count)
        except CommandError:
            raise
        except Exception:  # noqa: BLE001 - no table yet, or no warehouse; the sync says what is wrong
            return 0
    return int(rows[0][0]) if rows else 0
