"""Read the checkpoint to deploy for each job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple

from .accounts.account import did_you_mean
from .errors import CommandError
from .warehouses.locking import READ_WAIT_SECONDS
from .warehouses.rows import Conditions, Relation, Rows, open_rows
from .warehouses.warehouse import Warehouse

VIEW = "best_checkpoints"

Row = dict[str, Any]


class Best(NamedTuple):
    """What to deploy.

    Attributes:
        columns: The columns of the view.
        rows: Its rows, one a job.
        without_checkpoints: The other jobs of the accounts, which have no checkpoints: status to their number. Empty if
            jobs were chosen.
    """

    columns: list[str]
    rows: list[Row]
    without_checkpoints: Mapping[str, int]


_NEVER = datetime.min.replace(tzinfo=timezone.utc)


def best_checkpoints(
    warehouse: Warehouse,
    *,
    accounts: Sequence[str] = (),
    job_ids: Sequence[str] = (),
    sort: Literal["created", "cost"] = "created",
    limit: int | None = None,
    improvable: bool = False,
) -> Best:
    """Return the rows of the view `best_checkpoints`.

    Args:
        warehouse: The warehouse that holds the view. Where its engine has no views, the rows are computed here.
        accounts: Only jobs of these accounts; all accounts if empty.
        job_ids: Only these jobs, each named by its id, the beginning of its id, or its suffix; all jobs if empty.
        sort: What comes first: the newest job, or the one that loses most by its final checkpoint.
        limit: How many rows to return at most.
        improvable: Only jobs of which another checkpoint than the final one is advised.

    Raises:
        CommandError: The warehouse, the view or a job does not exist, or a job has no checkpoints.
    """
    with open_rows(warehouse.waiting(READ_WAIT_SECONDS), names=(VIEW, "jobs")) as rows:
        view, all_jobs = rows.relation(VIEW), rows.relation("jobs")
        if view is None:
            raise CommandError(f"{warehouse.shown} holds no view {VIEW}: a `ftw sync` that reads checkpoints makes it.")
        of_accounts = {"account": accounts} if accounts else {}
        jobs = _rows(rows, all_jobs.only("account", "id", "status"), of_accounts) if all_jobs else []
        without: Counter[str] = Counter()
        if job_ids:
            # A view answers for one job in a fraction of the time that it takes for all.
            are_ids = {job["id"] for job in jobs}.issuperset(job_ids)
            found = _rows(rows, view, {**of_accounts, **({"fine_tuning_job_id": job_ids} if are_ids else {})})
            named = f" of account {' or '.join(accounts)}" if accounts else ""
            chosen = _named(job_ids, found, jobs, f"{named} in {warehouse.shown}")
        else:
            chosen = _rows(rows, view, of_accounts)
            have = {(row["account"], row["fine_tuning_job_id"]) for row in chosen}
            without.update(job["status"] or "?" for job in jobs if (job["account"], job["id"]) not in have)
    if improvable:
        chosen = [row for row in chosen if _is_improvable(row)]
    chosen.sort(key=lambda row: (row["account"], row["fine_tuning_job_id"]))
    chosen.sort(key=lambda row: row["job_created_at"] or _NEVER, reverse=True)  # stable; jobs without a time come last
    if sort == "cost":
        chosen.sort(key=lambda row: -1.0 if row["cost_of_final"] is None else row["cost_of_final"], reverse=True)
    return Best(view.schema.names, chosen[:limit], without)


def _rows(rows: Rows, relation: Relation, conditions: Conditions) -> list[Row]:
    return [row for batch in rows.batches(relation, conditions) for row in batch.to_pylist()]


def _named(job_ids: Sequence[str], best: Sequence[Row], jobs: Sequence[Row], where: str) -> list[Row]:
    """Return the rows of the jobs that are named by id, by the beginning of an id, or by suffix."""
    chosen: list[Row] = []
    status = {job["id"]: job["status"] or "without a status" for job in jobs}
    for name in job_ids:
        exact = [row for row in best if row["fine_tuning_job_id"] == name]
        alike = [row for row in best if row["suffix"] == name or row["fine_tuning_job_id"].startswith(name or " ")]
        without = [job_id for job_id in status if job_id == name] or [
            id_ for id_ in status if id_.startswith(name or " ")
        ]
        if exact or (alike and name not in status):
            chosen += [row for row in exact or alike if row not in chosen]
        elif without:
            raise CommandError(f"The job {without[0]} has no checkpoints (it is {status[without[0]]}).")
        else:
            similar = _did_you_mean(name, list(status), [row["suffix"] for row in best if row["suffix"]])
            raise CommandError(f"There is no job {name}{where}{similar}: `ftw sync` brings new ones.")
    return chosen


def _did_you_mean(name: str, ids: Sequence[str], suffixes: Sequence[str]) -> str:
    """Return ` (did you mean 'x'?)`: of an id as much as was given, where only the case differs."""
    in_case = next((one[: len(name)] for one in ids if name and one.lower().startswith(name.lower())), None)
    return did_you_mean(name, [*ids, *suffixes] if in_case is None else [in_case])


def _is_improvable(row: Row) -> bool:
    name = row["fine_tuned_model_checkpoint"]
    is_advised = row["advice"] in ("deploy", "retrain") and row["checkpoint_to_deploy"] == name
    return is_advised and row["checkpoint_id"] != row["final_checkpoint_id"]
