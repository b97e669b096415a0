"""The fields that the reference names are those that the commands print."""

from __future__ import annotations

import json
import re
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from command import NOW, Command, wait_until
from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from histories import add_history

PAGE = Path(__file__).parents[1] / "docs/reference/json.md"
TIMED = {"status", "error", "started_at", "finished_at"}


def documented(section: str) -> set[str]:
    """The fields of a section, with what stands below them as `field.below`."""
    text = re.split(rf"^## {re.escape(section)}$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    return set(re.findall(r"^\| `([^`]+)` \|", text.split("\n## ")[0], re.MULTILINE))


def printed(value: dict[str, Any], fields: set[str]) -> set[str]:
    """The fields that were printed, as deep as these describe them."""
    found = set()
    for name, inner in value.items():
        deep = [one for one in fields if re.match(rf"{name}(\[\])?\.", one)]
        if not deep:
            found.add(name)
            continue
        is_list = deep[0].startswith(f"{name}[]")
        assert inner, f"{name} holds nothing to compare"
        below = {one.removeprefix(name).removeprefix("[]").removeprefix(".") for one in deep}
        prefix = f"{name}[]." if is_list else f"{name}."
        for one in inner if is_list else [inner]:
            found |= {prefix + key for key in printed(one, below)}
    return found


@pytest.fixture(scope="module")
def ftw(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A database with a job of which nothing could be read, and its archive."""
    world = ScriptedWorld()
    add_history(world, range(2))
    world.update_job("ftjob-001", result_files=["file-gone"])
    host = Simulator(world, clock=Clock(start=NOW, speed=0))
    host.faults.append(Fault("status", path="ftjob-000/events", times=None, status=403))
    with host:
        command = Command(tmp_path_factory.mktemp("json"), host.base_url)
        results = {
            "ftw sync": ("sync", "--health-file", "health.json"),
            "ftw archive": ("archive", "history"),
            "ftw copy": ("copy", "--to-database", "copy.duckdb"),
            "ftw health": ("health", "health.json", "--max-age", "1d"),
            "ftw accounts": ("accounts",),
        }
        folder = command.folder / "results"
        folder.mkdir()
        for name, arguments in results.items():
            (folder / name).write_text(command(*arguments, "--output", "json").out)
        world.update_job("ftjob-001", fine_tuned_model="ft:another")
        (folder / "ftw verify").write_text(command("verify", "--output", "json").out)
        (folder / "ftw forget").write_text(command("forget", "--account", "default", "--output", "json").out)
    return command


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["sync", "archive", "copy", "health", "verify", "forget"])
def test_the_reference_names_every_field_of_an_object(ftw: Command, name: str) -> None:
    result = json.loads((ftw.folder / "results" / f"ftw {name}").read_text())
    fields = documented(f"ftw {name}")
    assert printed(result, fields) == fields | TIMED
    assert datetime.fromisoformat(result["started_at"]) <= datetime.fromisoformat(result["finished_at"])


@pytest.mark.thorough
def test_the_reference_names_every_field_of_an_account(ftw: Command) -> None:
    [account] = json.loads((ftw.folder / "results" / "ftw accounts").read_text())
    assert set(account) == documented("ftw accounts")


@pytest.mark.thorough
def test_each_account_has_the_fields_of_all(ftw: Command) -> None:
    result = json.loads((ftw.folder / "results" / "ftw sync").read_text())
    assert set(result["accounts"][0]) == set(result) - {"accounts"}


@pytest.mark.parametrize("command", ["sync", "verify", "archive history", "health health.json", "copy"])
def test_a_failure_has_the_same_four_fields(tmp_path: Path, command: str) -> None:
    ended = Command(tmp_path)(*command.split(), "--output", "json", env={"OPENAI_API_KEY": None})
    assert ended.code != 0
    assert set(ended.json) >= TIMED
    assert ended.json["status"] == "failed"


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("style", ["json", "text"])
def test_every_line_of_a_sync_that_stays_has_time_and_level(
    style: str, tmp_path: Path, host: Simulator, world: ScriptedWorld
) -> None:
    add_history(world, range(1))
    ftw = Command(tmp_path, host.base_url)
    host.faults.append(Fault("status", path="/jobs$", times=1, status=403, message="Not now."))
    with ftw.start("sync", "--every", "0.2s", "--log-format", style) as running:
        wait_until(lambda: sum(request.path.endswith("/jobs") for request in host.requests) >= 3)
        running.signal(signal.SIGTERM)
        ended = running.end()
    lines = ended.all.splitlines()
    if style == "json":
        found = [json.loads(line) for line in lines]
        assert {frozenset(line) for line in found} == {frozenset(documented("Lines of a log"))}
    else:
        pattern = r"(?P<time>\S+Z) (?P<level>INFO|WARNING|ERROR) (?P<message>.*)"
        found = [match.groupdict() for line in lines if (match := re.fullmatch(pattern, line))]
        assert len(found) == len(lines)
    assert {line["level"] for line in found} == {"INFO", "ERROR"}
    assert any("Not now." in line["message"] for line in found if line["level"] == "ERROR")


def test_a_single_sync_that_fails_says_so_in_json_too(tmp_path: Path, host: Simulator) -> None:
    host.faults.append(Fault("status", path="/jobs$", times=None, status=401))
    ended = Command(tmp_path, host.base_url)("sync", "--log-format", "json")
    assert ended.code == 1
    assert [json.loads(line)["level"] for line in ended.err.splitlines()] == ["ERROR"]
