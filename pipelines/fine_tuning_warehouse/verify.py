"""Compare a warehouse with the API, row by row (`ftw verify`).

Everything is read once more into a scratch database, with the column types of the warehouse. Then the two are compared.
Nothing is written to the warehouse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import dlt
import duckdb
from dlt.extract import DltSource

from fine_tuning_warehouse.schema import TABLES
from openai_fine_tuning import FineTuningSourceError, Report
from openai_fine_tuning.schema import MODELS, REJECTED_RECORDS
from openai_fine_tuning.settings import CONCURRENCY, JOB_RESOURCES, OVERLAP_SECONDS, RESOURCES
from openai_fine_tuning.state.takeover import state_in_force
from openai_fine_tuning.state.watermark import known_jobs, short_listing

from .accounts.account import Account
from .accounts.diagnosis import to_command_error
from .errors import CommandError, root_cause
from .sync.run import Watch, watch_nothing
from .warehouses.changes import BOOKKEEPING
from .warehouses.rows import Rows, open_rows
from .warehouses.sql_text import literal, quoted
from .warehouses.state import Stored, find_stored
from .warehouses.warehouse import Warehouse
from .warehouses.working_directory import working_directory

CHANGEABLE = frozenset({"status", "status_details", "expires_at"})
"""Columns of `files` that the host may change later. A file is read once, so they are not compared."""

Verdict = Literal["missing", "different", "duplicate", "pending", "unlisted", "unreadable"]

FAILURES: tuple[Verdict, ...] = ("missing", "different", "duplicate")
"""The verdicts that make a warehouse differ from the API."""


@dataclass(frozen=True)
class Finding:
    """A row in which the API and the warehouse differ.

    Attributes:
        table: The table of the row.
        key: The key columns after the account, joined by blanks.
        verdict: `missing`: the warehouse lacks the row. `different`: some values differ. `duplicate`: several rows of
            the warehouse have this key. The others are not failures. `pending`: a later sync will bring the row, since
            its job is new or open, or since it is a model, which are read once a day. `unlisted`: the API no longer
            lists it. `unreadable`: the API could not be read.
        columns: The columns that differ.
    """

    table: str
    key: str
    verdict: Verdict
    columns: tuple[str, ...] = ()


@dataclass
class Comparison:
    """The result of a comparison.

    Attributes:
        equal: The number of equal rows of each table.
        findings: The rows that are not equal.
        skipped: The parts of the API that could not be read, as in `AccountResult.skipped`.
        warnings: Sentences that say what is probably wrong, even if all rows are equal.
        requests: The number of requests that were sent.
    """

    equal: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    skipped: list[dict[str, str | None]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    requests: int = 0

    @property
    def differs(self) -> bool:
        """Whether the warehouse lacks a row, holds another value, or holds a row more than once."""
        return any(finding.verdict in FAILURES for finding in self.findings)

    def count(self, table: str, verdict: Verdict) -> int:
        """Return the number of findings of one verdict in a table."""
        return sum(finding.table == table and finding.verdict == verdict for finding in self.findings)


def verify(
    account: Account,
    warehouse: Warehouse,
    *,
    concurrency: int = CONCURRENCY,
    watch: Watch | None = None,
) -> Comparison:
    """Read everything of an account once more, and compare it with the warehouse.

    Args:
        account: The account to read.
        warehouse: The warehouse to compare.
        concurrency: The highest number of requests in flight.
        watch: Shows the progress.

    Raises:
        CommandError: The warehouse holds no sync of the account, or the host cannot be read.
    """
    report = Report()
    with working_directory() as directory, (watch or watch_nothing)(report):
        stored = find_stored(account.label, warehouse, directory / "kept")
        if stored.schema is None:
            raise CommandError(f"{warehouse.shown} holds no sync of account {account.label}: run `ftw sync` first.")
        source = account.source(RESOURCES, fine_tuning_concurrency=concurrency, fine_tuning_report=report)
        _read_again(account, source, stored, directory / "listed.duckdb")
        with closing(account.api()) as api:
            identity = api.identity
        tables = [*RESOURCES, REJECTED_RECORDS.name]
        comparison = Comparison(requests=report.requests, skipped=[asdict(skip) for skip in report.skipped])
        known = known_jobs(stored.state.get("resources", {}).values(), account.label)
        warning = short_listing(account.label, listed=report.jobs_seen, known=known)
        comparison.warnings += [warning] if warning else []
        skipped = {(skip.job, skip.resource) for skip in report.skipped}
        if report.models_failure is not None:
            skipped.add((None, MODELS.name))
        with (
            duckdb.connect(str(directory / "kept.duckdb")) as scratch,
            open_rows(warehouse, names=tables) as rows,
        ):
            scratch.execute(f"ATTACH '{directory / 'listed.duckdb'}' AS listed (READ_ONLY)")
            for table in tables:
                comparison.findings += _copy_rows(rows, scratch, table, account.label)
                for column in set(_columns(scratch, "main", table)) - TABLES[table].types.keys():
                    if stored.is_added(table, column) and not _is_sent(scratch, table, column):
                        scratch.execute(f'ALTER TABLE "{table}" DROP COLUMN {quoted(column)}')
            for table in tables:
                unread = _Unread.from_state(stored, table, account.label, identity)
                _compare(scratch, table, unread, skipped, comparison)
    return comparison


def _read_again(account: Account, source: DltSource, stored: Stored, database: Path) -> None:
    """Load everything into a scratch database, with the column types that the warehouse has."""
    pipeline = dlt.pipeline(
        "listed",
        pipelines_dir=str(database.with_suffix("")),
        destination=dlt.destinations.duckdb(str(database)),
        dataset_name="api",
    )
    stored.columns_into(source.schema, (*source.selected_resources, REJECTED_RECORDS.name))
    try:
        pipeline.run(source)
    except Exception as error:  # noqa: BLE001 - dlt wraps it, and wraps that
        cause = root_cause(error)
        if isinstance(cause, FineTuningSourceError):
            raise to_command_error(account, cause) from None
        raise cause from None


def _copy_rows(rows: Rows, scratch: duckdb.DuckDBPyConnection, table: str, account: str) -> Iterator[Finding]:
    """Copy the rows of an account into the scratch database, one row for each key; yield the duplicates."""
    relation = rows.relation(table)
    if relation is None:
        scratch.execute(f'CREATE TABLE "{table}" AS FROM listed.api."{table}" LIMIT 0')
        return
    scratch.register("rows", rows.reader(relation, {"account": [account]}))
    scratch.execute(f'CREATE TABLE "{table}" AS FROM rows')
    scratch.unregister("rows")
    keys = _keys(table)
    names = ", ".join(map(quoted, keys))
    duplicates = scratch.execute(
        f'SELECT {_joined(keys)} FROM "{table}" GROUP BY {names} HAVING count(*) > 1 ORDER BY ALL'  # noqa: S608
    ).fetchall()
    if duplicates:
        scratch.execute(f'CREATE OR REPLACE TABLE "{table}" AS SELECT DISTINCT ON ({names}) * FROM "{table}"')  # noqa: S608
    yield from (Finding(table, str(key), "duplicate") for (key,) in duplicates)


@dataclass(frozen=True)
class _Unread:
    """The part of a table that the next sync will read by itself, so that the warehouse may still lack it.

    Attributes:
        open_jobs: Ids of the open jobs.
        closed_jobs: Ids of the newest closed jobs.
        newer_than: Other jobs that were created since this time are new (unix seconds); None: all jobs are new.
        read_files: Ids of files that were read for open jobs, or that were gone.
    """

    open_jobs: frozenset[str]
    closed_jobs: frozenset[str]
    newer_than: float | None
    read_files: frozenset[str]

    @classmethod
    def from_state(cls, stored: Stored, table: str, label: str, identity: str) -> _Unread:
        """Read it from the state that the last sync left in the warehouse."""
        resources: dict[str, Any] = stored.state.get("resources", {})
        states = [
            state_in_force(resources.get(name, {}), label, identity)
            for name in ([table] if table in JOB_RESOURCES else JOB_RESOURCES)
        ]
        newest = [state["newest"] for state in states if state.get("newest") is not None]
        open_jobs = [item for state in states for item in state.get("open", {}).items()]
        return cls(
            frozenset(job_id for job_id, _ in open_jobs),
            frozenset(job_id for state in states for job_id in state.get("recent", {})),
            min(newest) - OVERLAP_SECONDS if newest else None,
            frozenset(file for _, known in open_jobs for file in known.get("files", ())),
        )

    def has(self, job_id: str | None, created_at: float | None, *, was_read: bool) -> bool:
        """Return whether the next sync reads a row that the warehouse lacks.

        Args:
            job_id: The job of the row.
            created_at: When the job was created, in unix seconds.
            was_read: A sync has read past the row; it is not read again for an open job.
        """
        if job_id in self.open_jobs:
            return not was_read
        if job_id in self.closed_jobs:
            return False
        return self.newer_than is None or (created_at is not None and created_at >= self.newer_than)


# Of the jobs that name a file, the oldest one counts: the file was read for that job first.
_JOB_OF_FILE = """(
  SELECT arg_min(id, created_at) FROM (
    SELECT id, created_at, unnest([training_file, validation_file]) AS file_id FROM listed.api.jobs
    UNION ALL
    SELECT id, created_at, coalesce(file ->> '$.id', file ->> '$') FROM (
      SELECT id, created_at, unnest(from_json(result_files, '["JSON"]')) AS file FROM listed.api.jobs
      WHERE json_type(result_files) = 'ARRAY'
    )
  ) AS named WHERE named.file_id = l.id
)"""
# A sync reads the events of an open job back to the newest one that the warehouse has.
_IS_READ_EVENT = (
    "l.created_at < (SELECT max(created_at) FROM events AS e WHERE e.fine_tuning_job_id = l.fine_tuning_job_id)"
)


def _compare(
    scratch: duckdb.DuckDBPyConnection,
    table: str,
    unread: _Unread,
    skipped: set[tuple[str | None, str]],
    comparison: Comparison,
) -> None:
    """Add the rows in which a table differs to `comparison`, and the number of equal rows."""
    keys = _keys(table)
    listed, kept = _columns(scratch, "listed.api", table), _columns(scratch, "kept.main", table)
    left_out = {*keys, "account", *BOOKKEEPING, *(CHANGEABLE if table == "files" else ())}

    def value(alias: str, name: str, present: Sequence[str]) -> str:
        return f"{alias}.{quoted(name)}" if name in present else "NULL"

    differing = ", ".join(
        f"CASE WHEN {value('l', name, listed)} IS DISTINCT FROM {value('k', name, kept)} THEN {literal(name)} END"
        for name in dict.fromkeys([*listed, *kept])
        if name not in left_out
    )
    join = " AND ".join(f"l.{quoted(name)} = k.{quoted(name)}" for name in keys)
    job = {"jobs": "coalesce(l.id, k.id)", "files": _JOB_OF_FILE, "models": "NULL"}.get(
        table, "coalesce(l.fine_tuning_job_id, k.fine_tuning_job_id)"
    )
    was_read = _IS_READ_EVENT if table == "events" else "false"
    rows = scratch.execute(
        f"""
        WITH compared AS (
          SELECT coalesce({_joined(keys, "l.")}, {_joined(keys, "k.")}) AS key, {job} AS job_id,
                 l.account IS NOT NULL AS is_listed, k.account IS NOT NULL AS is_kept,
                 list_filter([{differing}], name -> name IS NOT NULL) AS columns, {was_read} AS was_read
          FROM listed.api."{table}" AS l FULL JOIN kept.main."{table}" AS k ON {join}
        )
        SELECT key, job_id, is_listed, is_kept, columns, was_read, epoch(jobs.created_at)
        FROM compared LEFT JOIN listed.api.jobs AS jobs ON jobs.id = compared.job_id
        WHERE NOT is_listed OR NOT is_kept OR len(columns) > 0
        ORDER BY ALL
        """  # noqa: S608 - names of our own schema
    ).fetchall()
    different = 0
    for key, job_id, is_listed, is_kept, columns, is_read, created_at in rows:
        verdict: Verdict
        if not is_listed:
            verdict = "unreadable" if {(job_id, table), (job_id, "jobs"), (None, table)} & skipped else "unlisted"
        elif is_kept:
            is_pending = table == MODELS.name or (table == "jobs" and job_id in unread.open_jobs)
            verdict = "pending" if is_pending else "different"
            different += 1
        else:
            was_read_before = bool(is_read) or key in unread.read_files
            is_pending = table == MODELS.name or unread.has(job_id, created_at, was_read=was_read_before)
            verdict = "pending" if is_pending else "missing"
        comparison.findings.append(Finding(table, str(key), verdict, tuple(columns) if is_listed and is_kept else ()))
    count = f'SELECT count(*) FROM listed.api."{table}" AS l JOIN "{table}" AS k ON {join}'  # noqa: S608
    in_both = scratch.execute(count).fetchall()
    comparison.equal[table] = int(in_both[0][0]) - different


def _keys(table: str) -> list[str]:
    return [name for name in TABLES[table].keys if name != "account"]


def _joined(keys: Sequence[str], prefix: str = "") -> str:
    return " || ' ' || ".join(f"{prefix}{quoted(name)}::VARCHAR" for name in keys)


def _is_sent(scratch: duckdb.DuckDBPyConnection, table: str, column: str) -> bool:
    """Return whether the host sends a value for a column."""
    if column not in _columns(scratch, "listed.api", table):
        return False
    query = f'SELECT count({quoted(column)}) > 0 FROM listed.api."{table}"'  # noqa: S608
    return bool(scratch.execute(query).fetchall()[0][0])


def _columns(scratch: duckdb.DuckDBPyConnection, schema: str, table: str) -> list[str]:
    return [str(row[0]) for row in scratch.execute(f'DESCRIBE {schema}."{table}"').fetchall()]


def lines(comparison: Comparison) -> Iterator[str]:
    """Yield a line of text for each table, and what to do about duplicates."""
    words = {"pending": "not synced yet", "unlisted": "no longer listed by the host", "unreadable": "not readable now"}
    for table, equal in comparison.equal.items():
        counts = [f"{n:,} {words.get(one, one)}" for one in get_args(Verdict) if (n := comparison.count(table, one))]
        yield f"  {table:<16}  {', '.join([f'{equal:,} equal', *counts])}"
    for warning in comparison.warnings:
        yield f"Warning: {warning}"
    if any(finding.verdict == "duplicate" for finding in comparison.findings):
        yield (
            "Some rows are there more than once. `ftw sync --full-refresh` reads all rows again and keeps one of each; "
            "then run `ftw verify` again."
        )
