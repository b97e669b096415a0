"""`ftw best`: the rows of the view `best_checkpoints`, and how people read them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from .destinations import Warehouse
from .errors import CommandError, root_cause
from .output import as_table, safe, table_width
from .query import query
from .views.build import DIALECTS
from .workspace import working_directory

VIEW = "best_checkpoints"
_ROWS = "SELECT * FROM {view} ORDER BY job_created_at DESC, account, fine_tuning_job_id"
_JOBS = "SELECT account, id, status FROM {jobs}"

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
    warehouse: Warehouse, *, account: str | None = None, job_ids: Sequence[str] = ()
) -> tuple[list[str], list[Row]]:
    """The checkpoint to deploy for each job, newest job first: column names and rows.

    Args:
        warehouse: Where the view is.
        account: Only this account's jobs.
        job_ids: Only these jobs.

    Raises:
        CommandError: There is no such warehouse, view or job.
    """
    if warehouse.is_duckdb_file:
        names, rows, jobs = _from_file(warehouse, with_jobs=bool(job_ids))
    else:
        names, rows, jobs = _from_destination(warehouse, with_jobs=bool(job_ids))
    chosen = [dict(zip(names, row, strict=True)) for row in rows]
    chosen = [row for row in chosen if account is None or row["account"] == account]
    if job_ids:
        known = {row["fine_tuning_job_id"] for row in chosen}
        status = {job_id: status for label, job_id, status in jobs if account is None or label == account}
        for job_id in job_ids:
            if job_id in status and job_id not in known:
                raise CommandError(f"The job {job_id} has no checkpoints (it is {status[job_id] or 'of no status'}).")
            if job_id not in known:
                whose = "" if account is None else f" of account {account}"
                raise CommandError(f"There is no job {job_id}{whose} in {warehouse.shown}: `ftw sync` brings new ones.")
        chosen = [row for row in chosen if row["fine_tuning_job_id"] in job_ids]
    return names, chosen


def _from_file(warehouse: Warehouse, *, with_jobs: bool) -> tuple[list[str], list[Any], list[Any]]:
    assert warehouse.database is not None  # noqa: S101 - a DuckDB file has a path
    database, dataset = warehouse.database, warehouse.dataset

    def is_there(name: str) -> bool:
        sql = f"SELECT 1 FROM duckdb_columns() WHERE schema_name = '{dataset}' AND table_name = '{name}'"  # noqa: S608
        return bool(query(database, sql, dataset)[1])

    if not is_there(VIEW):
        raise _no_view(warehouse)
    jobs = query(database, _JOBS.format(jobs="jobs"), dataset)[1] if with_jobs and is_there("jobs") else []
    return *query(database, _ROWS.format(view=VIEW), dataset), jobs


def _from_destination(warehouse: Warehouse, *, with_jobs: bool) -> tuple[list[str], list[Any], list[Any]]:
    from dlt.destinations.job_client_impl import SqlJobClientBase  # noqa: PLC0415 - see accounts

    try:
        with (
            working_directory() as directory,
            warehouse.pipeline("fine_tuning_best", directory).destination_client() as client,
        ):
            if not isinstance(client, SqlJobClientBase) or client.capabilities.sqlglot_dialect not in DIALECTS:
                raise CommandError(f"There are no views in {warehouse.shown}: `ftw best` needs a SQL destination.")
            sql = client.sql_client
            tables = dict(client.get_storage_tables([VIEW, "jobs"]))
            if not tables[VIEW]:
                raise _no_view(warehouse)
            jobs: Sequence[Any] = ()
            if with_jobs and tables["jobs"]:
                jobs = sql.execute_sql(_JOBS.format(jobs=sql.make_qualified_table_name("jobs"))) or ()
            with sql.execute_query(_ROWS.format(view=sql.make_qualified_table_name(VIEW))) as cursor:
                names = [str(column[0]).lower() for column in cursor.description]
                return names, list(cursor.fetchall()), list(jobs)
    except CommandError:
        raise
    except Exception as error:
        raise CommandError(f"{warehouse.shown} cannot be read: {str(root_cause(error)).splitlines()[0]}") from error


def _no_view(warehouse: Warehouse) -> CommandError:
    return CommandError(f"{warehouse.shown} holds no view {VIEW}: `ftw sync` makes it, where it reads checkpoints.")


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
