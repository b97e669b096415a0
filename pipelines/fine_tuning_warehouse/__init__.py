"""The product around the source: the command `ftw`, the database it keeps, and what is asked of it.

`sync` does in Python what `ftw sync` does.
"""

from . import sync as _sync_package  # noqa: F401 - imported first, so that the name `sync` below stays the function
from .sync.scheduled import sync

__all__ = ["sync"]
