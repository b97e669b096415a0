"""All uses of what dlt does not document. Each has a test that fails on a release of dlt that changed it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, get_args
from weakref import WeakSet

import dlt
from dlt.common.configuration import configspec
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs import ConnectionStringCredentials
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.pipeline import PipelineContext
from dlt.common.schema import Schema
from dlt.common.schema.utils import get_columns_names_with_prop
from dlt.common.storages.configuration import FilesystemConfiguration
from dlt.common.versioned_state import decompress_state
from dlt.destinations.exceptions import DatabaseTerminalException, DatabaseTransientException
from dlt.destinations.impl.duckdb.configuration import (
    ConnStatement,
    DuckDbClientConfiguration,
    DuckDbConnectionPool,
    DuckDbCredentials,
)
from dlt.destinations.impl.duckdb.factory import duckdb
from dlt.destinations.impl.ducklake.configuration import DuckLakeClientConfiguration, DuckLakeCredentials
from dlt.destinations.impl.ducklake.ducklake import DuckLakeClient
from dlt.destinations.impl.ducklake.factory import ducklake
from dlt.destinations.impl.ducklake.sql_client import DuckLakeSqlClient
from dlt.destinations.impl.filesystem.factory import filesystem
from dlt.destinations.impl.filesystem.filesystem import FilesystemClient, IcebergLoadFilesystemJob
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import raise_database_error
from dlt.pipeline import trace
from duckdb import DuckDBPyConnection, FatalException, connect
from typing_extensions import override

from fine_tuning_warehouse.errors import causes
from openai_fine_tuning.schema import SCHEMA

from .duckdb_extensions import load_extensions
from .warehouse import PIPELINE_PREFIX


@configspec(init=False)
class _Configuration(DuckDbClientConfiguration):
    def __str__(self) -> str:
        return str(self.credentials.database)  # dlt's own makes a URL of it, with SQLAlchemy if that is installed


class _ResolvedOnce:
    """Part of a destination that resolves its configuration once for each dataset; dlt does so 25 times a run."""

    # no __init__: dlt takes the arguments of a destination's own for settings that were not given

    @cached_property
    def _resolved(self) -> dict[Any, Any]:
        return {}

    def configuration(self, initial_config: Any, accept_partial: bool = False) -> Any:
        """Resolve the configuration, or return the one that was resolved before."""
        dataset = getattr(initial_config, "dataset_name", None), getattr(initial_config, "default_schema_name", None)
        key = (type(initial_config), *dataset, accept_partial)
        if key not in self._resolved:
            config = super().configuration(initial_config, accept_partial=accept_partial)  # type: ignore[misc]
            self._resolved[key] = self._prepared(config)
        return self._resolved[key]

    def _prepared(self, config: Any) -> Any:
        return config


class _ConnectionPool(DuckDbConnectionPool):
    """dlt's connections to a DuckDB file, which leave the settings of the file as they were.

    DuckDB shares them between all connections of a process to a file, and a notebook may have it open too.
    """

    _shared = (
        "TimeZone",
        "checkpoint_threshold",
        "memory_limit",
        "threads",
        "allocator_bulk_deallocation_flush_threshold",
    )
    """What dlt 1.31 sets for all connections, and what a load sets."""

    @override
    def borrow_conn(self, *arguments: Any, **options: Any) -> DuckDBPyConnection:
        with self._conn_lock:
            if self._conn_borrows:
                return super().borrow_conn(*arguments, **options)
            given = {**(self.credentials.global_config or {}), **(options.get("global_config") or {})}
            config = {name: given[name] for name in given.keys() & {"custom_user_agent"}}  # as dlt opens the file
            with connect(str(self.credentials.database), read_only=self.credentials.read_only, config=config) as first:
                self._before = _settings(first, self._shared)
                return super().borrow_conn(*arguments, **options)

    @override
    def return_conn(self, borrowed_conn: DuckDBPyConnection) -> int:
        with self._conn_lock:
            if self._conn_borrows == 1:
                with suppress(FatalException):  # the database is closed for all connections
                    _set_back(self._conn, self._before)
            return super().return_conn(borrowed_conn)


def _settings(connection: DuckDBPyConnection, names: Collection[str]) -> dict[str, str]:
    asked = ", ".join(f"current_setting('{name}')" for name in names)
    (shown,) = connection.execute(f"SELECT {asked}").fetchall()
    return {name: str(value) for name, value in zip(names, shown, strict=True)}


def _set_back(connection: DuckDBPyConnection, before: Mapping[str, str]) -> None:
    """Set what DuckDB showed of settings: the default of each that shows the same."""
    for name in before:
        connection.execute(f"RESET GLOBAL {name}")
    defaults = _settings(connection, before)
    for name, shown in before.items():
        if defaults[name] != shown:
            number, _, unit = shown.partition(" ")
            # Without a limit DuckDB shows petabytes; it shows "2.75 GiB" as "2.7 GiB".
            value = "-1" if unit == "PiB" else f"{number}5 {unit}" if unit else shown
            connection.execute(f"SET GLOBAL {name} = '{value}'")


class DuckDbFile(_ResolvedOnce, duckdb):
    """dlt's destination `duckdb` for one pipeline: all its clients share one pool of connections.

    Without this, dlt 1.31 opens and closes the file for each client, and resolves the configuration again: a third of
    the time of a sync that finds nothing new.
    """

    spec: type[DuckDbClientConfiguration] = _Configuration

    def __init__(self, file: Path) -> None:
        credentials = DuckDbCredentials()
        credentials.database = str(file)  # given as text it is parsed as a URL, with SQLAlchemy too
        super().__init__(credentials)
        self._capabilities: dict[Any, DestinationCapabilitiesContext] = {}

    @override
    def _prepared(self, config: Any) -> Any:
        config.credentials.conn_pool = _ConnectionPool(config.credentials)
        return config

    @property
    def destination_type(self) -> str:
        """dlt's own name of it: configuration and state go by it."""
        return "dlt.destinations.duckdb"

    def capabilities(self, config: Any = None, naming: Any = None) -> DestinationCapabilitiesContext:
        """Make them once, and a copy for each caller, since dlt changes them."""
        key = (config is None, naming and (type(naming), naming.max_length))
        if key not in self._capabilities:
            self._capabilities[key] = super().capabilities(config, naming)
        return self._capabilities[key].copy()


def set_staging_layout(destination: Any, layout: str) -> None:
    """Name the schema in which a destination stages what it merges; `%s` is the dataset."""
    destination.config_params["staging_dataset_name_layout"] = layout


def source_state(pipeline: dlt.Pipeline) -> dict[str, Any] | None:
    """Return the state that the source has in a pipeline; None if it has no schema there."""
    if SCHEMA not in pipeline.schema_names:
        return None
    state: dict[str, Any] = pipeline.state.get("sources", {}).get(SCHEMA, {})
    return state


def stored_states(client: Any) -> Iterator[dict[str, Any]]:
    """Yield the state that the source has in each pipeline of a warehouse, by dlt's client of the warehouse."""
    if not client.is_storage_initialized():
        return
    with suppress(DestinationUndefinedEntity):  # no load has made the table yet
        for name in _stored_pipelines(client):
            stored = client.get_stored_state(name)
            if stored is not None:
                yield decompress_state(stored.state).get("sources", {}).get(SCHEMA, {})


def _stored_pipelines(client: Any) -> list[str]:
    table = client.schema.state_table_name
    if is_sql(client):
        place = client.sql_client.make_qualified_table_name(table)
        query = f"SELECT DISTINCT pipeline_name FROM {place} WHERE pipeline_name LIKE %s"  # noqa: S608
        return [name for (name,) in client.sql_client.execute_sql(query, f"{PIPELINE_PREFIX}%") or ()]
    names = {client.pathlib.basename(file).split("__")[0] for file in client.list_table_files(table)}
    return sorted(name for name in names if name.startswith(PIPELINE_PREFIX))


def is_sql(client: Any) -> bool:
    """Return whether a client of dlt speaks SQL."""
    return isinstance(client, SqlJobClientBase)


def read_stored_schema(client: Any) -> Schema | None:
    """Give a client of files the schema that the last load has stored. Return the schema; None if there is none."""
    stored = client.get_stored_schema(SCHEMA)
    if stored is None:
        return None
    client.schema = Schema.from_stored_schema(json.loads(stored.schema))
    schema: Schema = client.schema
    return schema


def stored_tables(client: Any) -> dict[str, dict[str, str]]:
    """Return the columns of tables that are files: table to column to dlt's type."""
    schema = read_stored_schema(client)
    if schema is None:
        return {}
    present = {*schema.data_table_names(), schema.loads_table_name}
    return {
        name: {
            column: str(hints.get("data_type")) for column, hints in table["columns"].items() if hints.get("data_type")
        }
        for name, table in schema.tables.items()
        if name in present
    }


class SharedConnection:
    """The one connection that all clients of a DuckLake use while it is set.

    Attributes:
        connection: The connection, in a transaction; None outside of one.
        failure: The error of the last statement that failed. If the transaction was aborted, this error aborted it.
    """

    connection: Any = None
    failure: Exception | None = None


def server_url(catalog: Any) -> str:
    """Return the URL of a catalog in a server. SQLAlchemy leaves spaces in a password, which libpq refuses."""
    url: str = catalog.to_url().render_as_string(hide_password=False)
    return url.replace(" ", "%20")


class _DuckLakeSqlClient(DuckLakeSqlClient):
    shared: SharedConnection

    @staticmethod
    def build_attach_statement(*, catalog: Any, storage_url: str, **others: Any) -> str:
        """Return dlt's statement, with what it does not escape."""
        storage_url = storage_url.replace("'", "''")
        statement = DuckLakeSqlClient.build_attach_statement(catalog=catalog, storage_url=storage_url, **others)
        if catalog.drivername in ("sqlite", "duckdb"):
            return statement.replace(catalog.database, catalog.database.replace("'", "''"))
        url = server_url(catalog)
        return statement.replace(catalog.to_url().render_as_string(hide_password=False), url)

    def open_connection(self) -> Any:
        if self.shared.connection is None:
            return super().open_connection()
        self._conn = self.shared.connection
        return self._conn

    def close_connection(self) -> None:
        if self._conn is not None and self._conn is self.shared.connection:
            self._conn = None  # type: ignore[assignment]
            return
        super().close_connection()

    @contextmanager
    @raise_database_error
    def execute_query(self, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        if self._conn is not self.shared.connection:
            with super().execute_query(query, *args, **kwargs) as cursor:
                yield cursor
            return
        # dlt's own method rolls back if a statement fails, and would undo the statements before it
        try:
            cursor = self._conn.execute(query.replace("%s", "?") if args else query, args or kwargs or None)
        except Exception as error:
            if self.shared.failure is not None and "Current transaction is aborted" in str(error):
                # dlt tries again what failed first, in vain
                raise DatabaseTerminalException(self.shared.failure) from self.shared.failure
            self.shared.failure = error
            raise
        yield self.cursor_impl(cursor)

    @contextmanager
    def begin_transaction(self) -> Iterator[Any]:
        if self._conn is self.shared.connection:
            yield self  # a part of the transaction that is open already
            return
        with super().begin_transaction() as transaction:
            yield transaction


class _DuckLakeClient(DuckLakeClient):
    """dlt's client of a DuckLake, which takes part in one transaction for a whole load."""

    def __init__(self, schema: Schema, config: Any, capabilities: Any, shared: SharedConnection) -> None:
        super().__init__(schema, config, capabilities)
        client = _DuckLakeSqlClient(
            dataset_name=self.sql_client.dataset_name,
            staging_dataset_name=self.sql_client.staging_dataset_name,
            credentials=config.credentials,
            capabilities=capabilities,
            override_data_path=config.override_data_path,
            automatic_migration=config.automatic_migration,
        )
        client.shared = shared
        self.sql_client = client


class DuckLakeDestination(_ResolvedOnce, ducklake):
    """dlt's destination `ducklake`, with extensions from packages, and a whole load as one transaction."""

    @cached_property
    def _shared(self) -> SharedConnection:
        return SharedConnection()

    @property
    def destination_type(self) -> str:
        """dlt's own name of it: configuration and state go by it."""
        return "dlt.destinations.ducklake"

    def _prepared(self, config: Any) -> Any:
        """Have each connection load the extensions that it needs."""
        if config.credentials is not None and config.credentials.conn_pool is not None:
            statements = load_extensions(needed_extensions(config))
            config.credentials.conn_pool.add_statements([ConnStatement(statement) for statement in statements])
        return config

    @classmethod
    def adjust_capabilities(cls, caps: Any, config: Any, naming: Any) -> Any:
        """Load one table at a time: they share a connection."""
        caps.loader_parallelism_strategy = "sequential"
        return super(ducklake, cls).adjust_capabilities(caps, config, naming)

    def client(self, schema: Schema, initial_config: Any = None) -> Any:
        """Return a client that uses the shared connection if there is one."""
        config = self.configuration(initial_config)
        return _DuckLakeClient(schema, config, self.capabilities(config, schema.naming), self._shared)

    @contextmanager
    def one_transaction(self, pipeline: dlt.Pipeline) -> Iterator[None]:
        """Do all that a pipeline does inside as one transaction: one snapshot, or nothing at all."""
        with pipeline.sql_client() as client:
            connection = client.native_connection
            connection.execute("BEGIN TRANSACTION")
            self._shared.connection, self._shared.failure = connection, None
            try:
                yield
                connection.execute("COMMIT")
            finally:
                self._shared.connection = None  # closing it rolls back what was not committed


def needed_extensions(config: Any) -> list[str]:
    """Return the DuckDB extensions that a DuckLake needs, by its resolved configuration."""
    catalogs = {"postgres": "postgres_scanner", "postgresql": "postgres_scanner", "sqlite": "sqlite_scanner"}
    storages = {"file": None, "az": "azure", "abfss": "azure", "abfs": "azure"}
    found = ["ducklake", catalogs.get(config.credentials.catalog.drivername)]
    found.append(storages.get(config.credentials.storage.protocol, "httpfs"))
    return [name for name in found if name is not None]


def read_only_attachment(client: Any, alias: str) -> list[str]:
    """Return the statements by which plain DuckDB attaches the lake of a dlt client, for reading only."""
    statements = [statement["sql"] for statement in client.sql_client.attach_statements(alias=alias)]
    return [*statements[:-1], f"{statements[-1].rstrip(';)')}, READ_ONLY)"]


def ducklake_fields() -> dict[tuple[str, ...], set[str]]:
    """Return the names of the settings of a DuckLake, by the path above them: `()`, `("credentials",)` and so on."""
    specs: dict[tuple[str, ...], Any] = {
        (): [DuckLakeClientConfiguration],
        ("credentials",): [DuckLakeCredentials],
        ("credentials", "catalog"): [ConnectionStringCredentials],
        ("credentials", "storage"): [FilesystemConfiguration],
        ("credentials", "storage", "credentials"): [
            one for kind in FilesystemConfiguration.PROTOCOL_CREDENTIALS.values() for one in get_args(kind) or (kind,)
        ],
    }
    return {path: {name for one in kinds for name in one.get_resolvable_fields()} for path, kinds in specs.items()}


def resolved_configuration(destination: Any, dataset: str) -> Any:
    """Return the settings of a destination for a dataset, without a pipeline. Raises dlt's errors of configuration."""
    return destination.configuration(destination.spec()._bind_dataset_name(dataset_name=dataset))  # noqa: SLF001


class Files(filesystem):
    """dlt's destination `filesystem`, with a merge in one commit, and state files that are whole or not there."""

    @property
    def destination_type(self) -> str:
        """dlt's own name of it: configuration and state go by it."""
        return "dlt.destinations.filesystem"

    @property
    def client_class(self) -> type[FilesystemClient]:
        """Return the client; Hugging Face's has no tables that merge."""
        return super().client_class if self.is_hf else _FilesClient


class _FilesClient(FilesystemClient):
    @staticmethod
    def get_reference_followup_job_class(table: Any) -> Any:
        """Return what loads files into a table of a table format."""
        return _iceberg_job() if table.get("table_format") == "iceberg" else _dlt_job(table)

    def _write_to_json_file(self, filepath: str, data: Any) -> None:
        if not self.is_local_filesystem:
            super()._write_to_json_file(filepath, data)  # an object appears whole, or not at all
            return
        # a name of its own: the syncs of two accounts write into one folder at once
        part = self.pathlib.join(self.pathlib.dirname(filepath), f".part-{uuid.uuid4().hex}")
        self.fs_client.makedirs(self.pathlib.dirname(filepath), exist_ok=True)
        super()._write_to_json_file(part, data)
        with open(part, "rb") as file:  # noqa: PTH123 - paths are texts here
            os.fsync(file.fileno())
        os.replace(part, filepath)  # noqa: PTH105


def _dlt_job(table: Any) -> Any:
    return FilesystemClient.get_reference_followup_job_class(table)


def _iceberg_job() -> Any:
    """Return the job that loads what one package brings for one table."""
    from dlt.common.libs.pyiceberg import ensure_iceberg_compatible_arrow_data  # noqa: PLC0415 - an extra of dlt

    from .iceberg_merge import merge  # noqa: PLC0415

    class IcebergJob(IcebergLoadFilesystemJob):
        def run(self) -> None:
            if self._load_table["write_disposition"] != "merge":
                super().run()
                return
            try:
                schema = self.arrow_dataset.schema
                table = self._job_client.load_open_table("iceberg", self.load_table_name, schema=schema)
            except DestinationUndefinedEntity:
                super().run()  # makes the table, and comes back here
                return
            rows = ensure_iceberg_compatible_arrow_data(self.arrow_dataset.to_table())
            hints: Any = self._load_table
            merge(table, rows, get_columns_names_with_prop(hints, "primary_key"))

    return IcebergJob


def has_catalog(client: Any) -> bool:
    """Return whether the Iceberg tables of a client have a catalog that outlives it."""
    from dlt.common.libs.pyiceberg import is_ephemeral_catalog  # noqa: PLC0415 - an extra of dlt

    return not is_ephemeral_catalog(client.get_open_table_catalog("iceberg"))


def set_lock_timeout(client: Any, seconds: float) -> None:
    """Have each statement of a PostgreSQL client wait for locks no longer than this, and no other session.

    The setting belongs to a transaction, which a transaction pooler keeps. A lock timeout is not tried again by dlt.
    """
    sql = client.sql_client
    begin, execute = sql.begin_transaction, sql.execute_query

    @contextmanager
    def begin_transaction() -> Iterator[Any]:
        with begin() as transaction:
            sql.execute_sql(f"SET LOCAL lock_timeout = {max(int(seconds * 1000), 1)}")
            yield transaction

    @contextmanager
    def execute_query(query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        alone: Any = begin_transaction() if sql.native_connection.autocommit else nullcontext()
        try:
            with alone, execute(query, *args, **kwargs) as cursor:
                yield cursor
        except DatabaseTransientException as error:
            if not is_lock_timeout(error):
                raise
            raise DatabaseTerminalException(error.dbapi_exception) from error

    sql.begin_transaction, sql.execute_query = begin_transaction, execute_query


def with_lock_timeout(destination: Any, seconds: float) -> Any:
    """Have the statements of a PostgreSQL destination wait for locks no longer than this. Return the destination."""
    original = destination.client

    def client(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        set_lock_timeout(made, seconds)
        return made

    destination.client = client
    return destination


def is_lock_timeout(error: BaseException) -> bool:
    """Return whether an error, or what dlt has wrapped in it, is PostgreSQL's lock timeout."""
    return any("canceling statement due to lock timeout" in str(one) for one in causes(error))


def local_folder(client: Any) -> Path | None:
    """Return the folder in which a client of files writes its datasets; None if that is not on this machine."""
    return Path(client.bucket_path) if getattr(client, "is_local_filesystem", False) else None


_silent: WeakSet[dlt.Pipeline] = WeakSet()


class _Tracking:
    """A tracking module of dlt that is not called for silent pipelines."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., None]:
        call = getattr(self._module, name)

        def call_unless_silent(*arguments: Any) -> None:
            if not any(isinstance(one, dlt.Pipeline) and one in _silent for one in arguments):
                call(*arguments)

        return call_unless_silent


def send_no_telemetry(pipeline: dlt.Pipeline) -> None:
    """Keep dlt from sending traces of a pipeline anywhere. Other pipelines of the process are tracked as before."""
    _silent.add(pipeline)
    modules: list[Any] = trace.TRACKING_MODULES
    modules[:] = [one if isinstance(one, _Tracking) else _Tracking(one) for one in modules]


@contextmanager
def active_pipeline_kept() -> Iterator[None]:
    """Restore at the end which pipeline `dlt.pipeline()` and `dlt.current.pipeline()` return."""
    context = Container()[PipelineContext]
    before = context.pipeline() if context.is_active() else None
    try:
        yield
    finally:
        context.deactivate()
        if before is not None:
            with suppress(OSError):  # its directory is gone
                context.activate(before)
