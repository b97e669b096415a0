"""A real ClickHouse for the time of a test, where its package is installed (dependency group `clickhouse`)."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

# In a process of its own: it is a whole server, and ends with its answers.
_RUN = """
import json, sys
from chdb import session
with session.Session() as server:
    for statement in json.load(sys.stdin):
        server.query(statement)
"""


def run_in_clickhouse(statements: Sequence[str], folder: Path) -> None:
    """Run statements on an empty server; they may read and write files. Skips the test where there is none."""
    if importlib.util.find_spec("chdb") is None:
        pytest.skip("needs chdb: uv run --group clickhouse pytest")
    ended = subprocess.run(
        [sys.executable, "-c", _RUN],
        input=json.dumps(statements),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
