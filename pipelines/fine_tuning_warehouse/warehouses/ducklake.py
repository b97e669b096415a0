"""DuckLake: tables in a folder or bucket, with a catalog in PostgreSQL, or in a SQLite or DuckDB file on one machine.

A load is one transaction. Loads take turns, and two syncs of one account are kept apart, by files beside a catalog that
is a file, and by advisory locks of a PostgreSQL catalog.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from fine_tuning_warehouse.accounts.labels import label_in_names
from fine_tuning_warehouse.errors import BusyError, CommandError, UsageError
from fine_tuning_warehouse.text import shown_path

from .duckdb import DuckDb, attempt
from .errors import destination_errors
from .locking import file_lock, retried
from .sql_text import literal, quoted
from .warehouse import DEFAULT_DATASET, Result, Warehouse

if TYPE_CHECKING:
    import dlt
    import duckdb

    from .rows import Rows

_PREFIX = "DESTINATION__DUCKLAKE__"
_CATALOG, _STORAGE = f"{_PREFIX}CREDENTIALS__CATALOG", f"{_PREFIX}CREDENTIALS__STORAGE__BUCKET_URL"
_REQUIRED = {_CATALOG: "catalog", _STORAGE: "storage.bucket_url"}
_EXPECTED = f"{_CATALOG} (postgres://..., sqlite:///FILE or duckdb:///FILE) and {_STORAGE} (a folder, or s3://...)"
_FILES = ("sqlite", "duckdb")
_SERVERS = ("postgres", "postgresql")
_ALIAS = "lake"


@dataclass(frozen=True)
class DuckLake(Warehouse):
    """A DuckLake.

    Attributes:
        dataset: The schema that holds the tables.
    """

    dataset: str = DEFAULT_DATASET

    destination: ClassVar[str] = "ducklake"  # type: ignore[misc]
    table_comments: ClassVar[str | None] = DuckDb.table_comments
    view_comments: ClassVar[str | None] = DuckDb.view_comments
    comments_view_columns: ClassVar[bool] = False

    @override
    def exists(self) -> bool:
        file = self._catalog_file()
        return file is None or file.is_file()

    @override
    def require(self) -> None:
        if not self.exists():
            raise CommandError(
                f"There is no catalog {shown_path(self._catalog_file() or Path())}: `ftw sync` makes it."
            )

    @override
    def dlt_destination(self, label: str) -> Any:
        from .dlt_seam import DuckLakeDestination  # noqa: PLC0415 - imports dlt

        _check_settings()
        return DuckLakeDestination()

    @override
    @contextmanager
    def lock(self, labels: Sequence[str]) -> Iterator[None]:
        from .working_directory import working_directory  # noqa: PLC0415

        with working_directory() as directory, ExitStack() as stack:
            pipeline = self.pipeline(directory)
            self._check_folder()
            with self.exclusive_load(pipeline):  # of two that make the catalog, one comes first
                self._look(pipeline)
            for label in sorted(set(labels)):
                what = f"Another sync of account {label} is running on {self.shown}"
                name = f"{self.dataset}.{label_in_names(label)}"
                stack.enter_context(self._held(pipeline, name, what))
            yield

    @override
    def preflight(self, pipeline: dlt.Pipeline) -> bool:
        """Open the catalog, and look into the bucket."""
        self._check_folder()
        self._look(pipeline)
        return True

    def _check_folder(self) -> None:
        """Raise `CommandError` if the catalog is a file that cannot be written."""
        file = self._catalog_file()
        if file is not None and not file.parent.is_dir():
            raise CommandError(f"The catalog {shown_path(file)} cannot be made: there is no folder {file.parent}.")
        if file is not None and not os.access(file if file.exists() else file.parent, os.W_OK):
            raise CommandError(f"The catalog {shown_path(file)} cannot be written.")

    def _look(self, pipeline: dlt.Pipeline) -> None:
        """Open the catalog, which makes a missing one, and look into the bucket."""

        def look() -> None:
            destination: Any = pipeline.destination_client()
            with destination as client:
                storage = client.config.credentials.storage
                if storage.is_local_filesystem:
                    folder = Path(client.config.credentials.storage_url)
                    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
                        raise CommandError(f"The files of {self.shown} cannot be written to {shown_path(folder)}.")
                else:
                    files = literal(f"{storage.bucket_url.rstrip('/')}/*")
                    client.sql_client.execute_sql(f"SELECT count(*) FROM glob({files})")  # noqa: S608

        with destination_errors(self, f"The destination {self.destination} cannot be reached"):
            self.attempt(look)

    @override
    def exclusive_load(self, pipeline: dlt.Pipeline) -> AbstractContextManager[None]:
        what = f"Another sync is loading into {self.shown}"
        return self._held(pipeline, "load", what)

    @override
    def attempt(self, step: Callable[[], Result]) -> Result:
        """Do a step; repeat it while another program, as a rule another sync, has a catalog in DuckDB open."""
        return attempt(step, self.shown, self.lock_wait_seconds, BusyError)

    @override
    def session(self, pipeline: dlt.Pipeline) -> AbstractContextManager[None]:
        """Do all steps as one transaction, which makes one snapshot."""
        destination: Any = pipeline.destination
        transaction: AbstractContextManager[None] = destination.one_transaction(pipeline)
        return transaction

    @override
    def read(self, wanted: Sequence[str], directory: Path, stack: ExitStack) -> Rows:
        from .rows.database import DuckdbRows  # noqa: PLC0415 - imports DuckDB

        return DuckdbRows(self.connect(directory, stack), self, wanted)

    def connect(self, directory: Path, stack: ExitStack) -> duckdb.DuckDBPyConnection:
        """Open a DuckDB connection over it that only reads."""
        import duckdb  # noqa: PLC0415 - see accounts

        from .dlt_seam import needed_extensions, read_only_attachment  # noqa: PLC0415
        from .duckdb_extensions import load_extensions  # noqa: PLC0415
        from .rows.database import bounded  # noqa: PLC0415

        self.require()
        client: Any = self.pipeline(directory / "pipeline").destination_client()

        def open_lake() -> duckdb.DuckDBPyConnection:
            connection = duckdb.connect(config=bounded(directory))
            try:
                for statement in load_extensions(needed_extensions(client.config)):
                    connection.execute(statement)
                for statement in read_only_attachment(client, _ALIAS):
                    connection.execute(statement)
            except BaseException:
                connection.close()
                raise
            return connection

        connection = stack.enter_context(self.attempt(open_lake))
        stack.callback(_roll_back, connection)
        files = client.config.credentials.storage_url.rstrip("/")
        connection.execute(f"SET allowed_directories = [{literal(files + '/')}]")
        connection.execute(f"USE {quoted(_ALIAS)}")
        return connection

    @override
    def maintain(self, directory: Path, keep_seconds: float) -> Iterator[str]:
        pipeline = self.pipeline(directory / "pipeline")
        older = f"older_than => now() - to_seconds({keep_seconds})"
        steps = (
            ("rows moved from the catalog into files", "ducklake_flush_inlined_data", ""),
            ("files rewritten without deleted rows", "ducklake_rewrite_data_files", ""),
            ("small files merged", "ducklake_merge_adjacent_files", ""),
            ("snapshots expired", "ducklake_expire_snapshots", f", {older}"),
            ("files removed that no snapshot names", "ducklake_cleanup_old_files", f", {older}"),
            ("files removed that the catalog does not know", "ducklake_delete_orphaned_files", f", {older}"),
        )

        def open_lake() -> Any:
            destination: Any = pipeline.destination_client()
            destination.sql_client.open_connection()
            return destination.sql_client

        with self.exclusive_load(pipeline):
            sql = self.attempt(open_lake)
            try:
                name = literal(sql.credentials.ducklake_name)
                for what, function, arguments in steps:
                    rows = sql.native_connection.execute(f"CALL {function}({name}{arguments})").fetchall()
                    yield f"{self.shown}: {what}: {len(rows)}."
            finally:
                sql.close_connection()

    def _catalog_file(self) -> Path | None:
        """Return the file that holds the catalog; None if a server does."""
        import dlt  # noqa: PLC0415 - see accounts

        from .dlt_seam import resolved_configuration  # noqa: PLC0415

        del dlt
        with destination_errors(self, f"The destination {self.destination} is not set up"):
            catalog = resolved_configuration(self.dlt_destination("default"), self.dataset).credentials.catalog
        if catalog.drivername in _FILES and str(catalog.database).endswith(":memory:"):
            raise UsageError(f"Invalid {_CATALOG}: a catalog in memory is gone after a sync. Expected a file.")
        if catalog.drivername in _FILES:
            return Path(str(catalog.database))
        if catalog.drivername in _SERVERS:
            return None
        raise UsageError(
            f"Invalid {_CATALOG}: a catalog in {catalog.drivername!r} is not supported. Expected postgres://..., "
            "sqlite:///FILE or duckdb:///FILE."
        )

    @contextmanager
    def _held(self, pipeline: dlt.Pipeline, name: str, what: str) -> Iterator[None]:
        """Hold a lock of the catalog. Raises `BusyError` if another sync holds it for too long."""
        file = self._catalog_file()
        if file is not None:
            lock = file.with_name(f"{file.name}.{name}.lock")
            with file_lock(lock, shown_path(file), what=what, wait_seconds=self.lock_wait_seconds):
                yield
            return
        client: Any = pipeline.destination_client()
        credentials = client.config.credentials
        schema = credentials.metadata_schema or credentials.ducklake_name
        digest = hashlib.sha256(f"fine_tuning_warehouse {schema} {name}".encode()).digest()
        with ExitStack() as stack:
            with destination_errors(self, f"The catalog of {self.shown} cannot be locked"):
                connection = _connected(credentials.catalog, stack)
                _wait_for_lock(connection, int.from_bytes(digest[:8], "big", signed=True), what, self.lock_wait_seconds)
            yield


def _connected(catalog: Any, stack: ExitStack) -> duckdb.DuckDBPyConnection:
    """Return a connection to the PostgreSQL server of a catalog, inside a transaction that may stay idle."""
    import duckdb  # noqa: PLC0415 - see accounts

    from .dlt_seam import server_url  # noqa: PLC0415
    from .duckdb_extensions import load_extensions  # noqa: PLC0415

    connection = stack.enter_context(duckdb.connect())
    for statement in load_extensions(["postgres_scanner"]):
        connection.execute(statement)
    connection.execute(f"ATTACH {literal(server_url(catalog))} AS catalog (TYPE postgres)")
    connection.execute("BEGIN TRANSACTION")
    stack.callback(_roll_back, connection)
    _ask(connection, "SELECT set_config('idle_in_transaction_session_timeout', '0', true)")
    return connection


def _ask(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    """Return the only value of a query of the server, which DuckDB asks as it is."""
    answer = connection.execute(f"SELECT * FROM postgres_query('catalog', {literal(query)})").fetchone()  # noqa: S608
    return answer and answer[0]


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    """End a transaction. Without this, DuckDB ends the process when it closes a connection to a server that is gone."""
    with suppress(Exception):
        connection.execute("ROLLBACK")


def _wait_for_lock(connection: duckdb.DuckDBPyConnection, key: int, what: str, lock_wait_seconds: float) -> None:
    """Take an advisory lock of a server, which ends with the transaction: a transaction pooler keeps that.

    Raises:
        BusyError: Another has held it for too long.
    """
    taken = retried(
        lambda: bool(_ask(connection, f"SELECT pg_try_advisory_xact_lock({key})")),
        lock_wait_seconds,
        waiting=lambda _: f"{what}: waiting for it ...",
    )
    if not taken:
        raise BusyError(f"{what} for longer than {lock_wait_seconds:g} s: wait for it to end.")


def _check_settings() -> None:
    """Raise `UsageError` if a setting is missing, wrong, or one that dlt ignores. dlt would make up what is missing."""
    import dlt  # noqa: PLC0415 - see accounts

    from .dlt_seam import ducklake_fields  # noqa: PLC0415

    if isinstance(dlt.secrets.get("destination.ducklake.credentials"), str):
        raise UsageError(f"Invalid {_PREFIX}CREDENTIALS: dlt does not read a DuckLake from one text. Set {_EXPECTED}.")
    names = {tuple(name.removeprefix(_PREFIX).lower().split("__")) for name in os.environ if name.startswith(_PREFIX)}
    fields = ducklake_fields()
    for path in sorted(names.union(_paths(dlt.secrets.get("destination.ducklake")))):
        if any(path[depth] not in fields.get(path[:depth], path) for depth in range(len(path))):
            name = _PREFIX + "__".join(path).upper()
            raise UsageError(f"{name} is not a setting of a DuckLake and would be ignored. Expected {_EXPECTED}.")
    given: dict[str, Any] = {
        name: dlt.secrets.get(f"destination.ducklake.credentials.{path}") for name, path in _REQUIRED.items()
    }
    missing = [
        name
        for name, value in given.items()
        if not value and not any(setting.startswith(f"{name}__") for setting in os.environ)
    ]
    if missing:
        raise UsageError(f"The destination ducklake is not set up: set {' and '.join(missing)}. Expected {_EXPECTED}.")
    catalog = given[_CATALOG]
    if isinstance(catalog, str) and not re.match(r"(?!(sqlite|duckdb):(?!///.))[a-z][a-z0-9+]*://.", catalog):
        raise UsageError(f"Invalid {_CATALOG}: expected postgres://..., sqlite:///FILE or duckdb:///FILE.")


def _paths(settings: Any) -> Iterator[tuple[str, ...]]:
    """Yield the path of each setting in nested mappings, such as `("credentials", "catalog")`."""
    for name, value in settings.items() if isinstance(settings, dict) else ():
        inner = list(_paths(value))
        yield from ((name, *path) for path in inner) if inner else [(name,)]
