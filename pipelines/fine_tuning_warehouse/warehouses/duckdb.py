"""A DuckDB file: one process writes to it, and only while no other has it open."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from fine_tuning_warehouse.errors import CommandError, root_cause
from fine_tuning_warehouse.text import first_line, shown_path

from .locking import NO_LOCKS, file_lock, retried
from .sql_text import quoted
from .warehouse import (
    DEFAULT_DATABASE,
    DEFAULT_DATASET,
    MARK,
    MaterializationError,
    Result,
    Warehouse,
    load_pending,
    write_descriptions,
)

if TYPE_CHECKING:
    import dlt
    import duckdb
    from dlt.common.pipeline import LoadInfo

    from .rows import Rows

logger = logging.getLogger(__name__)

_NO_LOCKS = re.compile("(?i)not supported|no locks available|not implemented|held in PID 0")
"""Errors of a lock on a file system that has no locks, such as a share by SMB or NFS."""

_HELD_HERE = re.compile("same database file with a different configuration|Unique file handle conflict")
"""DuckDB's errors if this process has the file open with other settings, or attached to another database."""

_NOT_ENOUGH_MEMORY = re.compile(r"^Out of Memory Error|\([^()]+/[^()]+ used\)")
"""DuckDB's errors if a step did not fit the bound. That of a commit is a TransactionException."""

_EMPTY_BYTES = 12_288
"""The size of a file in which DuckDB holds nothing."""

_BATCHES_HELD = 8
"""Rows are read, staged and merged a batch at a time; wide ones (long texts) take more memory each."""

_DESCRIBE_BOUNDS = {"memory_limit": "256 MB"}
"""DuckDB's settings while the rows of large views are computed."""

_FREE_MEMORY = {"allocator_bulk_deallocation_flush_threshold": "200 KB"}
"""The setting with which DuckDB returns freed memory to the system. It frees one block of a file at a time, 256 KiB: a
higher threshold is hardly ever reached, and the allocator keeps twice the limit."""


@dataclass(frozen=True)
class DuckDb(Warehouse):
    """A DuckDB file.

    Attributes:
        database: The file.
        dataset: The schema that holds the tables.
        load_megabytes: The memory of a load: by default enough for a million checkpoints or events, and for their merge
            into as many. A load that does not fit is repeated without a bound.
        materialize_from_rows: The number of rows from which on the rows of large views are kept in tables. Below it, a
            view computes all of its rows in about three seconds.
    """

    database: Path
    dataset: str = DEFAULT_DATASET
    load_megabytes: int = 48
    materialize_from_rows: int = 1_500_000

    destination: ClassVar[str] = "duckdb"  # type: ignore[misc]
    keeps_types: ClassVar[bool] = True
    table_comments: ClassVar[str | None] = (
        "SELECT c.table_name, t.comment, c.column_name, c.comment FROM duckdb_columns() AS c "
        "JOIN duckdb_tables() AS t USING (database_name, schema_name, table_name) "
        "WHERE c.schema_name = %s AND c.database_name = current_database()"
    )
    view_comments: ClassVar[str | None] = (
        "SELECT view_name, comment FROM duckdb_views() WHERE schema_name = %s AND database_name = current_database()"
    )

    @override
    @property
    def shown(self) -> str:
        """The path, relative to the working directory if it lies below that."""
        return shown_path(self.database)

    @override
    @property
    def option(self) -> str:
        """The option of `ftw copy` that copies into this file."""
        return f"--to-database {self.shown}"

    @override
    @property
    def duckdb_file(self) -> Path:
        """The file."""
        return self.database

    @override
    def exists(self) -> bool:
        """Return whether there is a file."""
        return self.database.is_file()

    @override
    def discard_empty(self) -> None:
        """Remove a file that holds nothing: left behind, it would be taken for a warehouse."""
        file = self.database
        if file.is_file() and file.stat().st_size <= _EMPTY_BYTES and not file.with_name(f"{file.name}.wal").exists():
            file.unlink()

    @override
    def dlt_destination(self, label: str) -> Any:
        """Return a destination with clients that share one open file."""
        from .dlt_seam import DuckDbFile  # noqa: PLC0415 - imports dlt

        return DuckDbFile(self.database)

    @override
    @contextmanager
    def lock(self, labels: Sequence[str]) -> Iterator[None]:
        """Lock the file for all accounts. Does not wait for another sync."""
        check_database_file(self.database)
        with file_lock(self.database.with_name(f"{self.database.name}.lock"), self.shown):
            yield

    @override
    def preflight(self, pipeline: dlt.Pipeline) -> bool:
        """Check the file and its folder."""
        check_database_file(self.database)
        return True

    @override
    def attempt(self, step: Callable[[], Result]) -> Result:
        """Do a step; repeat it while another program has the file open."""
        return attempt(step, self.shown, self.lock_wait_seconds)

    @override
    def session(self, pipeline: dlt.Pipeline) -> AbstractContextManager[None]:
        """Keep the file open between dlt's steps."""
        return _kept_open(pipeline)

    @override
    def load(
        self, pipeline: dlt.Pipeline, *, prepare: Callable[[], None] | None = None, largest_batch: int = 0
    ) -> LoadInfo:
        """Load with little memory, however much there is to load; what does not fit is loaded without a bound."""
        megabytes = self.load_megabytes + largest_batch * _BATCHES_HELD // 1_000_000
        # DuckDB uses more memory with more threads. Two threads used 40 MB more than one, and took as long.
        bounds = {"memory_limit": f"{megabytes} MB", "threads": "1"}
        return self._bounded(pipeline, bounds, lambda: load_pending(pipeline, prepare))

    @override
    def describe(self, pipeline: dlt.Pipeline) -> list[str]:
        try:
            return self._bounded(pipeline, _DESCRIBE_BOUNDS, lambda: write_descriptions(pipeline, self))
        except MaterializationError as error:
            return [str(error)]

    def _bounded(self, pipeline: dlt.Pipeline, bounds: Mapping[str, str], step: Callable[[], Result]) -> Result:
        """Do a step with little memory; without bounds where that is not enough."""

        def bounded() -> Result:
            try:
                with _kept_open(pipeline, {**bounds, **_FREE_MEMORY}):
                    return step()
            except Exception as error:
                if not _NOT_ENOUGH_MEMORY.search(str(root_cause(error))):
                    raise
                logger.info("A step did not fit %s of memory: again, without a bound", bounds["memory_limit"])
            with _kept_open(pipeline):
                return step()

        return self.attempt(bounded)

    @override
    def materialized_schema(self, sql: Any) -> str | None:
        schema = f"{sql.dataset_name}_materialized"
        query = (
            "SELECT coalesce(sum(CASE WHEN schema_name = %s THEN estimated_size END), 0), "
            "count(CASE WHEN schema_name = %s AND NOT coalesce(starts_with(comment, %s), false) THEN 1 END), "
            "count(CASE WHEN schema_name = %s AND starts_with(comment, %s) THEN 1 END), "
            "(SELECT count(*) FROM duckdb_views() WHERE schema_name = %s AND database_name = current_database()) "
            "FROM duckdb_tables() WHERE database_name = current_database()"
        )
        ((rows, strange, ours, views),) = sql.execute_sql(query, sql.dataset_name, schema, MARK, schema, MARK, schema)
        is_free = not strange and not views and self.database.stem.lower() != schema.lower()
        return schema if is_free and (ours or rows >= self.materialize_from_rows) else None

    @override
    def materialized_tables(self, sql: Any) -> Mapping[str, Collection[str]]:
        schema = f"{sql.dataset_name}_materialized"
        query = (
            "SELECT c.table_name, list(c.column_name) FROM duckdb_columns() AS c "
            "JOIN duckdb_tables() AS t USING (database_name, schema_name, table_name) "
            "WHERE c.schema_name = %s AND c.database_name = current_database() AND starts_with(t.comment, %s) "
            "GROUP BY c.table_name"
        )
        return {quoted(schema, table): columns for table, columns in sql.execute_sql(query, schema, MARK) or ()}

    def connect(self, directory: Path, stack: ExitStack) -> duckdb.DuckDBPyConnection:
        """Open a DuckDB connection over it that only reads."""
        from .rows.database import bounded  # noqa: PLC0415 - imports DuckDB

        return stack.enter_context(open_read_only(self.database, bounded(directory), self.lock_wait_seconds))

    @override
    def read(self, wanted: Sequence[str], directory: Path, stack: ExitStack) -> Rows:
        from .rows.database import DuckdbRows  # noqa: PLC0415 - imports DuckDB

        return DuckdbRows(self.connect(directory, stack), self, wanted)

    @override
    def maintain(self, directory: Path, keep_seconds: float) -> Iterator[str]:
        import duckdb  # noqa: PLC0415 - see accounts

        log = self.database.with_name(f"{self.database.name}.wal")

        def size() -> int:
            return sum(file.stat().st_size for file in (self.database, log) if file.is_file())

        before = size()

        def checkpoint() -> None:
            with duckdb.connect(str(self.database)) as connection:
                connection.execute("VACUUM ANALYZE")
                connection.execute("CHECKPOINT")

        with self.lock(()):
            self.attempt(checkpoint)
        yield f"{self.shown}: vacuum and checkpoint, {before:,} bytes before and {size():,} after."


@contextmanager
def _kept_open(pipeline: dlt.Pipeline, bounds: Mapping[str, str] | None = None) -> Iterator[None]:
    """Keep the file open.

    Args:
        pipeline: The pipeline that writes to it.
        bounds: DuckDB's settings while it is open, by name. Without them, DuckDB may use four fifths of the machine's
            memory, and all cores. A setting that dlt's configuration has is left as it is.
    """
    with pipeline.sql_client() as client:
        for name, value in (bounds or {}).items():
            if name not in (client.credentials.global_config or {}):
                client.execute_sql(f"SET {name} = '{value}'")
        yield


class InUseError(CommandError):
    """Another program holds the database."""


def open_read_only(
    database: Path, config: dict[str, str | bool | int | float | list[str]], lock_wait_seconds: float
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file for reading, and wait while another program has it open.

    Raises:
        CommandError: The file does not exist, cannot be opened, or was held for too long.
    """
    import duckdb  # noqa: PLC0415 - see accounts

    shown = shown_path(database)
    if not database.is_file():
        raise CommandError(f"There is no database {shown}: `ftw sync` makes it, or name one with --database.")
    try:
        return _retried_while_locked(
            lambda: duckdb.connect(str(database), read_only=True, config=config), shown, lock_wait_seconds
        )
    except duckdb.Error as error:
        if is_locked(error):
            who, process = _holder(error)
            raise InUseError(
                f"{who} is writing to {shown}, or holds it open{process}, for longer than "
                f"{lock_wait_seconds:g} s: try again when a sync is done, or close it."
            ) from None
        raise explained(error, shown) or CommandError(
            f"The database {shown} cannot be opened: {first_line(error)}{advice(error)}"
        ) from None


def attempt(
    step: Callable[[], Result], shown: str, lock_wait_seconds: float, held: type[CommandError] = CommandError
) -> Result:
    """Do a step that opens a DuckDB file; repeat it while another program has the file open.

    Args:
        step: The step.
        shown: The name of the database in messages.
        lock_wait_seconds: How long to repeat it.
        held: The error to raise if the file was held for too long.
    """
    try:
        return _retried_while_locked(step, shown, lock_wait_seconds)
    except Exception as error:
        known = explained(error, shown)
        if known is not None:
            raise known from None
        if not is_locked(error):
            raise
        raise held(
            f"{''.join(_holder(error))} holds {shown} for longer than {lock_wait_seconds:g} s. "
            "Nothing is lost: close it, and sync again."
        ) from None


def _retried_while_locked(step: Callable[[], Result], shown: str, lock_wait_seconds: float) -> Result:
    return retried(
        step,
        lock_wait_seconds,
        is_held=is_locked,
        waiting=lambda error: f"{''.join(_holder(error))} holds {shown}: waiting ...",
    )


def is_locked(error: BaseException) -> bool:
    """Return whether a file could not be opened because another program, or this process itself, has it open."""
    text = str(root_cause(error))
    return bool(_HELD_HERE.search(text)) or ("Could not set lock on file" in text and not _NO_LOCKS.search(text))


def explained(error: BaseException, shown: str) -> CommandError | None:
    """Return what to do about a file that cannot be opened now or later; None if the error itself says it."""
    text = str(root_cause(error))
    if "Could not set lock on file" in text and _NO_LOCKS.search(text):
        return CommandError(NO_LOCKS.format(shown))
    if "Trying to read a database file with version number" in text:
        return CommandError(
            f"{shown} was made by a later DuckDB than the one that is installed here, DuckDB 2 for example. Copy it "
            "with that one (ATTACH 'copy.duckdb' AS copy (STORAGE_VERSION 'v1.4.0'); COPY FROM DATABASE NAME TO copy), "
            "and name the copy with --database."
        )
    return None


def _holder(error: BaseException | None) -> tuple[str, str]:
    """Return who has the file open, and which process that is as far as DuckDB knows it, with a leading blank."""
    text = str(root_cause(error)) if error is not None else ""
    if _HELD_HERE.search(text):
        return "Another connection of this process", ""
    process = re.search(r"held in (\S+) \(PID (\d+)\)", text)
    return "Another program", f" ({process[1]}, process {process[2]})" if process else ""


_LOST_SERVER = re.compile(
    r'(?i)Failed to execute query "ROLLBACK"|server closed the connection|connection has been closed|'
    "terminating connection|no connection to the server|idle-in-transaction"
)
"""DuckDB's errors that mean that the PostgreSQL server of a catalog has closed the connection."""


def advice(error: BaseException) -> str:
    """Return what to do about an error of DuckDB that lasts; nothing for other errors."""
    if found := re.search(r'replaying WAL file "([^"]+)"', str(error)):
        return f". Rename {shown_path(Path(found[1]))}: the next `ftw sync` reads again what it held"
    if _LOST_SERVER.search(str(error)):
        return (
            ". The server of the catalog closed the connection, and nothing was loaded. If it does so in each sync, "
            "raise its idle_in_transaction_session_timeout for this role: a load is one transaction"
        )
    if "Duplicate key" in str(error):
        return ". DuckDB cannot replace rows under a unique index: drop the index, which duckdb_indexes() names"
    return ""


def check_database_file(path: Path) -> None:
    """Raise `CommandError` if the file cannot hold a database."""
    shown = shown_path(path)
    if path.is_dir():
        example = shown_path(path / DEFAULT_DATABASE)
        raise CommandError(f"The database {shown} is a folder: name a file, such as {example}.")
    if not path.parent.is_dir():
        raise CommandError(f"The database {shown} cannot be made: there is no folder {path.parent}.")
    if not path.exists():
        if not os.access(path.parent, os.W_OK):
            raise CommandError(f"The database {shown} cannot be made: the folder {path.parent} cannot be written to.")
        return
    try:
        with path.open("r+b") as file:
            start = file.read(12)
    except OSError as error:
        raise CommandError(f"The database {shown} cannot be written: {error.strerror or error}.") from None
    if start and start[8:12] != b"DUCK":
        raise CommandError(f"{shown} is not a DuckDB database. It was left as it is: choose another --database.")
