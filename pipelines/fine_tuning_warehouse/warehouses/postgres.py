"""PostgreSQL: loads into one dataset take turns, and the statements for missing rights are named."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from fine_tuning_warehouse.errors import BusyError, CommandError

from .locking import retried
from .other import OtherDestination
from .sql_text import quoted
from .warehouse import DEFAULT_DATASET

if TYPE_CHECKING:
    import dlt

    from .rows import Rows

logger = logging.getLogger(__name__)

_RIGHTS = "SELECT, INSERT, UPDATE, DELETE, TRUNCATE"
"""The rights to grant on tables that another role has made. Fewer may do, and are not refused: see `_TABLES`."""

_TABLES = """
SELECT n.nspname, c.relname,
    has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
    AND (n.nspname <> %s OR left(c.relname, 5) = '_dlt_' OR has_table_privilege(c.oid, 'DELETE'))
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN (%s, %s) AND c.relkind IN ('r', 'p')
"""
"""The tables there are, and whether a merge can write to them: it deletes and inserts in those of the dataset."""


@dataclass(frozen=True)
class PostgreSql(OtherDestination):
    """A PostgreSQL database.

    Attributes:
        dataset: The schema that holds the tables.
    """

    destination: str = "postgres"
    dataset: str = DEFAULT_DATASET

    keeps_types: ClassVar[bool] = True

    table_comments: ClassVar[str | None] = (
        "SELECT c.relname, obj_description(c.oid, 'pg_class'), a.attname, col_description(c.oid, a.attnum) "
        "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "JOIN pg_attribute AS a ON a.attrelid = c.oid "
        "WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped"
    )
    view_comments: ClassVar[str | None] = (
        "SELECT c.relname, obj_description(c.oid, 'pg_class') FROM pg_class AS c "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'v'"
    )

    @override
    def dlt_destination(self, label: str) -> Any:
        """Return dlt's destination. All accounts share one staging schema, since their loads take turns."""
        from .dlt_seam import with_lock_timeout  # noqa: PLC0415 - see accounts

        return with_lock_timeout(super().dlt_destination("default"), self.lock_wait_seconds)

    @override
    def preflight(self, pipeline: dlt.Pipeline) -> bool:
        """Connect once, and check that the role may load."""
        from fine_tuning_warehouse.schema import TABLES  # noqa: PLC0415 - imports dlt

        from .errors import destination_errors  # noqa: PLC0415

        super().preflight(pipeline)
        with (
            destination_errors(self, f"The destination {self.destination} cannot be reached"),
            pipeline.sql_client() as client,
        ):
            role, grants = missing_grants(client, TABLES)
        if grants:
            raise CommandError(
                f"The role {role} may not load into {self.shown}. As an owner of the database: {' '.join(grants)}"
            )
        return True

    @override
    @contextmanager
    def exclusive_load(self, pipeline: dlt.Pipeline) -> Iterator[None]:
        """Hold an advisory lock for the dataset: dlt merges through staging tables that all pipelines share.

        The lock belongs to a transaction of its own: it ends with its connection, and a transaction pooler keeps that.
        """
        dataset = f"dataset {pipeline.dataset_name}"
        digest = hashlib.sha256(f"fine_tuning_warehouse {pipeline.dataset_name}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        with pipeline.sql_client() as client, client.begin_transaction():
            client.execute_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            # Asked again and again instead of waiting inside the database, where Ctrl-C would not reach it.
            taken = retried(
                lambda: bool(client.execute_sql("SELECT pg_try_advisory_xact_lock(%s)", key)[0][0]),  # type: ignore[index]
                self.lock_wait_seconds,
                waiting=lambda _: f"Waiting for another sync{_holder(client, key)} that is loading into {dataset} ...",
            )
            if not taken:
                raise BusyError(
                    f"Another sync{_holder(client, key)} has been loading into {dataset} for longer than "
                    f"{self.lock_wait_seconds:g} s. Nothing is lost: sync again when it is done."
                )
            yield

    @override
    @contextmanager
    def session(self, pipeline: dlt.Pipeline) -> Iterator[None]:
        """Bound the time that statements wait for a lock, and name who holds a table. Raises `BusyError`."""
        from .dlt_seam import is_lock_timeout  # noqa: PLC0415 - see accounts

        try:
            yield
        except Exception as error:
            if not is_lock_timeout(error):
                raise
            with pipeline.sql_client() as client:
                holders = client.execute_sql(_HOLDERS, self.dataset) or ()
            named = "; ".join(f"{_session(*session)} on {tables}" for *session, tables in holders)
            raise BusyError(
                f"Another session holds a table of {self.shown} for longer than {self.lock_wait_seconds:g} s"
                f"{f': {named}' if named else ''}. Nothing is lost: end it, and sync again."
            ) from None

    @override
    def describe(self, pipeline: dlt.Pipeline) -> list[str]:
        """Write comments, views, and the indexes by which rows are found."""
        warnings = super().describe(pipeline)
        with (
            self.exclusive_load(pipeline),
            self.session(pipeline),
            pipeline.sql_client() as client,
        ):
            present = {str(name) for (name,) in client.execute_sql(_INDEXES, self.dataset) or ()}
            for index, table, statement in _indexes(client, self.dataset):
                if index not in present:
                    _make_index(client, table, statement)
        return warnings

    @override
    def view_options(self, sql: Any) -> str:
        """Make a view read with the rights of the user who queries it, from PostgreSQL 15 on."""
        ((version,),) = sql.execute_sql("SELECT current_setting('server_version_num')::int")
        return " WITH (security_invoker = true)" if version >= 150_000 else ""

    @override
    def view_grants(self, sql: Any) -> list[str]:
        return [
            f"GRANT {right} ON {quoted(self.dataset, str(view))} TO {'PUBLIC' if role is None else quoted(str(role))}"
            f"{' WITH GRANT OPTION' if grantable else ''}"
            for view, role, right, grantable in sql.execute_sql(_VIEW_GRANTS, self.dataset) or ()
        ]

    @override
    def read(self, wanted: Sequence[str], directory: Path, stack: ExitStack) -> Rows:
        """Read in one transaction, through cursors in the server."""
        from .rows.sql import PostgresRows  # noqa: PLC0415 - see accounts

        destination: Any = self.pipeline(directory / "pipeline").destination_client()
        client = stack.enter_context(destination)
        stored = {name: columns for name, columns in client.get_storage_tables(wanted) if columns}
        stack.enter_context(client.sql_client.begin_transaction())
        client.sql_client.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return PostgresRows(client.sql_client, stored, self, wanted)


_INDEXES = "SELECT indexname FROM pg_indexes WHERE schemaname = %s"

_COLUMNS = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = %s"

_HOLDERS = """
SELECT a.pid, a.usename, a.client_addr, string_agg(DISTINCT c.relname, ', ')
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid JOIN pg_class AS c ON c.oid = l.relation
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE l.granted AND n.nspname = %s AND a.pid <> pg_backend_pid() GROUP BY 1, 2, 3
"""
"""The sessions that hold tables of a dataset."""

_VIEW_GRANTS = """
SELECT c.relname, r.rolname, g.privilege_type, g.is_grantable
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace, LATERAL aclexplode(c.relacl) AS g
LEFT JOIN pg_roles AS r ON r.oid = g.grantee
WHERE n.nspname = %s AND c.relkind = 'v' AND g.grantee <> c.relowner
"""
"""The rights that are granted on views; a right of PUBLIC has no role."""


def _indexes(client: Any, dataset: str) -> Iterator[tuple[str, str, str]]:
    """Return the indexes that tables should have: name, table, statement."""
    from fine_tuning_warehouse.schema import TABLES  # noqa: PLC0415 - imports dlt

    columns: dict[str, set[str]] = {}
    for table, column in client.execute_sql(_COLUMNS, dataset) or ():
        columns.setdefault(str(table), set()).add(str(column))
    for name, table in TABLES.items():
        by_job = ("account", "fine_tuning_job_id")
        for index, kind, keys in ((f"{name}_key", "UNIQUE INDEX", table.keys), (f"{name}_by_job", "INDEX", by_job)):
            if set(keys) <= columns.get(name, set()) and (kind != "INDEX" or table.keys[:2] != by_job):
                on = ", ".join(quoted(key) for key in keys)
                yield index, name, f"CREATE {kind} {quoted(index)} ON {quoted(dataset, name)} ({on})"


def _make_index(client: Any, table: str, statement: str) -> None:
    from dlt.destinations.exceptions import DatabaseException  # noqa: PLC0415 - see accounts

    try:
        with client.begin_transaction():
            client.execute_sql(statement)
    except DatabaseException as error:
        text = str(error)
        if "could not create unique index" in text:
            logger.warning(
                "The table %s has duplicate rows, so that it gets no unique index: `ftw verify` names them.", table
            )
        elif "must be owner" in text:
            logger.info("The table %s belongs to another role and gets no index.", table)
        else:
            raise


def _session(pid: Any, role: Any, address: Any) -> str:
    return f"process {pid} of the server, role {role}{f', from {address}' if address else ''}"


def _holder(client: Any, key: int) -> str:
    """Return who holds an advisory lock, in words; empty if the server does not say."""
    rows = client.execute_sql(
        "SELECT a.pid, a.usename, a.client_addr FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid "
        "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
        "AND (l.classid::bigint << 32 | l.objid::bigint) = %s",
        key,
    )
    if not rows:
        return ""
    return f" ({_session(*rows[0])})"


def missing_grants(sql: Any, tables: Collection[str]) -> tuple[str, list[str]]:
    """Return the role that is connected, and the statements that give it the rights to load. Nothing is written.

    Args:
        sql: dlt's client of the database.
        tables: The tables that are loaded. They need not exist, and others in the dataset are not looked at.
    """
    ((role, database, may_make_schemas),) = sql.execute_sql(
        "SELECT current_user, current_database(), has_database_privilege(current_database(), 'CREATE')"
    )
    schemas = [sql.dataset_name, sql.staging_dataset_name]
    rights = {
        schema: (may_look, may_make_tables)
        for schema, may_look, may_make_tables in sql.execute_sql(
            "SELECT nspname, has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE') "
            "FROM pg_namespace WHERE nspname IN (%s, %s)",
            *schemas,
        )
    }
    present = [
        (schema, is_writable)
        for schema, name, is_writable in sql.execute_sql(_TABLES, sql.dataset_name, *schemas)
        if name in tables or name.startswith("_dlt_")
    ]
    to_whom = f"TO {_name(role)}"
    grants = []
    if not may_make_schemas and not all(schema in rights for schema in schemas):
        grants.append(f"GRANT CREATE ON DATABASE {_name(database)} {to_whom};")
    for schema in schemas:
        writable = [is_writable for there, is_writable in present if there == schema]
        may_look, may_make_tables = rights.get(schema, (True, True))
        # A role that may write to the tables that another role has made need not make any.
        if not may_look or not (may_make_tables or writable):
            grants.append(f"GRANT USAGE, CREATE ON SCHEMA {_name(schema)} {to_whom};")
        if not all(writable):
            grants.append(f"GRANT {_RIGHTS} ON ALL TABLES IN SCHEMA {_name(schema)} {to_whom};")
    return str(role), grants


def _name(name: str) -> str:
    """Return a name as SQL has it: in quotes if it needs them."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else quoted(name)
