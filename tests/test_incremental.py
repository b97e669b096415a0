"""The destination is the only memory: each database gets what it lacks, for each account and key, and nothing twice."""

from __future__ import annotations

import copy
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from harness import DAY, HOUR, NOW, Database
from openai_fine_tuning import settings as limits
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.convert.table_builder import Batches
from openai_fine_tuning.extract.bounds import Bounds
from openai_fine_tuning.extract.reader import Reader
from openai_fine_tuning.report import Report
from openai_fine_tuning.schema import TABLES, schema
from openai_fine_tuning.state.run import Run
from openai_fine_tuning.state.takeover import Candidate, take_over
from openai_fine_tuning.state.watermark import Watermark, watermark_state, watermark_states

TIMESTAMP = "TIMESTAMP WITH TIME ZONE"
METRICS = (
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
    "train_mean_reward",
    "valid_mean_reward",
    "full_valid_mean_reward",
)
CONTRACT: dict[str, dict[str, str]] = {
    "jobs": {
        **dict.fromkeys(("created_at", "finished_at", "estimated_finish", "checkpoints_listed_at"), TIMESTAMP),
        **dict.fromkeys(("id", "status", "model", "fine_tuned_model", "organization_id", "training_file"), "VARCHAR"),
        **dict.fromkeys(("validation_file", "error__code", "error__message", "error__param"), "VARCHAR"),
        **{f"hyperparameters__{name}": "VARCHAR" for name in ("n_epochs", "batch_size", "learning_rate_multiplier")},
        **dict.fromkeys(("method__type", "method", "integrations", "metadata", "result_files"), "VARCHAR"),
        **dict.fromkeys(("trained_tokens", "seed"), "BIGINT"),
    },
    "checkpoints": {
        **dict.fromkeys(("created_at", "last_listed_at"), TIMESTAMP),
        **dict.fromkeys(("id", "fine_tuning_job_id", "fine_tuned_model_checkpoint"), "VARCHAR"),
        "step_number": "BIGINT",
        **{f"metrics__{name}": "DOUBLE" for name in METRICS},
    },
    "events": {
        "created_at": TIMESTAMP,
        **dict.fromkeys(("id", "fine_tuning_job_id", "level", "type", "message", "data"), "VARCHAR"),
        **{f"data__{name}": "DOUBLE" for name in (*METRICS, "total_steps")},
    },
    "result_metrics": {
        **dict.fromkeys(("file_id", "fine_tuning_job_id"), "VARCHAR"),
        "step": "BIGINT",
        **dict.fromkeys(("train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"), "DOUBLE"),
    },
    "rejected_records": dict.fromkeys(("resource", "record_hash", "reason"), "VARCHAR"),
    "syncs": {
        **dict.fromkeys(("id", "skipped", "version"), "VARCHAR"),
        **dict.fromkeys(("started_at", "finished_at"), TIMESTAMP),
        **dict.fromkeys(("requests", "retries", "jobs_seen", "jobs_known", "jobs_open"), "BIGINT"),
    },
}


def add_job(world: ScriptedWorld, number: int) -> None:
    """A job that closed long ago, with a checkpoint and an event."""
    world.add_job(id=f"job-{number}", created_at=NOW - 2 * DAY + 600 * number, finished_at=NOW - DAY)
    world.add_checkpoint(f"job-{number}", id=f"ckpt-{number}")
    world.add_event(f"job-{number}", id=f"event-{number}")


def test_an_account_without_jobs_has_every_table_with_every_column(database: Database) -> None:
    assert database.sync().status == "done"
    found: dict[str, dict[str, str]] = {}
    for table, column, type_ in database.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'fine_tuning'"
    ):
        found.setdefault(table, {})[column] = type_
    for table, columns in CONTRACT.items():
        expected = {**columns, "account": "VARCHAR", "_dlt_load_id": "VARCHAR"}
        assert {name: found[table].get(name) for name in expected} == expected, table
    assert database.rows("SELECT count(*) FROM jobs") == [(0,)]
    assert database.rows("SELECT jobs_seen, jobs_open, requests FROM syncs") == [(0, 0, 1)]


@pytest.mark.nightly
def test_two_databases_synced_in_turn_each_get_everything(
    world: ScriptedWorld, host: Simulator, database: Database, tmp_path: Path
) -> None:
    other = Database(tmp_path / "other.duckdb", host)
    add_job(world, 1)
    database.sync()
    add_job(world, 2)
    database.sync()
    other.sync()
    add_job(world, 3)
    other.sync()
    database.sync()
    for each in (database, other):
        assert each.ids("jobs") == ["job-1", "job-2", "job-3"]
        assert each.ids("checkpoints") == ["ckpt-1", "ckpt-2", "ckpt-3"]
        assert each.ids("events") == ["event-1", "event-2", "event-3"]


@pytest.mark.nightly
def test_a_database_put_back_from_an_older_copy_gets_what_it_lacks(
    world: ScriptedWorld, database: Database, tmp_path: Path
) -> None:
    add_job(world, 1)
    database.sync()
    shutil.copy(database.path, tmp_path / "copy")
    add_job(world, 2)
    database.sync()
    shutil.copy(tmp_path / "copy", database.path)
    add_job(world, 3)
    database.sync()
    assert database.ids("jobs") == ["job-1", "job-2", "job-3"]
    assert database.ids("checkpoints") == ["ckpt-1", "ckpt-2", "ckpt-3"]
    assert "/fine_tuning/jobs/job-1/checkpoints" not in database.paths()


def test_two_accounts_in_one_database_share_neither_rows_nor_state(world: ScriptedWorld, database: Database) -> None:
    add_job(world, 1)
    database.sync(account="one")
    database.sync(account="two")
    add_job(world, 2)
    database.sync(account="two")
    database.sync(account="one")
    for table in ("jobs", "checkpoints", "events"):
        rows = database.rows(f"SELECT account, count(*) FROM {table} GROUP BY account ORDER BY account")
        assert rows == [("one", 2), ("two", 2)], table
    assert database.sync(account="two").requests == 1


@pytest.mark.nightly
def test_two_keys_under_one_label_each_have_their_own_watermark(world: ScriptedWorld, database: Database) -> None:
    add_job(world, 1)
    database.sync(key="key-of-project-a")
    add_job(world, 2)
    database.sync(key="key-of-project-b")  # shows the job of the first one: see test_takeover.py
    assert database.ids("checkpoints") == ["ckpt-1", "ckpt-2"]
    assert "/fine_tuning/jobs/job-1/checkpoints" not in database.paths()
    add_job(world, 3)
    database.sync(key="key-of-project-a")
    assert database.ids("jobs") == ["job-1", "job-2", "job-3"]
    assert "/fine_tuning/jobs/job-1/checkpoints" not in database.paths()
    assert database.sync(key="key-of-project-b").rows["jobs"] == 0, "the row is there"
    assert "/fine_tuning/jobs/job-3/checkpoints" in database.paths()
    assert database.sync(key="key-of-project-b").requests == 1


@pytest.mark.thorough
def test_a_full_refresh_reads_all_once_more_into_the_same_rows(world: ScriptedWorld, database: Database) -> None:
    add_job(world, 1)
    add_job(world, 2)
    database.sync()
    world.update_checkpoint("ckpt-1", step_number=99)
    summary = database.sync(full_refresh=True)
    expected = {"jobs": 2, "checkpoints": 2, "events": 2, "result_metrics": 0, "files": 1, "rejected_records": 0}
    assert summary.rows == {**expected, "models": 5}
    assert database.ids("jobs") == ["job-1", "job-2"]
    assert database.rows("SELECT id, step_number FROM checkpoints ORDER BY id") == [("ckpt-1", 99), ("ckpt-2", 10)]
    assert database.ids("events") == ["event-1", "event-2"]
    assert database.sync().requests == 1


def test_every_row_tells_its_account_and_its_load(world: ScriptedWorld, database: Database) -> None:
    add_job(world, 1)
    (load_id,) = database.sync(account="mine").load_ids
    for table in ("jobs", "checkpoints", "events", "syncs"):
        assert database.rows(f"SELECT account, _dlt_load_id FROM {table}") == [("mine", load_id)], table


# whatever happens, in whatever order ---------------------------------------------------------------------------------


class Memory:
    """A destination in memory: rows and state, both kept only where a read ends well."""

    def __init__(self, host: Simulator) -> None:
        self._host = host
        self._state: dict[str, Any] = {}
        self.key = "key"
        self.rows: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in TABLES}

    def sync(self, resources: frozenset[str], stop_after: float | None = None) -> Report:
        """One read of what is owed."""
        state, rows, report = copy.deepcopy(self._state), copy.deepcopy(self.rows), Report()
        api = FineTuningApi(self._host.base_url, self.key, concurrency=2)
        candidates = {}
        for name in (name for name in limits.RESOURCES if name in resources):
            own = watermark_state(state.setdefault(name, {}), "default", api.identity, now=time.time())
            others = watermark_states(state[name], "default").items()
            candidates[name] = Candidate(own, tuple(other for key, other in others if key != api.identity))
        take_over(api, "default", candidates, report)
        watermarks = {
            name: Watermark(candidate.state, overlap=limits.OVERLAP_SECONDS, grace=limits.GRACE_SECONDS)
            for name, candidate in candidates.items()
        }
        batches = Batches("default", schema())
        reader = Reader(api, "default", watermarks, batches, report, run=Run(), bounds=Bounds(), stop_after=stop_after)
        for tables in reader.read():
            for name, table in tables.items():
                for row in table.to_pylist():
                    rows[name][row.get("id") or f"{row.get('file_id')} {row.get('step')}"] = row
        self._state, self.rows = json.loads(json.dumps(state)), rows
        return report


ALL = frozenset(limits.RESOURCES)
STEPS = st.one_of(
    st.tuples(st.just("job"), st.integers(0, 50)),
    st.tuples(st.just("run"), st.integers(0, 9)),
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("checkpoint"), st.integers(0, 9)),
    st.tuples(st.just("event"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 600, HOUR // 2, 2 * HOUR, DAY])),
    st.tuples(st.just("sync"), st.sampled_from([ALL, frozenset({"jobs"}), frozenset({"checkpoints", "events"})])),
    st.tuples(st.just("part"), st.just(ALL)),
    st.tuples(st.just("key"), st.integers(0, 2)),
)


@pytest.mark.thorough
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    order=st.sampled_from(["newest_first", "oldest_first", "as_added"]),
    page_limit=st.integers(1, 4),
    steps=st.lists(STEPS, min_size=4, max_size=30),
)
def test_whatever_happens_between_syncs_the_last_one_has_everything(
    order: Any, page_limit: int, steps: list[tuple[str, Any]]
) -> None:
    world, clock = ScriptedWorld(order), Clock(start=NOW, speed=0)
    world.page_limit = page_limit
    jobs: list[str] = []
    with Simulator(world, clock=clock) as host:
        memory = Memory(host)
        for position, (what, value) in enumerate(steps):
            now = int(clock.now())
            job = world.job(jobs[value % len(jobs)]) if isinstance(value, int) and jobs else None
            ended = job["finished_at"] if job else None
            if what == "job":
                # Hosts' clocks agree within the overlap: a job may show with a time a little before the newest one's.
                jobs.append(f"job-{position}")
                world.add_job(id=jobs[-1], created_at=now - value, status="queued", finished_at=None)
            elif what == "run" and job and ended is None:
                job["status"] = "running"
            elif what == "end" and job and ended is None:
                world.add_file(f"file-{position}", b"step,train_loss\n1,0.5\n2,0.4\n")
                job.update(status="succeeded", finished_at=now, result_files=[f"file-{position}"])
            elif what == "checkpoint" and job and (ended is None or now - ended < HOUR):
                world.add_checkpoint(job["id"], id=f"ckpt-{position}", created_at=now - 7 * value)
            elif what == "event" and job and (ended is None or now - ended < HOUR):
                # A running job's events come in their order; what shows late is read when the job is closed.
                world.add_event(job["id"], id=f"event-{position}", created_at=now - (7 * value if ended else 0))
            elif what == "wait":
                clock.advance(value)
            elif what == "sync":
                memory.sync(value)
            elif what == "key":
                memory.key = f"key-{value}"
            elif what == "part":
                memory.sync(value, stop_after=0)
        clock.advance(2 * HOUR)
        memory.sync(ALL)

        assert {key: row["status"] for key, row in memory.rows["jobs"].items()} == {
            job["id"]: job["status"] for job in world.jobs()
        }
        for kind, shown in (("checkpoints", world.checkpoints), ("events", world.events)):
            expected = {record["id"] for job_id in jobs for record in shown(job_id) or ()}
            assert set(memory.rows[kind]) == expected, kind
        files = {file_id for job in world.jobs() for file_id in job["result_files"]}
        assert {row["file_id"] for row in memory.rows["result_metrics"].values()} == files

        # What ended long ago is closed: it costs nothing any more.
        running = [job for job in world.jobs() if job["finished_at"] is None]
        assert memory.sync(ALL).jobs_open == len(running)
        host.requests.clear()
        memory.sync(ALL)
        children = {request.path for request in host.requests if request.path.count("/") > 3}
        assert all(any(f"/{job['id']}" in path for job in running) for path in children)
