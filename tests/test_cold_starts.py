"""Every command, started as people start it: in a process that has imported nothing yet."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
import requests

from command import Command, wait_until
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.cli.main import ftw as group
from histories import add_history

pytestmark = pytest.mark.thorough


@pytest.fixture(autouse=True)
def _nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Command, "warm", False)


RUNS = (
    ("sync", "--strict"),
    ("sync", "--demo"),
    ("check",),
    ("accounts",),
    ("verify",),
    ("query", "SELECT count(*) FROM jobs"),
    ("query", "SELECT 1 AS one", "--output", "json"),
    ("best",),
    ("views",),
    ("archive", "kept"),
    ("archive", "kept", "--check"),
    ("copy", "--to-database", "copy.duckdb"),
    ("maintain",),
    ("health", "health.json"),
    ("dbt-sources",),
    ("forget", "--account", "default"),
)
"""Runs that end by themselves, in an order in which each finds what it needs."""

SERVERS = (("simulate", "--port", "0"), ("explore", "--headless"))
"""Runs that serve until they are ended."""


def test_each_ends_well(tmp_path: Path, world: ScriptedWorld, host: Simulator) -> None:
    assert {name for name, *_ in (*RUNS, *SERVERS)} == set(group.commands), "none is left out"
    add_history(world, range(2))
    ftw = Command(tmp_path, host.base_url)
    with ftw.start("sync", "--every", "1h", "--health-file", "health.json", "--database", "stays.duckdb") as staying:
        wait_until((ftw.folder / "health.json").exists)
        staying.signal(signal.SIGTERM)
        assert staying.end().code == 128 + signal.SIGTERM
    for arguments in RUNS:
        ended = ftw(*arguments)
        assert ended.code == 0, (arguments, ended)
        assert "Warning" not in ended.err, (arguments, ended)


@pytest.mark.parametrize("name", ["", *group.commands])
def test_each_shows_its_help(tmp_path: Path, name: str) -> None:
    ended = Command(tmp_path)(*filter(None, [name]), "--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: {' '.join(filter(None, ['ftw', name]))} ")


@pytest.mark.parametrize("arguments", SERVERS, ids=lambda arguments: arguments[0])
def test_each_server_answers(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ftw = Command(tmp_path)
    if arguments[0] == "explore":
        pytest.importorskip("marimo", reason="the explorer needs the extra `explore`")
        assert ftw("sync", "--demo").code == 0
    with ftw.start(*arguments) as running:
        assert running.process.stderr is not None
        line = running.process.stderr.readline()
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+\S*", line)
        assert requests.get(address, headers={"Authorization": "Bearer any"}, timeout=30).status_code in (200, 404)
        running.signal(signal.SIGTERM)
        assert running.end().code in (0, 128 + signal.SIGTERM)
