"""What a command that fails prints besides the line on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from fine_tuning_warehouse import output
from fine_tuning_warehouse.errors import CommandError


@contextmanager
def json_on_failure(form: str, done: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Print a failure as JSON too, where that was asked for.

    Args:
        form: What `--output` says.
        done: The fields that tell what was done until then.
    """
    try:
        yield
    except CommandError as error:
        if form == "json":
            click.echo(output.as_json({**done(), "status": "failed", "error": str(error)}))
        raise
