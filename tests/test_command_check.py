"""`ftw check`: every part is tried, what is wrong says what to do, and nothing is written."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from command import HOUR, KEY, NOW, Command, is_told_well
from fine_tuning_simulator import FILES_SCOPE, JOBS_SCOPE, Fault, ScriptedWorld, Simulator


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator) -> Command:
    """The command, with a key for the host."""
    return Command(tmp_path, host.base_url)


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    world.add_job(id="ftjob-1", created_at=NOW - 30 * HOUR)
    world.add_checkpoint("ftjob-1")
    world.add_event("ftjob-1")


def test_all_is_fine(host: Simulator, ftw: Command) -> None:
    ended = ftw("check")
    assert ended.code == 0, ended.all
    for part in ("settings", "jobs", "checkpoints", "events", "result_metrics", "files"):
        assert any(part in line and "ok" in line for line in ended.all.splitlines()), part
    assert host.base_url in ended.all
    assert "fine_tuning_warehouse.duckdb" in ended.all
    assert len(host.requests) <= 5
    assert list(ftw.folder.iterdir()) == []
    assert KEY not in ended.all

    assert ftw("sync").code == 0
    before = ftw.content()
    assert ftw("check").code == 0
    assert ftw.content() == before


def test_an_account_without_jobs_is_fine(tmp_path: Path) -> None:
    with Simulator(ScriptedWorld()) as host:
        ended = Command(tmp_path, host.base_url)("check")
    assert ended.code == 0, ended.all


def test_no_key_is_exit_2(host: Simulator, ftw: Command) -> None:
    ended = ftw("check", env={"OPENAI_API_KEY": None})
    assert ended.code == 2
    assert is_told_well(ended, "OPENAI_API_KEY")
    verified = ftw("verify", "--output", "json", env={"OPENAI_API_KEY": None})
    assert (verified.code, verified.err) == (2, ended.err)
    assert (verified.json["status"], f"Error: {verified.json['error']}\n") == ("failed", ended.err)
    assert "demo" not in ended.err, "which is no help to a check"
    assert host.requests == []


def test_plain_http_to_another_machine_is_exit_2(ftw: Command) -> None:
    ended = ftw("check", "--base-url", "http://api.example.com/v1")
    assert ended.code == 2, ended.all
    assert "https" in ended.all


def test_a_wrong_key_is_exit_1(tmp_path: Path, world: ScriptedWorld) -> None:
    with Simulator(world, api_keys={"another": frozenset()}) as host:
        ftw = Command(tmp_path, host.base_url)
        ended = ftw("check")
        assert len(host.requests) <= 2
        verified = ftw("verify", "--output", "json")
    assert verified.code == 1
    assert verified.err == f"Error: {verified.json['error']}\n"
    assert [one["status"] for one in (verified.json, *verified.json["accounts"])] == ["failed", "failed"]
    assert ended.code == 1
    assert "401" in ended.all
    assert "OPENAI_API_KEY" in ended.all
    assert KEY not in ended.all
    assert "Traceback" not in ended.all


@pytest.mark.parametrize(("scope", "part"), [(FILES_SCOPE, "files"), (JOBS_SCOPE, "jobs")])
def test_a_missing_scope_is_exit_1_and_named(tmp_path: Path, world: ScriptedWorld, scope: str, part: str) -> None:
    with Simulator(world, api_keys={KEY: frozenset({scope})}) as host:
        ended = Command(tmp_path, host.base_url)("check")
    assert ended.code == 1
    *others, line = [line for line in ended.all.splitlines() if "FAILED" in line]
    assert part in line
    assert scope in line
    assert ["result_metrics" in other for other in others] == [True] * (part == "files")


def test_a_wrong_base_url_is_exit_1_and_says_so(host: Simulator, ftw: Command) -> None:
    ended = ftw("check", "--base-url", host.base_url.removesuffix("/v1"))
    assert ended.code == 1
    assert "404" in ended.all
    assert "/v1" in ended.all
    host.faults.append(Fault("html", times=None))
    page = ftw("check")
    assert page.code == 1
    assert "a web page" in page.all
    assert "Traceback" not in page.all


def test_a_host_that_is_down_is_exit_1_soon(ftw: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ended = ftw("check", "--base-url", f"http://127.0.0.1:{port}/v1")
    assert ended.code == 1
    assert ended.seconds < 10
    assert "host up" in ended.all
    assert ended.all.count("refused") <= 1, "the same reason twice"


def test_a_database_that_cannot_be_written_is_exit_1_and_the_host_is_tried_all_the_same(ftw: Command) -> None:
    (ftw.folder / "notes.duckdb").write_text("My notes. " * 10)
    for path in ("missing/x.duckdb", "notes.duckdb"):
        ended = ftw("check", "--database", path)
        assert ended.code == 1
        (line,) = [line for line in ended.all.splitlines() if "FAILED" in line]
        assert Path(path).name in line
        assert any("jobs" in line and "ok" in line for line in ended.all.splitlines())
    assert (ftw.folder / "notes.duckdb").read_text() == "My notes. " * 10


@pytest.mark.thorough
def test_a_database_that_a_sync_holds_is_no_failure(host: Simulator, ftw: Command) -> None:
    host.faults.append(Fault("slow", path="/events$", seconds=2))
    with ftw.start("sync") as running:
        while not host.requests:
            assert running.process.poll() is None
        ended = ftw("check")
        assert ended.code == 0, ended.all
        host.faults.clear()
        assert running.end().code == 0
