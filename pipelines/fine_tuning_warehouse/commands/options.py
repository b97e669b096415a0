"""Options that several commands share, and what they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def warehouse_options(command: Any) -> Any:
    for option in (
        click.option("--dataset", metavar="NAME", help="Schema that holds the tables.  [default: fine_tuning]"),
        click.option("--table-format", type=click.Choice(["iceberg", "delta"]), help="For --destination filesystem."),
        click.option("--destination", metavar="NAME", help="Any dlt destination.  [default: duckdb]"),
        click.option("--database", metavar="PATH", help="The DuckDB file.  [default: fine_tuning_warehouse.duckdb]"),
    ):
        command = option(command)
    return command


def account_options(command: Any) -> Any:
    for option in (
        click.option("--base-url", metavar="URL", help="The host.  [default: OPENAI_BASE_URL, else OpenAI]"),
        click.option("--account", metavar="LABEL", help="Label that every row carries.  [default: default]"),
    ):
        command = option(command)
    return command


def existing_database(database: str | None) -> Path:
    """The database that was named, or the one that a sync has made here."""
    from fine_tuning_warehouse.demo import DEMO_DATABASE  # noqa: PLC0415
    from fine_tuning_warehouse.destinations import DEFAULT_DATABASE  # noqa: PLC0415

    if database is not None:
        return Path(database).expanduser()
    default, demo = Path(DEFAULT_DATABASE), Path(DEMO_DATABASE)
    return demo if demo.exists() and not default.exists() else default
