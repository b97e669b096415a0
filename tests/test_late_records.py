"""Nothing is lost, whenever and in whatever order the host shows it."""

from __future__ import annotations

from conftest import HOUR, NOW, Database
from fine_tuning_simulator import Clock, ScriptedWorld


def test_a_checkpoint_that_surfaces_later_with_an_older_time_is_loaded(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-long", created_at=NOW - 5 * HOUR, status="running", finished_at=None)
    world.add_job(id="ftjob-short", created_at=NOW - 3 * HOUR, status="succeeded", finished_at=NOW - 2 * HOUR)
    world.add_checkpoint("ftjob-short", id="ftckpt-new", created_at=NOW - 2 * HOUR, step_number=9)
    database.sync()
    assert database.ids("checkpoints") == ["ftckpt-new"]

    world.update_job("ftjob-long", status="succeeded", finished_at=NOW)
    world.add_checkpoint("ftjob-long", id="ftckpt-old", created_at=NOW - 4 * HOUR, step_number=5)
    clock.advance(60)
    database.sync()

    assert database.ids("checkpoints") == ["ftckpt-new", "ftckpt-old"]
    assert database.rows("SELECT status FROM jobs WHERE id = 'ftjob-long'") == [("succeeded",)]
