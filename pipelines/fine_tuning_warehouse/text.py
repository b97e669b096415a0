"""Texts from people and for people: paths, numbers with their nouns, times, and texts of unknown origin made safe."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

from .errors import CommandError


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as `1 request` or `1,835 rows`.

    Args:
        number: How many.
        noun: The singular.
        plural: The plural, if it is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


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


def shown_path(path: Path) -> str:
    """Return a path as it is shown: relative to the working directory if it lies below that, and made safe."""
    try:
        return safe(str(path.relative_to(Path.cwd())))
    except (OSError, ValueError):
        return safe(str(path))


def safe(text: str) -> str:
    """Return a text of unknown origin with control characters as escapes, so that it cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def safe_lines(text: str) -> str:
    """Return a text of several lines with each line made safe."""
    return "\n".join(map(safe, text.splitlines()))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank; the type of an error without a message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def without_credentials(text: str) -> str:
    """Return a text without the user names and passwords of the URLs in it."""
    return re.sub(r"(\w://)[^/\s]*@", r"\1", text)


def as_time(time: datetime) -> str:
    """Return a time in UTC as ISO 8601, in seconds, such as 2026-11-20T09:15:02+00:00."""
    return time.astimezone(timezone.utc).isoformat(timespec="seconds")
