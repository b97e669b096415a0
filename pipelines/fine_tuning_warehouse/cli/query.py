"""The command `ftw query`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.warehouses.warehouse import DEFAULT_DATASET

from . import output
from .options import existing_database


@click.command()
@click.argument("sql", required=False)
@click.option("-f", "--file", metavar="PATH", help="Read the SQL from a file; `-` is standard input.")
@click.option("--database", metavar="PATH", help="The DuckDB file.  [default: the one there is]")
@click.option(
    "--dataset", metavar="NAME", default=DEFAULT_DATASET, show_default=True, help="Schema that holds the tables."
)
@output.format_option("table", "csv", "json")
@output.spreadsheet_safe_option
def query(
    *, sql: str | None, file: str | None, database: str | None, dataset: str, output_format: str, spreadsheet_safe: bool
) -> None:
    """Run one SQL query over the warehouse.

    It can read the tables and views of the DuckDB file, and nothing else: no other file, no network, no stored secret.
    SQL is the query, or `-` to read it from standard input.
    """
    from fine_tuning_warehouse.query import query as run  # noqa: PLC0415

    names, rows = run(existing_database(database), _sql(sql, file), dataset)
    if output_format == "json":
        click.echo(output.as_json([dict(zip(names, row, strict=True)) for row in rows]))
    elif output_format == "csv":
        output.print_csv(names, rows, spreadsheet_safe=spreadsheet_safe)
    else:
        click.echo(output.as_table(names, rows, output.terminal_width()))


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
