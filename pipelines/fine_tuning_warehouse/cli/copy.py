"""The command `ftw copy`."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fine_tuning_warehouse.errors import UsageError
from fine_tuning_warehouse.text import counted
from fine_tuning_warehouse.warehouses.warehouse import DEFAULT_DATASET

from .failures import json_on_failure
from .options import WarehouseOptions, prepare
from .terminal import output

if TYPE_CHECKING:
    from fine_tuning_warehouse.warehouses.warehouse import TableFormat

_TABLE_FORMATS = click.Choice(["iceberg", "delta"])


@click.command()
@click.option("--database", metavar="PATH", help="The DuckDB file to copy from.  [default: the one there is]")
@click.option("--from", "origin", metavar="NAME", help="The dlt destination to copy from.  [default: duckdb]")
@click.option("--from-dataset", metavar="NAME", help=f"Schema to copy from.  [default: {DEFAULT_DATASET}]")
@click.option("--from-table-format", type=_TABLE_FORMATS, help="For --from filesystem.")
@click.option("--destination", metavar="NAME", help="The dlt destination to copy into.")
@click.option("--to-database", metavar="PATH", help="Or the DuckDB file to copy into.")
@click.option("--dataset", metavar="NAME", help=f"Schema to copy into.  [default: {DEFAULT_DATASET}]")
@click.option("--table-format", type=_TABLE_FORMATS, help="For --destination filesystem.")
@output.format_option("text", "json")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def copy(
    *,
    database: str | None,
    origin: str | None,
    from_dataset: str | None,
    from_table_format: TableFormat | None,
    destination: str | None,
    to_database: str | None,
    dataset: str | None,
    table_format: TableFormat | None,
    output_format: str,
    quiet: bool,
) -> None:
    """Copy a history into another warehouse, without asking the API again.

    Copies all rows of all accounts, and the state of each account: the next `ftw sync` into the copy reads only what is
    new. Run it again to copy what has changed, as long as nothing was synced into the copy.
    """
    began = time.monotonic()
    done: dict[str, Any] = {"status": "done", "error": None, "from": None, "to": None, "accounts": [], "rows": {}}

    def result() -> dict[str, Any]:
        return {**done, "seconds": round(time.monotonic() - began, 3)}

    with json_on_failure(output_format, result):
        prepare(quiet=quiet)
        if (destination in (None, "duckdb")) == (to_database is None):
            raise UsageError("Choose where to copy to: either --destination NAME or --to-database PATH.")
        source = WarehouseOptions(database, origin, from_dataset, from_table_format).find_existing()
        target = WarehouseOptions(to_database, destination, dataset, table_format).find()
        done.update({"from": source.shown, "to": target.shown})
        from fine_tuning_warehouse.copy import copy_history  # noqa: PLC0415

        for copied in copy_history(source, target):
            done["accounts"].append(asdict(copied))
            for table, rows in copied.rows.items():
                done["rows"][table] = done["rows"].get(table, 0) + rows
            state = "" if copied.has_state else "; it has no state, so the next sync reads everything"
            line = f"Account {copied.account}: {counted(sum(copied.rows.values()), 'row')}{state}."
            if not quiet:
                click.echo(output.safe(line), err=output_format == "json")
    if output_format == "json":
        output.print_result(result())
    elif not quiet:
        click.echo(f"Copied {source.shown} into {target.shown} in {time.monotonic() - began:.1f} s.")
        width = max(map(len, done["rows"]))
        for table, rows in done["rows"].items():
            click.echo(output.table_line(table, rows, width))
