"""The command `ftw explore`."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path

import click

from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.query import query
from fine_tuning_warehouse.text import shown_path
from fine_tuning_warehouse.warehouses.duckdb import InUseError

from .options import WarehouseOptions, existing_warehouse_options, prepare

_COPY = "fine_tuning_explorer.py"
_VIEWS = ("job_overview", "best_checkpoints", "checkpoint_history", "training_curves", "sync_history")


@click.command()
@existing_warehouse_options
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port to serve.  [default: a free one]")
@click.option("--browser/--no-browser", " /--headless", default=True, help="Open it in the browser, or do not.")
@click.option("--edit", is_flag=True, help=f"Write the notebook to ./{_COPY}, for an analysis of your own.")
def explore(*, target: WarehouseOptions, port: int, browser: bool, edit: bool) -> None:
    """Look at jobs, curves and checkpoints in the browser.

    Serves a page on this machine alone, until Ctrl-C, to whoever has the token in its address. It reads the DuckDB file
    for moments only, and follows a sync without a restart. With --destination, it shows a copy that is made when it
    starts. Needs the extra `explore`.
    """
    warehouse = target.find_existing()
    path = warehouse.duckdb_file
    if path is not None:
        if not path.is_file():
            raise CommandError(
                f"There is no database {shown_path(path)}: `ftw sync` makes it (`ftw sync --demo` one to look around "
                "in), or name one with --database."
            )
        with suppress(InUseError):  # the page shows it when the sync is done
            query(path, "SELECT 1", warehouse.dataset)
    if find_spec("marimo") is None or find_spec("altair") is None:
        raise UsageError("The explorer needs marimo and Altair: pip install 'fine-tuning-warehouse[explore]'.")
    from fine_tuning_warehouse.explorer.serve import NOTEBOOK, serve  # noqa: PLC0415 - needs the extra

    if edit:
        if path is None:
            raise UsageError("--edit is for a DuckDB file: `ftw copy` makes one of any warehouse.")
        copy = Path(_COPY)
        if not copy.exists():
            shutil.copyfile(NOTEBOOK, copy)
        click.echo(f"marimo edit {copy} -- --database {shown_path(path)} --dataset {warehouse.dataset}")
        return
    with ExitStack() as stack:
        if path is None:
            prepare()
            from fine_tuning_warehouse.warehouses.rows.snapshot import snapshot  # noqa: PLC0415 - imports dlt, after `prepare`

            path = stack.enter_context(snapshot(warehouse, _VIEWS))
        try:
            serve(path, warehouse.dataset, port, _show_address, browser=browser)
        except OSError as error:
            raise CommandError(f"Port {port} cannot be used: {error.strerror or error}. Try --port 0.") from None
        except KeyboardInterrupt:
            return


def _show_address(url: str) -> None:
    click.echo(f"Serving {url} until you press Ctrl-C.", err=True)
