"""What a role may do in a PostgreSQL database, and the GRANTs that it lacks for loading."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

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


def missing_grants(sql: Any, tables: Collection[str]) -> tuple[str, list[str]]:
    """The role that is connected, and what it is to be granted, as SQL; nothing is written.

    Args:
        sql: dlt's client of the database; its dataset and the one that merges are staged in are looked at.
        tables: Names of the tables that are loaded, where they exist. Others in the dataset are not looked at.
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
        # Who may write to the tables that another role has made need make none.
        if not may_look or not (may_make_tables or writable):
            grants.append(f"GRANT USAGE, CREATE ON SCHEMA {_name(schema)} {to_whom};")
        if not all(writable):
            grants.append(f"GRANT {_RIGHTS} ON ALL TABLES IN SCHEMA {_name(schema)} {to_whom};")
    return str(role), grants


def _name(name: str) -> str:
    """A name as SQL takes it: in quotes where it needs them."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'
