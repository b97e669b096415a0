"""The command `ftw`. Whatever costs time to import is imported where it is needed."""

from .main import ftw, main

__all__ = ["ftw", "main"]
