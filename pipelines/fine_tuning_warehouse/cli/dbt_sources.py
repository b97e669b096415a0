"""The command `ftw dbt-sources`."""

from __future__ import annotations

import click

from fine_tuning_warehouse.errors import DONE

from .options import WarehouseOptions, prepare, warehouse_options


@click.command("dbt-sources")
@click.option("--name", default="fine_tuning", show_default=True, metavar="NAME", help="The name of the source in dbt.")
@click.option(
    "--warn-hours",
    type=click.IntRange(1),
    default=24,
    show_default=True,
    help="How old the last success of an account may be; at twice that, dbt's freshness is an error.",
)
@warehouse_options
def dbt_sources(*, name: str, warn_hours: int, target: WarehouseOptions) -> int:
    """Print a sources.yml for dbt of what the warehouse holds.

    Tables and views with the descriptions of their columns, tests of keys and of the job of each row, and the freshness
    of each account. dbt 1.10.5 or later reads it.
    """
    prepare()
    from fine_tuning_warehouse.dbt_sources import dbt_sources as run  # noqa: PLC0415 - see sync

    click.echo(run(target.find_existing(), name=name, warn_hours=warn_hours), nl=False)
    return DONE
