"""The command `ftw query`."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from typing import Any

import click

from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.query import query as run

from .child import run_in_child
from .options import WarehouseOptions, existing_warehouse_options, prepare
from .terminal import output

_ABOUT_TABLES = re.compile(
    r"\b(?:show|pragma|information_schema|duckdb_\w+|pg_\w+|sqlite_\w+|describe\W*$)", re.IGNORECASE
)
"""How a query asks which tables there are, and not only what is in those that it names."""


@click.command()
@click.argument("sql", required=False)
@click.option("-f", "--file", metavar="PATH", help="Read the SQL from a file; `-` is standard input.")
@existing_warehouse_options
@output.format_option("table", "csv", "json")
@output.spreadsheet_safe_option
def query(
    *, sql: str | None, file: str | None, target: WarehouseOptions, output_format: str, spreadsheet_safe: bool
) -> int:
    """Run one SQL query over the warehouse, in DuckDB's SQL.

    It can read the tables and views, and nothing else: no other file, no network, no stored secret. SQL is the query,
    or `-` to read it from standard input. With --destination, the tables and views that the query names are first
    copied into a temporary file on this machine.
    """
    text = _sql(sql, file)

    def run_and_print() -> None:
        names, rows = _run(text, target)
        if output_format == "json":
            fields = _distinct(names)
            click.echo(output.as_json([dict(zip(fields, row, strict=True)) for row in rows]))
        elif output_format == "csv":
            output.print_csv(names, rows, spreadsheet_safe=spreadsheet_safe)
        else:
            click.echo(output.as_table(names, rows, output.terminal_width()))

    return run_in_child(run_and_print, "The query")  # some functions of DuckDB crash, such as on JSON nested deeply


def _run(sql: str, target: WarehouseOptions) -> tuple[list[str], list[tuple[Any, ...]]]:
    warehouse = target.find_existing()
    if warehouse.duckdb_file is not None:
        return run(warehouse.duckdb_file, sql, warehouse.dataset)
    prepare()
    from fine_tuning_warehouse.warehouses.rows.snapshot import snapshot  # noqa: PLC0415 - imports dlt, after `prepare`

    names = None if _ABOUT_TABLES.search(sql) else set(re.findall(r"\w+", sql.lower()))
    with snapshot(warehouse, names) as copied:
        return run(copied, sql, warehouse.dataset)


def _distinct(names: list[str]) -> list[str]:
    """Return the names of columns, each once: the second `id` is `id_1`, as in a table that DuckDB makes of a query."""
    found: list[str] = []
    for name in names:
        others = (f"{name}_{number}" for number in itertools.count(1))
        found.append(next(one for one in itertools.chain([name], others) if one not in found))
    return found


def _sql(sql: str | None, file: str | None) -> str:
    if (sql is None) == (file is None):
        raise click.UsageError("Give the query once: as an argument, with --file PATH, or as `-` for standard input.")
    try:
        if "-" in (sql, file):
            given = sys.stdin.buffer.read()
        elif file is not None:
            given = Path(file).expanduser().read_bytes()
        else:
            given = str(sql).encode()
        text = given.decode("utf-8-sig")
    except OSError as error:
        raise CommandError(f"The file {file} cannot be read: {error.strerror or error}.") from None
    except UnicodeError:
        raise CommandError(f"The query in {file or 'standard input'} is not UTF-8 text.") from None
    if not text.strip():
        raise UsageError("The query is empty.")
    return text
