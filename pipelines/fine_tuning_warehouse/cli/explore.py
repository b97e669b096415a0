"""`ftw explore`."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.text import shown_path
from fine_tuning_warehouse.warehouses.warehouse import DEFAULT_DATASET

from .options import existing_database

_COPY = "fine_tuning_explorer.py"


@click.command()
@click.option("--database", metavar="PATH", help="The DuckDB file.  [default: the one there is]")
@click.option("--dataset", metavar="NAME", default=DEFAULT_DATASET, show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Where to serve it.  [default: a free port]")
@click.option("--browser/--no-browser", " /--headless", default=True, help="Open it in the browser, or do not.")
@click.option("--edit", is_flag=True, help=f"Write the notebook to ./{_COPY}, for an analysis of your own.")
def explore(*, database: str | None, dataset: str, port: int, browser: bool, edit: bool) -> None:
    """Look at jobs, curves and checkpoints in the browser.

    Serves a page on this machine alone, until Ctrl-C. It reads the DuckDB file for moments only, and follows a sync
    without a restart. Needs the extra `explore`.
    """
    path = existing_database(database).absolute()
    if not path.is_file():
        raise CommandError(
            f"There is no database {shown_path(path)}: `ftw sync` makes it (`ftw sync --demo` one to look around in), "
            "or name one with --database."
        )
    try:
        import altair  # noqa: F401, PLC0415
        import marimo  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise UsageError(
            "The explorer needs marimo and Altair: pip install 'fine-tuning-warehouse[explore]'."
        ) from None
    from fine_tuning_warehouse.explorer.serve import NOTEBOOK, serve  # noqa: PLC0415

    if edit:
        copy = Path(_COPY)
        if not copy.exists():
            shutil.copyfile(NOTEBOOK, copy)
        click.echo(f"marimo edit {copy} -- --database {shown_path(path)} --dataset {dataset}")
        return

    def ready(url: str) -> None:
        click.echo(f"Serving {url} until you press Ctrl-C.", err=True)

    try:
        serve(path, dataset, port, ready, browser=browser)
    except OSError as error:
        raise CommandError(f"Port {port} cannot be used: {error.strerror or error}. Try --port 0.") from None
    except KeyboardInterrupt:
        return
