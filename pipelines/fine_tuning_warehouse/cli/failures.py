"""What a command that fails prints besides the line on stderr."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from fine_tuning_warehouse.errors import CommandError

from . import output


@contextmanager
def json_on_failure(form: str, done: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Print a failure as JSON too, where that was asked for.

    Args:
        form: What `--output` says.
        done: The fields that tell what was done until then.
    """
    try:
        yield
    except Exception as error:
        if form == "json":
            text = str(error) if isinstance(error, CommandError) else bug_name(error)
            click.echo(output.as_json({**done(), "status": "failed", "error": text}))
        raise


_SECRET_NAME = re.compile(r"(?i)key|token|secret|password|credential|header")
_SECRET_VALUE = re.compile(r"(?i)(sk-|bearer\s+|basic\s+)[\w.~+/=-]{6,}|(?<=://)[^/\s@]+@")
_SHORTEST_SECRET = 6


def bug_name(error: Exception) -> str:
    """Return a few words about a programming error; its message may hold a secret."""
    return f"A bug in ftw: {type(error).__name__}"


def bug_report(error: Exception) -> str:
    """Return the traceback of a programming error without secrets, and a line that asks to report it."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, "...")
    text = output.safe_lines(_SECRET_VALUE.sub("...", text))
    return f"{text}\nError: This is a bug in ftw. Please report it as an issue, with the lines above."


def _secrets() -> set[str]:
    """Return the values that may be secrets in the environment and in dlt's files."""
    found = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for folder in (Path(), Path.home()):
        with suppress(OSError, UnicodeDecodeError):
            text = (folder / ".dlt" / "secrets.toml").read_text(encoding="utf-8")
            found.update(re.findall(r"""=\s*["'](.+?)["']""", text))
    return {value for value in found if len(value) >= _SHORTEST_SECRET}
