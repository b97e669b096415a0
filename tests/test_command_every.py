"""`ftw sync --every`: one that stays, its log, its health file, and what tells whether it is well."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from command import KEY, NOW, Command, is_told_well, wait_until
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.sync.interval import JITTER, Interval

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ "


@pytest.fixture
def ftw(tmp_path: Path, world: ScriptedWorld, host: Simulator) -> Command:
    """The command, with a key for a host that has one job."""
    world.add_job(id="ftjob-1", created_at=NOW - 100_000)
    return Command(tmp_path, host.base_url)


def listings(host: Simulator) -> int:
    """How many syncs have begun."""
    return sum(request.path.endswith("/jobs") for request in host.requests)


@pytest.mark.thorough
def test_a_sync_is_a_line_with_its_time_and_so_is_a_failure(
    world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    world.add_raw_checkpoint("ftjob-1", {"id": "odd", "created_at": "no time", "step_number": []})
    host.faults.append(Fault("status", path="ftjob-1/events", times=None, status=403))
    host.faults.append(Fault("status", path="/jobs$", times=1, status=403, message="Not now."))
    with ftw.start("sync", "--every", "0.2s") as running:
        wait_until(lambda: listings(host) >= 4)
        running.signal(signal.SIGTERM)
        ended = running.end()
    assert ended.code == 128 + signal.SIGTERM
    failed, *more = filter(None, ended.err.splitlines())
    assert re.fullmatch(STAMP + r"ERROR .*Not now\..* Trying again in \d+ s\.", failed)
    assert [line.split(" ", 1)[1] for line in more] == [
        "INFO Stopped: what was loaded stays, and the next sync goes on there."
    ]
    lines = ended.out.splitlines()
    assert len(lines) >= 2
    first = re.compile(
        STAMP
        + r"INFO Synced account default into \S+ in \d+\.\d s: [\d,]+ rows new or changed, \d+ requests, 1 job seen, "
        r"0 in progress, 1 to be read again, 1 skipped \(see sync_history\), 1 rejected \(see rejected_records\)\."
    )
    assert first.fullmatch(lines[0]), lines[0]
    assert all(re.match(STAMP + "INFO Synced ", line) for line in lines)


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["in a sync", "between two"])
def test_sigterm_ends_it_within_two_seconds(host: Simulator, ftw: Command, moment: str) -> None:
    if moment == "in a sync":
        host.faults.append(Fault("silent", path="/events$", times=None))
    with ftw.start("sync", "--every", "1h", "--health-file", "health.json") as running:
        asked = "/events" if moment == "in a sync" else ""
        wait_until(lambda: any(request.path.endswith(asked) for request in host.requests))
        if moment == "between two":
            wait_until((ftw.folder / "health.json").exists)
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        assert running.end().code == 128 + signal.SIGTERM
    assert time.monotonic() - began < 2


@pytest.mark.thorough
def test_the_health_file_tells_of_the_last_success_and_is_always_whole(host: Simulator, ftw: Command) -> None:
    file = ftw.folder / "health.json"
    with ftw.start("sync", "--every", "0.2s", "--health-file", "health.json", "--quiet") as running:
        wait_until(file.exists)
        seen = set()

        def was_written_twice() -> bool:
            seen.add(json.loads(file.read_text())["last_success"])  # whole, whenever it is read
            return len(seen) >= 2

        wait_until(was_written_twice)
        assert ftw("health", "health.json", "--max-age", "1m").code == 0
        host.faults.append(Fault("status", path="/jobs$", times=None, status=401))  # a key that was good may be again
        began = listings(host)
        wait_until(lambda: listings(host) > began + 1)
        before = file.read_text()
        wait_until(lambda: listings(host) > began + 2)
        last_success = json.loads(before)["last_success"]
        failed = json.loads(file.read_text())
        assert (failed["last_success"], failed["accounts"]["default"]["last_success"]) == (last_success,) * 2
        assert "401" in failed["error"]
        assert "401" in failed["accounts"]["default"]["error"]
        running.signal(signal.SIGTERM)
        running.end()
    health = json.loads(before)
    assert health["every_seconds"] == 0.2
    assert (health["skipped"], health["rejected"], health["jobs"]) == (0, 0, {"seen": 1, "open": 0})
    assert (
        timedelta(0) <= datetime.now(timezone.utc) - datetime.fromisoformat(health["last_success"]) < timedelta(0, 60)
    )
    assert [found.name for found in ftw.folder.glob("health*")] == ["health.json"]


@pytest.mark.nightly
def test_a_health_file_that_cannot_be_written_is_told_and_does_not_end_it(host: Simulator, ftw: Command) -> None:
    folder = ftw.folder / "health"
    folder.mkdir()
    file = folder / "health.json"
    with ftw.start("sync", "--every", "0.2s", "--health-file", "health/health.json") as running:
        wait_until(file.exists)
        shutil.rmtree(folder)
        began = listings(host)
        wait_until(lambda: listings(host) > began + 2)
        folder.mkdir()
        wait_until(file.exists)
        running.signal(signal.SIGTERM)
        ended = running.end()
    assert re.search(STAMP + r"ERROR The health file \S+ cannot be written: .* Trying again in \d+ s\.", ended.err)


@pytest.mark.thorough
def test_health_is_exit_1_where_no_sync_succeeded_lately(ftw: Command) -> None:
    none = ftw("health", "health.json")
    assert none.code == 1
    assert is_told_well(none, "health.json", "no sync")
    folder = ftw("health", ".")
    assert folder.code == 1
    assert is_told_well(folder, "health file . cannot be read")

    assert ftw("sync", "--quiet", "--health-file", "health.json").code == 0
    well = ftw("health", "health.json", "--max-age", "45m")
    assert (well.code, well.err) == (0, "")
    undecided = ftw("health", "health.json")
    assert undecided.code == 2
    assert is_told_well(undecided, "--max-age")
    assert ftw("health", "health.json", "--max-age", "soon").code == 2

    file = ftw.folder / "health.json"
    last = datetime.now(timezone.utc) - timedelta(minutes=46)
    file.write_text(json.dumps({"last_success": last.isoformat(), "every_seconds": 900}))
    old = ftw("health", "health.json")
    assert old.code == 1
    assert is_told_well(old, "0:46:", "0:45:00")
    assert ftw("health", "health.json", "--max-age", "1h").code == 0
    for torn in ("", "{", "[]", '{"last_success": 1}'):
        file.write_text(torn)
        ended = ftw("health", "health.json")
        assert ended.code == 1
        assert is_told_well(ended, "health.json")


def test_with_strict_a_sync_that_skipped_is_no_success(host: Simulator, ftw: Command) -> None:
    host.faults.append(Fault("status", path="ftjob-1/events", times=None, status=403))
    assert ftw("sync", "--strict", "--quiet", "--health-file", "health.json").code == 3
    health = json.loads((ftw.folder / "health.json").read_text())
    assert (health["last_success"], health["accounts"]["default"]["last_success"]) == (None, None)
    ended = ftw("health", "health.json", "--max-age", "1h")
    assert ended.code == 1
    assert is_told_well(ended, "account default", "--strict")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--health-file", "nowhere/health.json"), "health.json"),
        (("--health-file", "."), "--health-file"),
        (("--destination", "postgres"), "credentials"),
    ],
)
def test_what_cannot_be_right_ends_it_at_once(
    host: Simulator, ftw: Command, arguments: tuple[str, ...], word: str
) -> None:
    ended = ftw("sync", "--every", "1h", *arguments)
    assert ended.code == 2
    assert is_told_well(ended, word.removeprefix("--").replace("-", " "))
    assert host.requests == []


def test_what_the_host_refuses_from_the_start_ends_it_at_once(tmp_path: Path, world: ScriptedWorld) -> None:
    with Simulator(world, api_keys={KEY: frozenset()}) as host:
        ftw = Command(tmp_path, host.base_url)
        ended = ftw("sync", "--every", "1h", env={"OPENAI_API_KEY": "sk-of-someone-else"})
        assert ended.code == 1
        assert is_told_well(ended, "401", "check OPENAI_API_KEY")
        assert not ftw.database.exists()


def test_pauses_keep_the_interval_and_grow_after_failures_up_to_it() -> None:
    interval = Interval(900)

    def pauses(count: int, *, seconds: float = 0, failed: bool = False) -> list[float]:
        return [interval.pause(seconds=seconds, failed=failed) for _ in range(count)]

    usual = pauses(200)
    assert all(900 * (1 - JITTER) <= pause <= 900 * (1 + JITTER) for pause in usual)
    assert max(usual) - min(usual) > 90
    assert all(pause <= 900 * (1 + JITTER) - 500 for pause in pauses(20, seconds=500))
    assert pauses(1, seconds=5000) == [90]
    for expected, pause in zip([30, 60, 120, 240, 480, 900, 900, 900], pauses(8, failed=True), strict=True):
        assert expected * (1 - JITTER) <= pause <= expected * (1 + JITTER)
    pauses(1)
    assert pauses(1, failed=True)[0] <= 33
    daily = Interval(86400)
    assert max(daily.pause(seconds=1, failed=True) for _ in range(2000)) <= 3600 * (1 + JITTER)
