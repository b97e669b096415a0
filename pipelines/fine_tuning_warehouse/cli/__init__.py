"""The command `ftw`. What takes long to import is imported only when it is needed."""

from .main import ftw, main

__all__ = ["ftw", "main"]
