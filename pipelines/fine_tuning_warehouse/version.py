"""The release, as the package's metadata has it."""

import platform
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fine-tuning-warehouse")
except PackageNotFoundError:  # the source tree, without an installation
    __version__ = "0"


def versions() -> str:
    """Return the versions of this release, Python and the main libraries, for bug reports."""
    return f"{__version__} (dlt {version('dlt')}, DuckDB {version('duckdb')}, Python {platform.python_version()})"
