"""`ftw verify`: does the warehouse hold what the API says?

Everything is read once more into a scratch database, and the two are compared row by row. Nothing is written to the
warehouse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import dlt
import duckdb
from dlt.extract import DltSource

from openai_fine_tuning import FineTuningSourceError, Report
from openai_fine_tuning.schema import REJECTED_RECORDS, TABLES
from openai_fine_tuning.settings import CONCURRENCY, OVERLAP_SECONDS, RESOURCES
from openai_fine_tuning.state.takeover import frontier_in_force

from .accounts.account import Account
from .accounts.diagnosis import told_failure
from .errors import CommandError, root_cause
from .sync.run import Watch, watch_nothing
from .warehouses.duckdb_lock import LOCK_WAIT_SECONDS
from .warehouses.rows import Rows, open_rows
from .warehouses.state import Stored, find_stored
from .warehouses.waiting import Patience
from .warehouses.warehouse import Warehouse
from .warehouses.working_directory import working_directory

BOOKKEEPING = frozenset({"_dlt_load_id", "last_listed_at", "checkpoints_listed_at", "rejected_at"})
"""Columns that tell of a sync, not of the API."""

PASSING = frozenset({"status", "status_details", "expires_at"})
"""Columns of a file that its host may change after it was read, which happens once."""

Verdict = Literal["missing", "different", "pending", "unlisted", "unreadable"]


@dataclass(frozen=True)
class Finding:
    """A row in which the API and the warehouse differ.

    Attributes:
        table: Its table.
        key: Its key columns after the account, joined by blanks.
        verdict: `missing` and `different` are failures. `pending`: the next sync will bring it, since its job is new or
            open. `unlisted`: only the warehouse has it. `unreadable`: the host did not let it be compared.
        columns: The columns that differ.
    """

    table: str
    key: str
    verdict: Verdict
    columns: tuple[str, ...] = ()


@dataclass
class Comparison:
    """What a verification found.

    Attributes:
        equal: Rows that are equal, by table.
        findings: Rows that are not.
        skipped: What the host did not let be read, as `Summary.skipped` does.
        requests: Requests sent.
    """

    equal: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    skipped: list[dict[str, str | None]] = field(default_factory=list)
    requests: int = 0

    @property
    def differs(self) -> bool:
        """Whether the warehouse lacks something, or holds it otherwise."""
        return any(finding.verdict in ("missing", "different") for finding in self.findings)

    def count(self, table: str, verdict: Verdict) -> int:
        """How many findings of one kind there are in a table."""
        return sum(finding.table == table and finding.verdict == verdict for finding in self.findings)


def verify(
    account: Account,
    warehouse: Warehouse,
    *,
    concurrency: int = CONCURRENCY,
    lock_wait_seconds: float = LOCK_WAIT_SECONDS,
    watch: Watch | None = None,
) -> Comparison:
    """Read everything of an account once more and compare it with the warehouse.

    Args:
        account: Whose history.
        warehouse: Where it is.
        concurrency: The highest number of requests in flight.
        lock_wait_seconds: How long to wait for a sync that holds the DuckDB file.
        watch: Shows the progress.

    Raises:
        CommandError: There is no warehouse, or the host cannot be read.
    """
    report = Report()
    with working_directory() as directory, (watch or watch_nothing)(report):
        stored = find_stored(account.label, warehouse, directory / "kept", Patience(warehouse, lock_wait_seconds))
        if stored.schema is None:
            raise CommandError(f"{warehouse.shown} holds no sync of account {account.label}: run `ftw sync` first.")
        shown = directory / "shown.duckdb"
        source = account.source(RESOURCES, fine_tuning_concurrency=concurrency, fine_tuning_report=report)
        _read_again(account, source, stored, shown)
        with closing(account.api()) as api:
            identity = api.identity
        tables = [*RESOURCES, REJECTED_RECORDS.name]
        with (
            duckdb.connect(str(directory / "compare.duckdb")) as scratch,
            open_rows(warehouse, names=tables, lock_wait_seconds=lock_wait_seconds) as rows,
        ):
            scratch.execute(f"ATTACH '{shown}' AS shown (READ_ONLY)")
            for table in tables:
                _fetch(rows, scratch, table, account.label)
            comparison = Comparison(requests=report.requests)
            for table in tables:
                _compare(scratch, table, _Owed.of(stored, table, account.label, identity), report, comparison)
    comparison.skipped = [asdict(skip) for skip in report.skipped]
    return comparison


def _read_again(account: Account, source: DltSource, stored: Stored, database: Path) -> None:
    """Load everything into a scratch database, with the column types that the warehouse has."""
    pipeline = dlt.pipeline(
        "shown",
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
            raise told_failure(account, cause) from None
        raise cause from None


def _fetch(rows: Rows, scratch: duckdb.DuckDBPyConnection, table: str, account: str) -> None:
    """Copy an account's rows of the warehouse into the scratch database."""
    relation = rows.relation(table)
    if relation is None:
        scratch.execute(f'CREATE TABLE "{table}" AS FROM shown.api."{table}" LIMIT 0')
        return
    scratch.register("rows", rows.reader(relation, account=account))
    scratch.execute(f'CREATE TABLE "{table}" AS FROM rows')
    scratch.unregister("rows")


@dataclass(frozen=True)
class _Owed:
    """What the next sync will read of a table by itself: nothing of it is missing yet.

    Attributes:
        open_jobs: Ids of the open jobs.
        closed_jobs: Ids of the newest closed jobs.
        newer_than: Other jobs created since this (unix seconds) are new; None where all are.
        read_files: Files that were read for open jobs, or found gone.
    """

    open_jobs: frozenset[str]
    closed_jobs: frozenset[str]
    newer_than: float | None
    read_files: frozenset[str]

    @classmethod
    def of(cls, stored: Stored, table: str, label: str, identity: str) -> _Owed:
        """Read it off the state that the last sync left in the warehouse."""
        resources: dict[str, Any] = stored.state.get("resources", {})
        states = [
            frontier_in_force(resources.get(name, {}), label, identity)
            for name in ([table] if table in RESOURCES else RESOURCES)
        ]
        newest = [state["newest"] for state in states if state.get("newest") is not None]
        return cls(
            frozenset(job_id for state in states for job_id in state.get("open", {})),
            frozenset(job_id for state in states for job_id in state.get("recent", {})),
            min(newest) - OVERLAP_SECONDS if newest else None,
            frozenset(
                file for state in states for known in state.get("open", {}).values() for file in known.get("files", ())
            ),
        )

    def brings(self, job_id: str | None, created_at: float | None, *, was_read: bool) -> bool:
        """Whether the next sync reads a row that the warehouse lacks.

        Args:
            job_id: The job that it is of.
            created_at: When that was created, in unix seconds.
            was_read: A sync has read past the row, which an open job is not read for again.
        """
        if job_id in self.open_jobs:
            return not was_read
        if job_id in self.closed_jobs:
            return False
        return self.newer_than is None or (created_at is not None and created_at >= self.newer_than)


def _compare(
    scratch: duckdb.DuckDBPyConnection, table: str, owed: _Owed, report: Report, comparison: Comparison
) -> None:
    keys = [name for name in TABLES[table].keys if name != "account"]
    shown, kept = _columns(scratch, "shown.api", table), _columns(scratch, "compare.main", table)
    left_out = {*keys, "account", *BOOKKEEPING, *(PASSING if table == "files" else ())}
    values = [name for name in dict.fromkeys([*shown, *kept]) if name not in left_out]

    def side(alias: str, name: str, present: Sequence[str]) -> str:
        return f'{alias}."{name}"' if name in present else "NULL"

    differing = ", ".join(
        f"CASE WHEN {side('s', name, shown)} IS DISTINCT FROM {side('k', name, kept)} THEN '{name}' END"
        for name in values
    )
    joined = " AND ".join(f's."{name}" = k."{name}"' for name in keys)
    key = " || ' ' || ".join(f'coalesce(s."{name}"::VARCHAR, k."{name}"::VARCHAR)' for name in keys)
    job = {"jobs": "coalesce(s.id, k.id)", "files": "NULL"}.get(
        table, "coalesce(s.fine_tuning_job_id, k.fine_tuning_job_id)"
    )
    rows = scratch.execute(
        f"""
        SELECT {key}, {job}, s.account IS NOT NULL, k.account IS NOT NULL,
               list_filter([{differing}], name -> name IS NOT NULL)
        FROM shown.api."{table}" AS s FULL JOIN compare.main."{table}" AS k ON {joined}
        WHERE s.account IS NULL OR k.account IS NULL OR len(list_filter([{differing}], name -> name IS NOT NULL)) > 0
        ORDER BY ALL
        """  # noqa: S608 - names of our own schema
    ).fetchall()
    in_both = scratch.execute(
        f'SELECT count(*) FROM shown.api."{table}" AS s JOIN compare.main."{table}" AS k ON {joined}'  # noqa: S608
    ).fetchone()
    created = _created_at(scratch)
    read_events = _read_events(scratch) if table == "events" else {}
    naming = _naming_jobs(scratch) if table == "files" else {}
    unreadable = {(skip.job, skip.resource) for skip in report.skipped}
    findings = []
    for row_key, row_job_id, is_shown, is_kept, columns in rows:
        # Of the jobs that name a file the oldest one: it was read for that one first.
        job_id: Any = naming.get(row_key) if table == "files" else row_job_id
        verdict: Verdict
        if not is_shown:
            skipped = {(job_id, table), (job_id, "jobs"), (None, table)} & unreadable
            verdict = "unreadable" if skipped else "unlisted"
        elif is_kept:
            verdict = "pending" if table == "jobs" and job_id in owed.open_jobs else "different"
        else:
            was_read = row_key in owed.read_files or row_key in read_events.get(job_id, ())
            verdict = "pending" if owed.brings(job_id, created.get(job_id), was_read=was_read) else "missing"
        findings.append(Finding(table, str(row_key), verdict, tuple(columns) if is_shown and is_kept else ()))
    comparison.findings.extend(findings)
    different = sum(bool(finding.columns) for finding in findings)
    comparison.equal[table] = (int(in_both[0]) if in_both else 0) - different


def _columns(scratch: duckdb.DuckDBPyConnection, where: str, table: str) -> list[str]:
    return [str(row[0]) for row in scratch.execute(f'DESCRIBE {where}."{table}"').fetchall()]


def _created_at(scratch: duckdb.DuckDBPyConnection) -> dict[str, float]:
    """When each job was created (unix seconds)."""
    return dict(scratch.execute("SELECT id, epoch(created_at) FROM shown.api.jobs").fetchall())


def _naming_jobs(scratch: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Of each file the oldest job that names it."""
    rows = scratch.execute(
        """
        SELECT file_id, arg_min(id, created_at) FROM (
          SELECT id, created_at, unnest([training_file, validation_file]) AS file_id FROM shown.api.jobs
          UNION ALL
          SELECT id, created_at, unnest(from_json(result_files, '["VARCHAR"]')) FROM shown.api.jobs
          WHERE json_type(result_files) = 'ARRAY'
        ) WHERE file_id IS NOT NULL GROUP BY 1
        """
    ).fetchall()
    return dict(rows)


def _read_events(scratch: duckdb.DuckDBPyConnection) -> dict[str, set[str]]:
    """Of each job, the events that are older than the newest one kept: those the next sync does not read again."""
    rows = scratch.execute(
        """
        SELECT s.fine_tuning_job_id, s.id FROM shown.api.events AS s
        JOIN (SELECT fine_tuning_job_id, max(created_at) AS newest FROM compare.main.events GROUP BY 1) AS k
        USING (fine_tuning_job_id) WHERE s.created_at < k.newest
        """
    ).fetchall()
    older: dict[str, set[str]] = {}
    for job_id, event_id in rows:
        older.setdefault(job_id, set()).add(event_id)
    return older


def lines(comparison: Comparison) -> Iterator[str]:
    """A comparison for people."""
    words = {
        "missing": "missing",
        "different": "different",
        "pending": "not synced yet",
        "unlisted": "no longer listed by the host",
        "unreadable": "not readable now",
    }
    for table, equal in comparison.equal.items():
        counts = [f"{n:,} {words[verdict]}" for verdict in words if (n := comparison.count(table, verdict))]  # type: ignore[arg-type]
        yield f"  {table:<16}  {', '.join([f'{equal:,} equal', *counts])}"


__all__ = ["BOOKKEEPING", "Comparison", "Finding", "Verdict", "lines", "verify"]
