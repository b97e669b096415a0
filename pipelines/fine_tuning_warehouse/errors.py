"""How a command ends: its errors, each with the exit code that scripts rely on; what is a bug; and the exit itself."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import NoReturn

DONE, FAILED, USAGE, INCOMPLETE, DIFFERS, BUSY = 0, 1, 2, 3, 4, 75
INTERRUPTED, TERMINATED = 130, 143  # 128 and the number of the signal, as shells have it


class CommandError(Exception):
    """A failure that the command prints in a line or two, without a traceback.

    Attributes:
        exit_code: The exit code of the command.
        is_deliberate: The message says everything; the error that it was raised from adds nothing.
        is_lasting: Trying the same again does not help: something has to be changed first.
    """

    exit_code = FAILED
    is_deliberate = True
    is_lasting = False


class UsageError(CommandError):
    """An option or a setting is missing or invalid: nothing was done."""

    exit_code = USAGE
    is_lasting = True


class MissingKeyError(UsageError):
    """No key is configured."""


class RefusedError(CommandError):
    """The host has refused the key, and will refuse it again."""

    is_lasting = True


class BusyError(CommandError):
    """Another sync is running on the same database."""

    exit_code = BUSY


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that dlt has wrapped in it, down to one of ours or to the innermost."""
    inner: BaseException | None = error
    while inner is not None:
        yield inner
        if getattr(inner, "is_deliberate", False):
            return
        # dlt wraps both ways; elsewhere a context is only what was being handled when something else went wrong.
        inner = inner.__cause__ or (inner.__context__ if type(inner).__module__.startswith("dlt.") else None)


def root_cause(error: BaseException) -> BaseException:
    """Return the error that dlt has wrapped: one of ours, one of the destination, or a bug."""
    return list(causes(error))[-1]


_OURS = ("fine_tuning_warehouse", "openai_fine_tuning", "fine_tuning_simulator")
_PLAIN = ("builtins", "pyarrow", *sys.stdlib_module_names)
"""Packages with errors that do not show who is wrong: Python, and the library that rows are made with."""
_INSTALLED = re.compile(r"[/\\](?:site|dist)-packages[/\\]")


def is_bug(error: BaseException) -> bool:
    """Return whether an error is a programming error: of this project, or of a program that uses it.

    An error of the operating system is not, nor one of a type that dlt, a database or a client of the network defines.
    Another one (`KeyError`, `ArrowInvalid`) is a bug, unless the innermost code that is not of these packages is an
    installed library's.
    """
    package = _package(type(error).__module__)
    if isinstance(error, (OSError, MemoryError)) or package not in (*_OURS, *_PLAIN):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    outside = [frame for frame in frames if _package(frame.f_globals.get("__name__")) not in _PLAIN]
    if not outside:
        return True
    innermost = outside[-1]
    return _package(innermost.f_globals.get("__name__")) in _OURS or not _INSTALLED.search(innermost.f_code.co_filename)


def _package(module: object) -> str:
    return str(module).partition(".")[0]


def exit_now(code: int) -> NoReturn:
    """Write out what was printed, and end the process at once: no `finally` runs, and no thread is waited for."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
