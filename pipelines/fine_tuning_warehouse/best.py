"""Read the checkpoint to deploy for each job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from .errors import CommandError
from .warehouses.locking import READ_WAIT_SECONDS
from .warehouses.rows import Relation, Rows, open_rows
from .warehouses.warehouse import Warehouse

VIEW = "best_checkpoints"

Row = dict[str, Any]

_NEVER = datetime.min.replace(tzinfo=timezone.utc)


def best_checkpoints(
    warehouse: Warehouse, *, accounts: Sequence[str] = (), job_ids: Sequence[str] = ()
) -> tuple[list[str], list[Row]]:
    """Return the rows of the view `best_checkpoints`, newest job first: column names and rows.

    Args:
        warehouse: The warehouse that holds the view. If its engine has no views, the rows are computed here.
        accounts: Only jobs of these accounts; all accounts if empty.
        job_ids: Only these jobs; all jobs if empty.

    Raises:
        CommandError: The warehouse, the view or a job does not exist, or a job has no checkpoints.
    """
    with open_rows(warehouse.waiting(READ_WAIT_SECONDS), names=(VIEW, "jobs")) as rows:
        view, all_jobs = rows.relation(VIEW), rows.relation("jobs")
        if view is None:
            raise CommandError(f"{warehouse.shown} holds no view {VIEW}: a `ftw sync` that reads checkpoints makes it.")
        chosen = _rows(rows, view, accounts)
        if job_ids:
            jobs = _rows(rows, all_jobs.only("account", "id", "status"), accounts) if all_jobs else []
            of_accounts = f" of account {' or '.join(accounts)}" if accounts else ""
            _check_jobs(job_ids, chosen, jobs, f"{of_accounts} in {warehouse.shown}")
            chosen = [row for row in chosen if row["fine_tuning_job_id"] in job_ids]
    chosen.sort(key=lambda row: (row["account"], row["fine_tuning_job_id"]))
    chosen.sort(key=lambda row: row["job_created_at"] or _NEVER, reverse=True)  # stable; jobs without a time come last
    return view.schema.names, chosen


def _rows(rows: Rows, relation: Relation, accounts: Sequence[str]) -> list[Row]:
    return [
        row
        for batch in rows.batches(relation)
        for row in batch.to_pylist()
        if not accounts or row["account"] in accounts
    ]


def _check_jobs(job_ids: Sequence[str], best: Sequence[Row], jobs: Sequence[Row], where: str) -> None:
    with_checkpoints = {row["fine_tuning_job_id"] for row in best}
    status = {job["id"]: job["status"] or "without a status" for job in jobs}
    for job_id in job_ids:
        if job_id not in with_checkpoints and job_id in status:
            raise CommandError(f"The job {job_id} has no checkpoints (it is {status[job_id]}).")
        if job_id not in with_checkpoints:
            raise CommandError(f"There is no job {job_id}{where}: `ftw sync` brings new ones.")
