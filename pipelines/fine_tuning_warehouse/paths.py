"""Paths that people name."""

from __future__ import annotations

from pathlib import Path

from .errors import CommandError


def named_path(name: str, what: str) -> Path:
    """A path as somebody named it; it need not be there.

    Args:
        name: The name; `~` is a home.
        what: What it is the path of, in words.

    Raises:
        CommandError: It cannot even be looked for: it is too long, or nobody may look into its folder.
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
