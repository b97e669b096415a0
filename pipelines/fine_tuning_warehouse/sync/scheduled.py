"""A sync for a scheduler: set up as the command is, and told by what is returned or raised."""

from __future__ import annotations

from collections.abc import Sequence

from fine_tuning_warehouse.accounts.config_files import find_accounts
from fine_tuning_warehouse.warehouses.warehouse import DEFAULT_DATABASE, DEFAULT_DATASET, TableFormat, find_warehouse
from openai_fine_tuning.settings import CONCURRENCY, RESOURCES

from .run import Reading, sync_accounts
from .summary import Totals

__all__ = ["Totals", "sync_configured"]


def sync_configured(
    *,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
    table_format: TableFormat | None = None,
    accounts: Sequence[str] = (),
    resources: Sequence[str] = RESOURCES,
    concurrency: int = CONCURRENCY,
) -> Totals:
    """Do what `ftw sync` does with options of the same names: keys and hosts are found where it finds them.

    Args:
        database: The DuckDB file; None for `fine_tuning_warehouse.duckdb` in the working directory.
        destination: Any dlt destination; None for DuckDB.
        dataset: The schema that holds the tables.
        table_format: `iceberg` or `delta`, for the destination `filesystem`.
        accounts: Labels; none for all that are configured.
        resources: Names of the resources to read.
        concurrency: The highest number of requests in flight.

    Returns:
        What was done, of each account and in all.

    Raises:
        UsageError: A setting is missing or cannot be right: trying again does not help.
        BusyError: Another sync is running on the same database.
        CommandError: It failed, for one account or all. What was loaded stays, and the next sync goes on there.
    """
    warehouse = find_warehouse(
        database=database,
        destination=destination,
        dataset=dataset,
        table_format=table_format,
        default=DEFAULT_DATABASE,
    )
    reading = Reading(resources=resources, concurrency=concurrency)
    totals = sync_accounts(find_accounts(accounts), warehouse, reading)
    failure = totals.failure_with_reasons
    if failure is not None:
        raise failure
    return totals
