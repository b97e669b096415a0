"""The command `ftw health`."""

from __future__ import annotations

from pathlib import Path

import click

from fine_tuning_warehouse.errors import DONE, CommandError
from fine_tuning_warehouse.sync.health import check_health, span

from .failures import json_on_failure
from .options import seconds_of
from .terminal import output


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--max-age", metavar="TIME", help="How old the last success may be: 45m, 6h, 1d ...  [default: three times --every]"
)
@click.option(
    "--account", "labels", metavar="LABEL", multiple=True, help="Only this account (repeatable).  [default: all]"
)
@click.option("--any", "any_is_enough", is_flag=True, help="Succeed if one of them was synced lately.")
@output.format_option("text", "json")
def health(*, file: Path, max_age: str | None, labels: tuple[str, ...], any_is_enough: bool, output_format: str) -> int:
    """Check whether each account was synced lately.

    FILE is the one that `ftw sync --health-file` writes. Exits with 0 if the last success of every account is young
    enough, else with 1, and names those that are too old. For a check that restarts the program, take --any: one
    account with a key that expired is not a reason to restart.
    """
    fields: dict[str, object] = {"max_age_seconds": None, "accounts": []}
    with json_on_failure(output_format, lambda: fields):
        limit, checked = check_health(file, None if max_age is None else seconds_of(max_age, "--max-age"), labels)
        fields = {"max_age_seconds": limit, "accounts": [one.as_json() for one in checked]}
        late = [one for one in checked if not one.healthy]
        if late and not (any_is_enough and len(late) < len(checked)):
            words = " ".join(output.safe(one.sentence) for one in late)
            raise CommandError(f"{words} The limit is {span(limit)}.")
    if output_format == "json":
        output.print_result({"status": "done", "error": None, **fields})
    else:
        for one in checked:
            click.echo(output.safe(one.sentence))
    return DONE
