"""Jobs at a glance, curves, and the syncs that brought it all."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import duckdb
import pytest

from fine_tuning_simulator import Clock, GeneratedWorld, ScriptedWorld, Simulator
from fine_tuning_simulator.profiles import PROFILES
from harness import DAY, HOUR, NOW, Database


def test_a_row_a_job_with_or_without_checkpoints(world: ScriptedWorld, database: Database) -> None:
    world.add_job(id="done", created_at=NOW - DAY, finished_at=NOW - DAY + HOUR, trained_tokens=900)
    for step, (train_loss, valid_loss) in {1: (0.5, 0.6), 2: (0.2, 0.7)}.items():
        metrics = {"train_loss": train_loss, "valid_loss": valid_loss}
        world.add_checkpoint("done", id=f"done-{step}", step_number=step, metrics=metrics)
    world.add_job(id="runs", created_at=NOW - HOUR, status="running", method={"type": "dpo"}, fine_tuned_model=None)
    world.add_job(
        id="failed", created_at=NOW - DAY, status="failed", finished_at=None, method=None, hyperparameters=None
    )
    database.sync()
    columns = (
        "fine_tuning_job_id, base_model, suffix, method, status, duration_seconds, trained_tokens, checkpoints, "
        "evaluation_metric, best_evaluation_value, final_evaluation_value, advice, training_file_name, "
        "error_message"
    )
    model, name = "gpt-4o-mini-2024-07-18", "training.jsonl"
    assert database.rows(f"SELECT {columns} FROM job_overview ORDER BY 1") == [
        (
            "done",
            model,
            None,
            "supervised",
            "succeeded",
            3600,
            900,
            2,
            "valid_loss",
            0.6,
            0.7,
            "cannot_tell",
            name,
            None,
        ),
        ("failed", model, None, None, "failed", None, None, 0, None, None, None, None, name, "The job failed."),
        ("runs", model, None, "dpo", "running", None, None, 0, None, None, None, None, name, None),
    ]
    moments = database.rows("SELECT created_at, finished_at FROM job_overview WHERE fine_tuning_job_id = 'done'")
    assert moments == [tuple(datetime.fromtimestamp(NOW - DAY + s, timezone.utc) for s in (0, HOUR))]


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("profile", PROFILES)
def test_a_job_has_the_suffix_and_the_method_that_its_checkpoints_have(
    tmp_path: Path, clock: Clock, profile: str
) -> None:
    with Simulator(GeneratedWorld(seed=3, jobs=24, profile=profile, clock=clock), clock=clock) as host:
        database = Database(tmp_path / "warehouse.duckdb", host)
        database.sync()
    both = "FROM job_overview AS j JOIN checkpoint_history AS c USING (account, fine_tuning_job_id)"
    ((checkpoints, suffixes, methods),) = database.rows(f"SELECT count(*), count(j.suffix), count(j.method) {both}")
    assert methods == checkpoints > 0
    assert suffixes > 0
    assert database.rows(f"SELECT j.suffix, c.suffix {both} WHERE j.suffix IS DISTINCT FROM c.suffix") == []
    assert database.rows(f"SELECT j.method, c.method {both} WHERE j.method IS DISTINCT FROM c.method") == []


@pytest.mark.nightly
def test_the_training_files_name_is_there_once_files_are(world: ScriptedWorld, database: Database) -> None:
    world.add_job(id="job", created_at=NOW - DAY, training_file="file-7")
    world.add_job(id="other", created_at=NOW - DAY, training_file="file-8")
    world.add_file("file-7", filename="tone.jsonl", purpose="fine-tune")
    world.add_file("file-8", filename="theirs.jsonl", purpose="fine-tune")
    database.sync(resources=("jobs",))
    before = database.rows("SELECT training_file_name FROM job_overview")
    assert before == [(None,), (None,)]
    world.remove_file("file-8")
    database.sync()
    rows = database.rows("SELECT fine_tuning_job_id, training_file, training_file_name FROM job_overview ORDER BY 1")
    assert rows == [("job", "file-7", "tone.jsonl"), ("other", "file-8", None)]


def test_curves_hold_every_number_of_every_source(world: ScriptedWorld, database: Database) -> None:
    world.add_file(
        "file-results", b"step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,0.9,0.5,,\n"
    )
    world.add_job(id="job", created_at=NOW - DAY, result_files=["file-results"])
    metrics = {"step": 1, "train_loss": 0.7, "a_brand_new_metric": 3, "label": "text"}
    world.add_checkpoint("job", step_number=2, metrics=metrics)
    world.add_event("job", type="metrics", data={"step": 1, "total_steps": 9, "train_loss": 0.8, "grade": 2, "x": [1]})
    world.add_event("job", type="metrics", data={"train_loss": 0.1})  # at no step
    world.add_event("job", type="metrics", data={"step": 5, "train_loss": float("nan")})
    world.add_event("job", message="Started", data={})
    database.sync()
    rows = database.rows("SELECT * FROM training_curves ORDER BY source, step, metric")
    assert {row[:2] for row in rows} == {("default", "job")}
    assert [row[2:] for row in rows[:2]] == [
        (2, "a_brand_new_metric", 3.0, "checkpoint"),
        (2, "train_loss", 0.7, "checkpoint"),
    ]
    assert [row[2:] for row in rows[2:4]] == [(1, "grade", 2.0, "event"), (1, "train_loss", 0.8, "event")]
    assert (rows[4][2], rows[4][3], rows[4][5]) == (5, "train_loss", "event")
    assert rows[4][4] != rows[4][4]  # NaN is what was loaded
    assert [row[2:] for row in rows[5:]] == [
        (1, "train_loss", 0.9, "result_file"),
        (1, "train_mean_token_accuracy", 0.5, "result_file"),
    ]


@pytest.mark.thorough
def test_curves_have_one_name_for_the_accuracy_of_every_host(world: ScriptedWorld, database: Database) -> None:
    for host, name in (("openai", "train_accuracy"), ("azure", "train_mean_token_accuracy")):
        world.add_file(f"file-{host}", f"step,train_loss,{name}\n1,0.9,0.5\n".encode())
        world.add_job(id=host, created_at=NOW - DAY, result_files=[f"file-{host}"])
    database.sync()
    rows = database.rows("SELECT * EXCLUDE account FROM training_curves WHERE metric LIKE '%accuracy%' ORDER BY 1")
    assert rows == [
        ("azure", 1, "train_mean_token_accuracy", 0.5, "result_file"),
        ("openai", 1, "train_mean_token_accuracy", 0.5, "result_file"),
    ]
    columns = "file_id, train_accuracy, train_mean_token_accuracy"
    assert database.rows(f"SELECT {columns} FROM result_metrics ORDER BY 1") == [
        ("file-azure", None, 0.5),
        ("file-openai", 0.5, None),
    ]


@pytest.mark.thorough
def test_curves_show_a_metric_that_appears_later(world: ScriptedWorld, database: Database) -> None:
    world.add_job(id="job", created_at=NOW - HOUR, status="running")
    world.add_event("job", type="metrics", data={"step": 1, "train_loss": 0.8})
    database.sync()
    before = database.rows("SELECT DISTINCT metric FROM training_curves")
    world.add_event("job", type="metrics", data={"step": 2, "train_loss": 0.7, "perplexity": 2.5})
    database.sync()
    assert before == [("train_loss",)]
    rows = database.rows("SELECT step, metric, value FROM training_curves ORDER BY 1, 2")
    assert rows == [(1, "train_loss", 0.8), (2, "perplexity", 2.5), (2, "train_loss", 0.7)]


@pytest.mark.thorough
def test_sync_history_holds_only_syncs_whose_load_completed(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="job", created_at=NOW - HOUR, status="running")
    first = database.sync()
    second = database.sync(account="other")
    rows = database.rows(
        "SELECT account, requests, retries, jobs_seen, jobs_open, load_id FROM sync_history ORDER BY 1"
    )
    assert [row[:5] for row in rows] == [("default", first.requests, 0, 1, 1), ("other", second.requests, 0, 1, 1)]
    assert [[row[5]] for row in rows] == [first.load_ids, second.load_ids]
    ((seconds, between, skipped),) = database.rows(
        "SELECT seconds, date_diff('microsecond', started_at, finished_at) / 1e6, skipped FROM sync_history "
        "WHERE account = 'other'"
    )
    assert seconds == pytest.approx(between, abs=1e-5)
    assert skipped == "[]"
    with duckdb.connect(str(database.path)) as connection:
        connection.execute("UPDATE fine_tuning._dlt_loads SET status = 1 WHERE load_id = ?", first.load_ids)
    assert database.rows("SELECT account FROM sync_history") == [("other",)]


def test_an_account_without_jobs_has_empty_views(database: Database) -> None:
    database.sync()
    for view in ("checkpoint_history", "best_checkpoints", "job_overview", "training_curves"):
        assert database.rows(f"SELECT * FROM {view}") == []
    assert len(database.rows("SELECT * FROM sync_history")) == 1
