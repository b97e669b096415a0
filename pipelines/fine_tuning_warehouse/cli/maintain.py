"""The command `ftw maintain`."""

from __future__ import annotations

import click

from fine_tuning_warehouse.errors import DONE

from .options import WarehouseOptions, existing_warehouse_options, lock_wait_option, prepare, seconds_of


@click.command()
@existing_warehouse_options
@click.option(
    "--keep", metavar="TIME", default="7d", show_default=True, help="How long old versions of tables stay: 12h, 7d ..."
)
@lock_wait_option
def maintain(*, target: WarehouseOptions, keep: str, lock_wait: float) -> int:
    """Keep the files of a warehouse few and small.

    DuckDB: checkpoint and vacuum. DuckLake: merge small files, expire snapshots that are older than
    --keep, and remove files that nothing names. Iceberg: merge small files and expire snapshots. Readers may go on; no
    sync loads meanwhile. Once a day or a week is enough.
    """
    prepare()
    from fine_tuning_warehouse.maintain import maintain as run  # noqa: PLC0415 - see sync

    keep_seconds = seconds_of(keep, "--keep", least=0)
    for line in run(target.find_existing().waiting(lock_wait), keep_seconds=keep_seconds):
        click.echo(line)
    return DONE
