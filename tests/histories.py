"""Histories to read, and what a warehouse must hold of them: the whole, once."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any

from fine_tuning_simulator import Fault, ScriptedWorld

NOW = 1_780_000_000
HOUR, DAY = 3600, 86400

Rows = Callable[[str], list[tuple[Any, ...]]]
"""Runs SQL over a warehouse's tables."""


def add_history(world: ScriptedWorld, jobs: Iterable[int], *, children: int = 3) -> None:
    """Jobs that ended long ago, an hour apart, each with checkpoints, events and a result file."""
    for number in jobs:
        job_id, file_id, created = f"ftjob-{number:03}", f"file-{number:03}", NOW - 90 * DAY + number * HOUR
        text = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n"
        text += "".join(f"{step},{1 / step:.3f},0.5,,\n" for step in range(1, children + 1))
        world.add_file(file_id, base64.b64encode(text.encode()) if number % 2 else text.encode())
        world.add_job(id=job_id, created_at=created, finished_at=created + 1800, result_files=[file_id])
        for child in range(children):
            name = f"{number:03}-{child}"
            world.add_checkpoint(
                job_id, id=f"ftckpt-{name}", created_at=created + 300 * child, step_number=10 * (child + 1)
            )
            world.add_event(job_id, id=f"ftevent-{name}", created_at=created + 200 * child, message=f"Step {child}")


class Truth:
    """What a warehouse must hold: the newest state of every record that the host showed.

    Attributes:
        tables: Table to key to the values that are compared.
    """

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = {name: {} for name in _SQL}

    def only(self, *tables: str) -> Truth:
        """The same of some tables alone."""
        self.tables = {name: self.tables[name] for name in tables}
        return self

    def see(self, world: ScriptedWorld, resources: Iterable[str] = ("jobs", "checkpoints", "events")) -> None:
        """Take in what the host shows now."""
        for job in world.jobs():
            if "jobs" in resources:
                self.tables["jobs"][job["id"],] = (job["status"], job["finished_at"])
            for kind in ("checkpoints", "events"):
                if kind not in resources:
                    continue
                field = "step_number" if kind == "checkpoints" else "message"
                for child in getattr(world, kind)(job["id"]) or ():
                    self.tables[kind][child["id"],] = (job["id"], child[field])

    def see_files(self, world: ScriptedWorld, children: int = 3) -> None:
        """Take in the result files that `add_history` made."""
        for job in world.jobs():
            for file_id in job["result_files"]:
                for step in range(1, children + 1):
                    self.tables["result_metrics"][file_id, step] = (job["id"], round(1 / step, 3))


def truth_of(world: ScriptedWorld, *, children: int = 3) -> Truth:
    """What a warehouse must hold of a world that `add_history` made."""
    truth = Truth()
    truth.see(world)
    truth.see_files(world, children)
    return truth


def assert_holds(rows: Rows, truth: Truth, *, more: bool = False) -> None:
    """Assert that a warehouse holds every row once, and nothing else (but for what `more` allows)."""
    for table, expected in truth.tables.items():
        stored = rows(_SQL[table])
        keys = [row[: _KEYS[table]] for row in stored]
        twice = {key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else set()
        assert not twice, f"{table}: twice {sorted(twice)[:5]}"
        held = {row[: _KEYS[table]]: row[_KEYS[table] :] for row in stored}
        lacking, surplus = expected.keys() - held.keys(), held.keys() - expected.keys()
        assert not lacking, f"{table}: {len(lacking)} rows are missing, such as {sorted(lacking)[:5]}"
        assert more or not surplus, f"{table}: {len(surplus)} rows too many, such as {sorted(surplus)[:5]}"
        differing = [(key, held[key], values) for key, values in expected.items() if held[key] != values]
        assert not differing, f"{table}: {len(differing)} rows differ, such as {differing[:3]}"


_SQL = {
    "jobs": "SELECT id, status, CAST(extract(epoch FROM finished_at) AS BIGINT) FROM jobs",
    "checkpoints": "SELECT id, fine_tuning_job_id, step_number FROM checkpoints",
    "events": "SELECT id, fine_tuning_job_id, message FROM events",
    "result_metrics": "SELECT file_id, step, fine_tuning_job_id, train_loss FROM result_metrics",
}
_KEYS = {"jobs": 1, "checkpoints": 1, "events": 1, "result_metrics": 2}


def mixed_faults(share: float, seed: int) -> list[Fault]:
    """Faults of every kind that a host may get over, which together befall a share of all answers."""
    quick = {"retry-after-ms": "20"}
    made: list[tuple[Any, dict[str, Any]]] = [
        ("status", {"status": 429, "headers": quick}),
        ("status", {"status": 500}),
        ("status", {"status": 503, "headers": {"retry-after": "0.02"}}),
        ("status", {"status": 408}),
        ("status", {"status": 400, "headers": {"x-should-retry": "true"}}),
        ("reset", {}),
        ("reset_body", {}),
        ("html", {}),
        ("truncate", {"path": "/(jobs|checkpoints|events)$"}),
        ("lost_cursor", {}),
    ]
    each = share / (len(made) - 1)  # a lost cursor befalls few
    return [
        Fault(kind, times=None, probability=each, seed=100 * seed + number, **details)
        for number, (kind, details) in enumerate(made)
    ]
