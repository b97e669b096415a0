"""A run that is killed at any point leaves no half file, and the next one makes the archive whole."""

from __future__ import annotations

import os
import signal
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from command import forking
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.archive import Plan, archive, check, open_store
from fine_tuning_warehouse.archive.store import DRAFTS
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from histories import add_history

JOBS = 3
NEW_FILES = 4
"""Files of the two jobs that come between runs."""


def archive_in_child(
    sender: Any, *, env: dict[str, str], base_url: str, database: Path, folder: Path, deadly: tuple[str, int]
) -> None:
    """The body of a process that archives; it kills itself before the n-th of some step, and tells how many it did."""
    os.environ.update(env)
    os.chdir(env["HOME"])
    tempfile.tempdir = env["TMPDIR"]
    from fine_tuning_warehouse.archive.store import Store
    from openai_fine_tuning.api.download import Download

    passed: Counter[str] = Counter()

    def watched(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def step(*arguments: Any, **named: Any) -> Any:
            passed[name] += 1
            if (name, passed[name]) == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **named)

        setattr(owner, name, step)

    for owner, name in ((Store, "draft"), (Store, "publish"), (Store, "remove"), (Download, "has_advanced")):
        watched(owner, name)
    plan = Plan(DuckDb(database), [Account("default", "key", base_url)], training_files=True)
    archive(open_store(str(folder)), plan)
    sender.send(dict(passed))
    sender.close()


class Runs:
    """Archive runs in processes of their own."""

    def __init__(self, tmp_path: Path, host: Simulator) -> None:
        self.folder = tmp_path / "archive"
        home, temporary = tmp_path / "home", tmp_path / "temporary"
        for made in (home, temporary):
            made.mkdir(exist_ok=True)
        self._env = {"HOME": str(home), "TMPDIR": str(temporary), "DLT_DATA_DIR": str(home / ".dlt")}
        self._work = partial(
            archive_in_child,
            env=self._env,
            base_url=host.base_url,
            database=tmp_path / "warehouse.duckdb",
            folder=self.folder,
        )

    def run(self, deadly: tuple[str, int] = ("", 0)) -> dict[str, int]:
        """A run to its end; returns how many of each step it took. With `deadly`, assert that it was killed there."""
        context = forking()
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=partial(self._work, deadly=deadly), args=(sender,))
        process.start()
        sender.close()
        process.join(60)
        with receiver:
            passed: dict[str, int] = receiver.recv() if process.exitcode == 0 else {}
        assert process.exitcode == (-signal.SIGKILL if deadly[1] else 0), f"{deadly}: exit {process.exitcode}"
        process.close()
        return passed

    def assert_no_half_file(self, host: ScriptedWorld) -> None:
        """Whatever lies under its own name is whole."""
        for kind, ending in (("result_files", "csv"), ("training_files", "jsonl")):
            for file in (self.folder / kind).glob(f"*.{ending}"):
                assert file.read_bytes() == host.file_content(file.stem), file

    def assert_whole(self) -> None:
        """The archive is as if nothing had happened."""
        checked = check(open_store(str(self.folder)))
        assert checked.damaged == []
        assert checked.manifest.missing == []
        assert list(self.folder.glob(f"{DRAFTS}*")) == []


@pytest.fixture
def runs(tmp_path: Path, host: Simulator, world: ScriptedWorld) -> Runs:
    add(world, range(JOBS))
    return Runs(tmp_path, host)


def add(world: ScriptedWorld, jobs: range) -> None:
    add_history(world, jobs)
    for number in jobs:
        world.add_file(f"train-{number}", os.urandom(100_000), purpose="fine-tune")
        world.update_job(f"ftjob-{number:03}", training_file=f"train-{number}")


def kill_and_mend(runs: Runs, world: ScriptedWorld, points: list[tuple[str, float]]) -> None:
    """Kill runs at shares of their steps, first of a new archive, later of one that gains."""
    runs.run(("publish", 1))
    assert not (runs.folder / "manifest.json").exists()
    runs.run(("has_advanced", 2))
    runs.assert_no_half_file(world)
    passed = runs.run()
    runs.assert_whole()
    done = JOBS
    for name, share in points:
        add(world, range(done, done + 2))
        done += 2
        steps = NEW_FILES if name == "has_advanced" else passed[name]
        runs.run((name, max(1, round(share * steps))))
        runs.assert_no_half_file(world)
        passed = runs.run()
        runs.assert_whole()


@pytest.mark.thorough
def test_a_killed_run_is_made_good_by_the_next(runs: Runs, world: ScriptedWorld) -> None:
    kill_and_mend(runs, world, [("publish", 0.5), ("publish", 1.0)])


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_anywhere_is_made_good_by_the_next(runs: Runs, world: ScriptedWorld) -> None:
    points = [(name, share) for name in ("draft", "publish") for share in (0.1, 0.8)]
    kill_and_mend(runs, world, [*points, ("has_advanced", 0.3), ("has_advanced", 0.9), ("remove", 1.0)])


@pytest.mark.nightly
def test_what_a_killed_run_has_fetched_is_not_fetched_again(runs: Runs, world: ScriptedWorld, host: Simulator) -> None:
    runs.run(("remove", 1))
    host.requests.clear()
    (runs.folder / "manifest.json").unlink()
    runs.run()
    runs.assert_whole()
    assert [request.path for request in host.requests if request.path.endswith("content")] == []
