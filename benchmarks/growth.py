"""How much one DuckDB file holds: a history of any size, its size on disk, and how long questions to it take.

    uv run python benchmarks/growth.py --jobs 100000

Each job has ten checkpoints, a hundred events and fifty rows of a result file. The tables are those of a real sync, and
filled by DuckDB itself; the views, before and after their rows are kept, and a sync of one new job then run over them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.duckdb import DuckDb

NOW = 1_780_000_000

_CREATED = f"make_timestamptz(({NOW} - 90000000 + job * 80000000 // $jobs) * 1000000)"
_JOB = "'ftjob-' || lpad(job::VARCHAR, 8, '0')"
_MODEL = "'ft:gpt-4o-mini-2024-07-18:acme:run-' || job"
_LOAD = "(SELECT min(load_id) FROM fine_tuning._dlt_loads) AS _dlt_load_id"
_LOSS = "0.2 + 2.0 / (1 + step) + random() / 10"

FILL = (
    f"""
    INSERT INTO fine_tuning.jobs BY NAME
    SELECT 'default' AS account, {_JOB} AS id, 'fine_tuning.job' AS object, {_CREATED} AS created_at,
      {_CREATED} + INTERVAL 30 MINUTE AS finished_at, 'succeeded' AS status, 'gpt-4o-mini-2024-07-18' AS model,
      {_MODEL} AS fine_tuned_model, 'run-' || job AS user_provided_suffix, 'supervised' AS method__type,
      'file-train-' || job % 500 AS training_file, '["file-result-' || job || '"]' AS result_files,
      1000 * (job % 700) AS trained_tokens, 42 AS seed, {_CREATED} + INTERVAL 2 HOUR AS checkpoints_listed_at, {_LOAD}
    FROM range($jobs) AS jobs (job)
    """,
    f"""
    INSERT INTO fine_tuning.checkpoints BY NAME
    SELECT 'default' AS account, 'ftckpt-' || lpad(job::VARCHAR, 8, '0') || '-' || number AS id,
      'fine_tuning.job.checkpoint' AS object, {_CREATED} + number * INTERVAL 3 MINUTE AS created_at,
      {_JOB} AS fine_tuning_job_id,
      {_MODEL} || CASE WHEN number < 10 THEN ':ckpt-step-' || step ELSE '' END AS fine_tuned_model_checkpoint,
      step AS step_number, step::DOUBLE AS metrics__step, {_LOSS} AS metrics__train_loss,
      {_LOSS} AS metrics__valid_loss, {_LOSS} AS metrics__full_valid_loss,
      random() AS metrics__train_mean_token_accuracy, {_CREATED} + INTERVAL 2 HOUR AS last_listed_at, {_LOAD}
    FROM (SELECT job, number, 10 * number AS step FROM range($jobs) AS jobs (job), range(1, 11) AS numbers (number))
    """,
    f"""
    INSERT INTO fine_tuning.events BY NAME
    SELECT 'default' AS account, 'ftevent-' || lpad(job::VARCHAR, 8, '0') || '-' || step AS id,
      'fine_tuning.job.event' AS object, {_CREATED} + step * INTERVAL 15 SECOND AS created_at,
      {_JOB} AS fine_tuning_job_id, 'info' AS level, 'metrics' AS type,
      'Step ' || step || '/100: training loss=' || round(loss, 2) AS message,
      '{{"step": ' || step || ', "train_loss": ' || round(loss, 6) || ', "total_steps": 100}}' AS data,
      step::DOUBLE AS data__step, round(loss, 6) AS data__train_loss, random() AS data__train_mean_token_accuracy,
      100.0 AS data__total_steps, {_LOAD}
    FROM (SELECT job, step, {_LOSS} AS loss FROM range($jobs) AS jobs (job), range(1, 101) AS steps (step))
    """,
    f"""
    INSERT INTO fine_tuning.result_metrics BY NAME
    SELECT 'default' AS account, 'file-result-' || job AS file_id, 2 * step AS step, {_JOB} AS fine_tuning_job_id,
      {_LOSS} AS train_loss, random() AS train_accuracy, {_LOSS} AS valid_loss, {_LOAD}
    FROM range($jobs) AS jobs (job), range(1, 51) AS steps (step)
    """,
)

QUESTIONS = {
    "how many rows has events": "SELECT count(*) FROM events",
    "what to deploy of the 20 newest jobs": "FROM best_checkpoints ORDER BY job_created_at DESC LIMIT 20",
    "what to deploy of every job": "SELECT sum(cost_of_final), count(reason) FROM best_checkpoints",
    "checkpoints of one job": "FROM checkpoint_history WHERE fine_tuning_job_id = 'ftjob-00000007'",
    "checkpoints by evidence": "SELECT evidence, count(*) FROM checkpoint_history GROUP BY ALL",
    "what to deploy of one job": "FROM best_checkpoints WHERE fine_tuning_job_id = 'ftjob-00000007'",
    "the curve of one job": "FROM run_curves WHERE fine_tuning_job_id = 'ftjob-00000007'",
    "the values of one job": "FROM training_curves WHERE fine_tuning_job_id = 'ftjob-00000007'",
    "jobs by status and month": "SELECT date_trunc('month', created_at), status, count(*), sum(trained_tokens) "
    "FROM job_overview GROUP BY ALL",
}


def timed(step: Callable[[], object]) -> float:
    """How long a step takes (seconds)."""
    began = time.monotonic()
    step()
    return time.monotonic() - began


def ask(database: Path, sql: str) -> None:
    """Ask as people do: by the command, in a process of its own."""
    command = [str(Path(sys.executable).with_name("ftw")), "query", "--database", str(database), "--output", "csv", sql]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Build the file, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="Where the file is to stay; it must not be there yet.")
    options = parser.parse_args()
    clock, world = Clock(start=NOW, speed=0), ScriptedWorld()
    with tempfile.TemporaryDirectory() as directory, Simulator(world, clock=clock) as host:
        file = options.keep or Path(directory) / "growth.duckdb"
        account, warehouse = Account("default", "any", host.base_url), DuckDb(file)
        world.add_job(id="ftjob-first", created_at=NOW - 90_000_000)
        run_sync(account, warehouse, SyncOptions())
        with duckdb.connect(str(file)) as connection:
            for sql in FILL:
                connection.execute(sql, {"jobs": options.jobs})
            connection.execute("CHECKPOINT")
            counts = {
                table: connection.execute(f"SELECT count(*) FROM fine_tuning.{table}").fetchall()[0][0]
                for table in ("jobs", "checkpoints", "events", "result_metrics")
            }
        print(", ".join(f"{count:,} {table}" for table, count in counts.items()))
        print(f"{file.stat().st_size / 1e6:,.0f} MB")
        computed = {question: timed(lambda sql=sql: ask(file, sql)) for question, sql in QUESTIONS.items()}  # type: ignore[misc]
        first = timed(lambda: run_sync(account, warehouse, SyncOptions()))
        print(f"{first:6.1f} s  a sync that keeps the rows of the views, where there are enough")
        print(f"{file.stat().st_size / 1e6:,.0f} MB")
        for question, sql in QUESTIONS.items():
            seconds = timed(lambda sql=sql: ask(file, sql))  # type: ignore[misc]
            print(f"{seconds:6.1f} s  {question} (before: {computed[question]:.1f} s)", flush=True)
        for job in ("ftjob-new", "ftjob-newer"):
            world.add_job(id=job, created_at=NOW - 10_000)
            for number in range(10):
                world.add_checkpoint(job, id=f"ftckpt-{job}-{number}", step_number=number)
                world.add_event(job, id=f"ftevent-{job}-{number}")
            print(f"{timed(lambda: run_sync(account, warehouse, SyncOptions())):6.1f} s  a sync of one new job")


if __name__ == "__main__":
    main()
