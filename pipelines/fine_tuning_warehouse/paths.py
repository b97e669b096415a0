"""Paths that people name."""

from __future__ import annotations

from pathlib import Path

from .errors import CommandError


def named_path(name: str, what: str) -> Path:
    """Return the path that a user has named; it need not exist.

    Args:
        name: The path as text; `~` is the home directory.
        what: What the path is of, for the message.

    Raises:
        CommandError: The path cannot be looked up: it is too long, or its folder may not be read.
    """
    try:
        path = Path(name).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no such home
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise CommandError(f"{what} {name} cannot be looked for: {reason}.") from None
    return path
