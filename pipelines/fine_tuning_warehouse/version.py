"""The release, as the package's metadata has it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fine-tuning-warehouse")
except PackageNotFoundError:  # the source tree, without an installation
    __version__ = "0"
