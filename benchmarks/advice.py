"""Measure how often the advice of `best_checkpoints` is right, over runs with known true curves.

    uv run python benchmarks/advice.py --runs 2000

Each run has a true validation loss (or reward) that nobody sees, and noisy measurements of it: on the whole validation
file at the end of each epoch, on single batches, or of training alone. The host keeps the last three epochs, as OpenAI
does. The view's own SQL gives the advice. It stands beside "always the final" and "lowest value".

`wrong`: another checkpoint that the host keeps is truly better. `away`: the final checkpoint is truly better than the
one that was chosen instead of it. `regret`: how far the true value of the chosen one lies behind the best one, on
average and relative to it. An advice without a checkpoint counts as the final one.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import duckdb

from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.views import VIEWS
from fine_tuning_warehouse.views.build import Builder

KEPT = 3
"""Epochs that the host keeps."""

TYPES = {"text": "VARCHAR", "double": "DOUBLE", "bigint": "BIGINT", "bool": "BOOLEAN", "timestamp": "TIMESTAMPTZ"}


@dataclass(frozen=True)
class Evidence:
    """What is measured: the metric, how often (in steps; None: at the end of each epoch), and the relative noise."""

    name: str
    metric: str
    every: int | None
    noise: float


EVIDENCE = (
    Evidence("full validation, noise 1 %", "full_valid_loss", None, 0.012),
    Evidence("batches, noise 6 %", "valid_loss", 5, 0.06),
    Evidence("batches, noise 40 %", "valid_loss", 5, 0.4),
    Evidence("training only", "train_loss", 1, 0.1),
    Evidence("validation reward", "full_valid_mean_reward", None, 0.02),
)


@dataclass(frozen=True)
class Run:
    """A run: the steps that end an epoch, and the true value at each step (of rewards, what is missing to 1)."""

    name: str
    ends: list[int]
    true: Callable[[float], float]
    train: Callable[[float], float]

    @property
    def kept(self) -> list[int]:
        """The steps of the checkpoints that the host keeps."""
        return self.ends[-KEPT:]


def runs(count: int, seed: int) -> Iterator[Run]:
    """Yield runs whose loss falls, a third of each: to the end, with a turn late or early, or flat at the end."""
    rng = random.Random(seed)
    for number in range(count):
        epochs, steps = rng.randint(3, 10), rng.randint(10, 40)
        total = epochs * steps
        first, floor, rate = rng.uniform(1.3, 2.8), rng.uniform(0.2, 0.6), rng.uniform(3.0, 8.0)
        turn, rise = rng.choice(((1.0, 0.0), (rng.uniform(0.3, 0.95), rng.uniform(0.2, 0.9)), (0.6, 0.03)))

        def loss(
            step: float,
            total: int = total,
            shape: tuple[float, float, float, float, float] = (first, floor, rate, turn, rise),
        ) -> float:
            first, floor, rate, turn, rise = shape
            x = step / total
            return floor + (first - floor) * math.exp(-rate * x) + first * rise * math.pow(max(0.0, x - turn), 1.3)

        def train(
            step: float, total: int = total, shape: tuple[float, float] = (first, rng.choice((rate, 3 * rate)))
        ) -> float:
            return shape[0] * (0.1 + math.exp(-shape[1] * step / total))

        yield Run(f"ftjob-{number}", list(range(steps, total + 1, steps)), loss, train)


def rows(run: Run, evidence: Evidence, rng: random.Random) -> Iterator[tuple[int, float]]:
    """Yield what is measured: step and value."""
    for step in range(1, run.ends[-1] + 1):
        if step not in run.ends and (evidence.every is None or step % evidence.every):
            continue
        if evidence.metric.endswith("reward"):
            value = min(1.0, max(0.0, rng.gauss(1 - run.true(step) / 4, evidence.noise)))
        else:
            true = run.train if evidence.metric == "train_loss" else run.true
            value = true(step) * rng.lognormvariate(0, evidence.noise)
        yield step, value


def warehouse(all_runs: list[Run], evidence: Evidence, seed: int) -> duckdb.DuckDBPyConnection:
    """Return a database with the tables and views that a sync of these runs would have made."""
    rng = random.Random(seed)
    database = duckdb.connect()
    tables = {name: dict(table.types) for name, table in TABLES.items()}
    for name in ("jobs", "checkpoints", "events"):
        columns = ", ".join(f'"{column}" {TYPES.get(type_, "VARCHAR")}' for column, type_ in tables[name].items())
        database.execute(f'CREATE TABLE "{name}" ({columns})')
    method = "reinforcement" if evidence.metric.endswith("reward") else "supervised"
    jobs, checkpoints, events = [], [], []
    for run in all_runs:
        jobs.append((run.name, f"{run.name}-{run.ends[-1]}", method, str(len(run.ends))))
        checkpoints += [(run.name, f"{run.name}-{step}", f"{run.name}-{step}", step) for step in run.kept]
        events += [(run.name, f"{run.name}-{step}", step, value) for step, value in rows(run, evidence, rng)]
    database.executemany(
        "INSERT INTO jobs BY NAME SELECT 'a' AS account, $1 AS id, $2 AS fine_tuned_model, $3 AS method__type, "
        "$4 AS hyperparameters__n_epochs, 'succeeded' AS status",
        jobs,
    )
    database.executemany(
        "INSERT INTO checkpoints BY NAME SELECT 'a' AS account, $1 AS fine_tuning_job_id, $2 AS id, "
        "$3 AS fine_tuned_model_checkpoint, $4 AS step_number",
        checkpoints,
    )
    names, ids, steps, values = zip(*events, strict=True)
    database.execute(
        f"INSERT INTO events BY NAME SELECT 'a' AS account, unnest($1) AS fine_tuning_job_id, unnest($2) AS id, "
        f"unnest($3) AS data__step, unnest($4) AS data__{evidence.metric}",
        [list(names), list(ids), list(steps), list(values)],
    )
    builder = Builder("duckdb", {name: tables[name] for name in ("jobs", "checkpoints", "events")}, lambda name: [name])
    for view in VIEWS:
        if view.name in ("checkpoint_history", "best_checkpoints"):
            database.execute(f"CREATE VIEW {view.name} AS {builder.select(view)}")
    return database


def measure(all_runs: list[Run], evidence: Evidence, seed: int) -> Iterator[tuple[str, float, float, float, str]]:
    """Yield wrong, away and regret (shares) of each way to choose, and how often each advice was given."""
    by_name = {run.name: run for run in all_runs}
    with warehouse(all_runs, evidence, seed) as database:
        answers = database.execute(
            "SELECT fine_tuning_job_id, advice, coalesce(checkpoint_to_deploy, final_checkpoint_id), checkpoint_id, "
            "final_checkpoint_id FROM best_checkpoints"
        ).fetchall()
    advice = [row[1] for row in answers]
    counts = ", ".join(f"{one} {advice.count(one) / len(advice):.0%}" for one in sorted(set(advice)))
    for title, column, note in (("the advice", 2, counts), ("always the final", 4, ""), ("lowest value", 3, "")):
        wrong = away = 0
        regret = 0.0
        for answer in answers:
            run = by_name[answer[0]]
            chosen, final = (run.true(int(answer[place].rsplit("-", 1)[1])) for place in (column, 4))
            best = min(map(run.true, run.kept))
            wrong += chosen > best
            away += chosen > final
            regret += chosen / best - 1
        yield title, wrong / len(answers), away / len(answers), regret / len(answers), note


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    all_runs = list(runs(arguments.runs, arguments.seed))
    sys.stdout.write("| measured | choice | wrong | away from a better final | mean regret |\n|---|---|---|---|---|\n")
    for evidence in EVIDENCE:
        for title, wrong, away, regret, note in measure(all_runs, evidence, arguments.seed):
            shown = f"{title} ({note})" if note else title
            sys.stdout.write(f"| {evidence.name} | {shown} | {wrong:.1%} | {away:.1%} | {regret:.2%} |\n")


if __name__ == "__main__":
    main()
