"""Long syncs commit as they go, and a sync that is killed at any point loses and repeats nothing."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from command import Command
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.sync.run import AccountResult, SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.postgres import PostgreSql
from harness import Database
from histories import HOUR, NOW, add_history, assert_holds, truth_of
from killing import Deadly, Syncs

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["postgres"]

ORDERS = ("newest_first", "oldest_first", "as_added")


@pytest.fixture
def world(request: pytest.FixtureRequest) -> ScriptedWorld:
    """A world whose listings stand in the order that the test asks for."""
    return ScriptedWorld(getattr(request, "param", "newest_first"))


def add_shuffled_history(world: ScriptedWorld, jobs: int) -> None:
    """A history that is added in no order."""
    for number in sorted(range(jobs), key=lambda number: number * 7 % jobs):
        add_history(world, [number], children=2)


def child_requests(host: Simulator) -> Counter[str]:
    """How often the children of each job were asked for."""
    paths = [request.path for request in host.requests if "ftjob-" in request.path and "/" in request.path]
    return Counter(path.split("/jobs/")[1].split("/")[0] for path in paths)


# commits as it goes --------------------------------------------------------------------------------------------------


@pytest.mark.first_only
@pytest.mark.parametrize(
    "world",
    [ORDERS[0], *(pytest.param(order, marks=pytest.mark.thorough) for order in ORDERS[1:])],
    indirect=True,
)
def test_a_long_sync_commits_as_it_goes_and_reads_nothing_twice(
    world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    world.page_limit = 2
    add_shuffled_history(world, 15)
    summary = database.sync(commit_seconds=0, concurrency=1, resources=("jobs", "checkpoints"))
    assert len(summary.load_ids) == len(set(summary.load_ids)) >= 2
    assert database.rows("SELECT count(*), count(DISTINCT id) FROM syncs") == [(1, 1)]
    assert database.rows("SELECT count(*) FROM _dlt_loads WHERE status = 0") == [(len(summary.load_ids),)]
    assert_holds(database.rows, truth_of(world, children=2).only("jobs", "checkpoints"))
    assert summary.rows == {"jobs": 15, "checkpoints": 30, "rejected_records": 0}
    assert set(child_requests(host).values()) == {1}
    assert summary.jobs == {"seen": 15, "open": 0}


class CutOff(Fault):
    """A host that refuses everything once it has answered so many requests."""

    def __init__(self, kind: Any, after: int, **details: Any) -> None:
        super().__init__(kind, times=None, **details)
        self.left = after

    def strikes(self, path: str, query: Any) -> bool:
        self.left -= 1
        return self.left < 0 and super().strikes(path, query)


@pytest.mark.nightly
@pytest.mark.first_only
@pytest.mark.parametrize(
    ("world", "refusal"),
    [
        pytest.param("newest_first", {"kind": "status", "status": 503}, marks=pytest.mark.thorough, id="unavailable"),
        pytest.param("oldest_first", {"kind": "reset"}, marks=pytest.mark.thorough, id="gone"),
        pytest.param("as_added", {"kind": "status", "status": 429}, id="throttled"),
    ],
    indirect=["world"],
)
def test_a_host_that_cuts_off_after_a_while_is_read_to_the_end_over_several_syncs(
    world: ScriptedWorld,
    host: Simulator,
    database: Database,
    refusal: dict[str, Any],
) -> None:
    world.page_limit = 5
    add_shuffled_history(world, 15)
    stops = 0
    while True:
        host.faults[:] = [CutOff(after=12, **refusal)]
        try:
            summary = database.sync(commit_seconds=0, concurrency=1, resources=("checkpoints",))
        except CommandError:
            stops += 1
        else:
            if not summary.skipped and summary.jobs["open"] == 0:
                break
            stops += 1
        assert stops < 6, "it gets nowhere"
    assert stops >= 1
    assert_holds(database.rows, truth_of(world, children=2).only("checkpoints"))


# crashes -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def syncs(tmp_path: Path, host: Simulator) -> Syncs:
    """Syncs into a DuckDB file."""
    return Syncs(tmp_path, host, DuckDb(tmp_path / "warehouse.duckdb"))


EARLY = [Deadly("request", 1), Deadly("request", 9), Deadly("normalize"), Deadly("load")]


def test_a_sync_that_is_killed_before_its_load_leaves_nothing_and_the_next_reads_it_all(
    world: ScriptedWorld, host: Simulator, database: Database, syncs: Syncs
) -> None:
    add_history(world, range(4))
    for number, deadly in enumerate(EARLY, start=1):
        syncs.run(deadly)
        assert len(syncs.left_behind) == 1, f"{number} were killed, and the later ones tidy up"
    assert (database.path.parent / "warehouse.duckdb.lock").exists()
    syncs.run()
    assert_holds(database.rows, truth_of(world))
    assert syncs.left_behind == []


def passes(world: ScriptedWorld) -> Iterator[int]:
    """Numbers of new jobs, each added to the world."""
    for number in range(100, 200):
        add_history(world, [number])
        yield number


def kill_all_over(syncs: Syncs, world: ScriptedWorld, rows: Any, shares: list[float]) -> None:
    """Kill syncs at statements and commits all over their course; after each, the next one makes everything whole."""
    add_history(world, range(3))
    added = passes(world)
    first = {"statement": 12, "commit": 3}  # a guess, for there is no database to learn from yet
    syncs.run(Deadly("statement", first["statement"]))
    syncs.run(Deadly("commit", first["commit"]))
    syncs.run()
    assert_holds(rows, truth_of(world))
    next(added)
    counts = syncs.run()
    assert_holds(rows, truth_of(world))
    for share in shares:
        for where in ("statement", "commit"):
            next(added)
            syncs.run(Deadly(where, max(1, round(share * counts[where]))))
            # no half of a load shows: a completed load is there with all its tables, or not at all
        counts = syncs.run()
        assert_holds(rows, truth_of(world))
        assert syncs.left_behind == []
    loads = rows("SELECT count(*) FROM _dlt_loads WHERE status = 0")[0][0]
    assert loads >= 2 + len(shares)


@pytest.mark.thorough
def test_a_load_that_is_killed_at_any_statement_is_made_whole_by_the_next_sync(
    world: ScriptedWorld, database: Database, syncs: Syncs
) -> None:
    kill_all_over(syncs, world, database.rows, [0.4, 0.9])


@pytest.mark.nightly
def test_a_load_into_postgres_that_is_killed_at_any_statement_is_made_whole_by_the_next_sync(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, postgres: Postgres
) -> None:
    kill_all_over(Syncs(tmp_path, host, PostgreSql()), world, postgres.rows, [0.4, 0.9])


@pytest.mark.nightly
def test_a_kill_in_a_later_part_keeps_what_the_earlier_ones_loaded(
    world: ScriptedWorld, host: Simulator, database: Database, syncs: Syncs
) -> None:
    world.page_limit = 2
    add_history(world, range(16))
    syncs.run(Deadly("load", 3), commit_seconds=0, concurrency=1)
    kept = {job for (job,) in database.rows("SELECT id FROM jobs")}
    assert 2 <= len(kept) < 16
    syncs.run()
    assert_holds(database.rows, truth_of(world))
    assert set(child_requests(host)) == {f"ftjob-{number:03}" for number in range(16)} - kept


@pytest.mark.thorough
def test_a_killed_command_leaves_a_directory_and_a_lock_that_the_next_one_takes(
    tmp_path: Path, world: ScriptedWorld, host: Simulator
) -> None:
    add_history(world, range(2))
    ftw = Command(tmp_path, host.base_url)
    silent = Fault("silent", path="/events$", times=None)
    host.faults.append(silent)
    with ftw.start("sync") as running:
        while silent.hits == 0:
            assert running.process.poll() is None
        running.signal(signal.SIGKILL)
        assert running.end().code == -signal.SIGKILL
    assert len(list(ftw.temporary.glob("*/sync-*"))) == 1
    assert ftw.database.with_name(ftw.database.name + ".lock").exists()
    host.faults.clear()
    assert ftw("sync", "--strict").code == 0
    assert list(ftw.temporary.glob("*/sync-*")) == []
    assert_holds(ftw.rows, truth_of(world))


@pytest.mark.thorough
def test_an_error_while_it_loads_leaves_what_was_there_and_the_next_sync_loads_it(
    world: ScriptedWorld, host: Simulator, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient

    add_history(world, range(2))
    database.sync()
    add_history(world, range(2, 4))
    with refused(monkeypatch, DuckDbSqlClient, "DELETE FROM"):
        summary = AccountResult("default")
        with pytest.raises(CommandError, match=r"failed: .*no more"):
            run_sync(
                Account("default", "key", host.base_url),
                DuckDb(database.path),
                SyncOptions(),
                result=summary,
            )
        assert summary.load_ids == []
    assert len(database.ids("jobs")) == 2
    database.sync()
    assert_holds(database.rows, truth_of(world))


@contextmanager
def refused(monkeypatch: pytest.MonkeyPatch, client: Any, start: str) -> Iterator[None]:
    """A destination that refuses every statement that starts so."""
    original = client.execute_query

    def execute_query(self: Any, query: str, *args: Any, **kwargs: Any) -> Any:
        if query.startswith(start):
            raise OSError("no more")
        return original(self, query, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(client, "execute_query", execute_query)
        yield


@pytest.mark.thorough
@pytest.mark.timeout(900)  # some 60 s on a machine of its own; 300 s at every statement
@pytest.mark.parametrize("stride", [6, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_file_opens_after_a_kill_at_any_statement_of_a_load_that_brings_new_columns(
    tmp_path: Path, world: ScriptedWorld, database: Database, syncs: Syncs, *, stride: int
) -> None:
    add_history(world, range(3))
    syncs.run()
    before = tmp_path / "before.duckdb"
    shutil.copyfile(database.path, before)
    world.add_checkpoint("ftjob-000", id="ftckpt-new", metrics={"brand_new": 0.25, "words": "many"})
    world.add_job(id="ftjob-new", created_at=NOW - HOUR, finished_at=NOW - HOUR, a_new_field=1)
    world.add_checkpoint("ftjob-new", id="ftckpt-newer", metrics={"brand_new": 0.5, "words": "more"})
    counts = syncs.run()
    for where, every in (("statement", stride), ("commit", 1)):
        for number in range(1, counts[where] + 1, every):
            for left in tmp_path.glob("warehouse.duckdb*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            shutil.copyfile(before, database.path)
            syncs.run(Deadly(where, number))
            assert database.rows("SELECT count(*) FROM jobs")[0][0] in (3, 4)
    syncs.run()
    assert database.rows("SELECT metrics__brand_new, metrics__words FROM checkpoints WHERE id = 'ftckpt-newer'") == [
        (0.5, "more")
    ]
