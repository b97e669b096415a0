"""The Python function that does what `ftw sync` does, for scripts and schedulers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .summary import SyncResult

if TYPE_CHECKING:
    from fine_tuning_warehouse.warehouses.warehouse import TableFormat

__all__ = ["SyncResult", "sync", "sync_configured"]


def sync(
    *,
    database: str | None = None,
    destination: str | None = None,
    dataset: str | None = None,
    table_format: TableFormat | None = None,
    accounts: Sequence[str] = (),
    resources: Sequence[str] | None = None,
    concurrency: int | None = None,
) -> SyncResult:
    """Load what is new, as `ftw sync` does with options of the same names.

    Keys and hosts are found where the command finds them: in the environment or in dlt's configuration. The process
    keeps its environment and its logging; nothing is printed.

        from fine_tuning_warehouse import sync

        result = sync(database="history.duckdb", resources=["jobs", "checkpoints"])
        print(result.rows)  # {'jobs': 3, 'checkpoints': 9, 'rejected_records': 0}

    Args:
        database: Path of the DuckDB file; None for `fine_tuning_warehouse.duckdb` in the working directory.
        destination: Name of any dlt destination; None for DuckDB.
        dataset: Schema that holds the tables; None for `fine_tuning`.
        table_format: `iceberg` or `delta`, for the destination `filesystem`.
        accounts: Labels of accounts; empty for all that are configured.
        resources: Names of the resources to read; None for all.
        concurrency: Highest number of requests in flight; None for 16.

    Returns:
        What was done for each account, and in all.

    Raises:
        UsageError: A setting is missing or invalid: trying again does not help.
        BusyError: Another sync is running on the same database.
        CommandError: It failed, for one account or all. What was loaded stays, and the next sync goes on there.
    """
    # The package imports this module, and `ftw --help` must not wait for dlt.
    from fine_tuning_warehouse.accounts.config_files import find_accounts  # noqa: PLC0415
    from fine_tuning_warehouse.warehouses.warehouse import find_warehouse  # noqa: PLC0415

    from .run import SyncOptions, sync_accounts  # noqa: PLC0415

    warehouse = find_warehouse(database=database, destination=destination, dataset=dataset, table_format=table_format)
    given: dict[str, Any] = {"resources": resources, "concurrency": concurrency}
    options = SyncOptions(**{name: value for name, value in given.items() if value is not None})
    result = sync_accounts(find_accounts(accounts), warehouse, options)
    failure = result.failure_with_reasons
    if failure is not None:
        raise failure
    return result


sync_configured = sync
"""The earlier name."""
