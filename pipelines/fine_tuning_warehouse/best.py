"""`ftw best`: the rows of the view `best_checkpoints`, and how people read them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from .errors import CommandError
from .output import as_table, safe, table_width
from .warehouses.locking import READ_WAIT_SECONDS
from .warehouses.rows import Relation, Rows, open_rows
from .warehouses.warehouse import Warehouse

VIEW = "best_checkpoints"

_NEVER = datetime.min.replace(tzinfo=timezone.utc)

Row = dict[str, Any]

_SHOWN = {
    "account": "account",
    "fine_tuning_job_id": "job",
    "base_model": "base model",
    "suffix": "suffix",
    "fine_tuned_model_checkpoint": "checkpoint to deploy",
    "step_number": "step",
    "evaluation_metric": "metric",
    "evaluation_value": "value",
    "final_evaluation_value": "final",
    "cost_of_final": "cost of final",
    "overfitting_band": "verdict",
    "reason": "reason",
}


def best_checkpoints(
    warehouse: Warehouse, *, accounts: Sequence[str] = (), job_ids: Sequence[str] = ()
) -> tuple[list[str], list[Row]]:
    """The checkpoint to deploy for each job, newest job first: column names and rows.

    Args:
        warehouse: Where the view is; where its engine knows no views, it is computed.
        accounts: Only these accounts' jobs; all where there are none.
        job_ids: Only these jobs.

    Raises:
        CommandError: There is no such warehouse, view or job.
    """
    with open_rows(warehouse, names=(VIEW, "jobs"), lock_wait_seconds=READ_WAIT_SECONDS) as rows:
        view, all_jobs = rows.relation(VIEW), rows.relation("jobs")
        if view is None:
            raise CommandError(
                f"{warehouse.shown} holds no view {VIEW}: `ftw sync` makes it, where it reads checkpoints."
            )
        chosen = list(_rows(rows, view))
        jobs = list(_rows(rows, all_jobs.only("account", "id", "status"))) if job_ids and all_jobs else []
    # The newest job first, one of unknown time last; both sorts are stable.
    chosen.sort(key=lambda row: (row["account"], row["fine_tuning_job_id"]))
    chosen.sort(key=lambda row: row["job_created_at"] or _NEVER, reverse=True)
    chosen = [row for row in chosen if not accounts or row["account"] in accounts]
    if job_ids:
        known = {row["fine_tuning_job_id"] for row in chosen}
        status = {job["id"]: job["status"] for job in jobs if not accounts or job["account"] in accounts}
        for job_id in job_ids:
            if job_id in status and job_id not in known:
                raise CommandError(f"The job {job_id} has no checkpoints (it is {status[job_id] or 'of no status'}).")
            if job_id not in known:
                whose = f" of account {' or '.join(accounts)}" if accounts else ""
                raise CommandError(f"There is no job {job_id}{whose} in {warehouse.shown}: `ftw sync` brings new ones.")
        chosen = [row for row in chosen if row["fine_tuning_job_id"] in job_ids]
    return view.schema.names, chosen


def _rows(rows: Rows, relation: Relation) -> Iterator[Row]:
    for batch in rows.batches(relation):
        yield from batch.to_pylist()


def as_text(rows: Sequence[Row], width: int | None = None) -> str:
    """The rows for people: a table, or, where that is wider than the terminal, a few lines a job.

    Args:
        rows: Rows of `best_checkpoints`.
        width: Columns of the terminal; None for no limit, where the output is not one.
    """
    several = len({row["account"] for row in rows}) > 1
    columns = [name for name in _SHOWN if several or name != "account"]
    names = [_SHOWN[name] for name in columns]
    cells = [[_shown(row[name]) for name in columns] for row in rows]
    if width is None or table_width(names, cells) <= width:
        return as_table(names, cells)
    return "\n\n".join(_card(row, width, several=several) for row in rows)


def _card(row: Row, width: int, *, several: bool) -> str:
    shown = {name: _shown(row[name]) for name in _SHOWN}
    values = {name: f"{value:g}" if isinstance(value, float) else safe(str(value)) for name, value in shown.items()}
    head = ("account",) * several + ("fine_tuning_job_id", "base_model", "suffix")
    measured = f"{values['evaluation_metric']} {values['evaluation_value']}, final {values['final_evaluation_value']}"
    facts = [f"step {values['step_number']}", f"{measured}, cost of final {values['cost_of_final']}"]
    if row["overfitting_band"]:
        facts.append(values["overfitting_band"])
    lines = [" · ".join(values[name] for name in head if row[name]), "  " + values["fine_tuned_model_checkpoint"]]
    for text in (" · ".join(facts) if row["evaluation_metric"] else facts[0], values["reason"]):
        lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines)


def _shown(value: Any) -> Any:
    if value is None:
        return "-"
    return float(f"{value:.4g}") if isinstance(value, float) else value
