"""`ftw health`."""

from __future__ import annotations

from pathlib import Path

import click

from fine_tuning_warehouse.errors import DONE

from .options import seconds_of


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--max-age", metavar="TIME", help="45m, 6h, 1d ...  [default: three times --every]")
def health(*, file: Path, max_age: str | None) -> int:
    """Tell whether a sync succeeded lately.

    FILE is the one that `ftw sync --health-file` writes. Exit 0 where it is young enough, else 1: for the health check
    of a container.
    """
    from fine_tuning_warehouse.sync.health import check_health  # noqa: PLC0415

    click.echo(check_health(file, None if max_age is None else seconds_of(max_age, "--max-age")))
    return DONE
