"""Print the failure of a command: as JSON, and a bug with its traceback."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click

from fine_tuning_warehouse.errors import CommandError, is_bug, root_cause
from fine_tuning_warehouse.warehouses.errors import without_secrets

from .terminal import output


@contextmanager
def json_on_failure(output_format: str, done: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Print a failure as JSON too, if `--output json` asks for it.

    Args:
        output_format: The value of `--output`.
        done: Returns the fields that describe what was done until then.
    """
    try:
        yield
    except click.Abort:
        raise
    except Exception as error:
        if output_format == "json":
            text = str(error) if isinstance(error, CommandError) else failure_name(error)
            output.print_result({**done(), "status": "failed", "error": text})
        raise


_SECRET_NAME = re.compile(r"(?i)key|token|secret|pass|credential|header")
_SECRET_VALUE = re.compile(r"(?i)(sk-|bearer\s+|basic\s+)[\w.~+/=-]{6,}|(?<=://)[^/\s@]+@")
_SECRET_PARTS = re.compile(r"""[:=]\s*"+([^"]+)"|[:=]\s*'+([^']+)'|://[^/@\s:]*:([^/\s]+)@""")
"""The values in a JSON object or a TOML file, and the password in a URL."""
_SHORTEST_SECRET = 6


def failure_name(error: Exception) -> str:
    """Return a line about an unexpected error; of a bug the type alone, since its message may hold a secret."""
    cause = root_cause(error)
    return f"A bug in ftw: {type(cause).__name__}" if is_bug(cause) else _hidden(without_secrets(cause))


def bug_report(error: Exception) -> str:
    """Return the traceback of a programming error without secrets, and a line that asks to report it."""
    text = _hidden("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    return (
        f"{output.safe_lines(text)}\nError: This is a bug in ftw. Please report it as an issue, with the lines above."
    )


def _hidden(text: str) -> str:
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, "...")
    return _SECRET_VALUE.sub("...", text)


def _secrets() -> set[str]:
    """Return the values that may be secrets in the environment and in dlt's files, and the parts of them."""
    found = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for folder in (".", "~"):
        with suppress(OSError, RuntimeError, UnicodeDecodeError):  # RuntimeError: there is no home
            found.add((Path(folder).expanduser() / ".dlt" / "secrets.toml").read_text(encoding="utf-8"))
    for _ in range(2):  # a value in a file can be a URL
        found |= {part for text in found for parts in _SECRET_PARTS.findall(text) for part in parts}
    found |= {unquote(text) for text in found}
    return {value for value in found if len(value) >= _SHORTEST_SECRET}
