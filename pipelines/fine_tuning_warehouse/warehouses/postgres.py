"""PostgreSQL: loads into one dataset take turns, and the statements for missing rights are named."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from fine_tuning_warehouse.errors import BusyError, CommandError

from .other import OtherDestination
from .sql_text import quoted
from .warehouse import DEFAULT_DATASET

if TYPE_CHECKING:
    import dlt

    from .rows import Rows

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.2

_RIGHTS = "SELECT, INSERT, UPDATE, DELETE, TRUNCATE"
"""What is to be granted on tables that another role has made. Less may do, and is not refused: see below."""

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
        return super().dlt_destination("default")

    @override
    def preflight(self, pipeline: dlt.Pipeline) -> bool:
        """Connect once, and check that the role may load."""
        from openai_fine_tuning.schema import TABLES  # noqa: PLC0415 - imports dlt

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
    def exclusive_load(self, pipeline: dlt.Pipeline, lock_wait_seconds: float) -> Iterator[None]:
        """Hold an advisory lock for the dataset: dlt merges through staging tables that all pipelines share.

        The lock belongs to a transaction of its own: it ends with its connection, and a transaction pooler keeps that.
        """
        digest = hashlib.sha256(f"fine_tuning_warehouse {pipeline.dataset_name}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        until = time.monotonic() + lock_wait_seconds
        with pipeline.sql_client() as client, client.begin_transaction():
            client.execute_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            announced = False
            # Asked again and again instead of waiting inside the database, where Ctrl-C would not reach it.
            while not (client.execute_sql("SELECT pg_try_advisory_xact_lock(%s)", key) or [[False]])[0][0]:
                if time.monotonic() >= until:
                    raise BusyError(
                        f"Another sync{_holder(client, key)} has been loading into dataset {pipeline.dataset_name} for "
                        f"longer than {lock_wait_seconds:g} s. Nothing is lost: sync again when it is done."
                    )
                if not announced:
                    logger.warning(
                        "Waiting for another sync%s that is loading into dataset %s ...",
                        _holder(client, key),
                        pipeline.dataset_name,
                    )
                    announced = True
                time.sleep(_PAUSE_SECONDS)
            yield

    @override
    def read(self, wanted: Sequence[str], directory: Path, stack: ExitStack, lock_wait_seconds: float) -> Rows:
        """Read in one transaction, through cursors in the server."""
        from .rows.sql import PostgresRows  # noqa: PLC0415 - see accounts

        destination: Any = self.pipeline(directory / "pipeline").destination_client()
        client = stack.enter_context(destination)
        stored = {name: columns for name, columns in client.get_storage_tables(wanted) if columns}
        stack.enter_context(client.sql_client.begin_transaction())
        client.sql_client.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return PostgresRows(client.sql_client, stored, self, wanted)


def _holder(client: Any, key: int) -> str:
    """Return who holds an advisory lock, in words; nothing where the server does not say."""
    rows = client.execute_sql(
        "SELECT a.pid, a.usename, a.client_addr FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid "
        "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
        "AND (l.classid::bigint << 32 | l.objid::bigint) = %s",
        key,
    )
    if not rows:
        return ""
    pid, role, address = rows[0]
    return f" (process {pid} of the server, role {role}{f', from {address}' if address else ''})"


def missing_grants(sql: Any, tables: Collection[str]) -> tuple[str, list[str]]:
    """Return the role that is connected, and the statements that give it the rights to load. Nothing is written.

    Args:
        sql: dlt's client of the database.
        tables: The tables that are loaded, where they exist. Others in the dataset are not looked at.
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
    """Return a name as SQL takes it: in quotes where it needs them."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else quoted(name)
