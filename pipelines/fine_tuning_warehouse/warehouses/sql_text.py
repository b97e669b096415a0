"""Names and texts as they stand in SQL."""

from __future__ import annotations


def quoted(*parts: str) -> str:
    """Return a name, qualified where it has several parts, in double quotes."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def literal(text: str) -> str:
    """Return a text in single quotes."""
    return "'" + text.replace("'", "''") + "'"
