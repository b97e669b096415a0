"""Write names and texts in SQL."""

from __future__ import annotations


def quoted(*parts: str) -> str:
    """Return a name in double quotes; several parts make a qualified name."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def literal(text: str) -> str:
    """Return a text in single quotes."""
    return "'" + text.replace("'", "''") + "'"
