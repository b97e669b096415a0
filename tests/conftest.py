"""Real things to test against: a simulated host on a socket, and a DuckDB file."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from harness import DAY, HOUR, NOW, Database

__all__ = ["DAY", "HOUR", "NOW", "Database"]

# With this variable, each of the programs that tests start would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real PostgreSQL or S3 (`-m engine`), and as nightly all but the first case of `first_only`."""
    seen = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if item.get_closest_marker("first_only") and test in seen:
            item.add_marker(pytest.mark.nightly)
        seen.add(test)
        if {"postgres", "postgres_server", "bucket", "lake", "ducklake"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.engine)


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are processors: a test waits for sockets and other processes much of its time."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: no test has the collector look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _bare_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees this machine's keys, hosts, proxies, or dlt configuration."""
    for name in list(os.environ):
        if name.startswith(
            ("OPENAI_", "AZURE_", "AWS_", "SOURCES__", "DESTINATION__", "ICEBERG_CATALOG__")
        ) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "home" / ".dlt"))  # root's is elsewhere, whatever its HOME
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def clock() -> Clock:
    """The host's clock: it stands still until a test advances it."""
    return Clock(start=NOW, speed=0)


@pytest.fixture
def world() -> ScriptedWorld:
    """What the host shows: empty at first."""
    return ScriptedWorld()


@pytest.fixture
def host(world: ScriptedWorld, clock: Clock) -> Iterator[Simulator]:
    """The host, on a socket."""
    with Simulator(world, clock=clock) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder of databases that first syncs made, for all tests of a run."""
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "begun"


@pytest.fixture
def database(tmp_path: Path, host: Simulator, begun: Path) -> Database:
    """A database that does not exist yet, fed from the host."""
    return Database(tmp_path / "warehouse.duckdb", host, begun)
