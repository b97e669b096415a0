"""Keep the rows of large views in tables, so that a large warehouse answers in tenths of a second.

The tables lie in a schema beside the dataset. A view shows their rows for each account that still has the rows that
they were made from: as many, from the same loads. For the other accounts it computes its rows, as it does in a small
warehouse. So a sync that is killed, another program that adds rows, or a row that is deleted cost time alone. A value
that is changed by hand, in a row that keeps its `_dlt_load_id`, is not noticed.
"""

from __future__ import annotations

from typing import Any

from fine_tuning_warehouse.errors import is_bug, root_cause
from fine_tuning_warehouse.text import first_line
from fine_tuning_warehouse.warehouses.sql_text import literal, quoted
from fine_tuning_warehouse.warehouses.warehouse import MARK, MaterializationError

from .build import JOBS_TO_MATERIALIZE, Builder
from .files import MATERIALIZED, PARTS

_ROWS_AT_ONCE = 500_000
"""Rows, as read, from which rows of views are computed in one step. It decides how much memory a step takes."""

_TABLES = ("accounts", "jobs", *(view.name for view in MATERIALIZED))
"""All tables. All but the first have rows of jobs."""

_MAKE = (
    "CREATE SCHEMA IF NOT EXISTS {schema}",
    "CREATE OR REPLACE TABLE {schema}.accounts (account VARCHAR, row_count BIGINT, loads BIGINT)",
    """
    CREATE OR REPLACE TABLE {schema}.jobs
    (account VARCHAR, fine_tuning_job_id VARCHAR, row_count BIGINT, loads BIGINT)
    """,
    "CREATE OR REPLACE TEMP TABLE {chosen} (account VARCHAR, fine_tuning_job_id VARCHAR)",
)

_COUNT_ACCOUNTS = "CREATE OR REPLACE TEMP TABLE counted_accounts AS {_accounts}"

_FIND_CHANGED_ACCOUNT = """
    SELECT account FROM counted_accounts WHERE is_materialized = 0 AND loads IS NOT NULL
    UNION ALL
    SELECT account FROM {schema}.accounts ANTI JOIN counted_accounts USING (account)
    LIMIT 1
"""

# Until the last step, the views read none of the tables. Rows without a load are never materialized: nothing tells
# whether they have changed.
_FIND_CHANGED_JOBS = (
    "DELETE FROM {schema}.accounts",
    "CREATE OR REPLACE TEMP TABLE counted_jobs AS {_job_rows}",
    """
    CREATE OR REPLACE TEMP TABLE changed_jobs AS
    SELECT *, (SUM(row_count) OVER (ORDER BY account, fine_tuning_job_id) - 1) // {rows_at_once} AS step
    FROM counted_jobs
    ANTI JOIN {schema}.jobs USING (account, fine_tuning_job_id, row_count, loads)
    WHERE loads IS NOT NULL
    """,
)

_CHOOSE = "CREATE OR REPLACE TEMP TABLE {chosen} AS SELECT * EXCLUDE (step) FROM changed_jobs WHERE step = {step}"

_DELETE = """
    DELETE FROM {schema}.{table}
    WHERE rowid IN (SELECT t.rowid FROM {schema}.{table} AS t {those} USING (account, fine_tuning_job_id))
"""

_KEEP_ACCOUNTS = """
    INSERT INTO {schema}.accounts
    SELECT account, row_count, loads FROM counted_accounts WHERE loads IS NOT NULL
"""


class Materialization:
    """The tables that hold the rows of large views.

    Args:
        sql: dlt's SQL client of a DuckDB file.
        schema: The schema of the tables.
        builder: Builds their rows.
    """

    def __init__(self, sql: Any, schema: str, builder: Builder) -> None:
        self._sql = sql
        self._schema = schema
        self._builder = builder

    def is_made_from(self, version: str) -> bool:
        """Return whether the tables are there, for a version of the views."""
        query = (
            "SELECT table_name, comment FROM duckdb_tables() "
            "WHERE schema_name = %s AND database_name = current_database()"
        )
        comments = dict(self._sql.execute_sql(query, self._schema) or ())
        return all(comments.get(name) == f"{MARK}{version}" for name in _TABLES)

    def make(self, version: str) -> None:
        """Make the tables for a version of the views, without rows, in place of those that are there."""
        for statement in _MAKE:
            self._execute(statement)
        for view in MATERIALIZED:
            rows = self._builder.select_to_materialize(view)
            self._execute("CREATE OR REPLACE TABLE {schema}.{table} AS {rows} LIMIT 0", view.name, rows=rows)
        for name in _TABLES:
            self._execute("COMMENT ON TABLE {schema}.{table} IS {version}", name, version=literal(f"{MARK}{version}"))

    def refresh(self) -> None:
        """Compute the rows of jobs that have changed, and remove those of jobs that are gone.

        Raises:
            MaterializationError: The database refuses: its disk is full, for example. The views are as right as before.
        """
        try:
            self._refresh()
        except Exception as error:
            if is_bug(root_cause(error)):
                raise
            raise MaterializationError(
                "The tables are loaded, but the rows of large views could not be kept: the views compute them at each "
                f"query, and take longer. The next sync tries again: {first_line(error)}"
            ) from error

    def _refresh(self) -> None:
        self._execute(_COUNT_ACCOUNTS)
        if not self._execute(_FIND_CHANGED_ACCOUNT):
            return
        for statement in _FIND_CHANGED_JOBS:
            self._execute(statement)
        for (step,) in self._execute("SELECT DISTINCT step FROM changed_jobs ORDER BY step"):
            with self._sql.begin_transaction():
                self._execute(_CHOOSE, step=int(step))
                for view in MATERIALIZED:
                    self._replace(view.name, self._builder.select_to_materialize(view))
                self._replace("jobs", f"FROM {JOBS_TO_MATERIALIZE}")
        with self._sql.begin_transaction():
            for name in _TABLES[1:]:
                self._execute(_DELETE, name, those="ANTI JOIN counted_jobs")
            self._execute(_KEEP_ACCOUNTS)

    def _replace(self, name: str, rows: str) -> None:
        """Replace the rows of the chosen jobs."""
        self._execute(_DELETE, name, those=f"SEMI JOIN {JOBS_TO_MATERIALIZE}")
        self._execute("INSERT INTO {schema}.{table} BY NAME {rows}", name, rows=rows)

    def _execute(self, statement: str, table: str = "", **texts: Any) -> list[Any]:
        parts = {part.name: self._builder.select(part) for part in PARTS if f"{{{part.name}}}" in statement}
        texts |= {"schema": quoted(self._schema), "table": quoted(table), "chosen": JOBS_TO_MATERIALIZE, **parts}
        sql = statement.format(**texts, rows_at_once=_ROWS_AT_ONCE)
        return list(self._sql.execute_sql(sql) or ())
