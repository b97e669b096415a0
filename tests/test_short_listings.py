"""A host that suddenly lists no jobs, or far fewer than were read: that is said, each time, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Command
from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from harness import HOUR, NOW, Database
from histories import add_history, assert_holds, truth_of
from openai_fine_tuning.state.watermark import short_listing


@pytest.fixture
def other(clock: Clock) -> Iterator[Simulator]:
    """Another host, or another project of the same: what it shows is in its `world`."""
    with Simulator(ScriptedWorld(), clock=clock) as simulator:
        yield simulator


def warnings_of(database: Database, host: Simulator, key: str = "key", **options: object) -> list[str]:
    """Sync once from a host, and return what it warns of."""
    return run_sync(
        Account("default", key, host.base_url),
        DuckDb(database.path),
        SyncOptions(**options),  # type: ignore[arg-type]
    ).warnings


@pytest.mark.parametrize(
    ("listed", "known", "warns"), [(0, 0, False), (0, 1, True), (1, 2, False), (1, 3, True), (21, 44, True)]
)
def test_fewer_than_half_of_the_known_jobs_is_worth_a_warning(listed: int, known: int, warns: bool) -> None:
    assert (short_listing("default", listed=listed, known=known) is not None) == warns


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("key", ["key", "key-of-an-empty-project"])
def test_each_sync_warns_of_an_empty_listing_until_a_full_refresh_accepts_it(
    database: Database, world: ScriptedWorld, other: Simulator, key: str
) -> None:
    add_history(world, range(4))
    database.begin()
    for _ in range(2):
        (warning,) = warnings_of(database, other, key)
        assert "lists 0 jobs of account default, of 4" in warning
    assert_holds(database.rows, truth_of(world))
    assert warnings_of(database, other, key, full_refresh=True)
    assert warnings_of(database, other, key) == []
    assert_holds(database.rows, truth_of(world))


@pytest.mark.thorough
def test_an_open_job_stays_open_while_the_listing_is_short(
    database: Database, world: ScriptedWorld, other: Simulator, clock: Clock
) -> None:
    add_history(world, range(2))
    world.add_job(id="ftjob-open", created_at=NOW, status="running", finished_at=None)
    database.begin()
    assert warnings_of(database, other)
    world.add_checkpoint("ftjob-open", id="ftckpt-late", created_at=NOW + 60)
    world.update_job("ftjob-open", status="succeeded", finished_at=NOW + 60)
    clock.advance(2 * HOUR)
    assert database.sync().warnings == []
    assert "ftckpt-late" in database.ids("checkpoints")


@pytest.mark.nightly
def test_a_listing_with_most_of_the_jobs_or_one_that_is_not_read_to_its_end_is_nothing_to_warn_of(
    database: Database, world: ScriptedWorld
) -> None:
    add_history(world, range(4))
    database.begin()
    world.remove_job("ftjob-000")
    assert database.sync().warnings == []
    world.remove_job("ftjob-001")
    world.remove_job("ftjob-002")
    assert database.sync(since="2020-01-01").warnings == []
    world.page_limit = 1
    add_history(world, range(90 * 24, 90 * 24 + 1))
    assert database.sync().warnings == []


@pytest.mark.thorough
def test_the_command_says_it_and_is_strict_about_it(tmp_path: Path, world: ScriptedWorld, host: Simulator) -> None:
    add_history(world, range(3))
    ftw = Command(tmp_path, host.base_url)
    assert ftw("sync").code == 0
    assert "ok      jobs" in ftw("check").out
    for job in list(world.jobs())[1:]:
        world.remove_job(job["id"])
    words = "lists 1 jobs of account default, of 3"
    strict = ftw("sync", "--strict", "--output", "json")
    assert strict.code == 3
    assert words in strict.json["warnings"][0]
    assert words in strict.json["accounts"][0]["warnings"][0]
    lax = ftw("sync")
    assert lax.code == 0
    assert "Warning: " in lax.err
    checked = ftw("check")
    assert checked.code == 1
    assert f"FAILED  jobs            The host {words}" in checked.out
    verified = ftw("verify")
    assert verified.code == 0
    assert words in verified.all
    assert ftw.rows("SELECT jobs_seen, jobs_known FROM syncs ORDER BY started_at") == [(3, 3), (1, 3), (1, 3)]
