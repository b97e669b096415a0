"""DuckDB's extensions from Python packages. DuckDB itself would download them over plain http, and never does here."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import duckdb

from fine_tuning_warehouse.errors import UsageError

from .sql_text import literal

NO_DOWNLOADS = ("SET autoinstall_known_extensions = false", "SET autoload_known_extensions = false")
"""Settings of a connection that ask no extension server."""


def extension_file(name: str) -> Path | None:
    """Return the file of an extension for the installed DuckDB; None if its package is missing or does not fit."""
    spec = find_spec(f"duckdb_extension_{name}")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        file = Path(folder) / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        if file.is_file():
            return file
    return None


def load_extensions(names: Iterable[str]) -> list[str]:
    """Return the statements that load extensions into a connection.

    Raises:
        UsageError: A package is missing, or is for another version of DuckDB.
    """
    statements = list(NO_DOWNLOADS)
    for name in names:
        file = extension_file(name)
        if file is None:
            package = f"duckdb-extension-{name.replace('_', '-')}"
            try:
                found = f"{package} {version(package)} does not fit DuckDB {duckdb.__version__}"
            except PackageNotFoundError:
                found = f"DuckDB's extension {name} is missing"
            extra = "fine-tuning-warehouse[ducklake]" if name != "azure" else package
            raise UsageError(f"{found}: pip install '{extra}'.")
        statements.append(f"LOAD {literal(str(file))}")
    return statements
