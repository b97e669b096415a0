"""`ftw copy`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from fine_tuning_warehouse.errors import UsageError
from fine_tuning_warehouse.text import counted
from fine_tuning_warehouse.warehouses.warehouse import DEFAULT_DATASET, find_warehouse

from . import output
from .failures import json_on_failure
from .options import existing_database, prepare

if TYPE_CHECKING:
    from fine_tuning_warehouse.copy import Copied
    from fine_tuning_warehouse.warehouses.warehouse import TableFormat

_FORMATS = click.Choice(["iceberg", "delta"])


@click.command()
@click.option("--database", metavar="PATH", help="The DuckDB file to copy from.  [default: the one there is]")
@click.option("--from", "origin", metavar="NAME", help="The dlt destination to copy from.  [default: duckdb]")
@click.option("--from-dataset", metavar="NAME", help=f"Schema to copy from.  [default: {DEFAULT_DATASET}]")
@click.option("--from-table-format", type=_FORMATS, help="For --from filesystem.")
@click.option("--destination", metavar="NAME", help="The dlt destination to copy into.")
@click.option("--to-database", metavar="PATH", help="Or the DuckDB file to copy into.")
@click.option("--dataset", metavar="NAME", help=f"Schema to copy into.  [default: {DEFAULT_DATASET}]")
@click.option("--table-format", type=_FORMATS, help="For --destination filesystem.")
@click.option("--output", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
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
    form: str,
    quiet: bool,
) -> None:
    """Copy a history into another warehouse, without asking the API again.

    All rows of all accounts, and what each sync remembers: the next `ftw sync` into the copy reads only what is new.
    Run it again, and it brings what has changed, as long as nothing was synced into the copy.
    """
    began = time.monotonic()
    done: dict[str, Any] = {"status": "done", "error": None, "from": None, "to": None, "accounts": [], "rows": {}}
    with json_on_failure(form, lambda: {**done, "seconds": _since(began)}):
        prepare(quiet=quiet)
        if (destination in (None, "duckdb")) == (to_database is None):
            raise UsageError("Say where to: --destination NAME, or --to-database PATH.")
        default = str(existing_database(None))
        source = find_warehouse(
            database=database,
            destination=origin,
            dataset=from_dataset,
            table_format=from_table_format,
            default=default,
        )
        target = find_warehouse(
            database=to_database, destination=destination, dataset=dataset, table_format=table_format, default=default
        )
        done.update({"from": source.shown, "to": target.shown})
        from fine_tuning_warehouse.copy import copy_history  # noqa: PLC0415

        for copied in copy_history(source, target):
            done["accounts"].append(_as_json(copied))
            for table, rows in copied.rows.items():
                done["rows"][table] = done["rows"].get(table, 0) + rows
            if not quiet:
                click.echo(_line(copied), err=form == "json")
    if form == "json":
        click.echo(output.as_json({**done, "seconds": _since(began)}))
    elif not quiet:
        click.echo(f"Copied {source.shown} into {target.shown} in {time.monotonic() - began:.1f} s.")
        width = max(map(len, done["rows"]))
        for table, rows in done["rows"].items():
            click.echo(output.table_line(table, rows, width))


def _as_json(copied: Copied) -> dict[str, Any]:
    return {
        "account": copied.account,
        "rows": copied.rows,
        "load_ids": copied.load_ids,
        "has_state": copied.has_state,
    }


def _line(copied: Copied) -> str:
    state = "" if copied.has_state else "; no sync of it completed, so that the next one reads everything"
    return output.safe(f"Account {copied.account}: {counted(sum(copied.rows.values()), 'row')}{state}.")


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)
