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
        without_checkpoints: The jobs, among those that were asked for, that have no checkpoints: status to number.
    """

    columns: list[str]
    rows: list[Row]
    without_checkpoints: Mapping[str, int]


_JOB_COLUMNS = ("account", "id", "status", "user_provided_suffix", "suffix")

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
            refused = "" if warehouse.duckdb_file else " Or this role may not read it."
            raise CommandError(
                f"{warehouse.shown} holds no view {VIEW}: a `ftw sync` that reads checkpoints makes it.{refused}"
            )
        of_accounts = {"account": accounts} if accounts else {}
        known = [one for one in _JOB_COLUMNS if all_jobs and one in all_jobs.schema.names]
        jobs = _rows(rows, all_jobs.only(*known), of_accounts) if all_jobs else []
        if job_ids:
            # A view answers for one job in a fraction of the time that it takes for all.
            are_ids = {job["id"] for job in jobs}.issuperset(job_ids)
            found = _rows(rows, view, {**of_accounts, **({"fine_tuning_job_id": job_ids} if are_ids else {})})
            named = f" of account {' or '.join(accounts)}" if accounts else ""
            chosen, others = _named(job_ids, found, jobs, f"{named} in {warehouse.shown}")
        else:
            chosen = _rows(rows, view, of_accounts)
            others = _without_row(jobs, chosen)
    if improvable:
        chosen = [row for row in chosen if _is_improvable(row)]
    chosen.sort(key=lambda row: (row["account"], row["fine_tuning_job_id"]))
    chosen.sort(key=lambda row: row["job_created_at"] or _NEVER, reverse=True)  # stable; jobs without a time come last
    if sort == "cost":
        chosen.sort(key=lambda row: -1.0 if row["cost_of_final"] is None else row["cost_of_final"], reverse=True)
    return Best(view.schema.names, chosen[:limit], Counter(_status(job) for job in others))


def _rows(rows: Rows, relation: Relation, conditions: Conditions) -> list[Row]:
    return [row for batch in rows.batches(relation, conditions) for row in batch.to_pylist()]


def _status(job: Row) -> str:
    return job["status"] or "without a status"


def _without_row(jobs: Sequence[Row], best: Sequence[Row]) -> list[Row]:
    """Return the jobs that have no row in the view, since they have no checkpoints."""
    found = {(row["account"], row["fine_tuning_job_id"]) for row in best}
    return [job for job in jobs if (job["account"], job["id"]) not in found]


def _named(job_ids: Sequence[str], best: Sequence[Row], jobs: Sequence[Row], where: str) -> tuple[list[Row], list[Row]]:
    """Return the rows of jobs that are named by id, by the beginning of an id, or by suffix; and those without rows."""
    chosen: list[Row] = []
    others: list[Row] = []
    without = _without_row(jobs, best)
    for name in job_ids:
        rows = [row for row in best if row["fine_tuning_job_id"] == name]
        bare = [job for job in without if job["id"] == name]
        if not rows and not bare:
            rows = _alike(name, best, "fine_tuning_job_id", "suffix")
            bare = _alike(name, without, "id", "user_provided_suffix", "suffix")
        if not rows and not bare:
            similar = _did_you_mean(name, jobs, best)
            raise CommandError(f"There is no job {name or repr(name)}{where}{similar}: `ftw sync` brings new ones.")
        chosen += [row for row in rows if row not in chosen]
        others += [job for job in bare if job not in others]
    if not chosen:
        if not others[1:]:
            raise CommandError(f"The job {others[0]['id']} has no checkpoints (it is {_status(others[0])}).")
        listed = ", ".join(f"{job['id']} ({_status(job)})" for job in others)
        raise CommandError(f"The jobs {listed} have no checkpoints.")
    return chosen, others


def _alike(name: str, rows: Sequence[Row], id_column: str, *suffix_columns: str) -> list[Row]:
    """Return the rows of jobs with an id that begins so, or with that suffix; none for an empty name."""
    return [
        row
        for row in rows
        if name and (row[id_column].startswith(name) or name in [row.get(column) for column in suffix_columns])
    ]


def _did_you_mean(name: str, jobs: Sequence[Row], best: Sequence[Row]) -> str:
    """Return ` (did you mean 'x'?)`: of an id as much as was given, where only the case differs."""
    ids = [job["id"] for job in jobs]
    names = [*ids, *(row["suffix"] for row in best if row["suffix"])]
    in_case = [one[: len(name)] for one in ids if one.lower().startswith(name.lower())]
    partly = [one for one in names if name.lower() in one.lower()]
    meant = (in_case or partly)[:1] if name else []
    return f" (did you mean {meant[0]!r}?)" if meant else did_you_mean(name, names)


def _is_improvable(row: Row) -> bool:
    name = row["fine_tuned_model_checkpoint"]
    is_advised = row["advice"] in ("deploy", "retrain") and row["checkpoint_to_deploy"] == name
    return is_advised and row["checkpoint_id"] != row["final_checkpoint_id"]
