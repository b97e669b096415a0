"""The product around the source: the command `ftw`, the database it keeps, and what is asked of it.

`sync` does in Python what `ftw sync` does.
"""

from typing import TYPE_CHECKING

from . import sync as _sync_package  # noqa: F401 - imported first, so that the name `sync` below stays the function
from .sync.scheduled import sync

__all__ = ["__version__", "sync"]

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Read the release from the package's metadata only when it is asked for: `ftw --help` does without."""
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return version("fine-tuning-warehouse")
        except PackageNotFoundError:  # the source tree, without an installation
            return "0"
