"""Lines of the command for people and for what collects logs: plain, with time and level, or as JSON."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Literal

import click
from typing_extensions import override

Style = Literal["plain", "stamped", "json"]

STARTED = datetime.now(timezone.utc)
"""When the command started."""


class _Current:
    style: Style = "plain"


def set_style(style: Style) -> None:
    """Print all lines in a style from now on."""
    _Current.style = style


def is_plain() -> bool:
    """Return whether lines are printed as they are."""
    return _Current.style == "plain"


def echo(text: str, level: str = "INFO", *, plain: str | None = None, err: bool = True) -> None:
    """Print a line.

    Args:
        text: The line, which has no control characters but line breaks.
        level: INFO, WARNING or ERROR.
        plain: The line in the plain style, if that is another.
        err: Print it on stderr, not on stdout.
    """
    click.echo((text if plain is None else plain) if is_plain() else _line(text, level), err=err)


def _line(text: str, level: str) -> str:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    if _Current.style == "json":
        return json.dumps({"time": now, "level": level, "message": text})
    return "\n".join(f"{now} {level} {line}" for line in text.splitlines() or [""])


class LineFormatter(logging.Formatter):
    """Formats records of Python's logging as `echo` does."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if is_plain() else _line(text, record.levelname)
