"""Which checkpoint is the best, and why: worlds small enough to reckon by hand."""

from __future__ import annotations

import itertools
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
    columns += ", cost_of_final, is_retained, reason, checkpoints, higher_is_better, advice, checkpoint_to_deploy"
    columns += ", evidence, noise, is_clear, lowest_value_ever, lowest_step_ever, suggested_n_epochs, job_status"
    columns += ", generalization_loss, final_generalization_loss, listed_at"
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
    ratios = history(
        database, "job", "train_loss_mean", "train_gap", "train_ratio", "generalization_loss", "change_from_previous"
    )
    assert ratios == [
        (30, 0.7, pytest.approx(0.05), pytest.approx(0.75 / 0.7), pytest.approx(74), None),
        (60, 0.5, pytest.approx(0.1), pytest.approx(1.2), pytest.approx(59), pytest.approx(-0.15)),
        (90, 0.3, pytest.approx(0.4), pytest.approx(0.7 / 0.3), pytest.approx(69), pytest.approx(0.1)),
    ]
    row = best(database, "job")
    assert (row["checkpoint_id"], row["evaluation_metric"], row["evaluation_value"]) == (
        "job-60",
        "full_valid_loss",
        0.6,
    )
    assert (row["final_checkpoint_id"], row["final_evaluation_value"]) == ("job-90", 0.7)
    assert (row["cost_of_final"], row["is_retained"], row["checkpoints"]) == (pytest.approx(0.1), True, 3)
    assert row["higher_is_better"] is False
    # The step without a checkpoint counts for the curve: it was better than all.
    assert (row["lowest_value_ever"], row["lowest_step_ever"], row["advice"]) == (0.01, 61, "keep_final")


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_where_no_metric_is_complete_the_first_that_any_has_counts(world: ScriptedWorld, database: Database) -> None:
    train(world, "gaps", {1: {"train_loss": 0.1}, 2: {"valid_loss": 0.5}, 3: {"full_valid_loss": 0.9}})
    train(world, "train", {1: {"train_loss": 0.3}, 2: {"train_loss": 0.2, "valid_loss": 0.1}})
    database.sync()
    assert history(database, "gaps", *EVALUATION) == [
        (1, "full_valid_loss", None, None, None, False),
        (2, "full_valid_loss", None, None, None, False),
        (3, "full_valid_loss", 0.9, "checkpoint", 1, True),
    ]
    assert best(database, "gaps")["advice"] == "keep_final"
    # All have a train_loss, but a model that memorises looks best by it.
    assert history(database, "train", *EVALUATION) == [
        (1, "valid_loss", None, None, None, False),
        (2, "valid_loss", 0.1, "checkpoint", 1, True),
    ]


@pytest.mark.thorough
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
    assert (told["advice"], told["checkpoint_to_deploy"]) == ("cannot_tell", None)
    for job in ("bare", "all-nan"):
        assert {row[1:] for row in history(database, job, *EVALUATION)} == {(None, None, None, None, False)}
        told = best(database, job)
        assert (told["evaluation_value"], told["cost_of_final"], told["higher_is_better"]) == (None, None, None)
        assert told["checkpoint_id"] == told["final_checkpoint_id"] == ("bare-1" if job == "bare" else "all-nan-2")
        assert (told["advice"], told["evidence"], told["checkpoint_to_deploy"]) == ("cannot_tell", None, None)
    assert database.rows("SELECT count(*) FROM best_checkpoints WHERE fine_tuning_job_id = 'empty'") == [(0,)]


@pytest.mark.thorough
def test_the_only_checkpoint_is_the_best_and_the_final_one(world: ScriptedWorld, database: Database) -> None:
    train(world, "job", {7: {"valid_loss": 7.6e-07}}, model_at=7)
    database.sync()
    told = best(database, "job")
    assert (told["checkpoint_id"], told["final_checkpoint_id"], told["cost_of_final"]) == ("job-7", "job-7", 0)
    assert told["advice"] == "keep_final"
    assert "0.00000076 at step 7" in told["reason"]


@pytest.mark.thorough
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
    assert (told["advice"], told["checkpoint_to_deploy"]) == ("keep_final", "ft:gpt-4.1-mini:example-org::loss")


@pytest.mark.thorough
def test_zero_and_tiny_losses(world: ScriptedWorld, database: Database) -> None:
    pairs = {
        "zero": (0.0, 0.5, None),
        "zero-both": (0.0, 0.0, None),
        "tiny": (7.6e-07, 0.5, 0.5 / 7.6e-07),
        "no-train": (None, 0.5, None),
        "no-valid": (0.5, None, None),
        "nan-valid": (0.5, NAN, None),
        "not-measured": (-1.0, 0.5, None),
    }
    for job, (train_loss, valid_loss, _) in pairs.items():
        given = {"train_loss": train_loss, "valid_loss": valid_loss}
        train(world, job, {1: {name: value for name, value in given.items() if value is not None}})
    train(world, "preferences", {1: {"train_loss": 0.5, "valid_loss": 0.6}}, method={"type": "dpo"})
    database.sync()
    rows = dict(database.rows("SELECT fine_tuning_job_id, train_ratio FROM checkpoint_history"))
    assert rows.pop("preferences") is None
    assert rows == {job: None if ratio is None else pytest.approx(ratio) for job, (_, _, ratio) in pairs.items()}


@pytest.mark.thorough
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
    assert history(database, "said", *EVALUATION, "method", "generalization_loss") == [
        (10, "full_valid_mean_reward", 0.40, "checkpoint", 3, False, "reinforcement", None),
        (20, "full_valid_mean_reward", 0.65, "checkpoint", 1, True, "reinforcement", None),
        (30, "full_valid_mean_reward", 0.60, "checkpoint", 2, False, "reinforcement", None),
    ]
    assert [row[1] for row in history(database, "said", "train_gap")] == [
        pytest.approx(gap) for gap in (0.1, 0.15, 0.3)
    ]
    told = best(database, "said")
    assert (told["cost_of_final"], told["higher_is_better"]) == (pytest.approx(0.05), True)
    assert (told["advice"], told["lowest_value_ever"], told["lowest_step_ever"]) == ("keep_final", 0.65, 20)
    assert "reward in training is 0.3000 higher" in told["reason"]
    assert history(database, "guessed", *EVALUATION, "method") == [
        (1, "train_mean_reward", 0.2, "checkpoint", 1, True, "reinforcement"),
        (2, "train_mean_reward", 0.1, "checkpoint", 2, False, "reinforcement"),
    ]
    assert history(database, "both", "evaluation_metric", "method") == [(1, "train_mean_reward", "reinforcement")]
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
    rows = history(database, "job", "rank_in_job", "is_best", "is_final", "is_retained")
    assert [row[0] for row in rows if row[2]] == [80]
    assert [row[0] for row in rows if row[3]] == [100]
    assert all(row[4] for row in rows)
    assert sorted(row[1] for row in rows) == list(range(1, 11))
    told = best(database, "job")
    assert (told["checkpoint_id"], told["final_checkpoint_id"]) == ("job-80", "job-100")
    assert told["cost_of_final"] == pytest.approx(0.228618 - 0.199091)
    jumps = [b[1] - a[1] for a, b in itertools.pairwise(NEBIUS_LOSSES[4:])]
    assert told["noise"] == pytest.approx((sum(jump**2 for jump in jumps) / len(jumps) / 2) ** 0.5)
    assert (told["evidence"], told["is_clear"], told["advice"]) == ("validation_batches", True, "keep_final")


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


@pytest.mark.thorough
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
    assert (told["lowest_value_ever"], told["lowest_step_ever"]) == (0.3, 20)
    assert told["listed_at"] is not None
    told = best(database, "drops-worst")
    assert told["checkpoint_id"] == "drops-worst-20"
    told = best(database, "drops-all")
    assert (told["checkpoint_id"], told["is_retained"]) == ("drops-all-20", False)
    assert (told["advice"], told["checkpoint_to_deploy"]) == ("retrain", None)
    assert "keeps none" in told["reason"]
    assert best(database, "drops-final")["final_checkpoint_id"] == "drops-final-30"
    told = best(database, "keeps-unmeasured")
    assert (told["checkpoint_id"], told["evaluation_value"]) == ("keeps-unmeasured-30", None)
    assert told["advice"] == "cannot_tell"
    assert {row[1] for row in history(database, "keeps-unmeasured", "is_best")} == {False}
    told = best(database, "final-was-best")
    assert (told["checkpoint_id"], told["cost_of_final"]) == ("final-was-best-10", 0)
    assert (told["advice"], told["checkpoint_to_deploy"]) == ("deploy", told_name("final-was-best", 10))


def told_name(job: str, step: int) -> str:
    """The name that `train` gives a checkpoint that is not the final one."""
    return f"ft:gpt-4.1-mini:example-org::{job}:ckpt-step-{step}"


@pytest.mark.thorough
def test_of_a_step_that_was_logged_twice_the_latest_measurement_counts(
    world: ScriptedWorld, database: Database
) -> None:
    train(world, "job", {1: {}, 2: {}})
    for at, metrics in enumerate(({"valid_loss": 0.5}, {"valid_loss": 0.3}, {"train_loss": 0.9, "valid_loss": -1})):
        world.add_event("job", created_at=NOW - 100 + at, type="metrics", data={"step": 1, **metrics})
    world.add_event("job", created_at=NOW - 200, type="metrics", data={"step": 1, "valid_loss": 0.1})
    add_metrics_event(world, "job", 2, valid_loss=0.4)
    database.sync()
    assert history(database, "job", "evaluation_value", "rank_in_job") == [(1, 0.3, 1), (2, 0.4, 2)]
    assert database.rows("SELECT step, valid_loss, train_loss FROM run_curves ORDER BY step") == [
        (1, 0.3, 0.9),
        (2, 0.4, None),
    ]


@pytest.mark.thorough
def test_a_loss_or_an_accuracy_below_zero_is_not_a_measurement(world: ScriptedWorld, database: Database) -> None:
    world.add_file("file-1", b"step,train_loss,valid_loss,valid_mean_token_accuracy\n1,0.9,-1,-1\n2,0.8,0.7,0.5\n")
    train(world, "in-file", {1: {}, 2: {}}, result_files=["file-1"])
    train(world, "in-checkpoint", {1: {"valid_loss": -1, "train_loss": 0.5}, 2: {"valid_loss": 0.6}})
    train(world, "in-event", {1: {}, 2: {}})
    add_metrics_event(world, "in-event", 1, full_valid_loss=-1, train_mean_token_accuracy=-1, train_mean_reward=-1)
    add_metrics_event(world, "in-event", 2, full_valid_loss=0.5)
    train(world, "reward", {1: {"valid_mean_reward": -0.5}, 2: {"valid_mean_reward": -0.25}})
    database.sync()
    for job, value in {"in-file": 0.7, "in-checkpoint": 0.6, "reward": -0.25}.items():
        row = best(database, job)
        assert (row["checkpoint_id"], row["evaluation_value"]) == (f"{job}-2", value)
        assert row["lowest_value_ever"] == value
    assert history(database, "in-checkpoint", "valid_loss") == [(1, None), (2, 0.6)]
    below = "SELECT DISTINCT metric FROM training_curves WHERE value < 0 ORDER BY metric"
    assert database.rows(below) == [("train_mean_reward",), ("valid_mean_reward",)]
    assert database.rows("SELECT count(*) FROM run_curves WHERE valid_loss < 0 OR full_valid_loss < 0") == [(0,)]
    assert database.rows("SELECT valid_loss FROM result_metrics WHERE step = 1") == [(-1.0,)]  # the raw row stays


@pytest.mark.first_only
@pytest.mark.parametrize("value", [NAN, float("inf"), float("-inf")])
def test_a_checkpoint_that_diverged_is_never_advised(world: ScriptedWorld, database: Database, value: float) -> None:
    losses = {10: 0.5, 20: 0.4, 30: value}
    train(world, "job", {step: {"valid_loss": loss} for step, loss in losses.items()}, model_at=30)
    for step in (10, 20, 30):
        add_metrics_event(world, "job", step, valid_loss=0.1, train_loss=0.2)
    database.sync()
    assert history(database, "job", "is_diverged", "evaluation_value", "rank_in_job") == [
        (10, False, 0.5, 2),
        (20, False, 0.4, 1),
        (30, True, None, None),
    ]
    row = best(database, "job")
    assert (row["checkpoint_id"], row["advice"], row["checkpoint_to_deploy"]) == (
        "job-20",
        "deploy",
        told_name("job", 20),
    )
    assert "diverged" in row["reason"]


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("dated", [True, False])
def test_of_two_result_files_the_newest_counts(world: ScriptedWorld, database: Database, dated: bool) -> None:
    older = {"created_at": NOW - 500} if dated else {}
    world.add_file("file-z", b"step,valid_loss\n1,0.9\n2,0.1\n3,0.3\n", **older)
    world.add_file("file-a", b"step,valid_loss\n1,0.5\n2,0.6\n3,\n", **older and {"created_at": NOW - 400})
    train(world, "job", {1: {}, 2: {}, 3: {}}, result_files=["file-z", "file-a"])
    database.sync()
    assert history(database, "job", "evaluation_value") == [(1, 0.5), (2, 0.6), (3, 0.3)]


@pytest.mark.thorough
def test_an_accuracy_that_a_checkpoint_lacks_is_borrowed(world: ScriptedWorld, database: Database) -> None:
    train(world, "job", {1: {"valid_mean_token_accuracy": 0.5}, 2: {"full_valid_mean_token_accuracy": 0.9}})
    add_metrics_event(world, "job", 1, full_valid_mean_token_accuracy=0.6, valid_mean_token_accuracy=0.1)
    add_metrics_event(world, "job", 2, full_valid_mean_token_accuracy=0.1)
    database.sync()
    columns = ("valid_mean_token_accuracy", "full_valid_mean_token_accuracy")
    assert history(database, "job", *columns) == [(1, 0.5, 0.6), (2, None, 0.9)]


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("running", "not_finished"),
        ("paused", "not_finished"),
        ("failed", "not_finished"),
        ("cancelled", "not_finished"),
        ("canceled", "not_finished"),
        ("succeeded", "keep_final"),
    ],
)
def test_the_advice_knows_whether_the_job_has_finished(
    world: ScriptedWorld, database: Database, status: str, advice: str
) -> None:
    train(world, "job", {1: {"valid_loss": 0.6}, 2: {"valid_loss": 0.5}}, status=status)
    database.sync()
    row = best(database, "job")
    assert (row["job_status"], row["advice"], row["checkpoint_id"]) == (status, advice, "job-2")
    assert row["checkpoint_to_deploy"] == told_name("job", 2)
    assert ("still running" in row["reason"]) == (status in ("running", "paused"))


def curve_of(world: ScriptedWorld, losses: dict[int, float], metric: str = "full_valid_loss", **fields: Any) -> None:
    """Add the job `job` with events for all losses, and checkpoints for the last three steps."""
    train(world, "job", {step: {} for step in sorted(losses)[-3:]}, model_at=max(losses), **fields)
    for step, loss in losses.items():
        world.add_event(
            "job", type="metrics", data={"step": step, "total_steps": max(losses), "train_loss": 0.1, metric: loss}
        )


def test_a_clearly_better_checkpoint_is_deployed(world: ScriptedWorld, database: Database) -> None:
    curve_of(world, {10: 0.8, 20: 0.6, 30: 0.5, 40: 0.51, 50: 0.5, 60: 0.51, 70: 0.52, 80: 0.5, 90: 0.6, 100: 0.7})
    database.sync()
    row = best(database, "job")
    assert (row["checkpoint_id"], row["advice"], row["is_clear"]) == ("job-80", "deploy", True)
    assert (row["evidence"], row["checkpoint_to_deploy"]) == ("full_validation", told_name("job", 80))
    jumps = (0.01, 0.01, -0.02, 0.1, 0.1)
    assert row["noise"] == pytest.approx((sum(jump**2 for jump in jumps) / 5 / 2) ** 0.5)
    assert row["final_generalization_loss"] == pytest.approx(0.7 / 0.5 - 1)


@pytest.mark.thorough
def test_without_a_clear_difference_the_final_checkpoint_is_kept(world: ScriptedWorld, database: Database) -> None:
    curve_of(world, {10: 0.8, 20: 0.6, 30: 0.5, 40: 0.52, 50: 0.48, 60: 0.51})
    database.sync()
    row = best(database, "job")
    assert (row["checkpoint_id"], row["advice"], row["is_clear"]) == ("job-50", "keep_final", False)
    assert row["checkpoint_to_deploy"] == "ft:gpt-4.1-mini:example-org::job"


def test_where_the_host_dropped_the_best_epoch_training_again_is_advised(
    world: ScriptedWorld, database: Database
) -> None:
    losses = {10: 1.6, 20: 1.4, 30: 1.3, 40: 1.4, 50: 1.42, 60: 1.7, 70: 1.89, 80: 2.13, 90: 2.25, 100: 2.28}
    curve_of(world, losses, hyperparameters={"n_epochs": 10, "batch_size": 1, "learning_rate_multiplier": "auto"})
    database.sync()
    row = best(database, "job")
    assert (row["advice"], row["lowest_value_ever"], row["lowest_step_ever"]) == ("retrain", 1.3, 30)
    assert row["suggested_n_epochs"] == 3
    assert "n_epochs 3" in row["reason"]
    assert row["generalization_loss"] == pytest.approx(2.13 / 1.3 - 1)


@pytest.mark.thorough
def test_of_training_alone_no_cost_is_named(world: ScriptedWorld, database: Database) -> None:
    train(world, "job", {1: {"train_loss": 0.5}, 2: {"train_loss": 1e-06}, 3: {"train_loss": 0.4}}, model_at=3)
    database.sync()
    row = best(database, "job")
    assert (row["checkpoint_id"], row["evidence"], row["advice"]) == ("job-2", "training_only", "cannot_tell")
    assert (row["cost_of_final"], row["is_clear"], row["checkpoint_to_deploy"]) == (None, None, None)


@pytest.mark.thorough
def test_the_noise_of_a_reward_comes_from_the_number_of_samples(world: ScriptedWorld, database: Database) -> None:
    rewards = {10: 0.2, 20: 0.5, 30: 0.6, 40: 0.4}
    train(
        world,
        "job",
        {step: {"full_valid_mean_reward": reward} for step, reward in rewards.items()},
        method={"type": "reinforcement"},
    )
    usage = {"samples": {"train_reasoning_tokens_count": 99.0, "valid_reasoning_tokens_count": 38978.0}}
    add_metrics_event(world, "job", 40, valid_reasoning_tokens_mean=1948.9, usage=usage)
    database.sync()
    row = best(database, "job")
    assert row["noise"] == pytest.approx((0.5 * 0.5 / 20) ** 0.5)
    assert (row["is_clear"], row["advice"]) == (True, "deploy")


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


@pytest.mark.thorough
def test_what_is_known_of_the_job_stands_beside_each_checkpoint(world: ScriptedWorld, database: Database) -> None:
    names: dict[str, tuple[dict[str, Any], str | None]] = {
        "asked": ({"user_provided_suffix": "asked-for"}, "asked-for"),
        "elsewhere": ({"suffix": "azure-suffix", "user_provided_suffix": ""}, "azure-suffix"),
        "named": ({"fine_tuned_model": "ft:gpt-4o-mini:org:from-name:abc"}, "from-name"),
        "unnamed": ({"fine_tuned_model": "ft:gpt-4o-mini:org::abc"}, None),
        "short": ({"fine_tuned_model": "ft:gpt-4o-mini:org:abc"}, None),
        "azure": ({"fine_tuned_model": "gpt-4o-mini-2024-07-18.ft-41e7d3a9b59541148bc5514c3b74e616"}, None),
        "azure-named": (
            {"fine_tuned_model": "gpt-4.1-mini.ft-41e7d3a9b59541148bc5514c3b74e616-tone-of-voice"},
            "tone-of-voice",
        ),
        "azure-like": ({"fine_tuned_model": "gpt-4.1-mini.ft-1234-tone"}, None),
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
