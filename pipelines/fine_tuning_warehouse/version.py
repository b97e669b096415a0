"""The release, as the package's metadata has it."""

import platform
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fine-tuning-warehouse")
except PackageNotFoundError:  # the source tree, without an installation
    __version__ = "0"


def versions() -> str:
    """The release, and those of what it stands on: what a report of a fault begins with."""
    return f"{__version__} (dlt {version('dlt')}, DuckDB {version('duckdb')}, Python {platform.python_version()})"
