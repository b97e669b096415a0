"""An Iceberg catalog on this machine."""

from __future__ import annotations

import json
from pathlib import Path


def catalog_env(file: Path, url: str, **more: str) -> dict[str, str]:
    """The settings of an Iceberg catalog in a SQLite file, for tables at a URL."""
    config = {"type": "sql", "uri": f"sqlite:///{file}", "warehouse": url, **more}
    return {
        "ICEBERG_CATALOG__ICEBERG_CATALOG_TYPE": "sql",
        "ICEBERG_CATALOG__ICEBERG_CATALOG_CONFIG": json.dumps(config),
    }
