"""Which checkpoint is the best, and why: worlds small enough to reckon by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from harness import DAY, HOUR, NOW, Database

NAN = float("nan")

NEBIUS_LOSSES = [
    (2.114447, 0.41674),
    (1.149326, 0.241002),
    (0.662357, 0.230296),
    (0.423568, 0.229275),
    (0.305986, 0.226082),
    (0.24793, 0.210415),
    (0.218345, 0.233326),
    (0.203119, 0.199091),
    (0.195031, 0.214885),
    (0.190383, 0.228618),
]
"""Train and validation loss of a real run of ten epochs."""


def train(
    world: ScriptedWorld,
    job: str,
    checkpoints: Mapping[int, Mapping[str, Any]],
    *,
    model_at: int | None = None,
    **fields: Any,
) -> None:
    """Add a job with a checkpoint a step, named after job and step; the one at `model_at` is the resulting model."""
    name = f"ft:gpt-4.1-mini:example-org::{job}"
    world.add_job(id=job, created_at=NOW - DAY, **{"fine_tuned_model": name if model_at else None, **fields})
    for step, metrics in checkpoints.items():
        world.add_checkpoint(
            job,
            id=f"{job}-{step}",
            created_at=NOW - DAY + step,
            step_number=step,
            metrics={"step": step, **metrics},
            fine_tuned_model_checkpoint=name if step == model_at else f"{name}:ckpt-step-{step}",
        )


def add_metrics_event(world: ScriptedWorld, job: str, step: float, **metrics: Any) -> None:
    world.add_event(job, message=f"Step {step}", type="metrics", data={"step": step, "total_steps": 90, **metrics})


def history(database: Database, job: str, *columns: str) -> list[tuple[Any, ...]]:
    """Columns of a job's checkpoints, by step."""
    return database.rows(
        f"SELECT step_number, {', '.join(columns)} FROM checkpoint_history WHERE fine_tuning_job_id = '{job}' "
        "ORDER BY step_number, checkpoint_id"
    )


def best(database: Database, job: str) -> dict[str, Any]:
    """The job's row of `best_checkpoints`."""
    columns = "checkpoint_id, evaluation_metric, evaluation_value, final_checkpoint_id, final_evaluation_value"
    columns += ", cost_of_final, is_retained, reason, checkpoints, overfitting_band, higher_is_better"
    (row,) = database.rows(f"SELECT {columns} FROM best_checkpoints WHERE fine_tuning_job_id = '{job}'")
    return dict(zip(columns.split(", "), row, strict=True))


EVALUATION = ("evaluation_metric", "evaluation_value", "evaluation_source", "rank_in_job", "is_best")


def test_three_epochs_borrow_the_full_validation_loss_from_their_events(
    world: ScriptedWorld, database: Database
) -> None:
    losses = {30: (0.7, 0.80, 0.75), 60: (0.5, 0.55, 0.60), 90: (0.3, 0.50, 0.70)}
    train(world, "job", {step: {"train_loss": t, "valid_loss": v} for step, (t, v, _) in losses.items()}, model_at=90)
    for step, (t, v, full) in losses.items():
        add_metrics_event(world, "job", step, train_loss=t, valid_loss=v, full_valid_loss=full)
    add_metrics_event(world, "job", 61, full_valid_loss=0.01)  # no checkpoint's step
    database.sync()
    assert history(database, "job", *EVALUATION, "is_final", "full_valid_loss") == [
        (30, "full_valid_loss", 0.75, "event", 3, False, False, None),
        (60, "full_valid_loss", 0.60, "event", 1, True, False, None),
        (90, "full_valid_loss", 0.70, "event", 2, False, True, None),
    ]
    bands = history(database, "job", "train_gap", "train_ratio", "overfitting_band", "change_from_previous")
    assert bands == [
        (30, pytest.approx(0.05), pytest.approx(0.75 / 0.7), "healthy", None),
        (60, pytest.approx(0.1), pytest.approx(1.2), "watch", pytest.approx(-0.15)),
        (90, pytest.approx(0.4), pytest.approx(0.7 / 0.3), "severe", pytest.approx(0.1)),
    ]
    assert best(database, "job") == {
        "checkpoint_id": "job-60",
        "evaluation_metric": "full_valid_loss",
        "evaluation_value": 0.6,
        "final_checkpoint_id": "job-90",
        "final_evaluation_value": 0.7,
        "cost_of_final": pytest.approx(0.1),
        "is_retained": True,
        "reason": "Lowest full_valid_loss of 3 checkpoints (0.6000 at step 60); "
        "deploying the final one would cost 0.1000.",
        "checkpoints": 3,
        "overfitting_band": "watch",
        "higher_is_better": False,
    }


def test_a_value_is_the_checkpoints_own_else_the_events_else_the_result_files(
    world: ScriptedWorld, database: Database
) -> None:
    world.add_file("file-results", b"step,train_loss,valid_loss\n10,9,9\n20,9,9\n30,9,0.3\n")
    train(world, "job", {10: {"valid_loss": 0.5}, 20: {"train_loss": 0.1}, 30: {}}, result_files=["file-results"])
    add_metrics_event(world, "job", 10, valid_loss=8.0)
    add_metrics_event(world, "job", 20, valid_loss=0.4)
    add_metrics_event(world, "job", 20, train_loss=8.0)
    database.sync()
    assert history(database, "job", *EVALUATION) == [
        (10, "valid_loss", 0.5, "checkpoint", 3, False),
        (20, "valid_loss", 0.4, "event", 2, False),
        (30, "valid_loss", 0.3, "result_file", 1, True),
    ]


def test_where_no_metric_is_complete_the_first_that_any_has_counts(world: ScriptedWorld, database: Database) -> None:
    train(world, "gaps", {1: {"train_loss": 0.1}, 2: {"valid_loss": 0.5}, 3: {"full_valid_loss": 0.9}})
    train(world, "train", {1: {"train_loss": 0.3}, 2: {"train_loss": 0.2, "valid_loss": 0.1}})
    database.sync()
    assert history(database, "gaps", *EVALUATION) == [
        (1, "full_valid_loss", None, None, None, False),
        (2, "full_valid_loss", None, None, None, False),
        (3, "full_valid_loss", 0.9, "checkpoint", 1, True),
    ]
    assert best(database, "gaps")["reason"] == (
        "Lowest full_valid_loss of 1 checkpoint (0.9000 at step 3), 2 without that metric left out; "
        "it is the final one."
    )
    # train_loss is worse than valid_loss, but all have it
    assert history(database, "train", *EVALUATION) == [
        (1, "train_loss", 0.3, "checkpoint", 2, False),
        (2, "train_loss", 0.2, "checkpoint", 1, True),
    ]


def test_no_number_no_rank(world: ScriptedWorld, database: Database) -> None:
    world.add_job(id="empty", created_at=NOW - DAY)
    train(world, "bare", {1: {}, 2: {}}, model_at=1)
    train(world, "diverged", {1: {"train_loss": 0.9}, 2: {"train_loss": NAN}, 3: {"train_loss": float("inf")}})
    train(world, "all-nan", {1: {"train_loss": NAN}, 2: {"train_loss": NAN}})
    add_metrics_event(world, "diverged", 2, train_loss=NAN)
    add_metrics_event(world, "diverged", NAN, train_loss=0.1)
    database.sync()
    assert history(database, "diverged", *EVALUATION, "change_from_previous", "train_ratio") == [
        (1, "train_loss", 0.9, "checkpoint", 1, True, None, None),
        (2, "train_loss", None, None, None, False, None, None),
        (3, "train_loss", None, None, None, False, None, None),
    ]
    told = best(database, "diverged")
    assert (told["checkpoint_id"], told["final_checkpoint_id"], told["cost_of_final"]) == (
        "diverged-1",
        "diverged-3",
        None,
    )
    assert told["reason"] == (
        "Lowest train_loss of 1 checkpoint (0.9000 at step 1), 2 without that metric left out; "
        "the final one has no such value."
    )
    for job in ("bare", "all-nan"):
        assert {row[1:] for row in history(database, job, *EVALUATION)} == {(None, None, None, None, False)}
        told = best(database, job)
        assert (told["evaluation_value"], told["cost_of_final"], told["higher_is_better"]) == (None, None, None)
        assert told["checkpoint_id"] == told["final_checkpoint_id"] == ("bare-1" if job == "bare" else "all-nan-2")
        assert told["reason"] == "No loss or reward to compare by: this is the final checkpoint."
    assert database.rows("SELECT count(*) FROM best_checkpoints WHERE fine_tuning_job_id = 'empty'") == [(0,)]


def test_the_only_checkpoint_is_the_best_and_the_final_one(world: ScriptedWorld, database: Database) -> None:
    train(world, "job", {7: {"train_loss": 7.6e-07}}, model_at=7)
    database.sync()
    told = best(database, "job")
    assert (told["checkpoint_id"], told["final_checkpoint_id"], told["cost_of_final"]) == ("job-7", "job-7", 0)
    assert told["reason"] == "The only checkpoint (train_loss 0.00000076 at step 7)."


def test_ties_go_to_the_earlier_step(world: ScriptedWorld, database: Database) -> None:
    train(world, "loss", {30: {"valid_loss": 0.2}, 10: {"valid_loss": 0.3}, 20: {"valid_loss": 0.2}}, model_at=30)
    train(
        world,
        "reward",
        {step: {"valid_mean_reward": value} for step, value in {5: 0.1, 10: 0.6, 15: 0.6}.items()},
        method={"type": "reinforcement"},
    )
    database.sync()
    assert [row[1] for row in history(database, "loss", "rank_in_job")] == [3, 1, 2]
    assert [row[1] for row in history(database, "reward", "rank_in_job")] == [3, 1, 2]
    told = best(database, "loss")
    assert (told["checkpoint_id"], told["cost_of_final"]) == ("loss-20", 0)
    assert told["reason"] == (
        "Lowest valid_loss of 3 checkpoints (0.2000 at step 20); the final one is as good. "
        "Each is of one validation batch, and noisy."
    )


def test_zero_and_tiny_losses(world: ScriptedWorld, database: Database) -> None:
    pairs = {
        "zero": (0.0, 0.5, None, "severe"),
        "zero-both": (0.0, 0.0, None, "healthy"),
        "tiny": (7.6e-07, 0.5, 0.5 / 7.6e-07, "severe"),
        "tiny-both": (7.6e-07, 0.04, 0.04 / 7.6e-07, "healthy"),
        "at-the-floor": (0.01, 0.05, 5.0, "severe"),
        "below-1.2": (1.0, 1.1875, 1.1875, "healthy"),
        "at-1.5": (1.0, 1.5, 1.5, "overfitting"),
        "below-1.5": (1.0, 1.4375, 1.4375, "watch"),
        "below-2": (1.0, 1.9375, 1.9375, "overfitting"),
        "at-2": (1.0, 2.0, 2.0, "severe"),
        "no-train": (None, 0.5, None, None),
        "no-train-low": (None, 0.01, None, "healthy"),
        "no-valid": (0.5, None, None, None),
        "nan-valid": (0.5, NAN, None, None),
    }
    for job, (train_loss, valid_loss, _, _) in pairs.items():
        given = {"train_loss": train_loss, "valid_loss": valid_loss}
        train(world, job, {1: {name: value for name, value in given.items() if value is not None}})
    database.sync()
    rows = database.rows("SELECT fine_tuning_job_id, train_ratio, overfitting_band FROM checkpoint_history")
    assert {job: (ratio, band) for job, ratio, band in rows} == {
        job: (None if ratio is None else pytest.approx(ratio), band) for job, (_, _, ratio, band) in pairs.items()
    }
    assert dict(database.rows("SELECT fine_tuning_job_id, overfitting_band FROM job_overview")) == {
        job: band for job, (*_, band) in pairs.items()
    }


def test_in_reinforcement_runs_higher_is_better(world: ScriptedWorld, database: Database) -> None:
    rewards = {
        10: {"train_mean_reward": 0.50, "full_valid_mean_reward": 0.40},
        20: {"train_mean_reward": 0.80, "full_valid_mean_reward": 0.65},
        30: {"train_mean_reward": 0.90, "full_valid_mean_reward": 0.60},
    }
    train(world, "said", rewards, model_at=30, method={"type": "reinforcement"})
    unsaid = {"method": None, "hyperparameters": None}
    train(world, "guessed", {1: {"train_mean_reward": 0.2}, 2: {"train_mean_reward": 0.1}}, **unsaid)
    train(world, "both", {1: {"train_mean_reward": 0.2, "train_loss": 0.4}}, **unsaid)
    train(world, "says-but-has-losses", {1: {"train_loss": 0.4}}, method={"type": "reinforcement"})
    world.add_file("file-rewards", b"step,valid_mean_reward\n1,1\n2,0.5\n")
    train(world, "from-file", {1: {}, 2: {}}, method={"type": "reinforcement"}, result_files=["file-rewards"])
    train(world, "borrowed", {1: {}, 2: {}}, method={"type": "reinforcement"})
    for step, reward in {1: 0.3, 2: 0.4}.items():
        add_metrics_event(world, "borrowed", step, train_mean_reward=reward)
    database.sync()
    assert history(database, "said", *EVALUATION, "method", "overfitting_band") == [
        (10, "full_valid_mean_reward", 0.40, "checkpoint", 3, False, "reinforcement", None),
        (20, "full_valid_mean_reward", 0.65, "checkpoint", 1, True, "reinforcement", None),
        (30, "full_valid_mean_reward", 0.60, "checkpoint", 2, False, "reinforcement", None),
    ]
    assert [row[1] for row in history(database, "said", "train_gap")] == [
        pytest.approx(gap) for gap in (0.1, 0.15, 0.3)
    ]
    told = best(database, "said")
    assert (told["cost_of_final"], told["higher_is_better"]) == (pytest.approx(0.05), True)
    assert told["reason"] == (
        "Highest full_valid_mean_reward of 3 checkpoints (0.6500 at step 20); "
        "deploying the final one would cost 0.0500."
    )
    assert history(database, "guessed", *EVALUATION, "method") == [
        (1, "train_mean_reward", 0.2, "checkpoint", 1, True, "reinforcement"),
        (2, "train_mean_reward", 0.1, "checkpoint", 2, False, "reinforcement"),
    ]
    assert history(database, "both", "evaluation_metric", "method") == [(1, "train_loss", None)]
    assert history(database, "says-but-has-losses", *EVALUATION) == [(1, None, None, None, None, False)]
    assert history(database, "from-file", *EVALUATION) == [
        (1, "valid_mean_reward", 1.0, "result_file", 1, True),
        (2, "valid_mean_reward", 0.5, "result_file", 2, False),
    ]
    assert history(database, "borrowed", *EVALUATION) == [
        (1, "train_mean_reward", 0.3, "event", 2, False),
        (2, "train_mean_reward", 0.4, "event", 1, True),
    ]


def test_ten_epochs_oldest_first_without_a_models_name(database_of_nebius: Database) -> None:
    """Nebius keeps every epoch, lists the oldest first, and leaves `fine_tuned_model` out. Real losses."""
    database = database_of_nebius
    rows = history(database, "job", "rank_in_job", "is_best", "is_final", "overfitting_band", "is_retained")
    assert [row[0] for row in rows if row[2]] == [80]
    assert [row[0] for row in rows if row[3]] == [100]
    assert all(row[5] for row in rows)
    assert sorted(row[1] for row in rows) == list(range(1, 11))
    assert [row[4] for row in rows] == ["healthy"] * 9 + ["watch"]
    told = best(database, "job")
    assert (told["checkpoint_id"], told["final_checkpoint_id"]) == ("job-80", "job-100")
    assert told["cost_of_final"] == pytest.approx(0.228618 - 0.199091)
    assert told["reason"].startswith("Lowest valid_loss of 10 checkpoints (0.1991 at step 80); deploying")


@pytest.fixture
def database_of_nebius(tmp_path: Any, clock: Clock) -> Any:
    world = ScriptedWorld("oldest_first")
    metrics = {10 * (n + 1): {"train_loss": t, "valid_loss": v} for n, (t, v) in enumerate(NEBIUS_LOSSES)}
    train(world, "job", metrics, organization_id="")
    del world.jobs()[0]["fine_tuned_model"]
    with Simulator(world, clock=clock, profile="nebius") as host:
        database = Database(tmp_path / "nebius.duckdb", host)
        database.sync()
        yield database


def test_the_best_of_those_that_the_host_keeps(world: ScriptedWorld, clock: Clock, database: Database) -> None:
    finished = {"finished_at": NOW - 60}  # within the grace period: read again
    losses = {10: 0.4, 20: 0.3, 30: 0.5}
    for job in ("drops-best", "drops-worst", "drops-all", "drops-final", "keeps-unmeasured"):
        checkpoints: dict[int, dict[str, Any]] = {step: {"valid_loss": loss} for step, loss in losses.items()}
        if job == "keeps-unmeasured":
            checkpoints[10] = checkpoints[30] = {}
        train(world, job, checkpoints, model_at=30, **finished)
    train(world, "final-was-best", {10: {"valid_loss": 0.4}, 20: {"valid_loss": 0.2}}, model_at=20, **finished)
    database.sync()
    assert best(database, "drops-best")["checkpoint_id"] == "drops-best-20"
    assert {row[0] for row in database.rows("SELECT is_retained FROM checkpoint_history")} == {True}

    for dropped in ("drops-best-20", "drops-worst-30", "drops-final-30", "keeps-unmeasured-20", "final-was-best-20"):
        world.remove_checkpoint(dropped)
    for step in losses:
        world.remove_checkpoint(f"drops-all-{step}")
    clock.advance(60)
    database.sync()
    assert history(database, "drops-best", "rank_in_job", "is_best", "is_retained") == [
        (10, 2, True, True),
        (20, 1, False, False),
        (30, 3, False, True),
    ]
    told = best(database, "drops-best")
    assert (told["checkpoint_id"], told["is_retained"], told["checkpoints"]) == ("drops-best-10", True, 3)
    assert told["reason"] == (
        "Lowest valid_loss of 2 checkpoints that the host keeps (0.4000 at step 10); "
        "deploying the final one would cost 0.1000. "
        "drops-best-20 was better (0.3000 at step 20), but the host has dropped it. "
        "Each is of one validation batch, and noisy."
    )
    told = best(database, "drops-worst")
    assert told["checkpoint_id"] == "drops-worst-20"
    assert "dropped" not in told["reason"]
    told = best(database, "drops-all")
    assert (told["checkpoint_id"], told["is_retained"]) == ("drops-all-20", False)
    assert told["reason"] == (
        "Lowest valid_loss of 3 checkpoints (0.3000 at step 20); deploying the final one would cost 0.2000. "
        "The host keeps none of them any more. Each is of one validation batch, and noisy."
    )
    assert best(database, "drops-final")["final_checkpoint_id"] == "drops-final-30"
    told = best(database, "keeps-unmeasured")
    assert (told["checkpoint_id"], told["evaluation_value"]) == ("keeps-unmeasured-30", None)
    assert told["reason"] == (
        "No checkpoint that the host keeps has a valid_loss: this is the final checkpoint. "
        "keeps-unmeasured-20 was better (0.3000 at step 20), but the host has dropped it."
    )
    assert {row[1] for row in history(database, "keeps-unmeasured", "is_best")} == {False}
    told = best(database, "final-was-best")
    assert (told["checkpoint_id"], told["cost_of_final"]) == ("final-was-best-10", 0)
    assert told["reason"] == (
        "Lowest valid_loss of 1 checkpoint that the host keeps (0.4000 at step 10). "
        "final-was-best-20 was better (0.2000 at step 20), but the host has dropped it."
    )


def test_a_step_that_was_logged_twice_counts_as_the_worse(world: ScriptedWorld, database: Database) -> None:
    train(world, "job", {1: {}, 2: {}})
    for loss in (0.3, 0.5, NAN):
        add_metrics_event(world, "job", 1, valid_loss=loss)
    add_metrics_event(world, "job", 2, valid_loss=0.4)
    database.sync()
    assert history(database, "job", "evaluation_value", "rank_in_job") == [(1, 0.5, 2), (2, 0.4, 1)]


@pytest.mark.thorough
def test_two_accounts_with_equal_ids_are_told_apart(world: ScriptedWorld, clock: Clock, database: Database) -> None:
    train(world, "job", {1: {"train_loss": 0.5}, 2: {"train_loss": 0.4}}, user_provided_suffix="first")
    add_metrics_event(world, "job", 1, valid_loss=0.1)
    add_metrics_event(world, "job", 2, valid_loss=0.2)
    database.sync(account="first")
    other = ScriptedWorld()
    train(other, "job", {1: {"train_loss": 0.2}, 2: {"train_loss": 0.3}, 3: {}}, user_provided_suffix="second")
    with Simulator(other, clock=clock) as host:
        Database(database.path, host).sync(account="second")
    columns = "account, step_number, suffix, evaluation_metric, evaluation_value, rank_in_job, is_final"
    assert database.rows(f"SELECT {columns} FROM checkpoint_history ORDER BY account, step_number") == [
        ("first", 1, "first", "valid_loss", 0.1, 1, False),
        ("first", 2, "first", "valid_loss", 0.2, 2, True),
        ("second", 1, "second", "train_loss", 0.2, 1, False),
        ("second", 2, "second", "train_loss", 0.3, 2, False),
        ("second", 3, "second", "train_loss", None, None, True),
    ]
    rows = database.rows("SELECT account, checkpoint_id, checkpoints FROM best_checkpoints ORDER BY account")
    assert rows == [("first", "job-1", 2), ("second", "job-1", 3)]
    rows = database.rows("SELECT account, checkpoints, best_evaluation_value FROM job_overview ORDER BY account")
    assert rows == [("first", 2, 0.1), ("second", 3, 0.2)]


def test_what_is_known_of_the_job_stands_beside_each_checkpoint(world: ScriptedWorld, database: Database) -> None:
    names: dict[str, tuple[dict[str, Any], str | None]] = {
        "asked": ({"user_provided_suffix": "asked-for"}, "asked-for"),
        "elsewhere": ({"suffix": "azure-suffix", "user_provided_suffix": ""}, "azure-suffix"),
        "named": ({"fine_tuned_model": "ft:gpt-4o-mini:org:from-name:abc"}, "from-name"),
        "unnamed": ({"fine_tuned_model": "ft:gpt-4o-mini:org::abc"}, None),
        "short": ({"fine_tuned_model": "ft:gpt-4o-mini:org:abc"}, None),
        "azure": ({"fine_tuned_model": "gpt-4o-mini.ft-1234"}, None),
        "dpo": ({"method": {"type": "dpo"}, "fine_tuned_model": None}, None),
    }
    for job, (fields, _) in names.items():
        train(world, job, {3600: {"train_loss": 0.5}}, **fields)
    world.add_job(id="later", created_at=NOW - HOUR, method=None, status="running")
    database.sync()
    columns = "fine_tuning_job_id, suffix, method, base_model, job_status, seconds_since_job_start"
    assert sorted(database.rows(f"SELECT {columns} FROM checkpoint_history")) == sorted(
        (job, suffix, "dpo" if job == "dpo" else "supervised", "gpt-4o-mini-2024-07-18", "succeeded", 3600)
        for job, (_, suffix) in names.items()
    )
    rows = database.rows("SELECT fine_tuning_job_id, suffix FROM job_overview WHERE checkpoints > 0")
    assert dict(rows) == {job: suffix for job, (_, suffix) in names.items()}
