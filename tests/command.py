"""The installed command as people run it: a process of its own, with surroundings of its own."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Protocol

import duckdb
import pytest

FTW = Path(sys.executable).with_name("ftw")
KEY = "sk-test-8Qw2Zr5Ty7Ui9Op1As3Df"
"""A key that stands nowhere else, so that a test can look for it."""

NOW = 1_780_000_000
HOUR = 3600

SUMMARY_KEYS = {
    "status",
    "error",
    "account",
    "load_ids",
    "rows",
    "requests",
    "retries",
    "jobs",
    "jobs_in_progress",
    "skipped",
    "rejected",
    "warnings",
    "seconds",
    "started_at",
    "finished_at",
    "accounts",
}
"""What `--output json` prints: no more, no less."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        """What it printed, where that is one JSON value."""
        return json.loads(self.out)

    @property
    def all(self) -> str:
        """Everything that it printed."""
        return self.out + self.err


class Process(Protocol):
    """What tests do with a process: as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | Any: ...

    @property
    def stderr(self) -> IO[str] | None: ...

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...

    def send_signal(self, sig: int, /) -> None: ...

    def communicate(self, *, timeout: float) -> tuple[str, str]: ...


class Running:
    """A command that runs."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._began = time.monotonic()

    def end(self, within: float = 60) -> Ended:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=within)
        return Ended(self.process.returncode, out, err, time.monotonic() - self._began)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)


_IMPORTED = (
    "fine_tuning_warehouse.cli.main",
    "fine_tuning_warehouse.sync.run",
    "fine_tuning_warehouse.archive",
    "fine_tuning_warehouse.views.create",
    "fine_tuning_warehouse.verify",
    "fine_tuning_simulator",
    "dlt.common.libs.pyarrow",
    "dlt.destinations.impl.duckdb.duck",
    "duckdb",
    "pendulum.locales.en.locale",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pytz",
    "rich.progress",
    "rich.table",
    "sqlglot.dialects.duckdb",
    "pytest",  # not the command's: the modules of tests import it, in each process anew
    "parsed_views",
)
"""What takes long to import: much of what a command does from its start to its end, if it does little."""


@cache
def forking() -> Any:
    """A context of multiprocessing whose processes are forked from one that has imported all, and has done no more."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - _KEPT:
            patch.delenv(name)
        patch.setenv("ARROW_DEFAULT_MEMORY_POOL", "system")  # as the command sets it before it imports Arrow
        forkserver.ensure_running()
    return context


_KEPT = {"PATH", "HOME"}


def _main(arguments: tuple[str, ...], env: dict[str, str], folder: Path, out: Connection, err: Connection) -> None:
    """The body of a forked process: from here on it is as if the command had been started in these surroundings."""
    gc.freeze()  # what was imported before the fork is not looked through over and over
    set_by_imports = {name: value for name, value in os.environ.items() if name not in _KEPT}
    os.environ.clear()
    os.environ.update({**set_by_imports, **env})
    os.chdir(folder)
    tempfile.tempdir = None
    sys.argv = [str(FTW), *arguments]
    for number, name, pipe in ((1, "stdout", out), (2, "stderr", err)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
        setattr(sys, name, open(number, "w", encoding="utf-8", buffering=1, closefd=False))  # noqa: SIM115
    from dlt.common.configuration.container import Container

    from fine_tuning_warehouse.cli.main import main

    Container._INSTANCE = None  # it holds settings of the folder in which dlt was imported
    main()


class Forked:
    """A command in a process that was forked from one that has imported all."""

    def __init__(self, arguments: tuple[str, ...], env: dict[str, str], folder: Path) -> None:
        context = forking()
        (out, its_out), (err, its_err) = context.Pipe(duplex=False), context.Pipe(duplex=False)
        self._process = context.Process(target=_main, args=(arguments, env, folder, its_out, its_err))
        self._process.start()
        its_out.close()
        its_err.close()
        self.stdout, self.stderr = (_text_of(pipe) for pipe in (out, err))

    @property
    def pid(self) -> int:
        """Its number."""
        return int(self._process.pid)

    @property
    def returncode(self) -> int:
        """What it ended with; the number of a signal is negative."""
        return int(self._process.exitcode)

    def poll(self) -> int | None:
        """What it ended with; None while it runs."""
        code: int | None = self._process.exitcode
        return code

    def send_signal(self, sig: int, /) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self._process.kill()

    def communicate(self, *, timeout: float) -> tuple[str, str]:
        """What it printed since, once it has ended."""
        with ThreadPoolExecutor(2) as pool:
            printed = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            self._process.join(timeout)
            if self.poll() is None:
                self.kill()
                raise AssertionError(f"it has not ended within {timeout} s")
            return printed[0].result(), printed[1].result()

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.join()
        self.stdout.close()
        self.stderr.close()


def _text_of(pipe: Connection) -> IO[str]:
    with pipe:
        return open(os.dup(pipe.fileno()), encoding="utf-8")  # noqa: PTH123 - no path


class Command:
    """`ftw`, called in a folder of its own with nothing in the environment but what stands in `env`.

    Attributes:
        warm: Whether a call forks a process that has imported all, or starts one from nothing as people do.
            test_cold_starts.py starts every command.
    """

    warm = "forkserver" in multiprocessing.get_all_start_methods()

    def __init__(self, folder: Path, base_url: str | None = None) -> None:
        self.folder = folder / "here"
        self.temporary = folder / "temporary"
        for made in (self.folder, self.temporary, folder / "home"):
            made.mkdir(exist_ok=True)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "TMPDIR": str(self.temporary),
            "DLT_DATA_DIR": str(folder / "home" / ".dlt"),
            "OPENAI_API_KEY": KEY,
        }
        if base_url is not None:
            self.env["OPENAI_BASE_URL"] = base_url

    @contextmanager
    def start(self, *arguments: str, env: Mapping[str, str | None] | None = None) -> Iterator[Running]:
        """Start the command; it is killed where the block ends before it does. `env` overrides, None removes."""
        merged = {name: value for name, value in {**self.env, **(env or {})}.items() if value is not None}
        with self._process(arguments, merged) as process:
            try:
                yield Running(process)
            finally:
                if process.poll() is None:
                    process.kill()

    def __call__(self, *arguments: str, env: Mapping[str, str | None] | None = None, within: float = 60) -> Ended:
        """Run the command to its end."""
        with self.start(*arguments, env=env) as running:
            return running.end(within)

    def _process(self, arguments: tuple[str, ...], env: dict[str, str]) -> Forked | subprocess.Popen[str]:
        if self.warm and not any(name.startswith("PYTHON") for name in env):
            return Forked(arguments, env, self.folder)
        return subprocess.Popen(
            [str(FTW), *arguments],
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    @property
    def left_behind(self) -> list[Path]:
        """What syncs that have ended left in the folder for temporary files, but for the lock that they share."""
        found = self.temporary.rglob("*")
        return [path for path in found if path.name != ".tidying" and (path.is_file() or "sync-" in path.name)]

    @property
    def database(self) -> Path:
        """Where a sync writes unless told otherwise."""
        return self.folder / "fine_tuning_warehouse.duckdb"

    def rows(self, sql: str, database: Path | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query over the tables of a database."""
        with duckdb.connect(str(database or self.database), read_only=True) as connection:
            connection.execute("SET search_path = 'fine_tuning'")
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(sql).fetchall()

    def tables(self, database: Path | None = None) -> set[str]:
        """The tables of a database but for dlt's own."""
        rows = self.rows("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'fine_tuning'", database)
        return {name for (name,) in rows if not name.startswith("_dlt")}

    def content(self, database: Path | None = None) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table, in a fixed order."""
        tables = self.rows("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'fine_tuning'", database)
        return {name: self.rows(f'SELECT * FROM "{name}" ORDER BY ALL', database) for (name,) in tables}


def is_told_well(ended: Ended, *words: str) -> bool:
    """Assert that a failure is told in a line or two on stderr that hold the words; nothing on stdout, no traceback."""
    lines = ended.err.strip().splitlines()
    assert 1 <= len(lines) <= 2, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert "\\n" not in ended.err, "a line break that became two characters"
    assert len(ended.err) < 600, ended.err
    assert KEY not in ended.err
    for word in words:
        assert word.lower() in ended.err.lower(), ended.err
    return True


def wait_until(true: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something to become true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
