"""`ftw query`."""

from __future__ import annotations

import click

from fine_tuning_warehouse import output
from fine_tuning_warehouse.errors import UsageError
from fine_tuning_warehouse.warehouses.warehouse import DEFAULT_DATASET

from .options import existing_database


@click.command()
@click.argument("sql")
@click.option("--database", metavar="PATH", help="The DuckDB file.  [default: the one there is]")
@click.option("--dataset", metavar="NAME", default=DEFAULT_DATASET, show_default=True)
@click.option("--output", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
def query(sql: str, database: str | None, dataset: str, form: str) -> None:
    """Read-only SQL over the warehouse."""
    from fine_tuning_warehouse.query import query as run  # noqa: PLC0415

    if not sql.strip():
        raise UsageError("The query is empty.")
    names, rows = run(existing_database(database), sql, dataset)
    if form == "json":
        click.echo(output.as_json([dict(zip(names, row, strict=True)) for row in rows]))
    elif form == "csv":
        click.echo(output.as_csv(names, rows))
    elif names:
        click.echo(output.as_table(names, rows, output.terminal_width()))
