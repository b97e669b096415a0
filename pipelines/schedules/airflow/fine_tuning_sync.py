"""Airflow (3): one task that does what `ftw sync` does, every hour.

Not dlt's PipelineTasksGroup: that runs a pipeline itself, without the views, the log, the lock, and the state that is
read from the warehouse alone. What it is good for works here too: dlt finds keys and settings in Airflow's variable
`dlt_secrets_toml`.
"""

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import Asset, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

WAREHOUSE: dict[str, Any] = {"database": "/srv/fine-tuning/fine_tuning_warehouse.duckdb"}
"""Where the rows go, by the options of `ftw sync`: {"destination": "postgres"} for a warehouse of its own."""

STRICT = False
"""Whether a run that had to skip or reject something fails; what it has read is loaded all the same."""


@dag(
    schedule="7 * * * *",  # not on the hour, as everybody's are
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,  # a sync reads all that is missing
    max_active_runs=1,
    tags=["fine-tuning"],
)
def fine_tuning_sync() -> None:
    """The history of fine-tuning, kept up to date."""

    @task(
        outlets=[Asset("fine_tuning_warehouse")],  # other DAGs may run whenever it has changed
        retries=3,  # each goes on where the last one stopped
        retry_delay=timedelta(minutes=1),
        retry_exponential_backoff=True,
        execution_timeout=timedelta(hours=6),
    )
    def sync() -> dict[str, Any]:
        # Imported here, so that the scheduler parses this file without dlt.
        from fine_tuning_warehouse import sync  # noqa: PLC0415
        from fine_tuning_warehouse.errors import BusyError, UsageError  # noqa: PLC0415

        try:
            done = sync(**WAREHOUSE).as_json()
        except UsageError as error:
            raise AirflowFailException(str(error)) from error
        except BusyError as error:
            raise AirflowSkipException(str(error)) from error
        if STRICT and (done["skipped"] or done["rejected"]):
            raise AirflowFailException(f"Skipped: {done['skipped']}. Rejected records: {done['rejected']}.")
        # Of one run, for the log and for tasks after it; the view sync_history holds them of every run.
        return {name: done[name] for name in ("rows", "requests", "jobs", "load_ids", "skipped", "rejected")}

    sync()


fine_tuning_sync()
