"""The command `ftw health`."""

from __future__ import annotations

from pathlib import Path

import click

from fine_tuning_warehouse.errors import DONE
from fine_tuning_warehouse.sync.health import check_health

from .options import seconds_of


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--max-age", metavar="TIME", help="How old the last success may be: 45m, 6h, 1d ...  [default: three times --every]"
)
def health(*, file: Path, max_age: str | None) -> int:
    """Check whether a sync has succeeded lately.

    FILE is the one that `ftw sync --health-file` writes. Exits with 0 if the last success is young enough, else with 1:
    for the health check of a container.
    """
    click.echo(check_health(file, None if max_age is None else seconds_of(max_age, "--max-age")))
    return DONE
