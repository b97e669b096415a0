"""Dagster: an asset for each table of the warehouse, materialised by one sync, and a schedule.

Plain Dagster, not dagster-dlt: that runs a pipeline itself, in dlt's directory of the user, where the state of one
warehouse gets into another. Here one call does what `ftw sync` does: it owns directory, names, views and log.

    dagster dev -f definitions.py
"""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
from pydantic import Field

from fine_tuning_warehouse import sync
from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.sync.scheduled import SyncResult
from openai_fine_tuning.schema import TABLES, Table
from openai_fine_tuning.settings import RESOURCES

CHECK = "nothing_skipped"
FRESH = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=2), fail_window=timedelta(hours=4))
"""The schedule is hourly: a table without a successful sync for two hours is a warning, for four hours a failure."""


class FineTuningWarehouse(dg.ConfigurableResource):
    """Where the rows go: the options of `ftw sync`. Keys and hosts come from the environment, or from .dlt."""

    database: str | None = None
    destination: str | None = None
    dataset: str = "fine_tuning"
    table_format: str | None = None
    accounts: list[str] = Field(default_factory=list)


def column_schema(table: Table) -> dg.TableSchema:
    """Return the columns that a table always has."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                column.type,
                column.description,
                constraints=dg.TableColumnConstraints(nullable=not column.key),
            )
            for column in table.columns
        ]
    )


def asset_key(resource: str) -> dg.AssetKey:
    """Return the key of a table's asset."""
    return dg.AssetKey(["fine_tuning", resource])


def check_key(resource: str) -> dg.AssetCheckKey:
    """Return the key of a table's check."""
    return dg.AssetCheckKey(asset_key(resource), CHECK)


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            asset_key(resource),
            description=TABLES[resource].description,
            metadata={"dagster/column_schema": column_schema(TABLES[resource])},
            kinds={"dlt", "table"},
            skippable=True,
            freshness_policy=FRESH,
        )
        for resource in RESOURCES
    ],
    check_specs=[
        dg.AssetCheckSpec(CHECK, asset=asset_key(resource), description="The records of every job could be read.")
        for resource in RESOURCES
    ],
    group_name="fine_tuning",
    can_subset=True,
    # Each try goes on where the last one stopped.
    retry_policy=dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS),
)
def fine_tuning_tables(
    context: dg.AssetExecutionContext, warehouse: FineTuningWarehouse
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Sync what is new of the selected tables, of every configured account."""
    assets = [resource for resource in RESOURCES if asset_key(resource) in context.selected_asset_keys]
    checks = [resource for resource in RESOURCES if check_key(resource) in context.selected_asset_check_keys]
    try:
        totals = sync(**warehouse.model_dump(), resources=[*dict.fromkeys([*assets, *checks])])
    except CommandError as error:
        raise dg.Failure(str(error), allow_retries=not isinstance(error, UsageError)) from error
    for resource in assets:
        metadata = {"rows_written": totals.rows[resource], **sync_metadata(totals)}
        yield dg.MaterializeResult(asset_key(resource), metadata=metadata)
    for resource in checks:
        skipped = [skip for summary in totals.accounts for skip in summary.skipped if skip["resource"] == resource]
        yield dg.AssetCheckResult(
            asset_key=asset_key(resource),
            check_name=CHECK,
            passed=not skipped,
            severity=dg.AssetCheckSeverity.WARN,  # they are read by a later sync, where they can be
            metadata={"skipped": dg.JsonMetadataValue(skipped)},
        )


def sync_metadata(totals: SyncResult) -> dict[str, dg.MetadataValue | int | float]:
    """Return what Dagster shows of a sync as a whole."""
    done = totals.as_json()
    return {
        "requests": done["requests"],
        "jobs_seen": done["jobs"]["seen"],
        "jobs_open": done["jobs"]["open"],
        "rejected": done["rejected"],
        "seconds": done["seconds"],
        "load_ids": dg.JsonMetadataValue(done["load_ids"]),
    }


sync_job = dg.define_asset_job("fine_tuning_sync", selection=dg.AssetSelection.groups("fine_tuning"))

defs = dg.Definitions(
    assets=[fine_tuning_tables],
    jobs=[sync_job],
    schedules=[
        dg.ScheduleDefinition(
            job=sync_job,
            cron_schedule="7 * * * *",  # not on the hour, as everybody's are
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
    ],
    resources={"warehouse": FineTuningWarehouse(database=dg.EnvVar("FINE_TUNING_DATABASE"))},
)
