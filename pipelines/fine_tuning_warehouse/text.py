"""Words for people that every message has in common: a number with its noun, and where a file lies."""

from __future__ import annotations

from pathlib import Path


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, such as `1 request` or `1,835 rows`.

    Args:
        number: How many.
        noun: What one is called.
        plural: What several are called, where that is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def shown_path(path: Path) -> str:
    """A path as it is shown: relative to the working directory where it lies below that."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (OSError, ValueError):
        return str(path)
