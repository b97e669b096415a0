"""One source object, run more than once: what it has read before counts only where that is in the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from command import HOUR, KEY, NOW
from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from harness import QUICK
from openai_fine_tuning import Report, openai_fine_tuning, settings

JOBS = 6


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    """Jobs that have just ended, so that they stay open, each with a checkpoint."""
    for number in range(JOBS):
        world.add_job(id=f"ftjob-{number:02}", created_at=NOW - HOUR + number, finished_at=NOW - 60)
        world.add_checkpoint(f"ftjob-{number:02}", id=f"ftckpt-{number:02}")


class Mine:
    """A pipeline of one's own into a DuckDB file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.file = folder / f"{name}.duckdb"
        self.pipeline = dlt.pipeline(
            name,
            pipelines_dir=str(folder / "pipelines"),
            destination=dlt.destinations.duckdb(str(self.file)),
            dataset_name="tuning",
        )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.file), read_only=True) as connection:
            connection.execute("SET search_path = 'tuning'")
            return connection.execute(sql).fetchall()

    @property
    def counts(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM checkpoints)")


@pytest.fixture
def mine(tmp_path: Path) -> Mine:
    return Mine(tmp_path, "mine")


@pytest.fixture(params=[None, 3], ids=["whole", "in parts"])
def source(request: pytest.FixtureRequest, host: Simulator) -> Source:
    """A source that reads one job after another; all at once, or a few rows a run."""
    return Source(host, request.param)


class Source:
    """One source object, which is run again and again.

    Args:
        host: What it reads.
        rows: After how many rows a run ends; None for no end.
    """

    def __init__(self, host: Simulator, rows: int | None) -> None:
        self._report = Report()
        self._source = openai_fine_tuning(
            KEY,
            host.base_url,
            fine_tuning_concurrency=1,
            fine_tuning_stop_after_rows=rows,
            fine_tuning_report=self._report,
            fine_tuning_policy=QUICK,
        ).with_resources("jobs", "checkpoints")

    def run(self, mine: Mine) -> int:
        """Run it until nothing is left, or something fails; returns how many runs that took."""
        for runs in range(1, JOBS + 1):
            mine.pipeline.run(self._source)
            if self._report.is_complete:
                return runs
        raise AssertionError("it does not end")


@pytest.mark.thorough
def test_what_a_failed_run_has_read_is_read_again(source: Source, mine: Mine, host: Simulator) -> None:
    host.faults.append(Fault("status", path="ftjob-03/checkpoints", times=settings.MAX_ATTEMPTS, status=429))
    with pytest.raises(PipelineStepFailed):
        source.run(mine)
    source.run(mine)
    assert mine.counts == [(JOBS, JOBS)]


@pytest.mark.thorough
def test_another_database_gets_everything(source: Source, mine: Mine, tmp_path: Path) -> None:
    source.run(mine)
    other = Mine(tmp_path, "other")
    source.run(other)
    assert (mine.counts, other.counts) == ([(JOBS, JOBS)], [(JOBS, JOBS)])


@pytest.mark.nightly
def test_what_has_changed_since_is_read(source: Source, mine: Mine, world: ScriptedWorld, clock: Clock) -> None:
    source.run(mine)
    clock.advance(120)
    world.update_job("ftjob-05", error={"code": "late", "message": "told late", "param": None})
    world.add_checkpoint("ftjob-05", id="ftckpt-late")
    source.run(mine)
    assert mine.counts == [(JOBS, JOBS + 1)]
    assert mine.rows("SELECT error__code FROM jobs WHERE id = 'ftjob-05'") == [("late",)]


def test_parts_read_no_job_twice_though_all_are_still_open(host: Simulator, mine: Mine) -> None:
    assert 1 < Source(host, 3).run(mine) <= JOBS
    assert mine.counts == [(JOBS, JOBS)]
    assert sum(request.path.endswith("/checkpoints") for request in host.requests) == JOBS
