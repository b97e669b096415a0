"""What ends a command, with the exit code that scripts rely on."""

from __future__ import annotations

DONE, FAILED, USAGE, INCOMPLETE, DIFFERS, BUSY = 0, 1, 2, 3, 4, 75


class CommandError(Exception):
    """A failure that is told in a line or two, without a traceback.

    Attributes:
        exit_code: What the command ends with.
    """

    exit_code = FAILED


class UsageError(CommandError):
    """An option, or a setting, that is missing or cannot be right: nothing was done."""

    exit_code = USAGE


class BusyError(CommandError):
    """Another sync is running on the same database."""

    exit_code = BUSY
