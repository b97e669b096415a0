"""The command `ftw views`."""

from __future__ import annotations

import click

from fine_tuning_warehouse.errors import DONE

from .options import WarehouseOptions, existing_warehouse_options, prepare

# As views/build.py has them; reading them there would load sqlglot for `ftw --help`.
DIALECTS = ("duckdb", "postgres", "redshift", "snowflake", "bigquery", "clickhouse", "databricks", "spark")


@click.command()
@existing_warehouse_options
@click.option("--dialect", type=click.Choice(DIALECTS), help="SQL of another engine.  [default: the warehouse's own]")
def views(*, target: WarehouseOptions, dialect: str | None) -> int:
    """Print the SQL of the views.

    A sync makes the views if the warehouse can have views. For an engine that reads the tables by itself, such as
    Spark over a lake, this prints the statements that make them there.
    """
    prepare()
    from fine_tuning_warehouse.views.script import script  # noqa: PLC0415 - see sync
    from fine_tuning_warehouse.warehouses.working_directory import working_directory  # noqa: PLC0415

    warehouse = target.find_existing()
    with working_directory() as directory:
        for statement in script(warehouse, dialect, directory):
            click.echo(f"{statement};\n")
    return DONE
