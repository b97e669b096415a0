"""Errors of a destination, in one line: a package or a setting is missing, or the destination refuses."""

from __future__ import annotations

import errno
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from fine_tuning_warehouse.errors import CommandError, UsageError, causes, is_bug, root_cause

from .duckdb import advice
from .warehouse import Warehouse

_LACKS_A_RIGHT = re.compile(r"(?i)permission denied|must be owner|insufficient privilege|not enough privileges")
_LACKS_A_COLUMN = re.compile(r"(?i)\bcolumn .*(?:does not exist|not found)|does not have a column")
"""The words of databases for a missing right, and for a missing column."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def destination_errors(warehouse: Warehouse, what: str) -> Iterator[None]:
    """Raise a failure of a destination as its cause, without dlt's wrapping and without credentials.

    A programming error of this project is raised unchanged.

    Args:
        warehouse: The warehouse.
        what: What failed, in words.

    Raises:
        UsageError: A package or a setting is missing or cannot be right.
        CommandError: Anything else failed. A `CommandError` is raised unchanged.
    """
    from dlt.common.configuration.exceptions import ConfigurationException  # noqa: PLC0415 - see accounts
    from dlt.common.exceptions import MissingDependencyException  # noqa: PLC0415
    from dlt.destinations.exceptions import DatabaseUndefinedRelation  # noqa: PLC0415

    try:
        yield
    except CommandError:
        raise
    except Exception as error:
        cause = root_cause(error)
        if isinstance(cause, KeyboardInterrupt) or getattr(cause, "is_deliberate", False) or is_bug(cause):
            raise cause from None
        for one in causes(error):
            if isinstance(one, MissingDependencyException):
                raise _missing_package(warehouse, one.dependencies) from None
            if isinstance(one, ConfigurationException):
                raise UsageError(_setting_problem(warehouse.destination, one)) from None
        dropped = any(isinstance(one, DatabaseUndefinedRelation) for one in causes(error)) or _LACKS_A_COLUMN.search(
            str(cause)
        )
        hint = ". If it was dropped, the next `ftw sync` makes it again" if dropped else advice(cause)
        if isinstance(cause, OSError) and cause.errno in _NO_SPACE and not cause.filename:
            hint = f". Rows are kept in {tempfile.gettempdir()} until they are loaded: free space there, or set TMPDIR"
        if _LACKS_A_RIGHT.search(str(cause)):
            both = f"{warehouse.dataset} and {warehouse.dataset}_staging"
            hint = f". Who loads must be allowed to make the schemas {both}, and must own the tables in them"
        raise CommandError(f"{what}: {without_secrets(cause)}{hint}") from error


def _missing_package(warehouse: Warehouse, packages: Iterable[str]) -> UsageError:
    needed = " ".join(f"'{package}'" for package in packages)
    return UsageError(f"The destination {warehouse.destination} needs more to be installed: pip install {needed}.")


def without_secrets(error: BaseException) -> str:
    """Return the first line of an error of a destination, without passwords in URLs and settings."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else "no message"
    line = re.sub(r"(\w://[^/@\s:]*):[^/\s]*@", r"\1:...@", line)
    # A password with an @ that is not encoded becomes, in its last part, the name of a host.
    line, astray = re.subn(r"([\"'(=\s])[^\s\"'(=:/]*@(?=[^\s\"'])", r"\1...@", line)
    line = re.sub(r"(?i)((?:password|passwd|pwd|token|secret|key)\w*['\"]?\s*[=:]\s*)[^\s,;&]+", r"\1...", line)
    hint = ". In a URL, an @ of a password is written as %40" if astray else ""
    return f"{line} ({type(error).__name__}){hint}"


def _setting_problem(name: str, error: Exception) -> str:
    """Return what is missing or wrong, as the environment variables that dlt reads, without their values."""
    from dlt.common.configuration.exceptions import (  # noqa: PLC0415 - see accounts
        ConfigFieldMissingException,
        InvalidNativeValue,
    )

    section = f"DESTINATION__{name}".upper()
    where = f"(or the same under [destination.{name}] in .dlt/secrets.toml)"
    if isinstance(error, ConfigFieldMissingException):
        missing = [f"{section}__{field}" for field in dict.fromkeys(_missing(error.traces))]
        first = missing[0].rpartition("__CREDENTIALS__")[0]
        whole = f", or all in one as {first}__CREDENTIALS" if first else ""
        return f"The destination {name} is not set up: set {', '.join(missing)}{whole} {where}."
    if isinstance(error, InvalidNativeValue):
        sections = tuple(error.embedded_sections) or ("credentials",)
        start = sections.index("credentials") if "credentials" in sections else len(sections) - 1
        field = "__".join(sections[start:]).upper()
        return f"{section}__{field} cannot be read as what the destination {name} takes {where}."
    return f"The destination {name} is not set up right: {without_secrets(error)}"


def _missing(traces: Any, path: str = "") -> Iterator[str]:
    """Yield the names of the settings that dlt did not find."""
    for field, looked in traces.items():
        name = f"{path}{field}".upper()
        nested = [trace for trace in looked if hasattr(trace, "traces")]
        if nested:
            # Of several ways to give credentials, the first.
            yield from _missing(nested[0].traces, f"{name}__")
        elif field != "local_dir":  # follows from the others
            yield name
