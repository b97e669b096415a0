"""What a run was made with, what it cost, and how it compares with others."""

from __future__ import annotations

import pytest

from fine_tuning_simulator import ScriptedWorld
from harness import DAY, HOUR, NOW, Database


@pytest.mark.thorough
def test_a_job_has_its_hyperparameters_as_numbers_and_its_times(world: ScriptedWorld, database: Database) -> None:
    world.add_job(
        id="job",
        created_at=NOW - DAY,
        finished_at=NOW - DAY + HOUR,
        trained_tokens=6720,
        seed=7,
        hyperparameters={"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 1.8},
        metadata={"team": "support"},
    )
    for at, message in ((600, "Fine-tuning job started"), (3000, "Training tokens billed: 5,000")):
        world.add_event("job", created_at=NOW - DAY + at, message=message, type="message", data={})
    world.add_event("job", created_at=NOW - DAY + 2400, type="metrics", data={"step": 9, "train_loss": 0.5})
    world.add_event("job", created_at=NOW - DAY + 2500, level="error", message="One example was skipped", data={})
    world.add_job(id="backwards", created_at=NOW - HOUR, finished_at=NOW - DAY)
    database.sync()
    columns = "n_epochs, batch_size, learning_rate_multiplier, seed, trained_tokens, billed_tokens, queue_seconds, "
    columns += "training_seconds, duration_seconds, last_error, metadata ->> 'team'"
    assert database.rows(f"SELECT {columns} FROM job_overview WHERE fine_tuning_job_id = 'job'") == [
        (3.0, None, 1.8, 7, 6720, 5000, 600, 1800, 3600, "One example was skipped", "support")
    ]
    durations = database.rows("SELECT duration_seconds FROM job_overview WHERE fine_tuning_job_id = 'backwards'")
    assert durations == [(None,)]


def test_a_job_on_a_fine_tuned_model_names_the_job_that_made_it(world: ScriptedWorld, database: Database) -> None:
    world.add_job(id="first", created_at=NOW - DAY, fine_tuned_model="ft:gpt-4o:org::one")
    world.add_job(id="second", created_at=NOW - HOUR, model="ft:gpt-4o:org::one")
    database.sync()
    rows = database.rows("SELECT fine_tuning_job_id, parent_job_id FROM job_overview ORDER BY 1")
    assert rows == [("first", None), ("second", "first")]


@pytest.mark.thorough
def test_runs_with_one_validation_file_are_ranked(world: ScriptedWorld, database: Database) -> None:
    for job, file, loss, epochs in (("a", "file-v", 0.5, 3), ("b", "file-v", 0.4, 4), ("c", "file-w", 0.1, 5)):
        world.add_job(id=job, created_at=NOW - DAY, validation_file=file, hyperparameters={"n_epochs": epochs})
        world.add_checkpoint(job, id=f"{job}-1", step_number=1, metrics={"full_valid_loss": loss})
    world.add_job(id="training-only", created_at=NOW - DAY, validation_file="file-v")
    world.add_checkpoint("training-only", id="t-1", step_number=1, metrics={"train_loss": 0.01})
    database.sync()
    columns = "fine_tuning_job_id, rank, runs, distance_to_best, n_epochs"
    assert database.rows(f"SELECT {columns} FROM comparable_runs ORDER BY 1") == [
        ("a", 2, 2, pytest.approx(0.1), 3.0),
        ("b", 1, 2, 0.0, 4.0),
        ("c", 1, 1, 0.0, 5.0),
    ]


@pytest.mark.thorough
def test_a_job_costs_its_tokens_at_the_prices_that_the_user_gives(world: ScriptedWorld, database: Database) -> None:
    world.add_job(id="job", created_at=NOW - DAY, finished_at=NOW - DAY + HOUR, trained_tokens=9, model="priced")
    world.add_event("job", message="Training tokens billed: 2,000,000", type="message", data={})
    world.add_job(id="other", created_at=NOW - DAY, trained_tokens=9, model="unknown")
    database.sync()
    costs = "SELECT fine_tuning_job_id, tokens, cost, currency FROM job_costs ORDER BY 1"
    assert database.rows(costs) == [("job", 2_000_000, None, None), ("other", 9, None, None)]
    database.execute(
        "CREATE TABLE fine_tuning.prices AS SELECT 'priced' AS base_model, 3.0::DOUBLE AS per_million_tokens, "
        "NULL::DOUBLE AS per_training_hour, 'USD' AS currency"
    )
    database.sync()
    assert database.rows(costs) == [("job", 2_000_000, 6.0, "USD"), ("other", 9, None, None)]
    assert database.rows("SELECT count(*) FROM prices") == [(1,)]


def test_a_curve_has_a_row_a_step_with_its_epoch_and_tokens(world: ScriptedWorld, database: Database) -> None:
    world.add_job(id="job", created_at=NOW - DAY, trained_tokens=1000, hyperparameters={"n_epochs": 2})
    for step in (5, 10):
        data = {"step": step, "total_steps": 10, "train_loss": 1 / step}
        world.add_event("job", type="metrics", data=data)
    world.add_checkpoint("job", step_number=10, metrics={"full_valid_loss": 0.3, "train_loss": 9})
    database.sync()
    columns = "step, epoch, share, tokens, train_loss, full_valid_loss"
    assert database.rows(f"SELECT {columns} FROM run_curves ORDER BY step") == [
        (5, 1.0, 0.5, 500.0, 0.2, None),
        (10, 2.0, 1.0, 1000.0, 0.1, 0.3),
    ]
