"""SQL over a DuckDB file: it can read this file, and do nothing else."""

from __future__ import annotations

import itertools
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from .errors import CommandError, UsageError
from .text import shown_path
from .warehouses.duckdb import open_read_only
from .warehouses.locking import READ_WAIT_SECONDS

CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "allow_persistent_secrets": "false",  # up to DuckDB 1.5.1 the next setting does not protect the user's secrets
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # a table's name never means a variable of this program
    "temp_directory": "",  # nothing is written, not even by a large sort
}
"""Settings of a connection that can only read its file; in one process, all connections to a file need the same."""

# Functions that end the process from inside a SELECT, and one that runs SQL that is hidden in a text.
_REFUSED = re.compile(
    "enable_logging|pandas_scan|arrow_scan|python_map_function|json_execute_serialized_sql", re.IGNORECASE
)
_QUERY = re.compile(r'query\b|"query"', re.IGNORECASE)


def query(database: Path, sql: str, dataset: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one SQL query over a DuckDB file, and return its column names and rows.

    The file is opened read-only, without access to other files, the network, extensions or stored secrets, and the
    settings are locked. Times are in UTC.

    Args:
        database: The DuckDB file.
        sql: One statement that reads: SELECT, FROM, WITH, DESCRIBE, SHOW, SUMMARIZE, PIVOT or EXPLAIN.
        dataset: The schema that holds the tables, so that SQL can name them without it.

    Raises:
        UsageError: The SQL holds no statement.
        CommandError: The file is missing or in use, or the SQL is wrong, does more than read, or is several statements.

    Example:
        >>> query(Path("fine_tuning_warehouse.duckdb"), "SELECT count(*) AS n FROM jobs", "fine_tuning")
        (['n'], [(42,)])
    """
    with open_read_only(database, CONFIG, READ_WAIT_SECONDS) as connection:
        # No query has parameters: for those DuckDB imports pandas where it is installed, which takes 0.3 s.
        has_dataset = (dataset,) in connection.execute("SELECT schema_name FROM duckdb_schemas()").fetchall()
        if has_dataset:
            connection.execute(f'SET search_path = "{dataset}"')
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET lock_configuration = true")
        try:
            _check(connection, sql)
            cursor = connection.execute(sql)
            return [column[0] for column in cursor.description or ()], cursor.fetchall()
        except duckdb.Error as error:
            if not has_dataset:
                raise CommandError(
                    f"{shown_path(database)} holds no dataset {dataset} yet: `ftw sync` makes it."
                ) from None
            raise CommandError(f"The query failed: {str(error).strip()}") from None


def _check(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raise `CommandError` if a text is not one statement that only reads the warehouse."""
    if "\0" in sql:  # DuckDB reads no further
        raise CommandError("The query holds a NUL character: remove it.")
    # DuckDB writes a PIVOT without a list of values as two statements: the first one, without a text, names the values.
    statements = connection.extract_statements(sql)
    given = [one for one in statements if one.query or one.type != duckdb.StatementType.CREATE]
    if not given:
        raise UsageError("The query is empty.")
    if len(given) > 1:
        raise CommandError(f"A query is one statement, and {len(given)} were given: run them one by one.")
    if given[0].type == duckdb.StatementType.EXPLAIN:
        _check(connection, _explained(connection, sql))  # EXPLAIN ANALYZE runs it
    elif given[0].type != duckdb.StatementType.SELECT:
        kind = str(getattr(given[0].type, "name", "")).replace("_", " ").strip("?") or "this statement"
        raise CommandError(f"A query can only read (SELECT, DESCRIBE, SHOW, EXPLAIN ...): {kind} is refused.")
    refused = found[0] if (found := _REFUSED.search(sql)) else "query" if _calls_query(sql) else None
    if refused is not None:
        raise CommandError(f"A query can only read the warehouse: the function {refused} is refused.")


def _explained(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Return the statement behind EXPLAIN and its options: the first rest of the text that is one."""
    plain = _with_ascii_letters(sql)
    starts = [start for start, _ in duckdb.tokenize(plain)]
    for start in starts[1:]:
        if not plain[start:].lower().startswith("analyze"):  # which is a statement of its own, too
            with suppress(duckdb.Error):
                connection.extract_statements(sql[start:])
                return sql[start:]
    return ""


def _calls_query(sql: str) -> bool:
    """Return whether SQL calls the function `query`, which runs SQL that is hidden in a text."""
    plain = _with_ascii_letters(sql)
    starts = [start for start, _ in duckdb.tokenize(plain)]
    return any(
        _QUERY.match(plain, start) and plain[following] == "(" for start, following in itertools.pairwise(starts)
    )


def _with_ascii_letters(sql: str) -> str:
    """Return SQL of the same length for DuckDB's tokenizer.

    The tokenizer counts bytes, and takes some characters for letters that DuckDB takes for spaces.
    """
    return "".join(one if one.isascii() else "x" if one.isalnum() else " " for one in sql)
