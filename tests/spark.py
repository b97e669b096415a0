"""A real distributed engine on this machine: Sail, which speaks Spark, where its packages are installed."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def spark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A session of Spark SQL on a server of its own, which takes its settings from the environment."""
    for module in ("pysail", "pyspark", "pyiceberg"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: uv run --group engines pytest")
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))  # in a worker of pytest-xdist pyspark looks for one
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyspark does not know the newest pandas
        from pysail.spark import SparkConnectServer
        from pyspark.sql import SparkSession

        server = SparkConnectServer(ip="127.0.0.1", port=0)
        server.start(background=True)
        try:
            _, port = server.listening_address
            session = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").create()
            try:
                yield session
            finally:
                session.stop()
        finally:
            server.stop()
