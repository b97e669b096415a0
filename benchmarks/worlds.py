"""The histories that are synced: jobs with so many checkpoints and events each, all made from their numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

NOW = 1_780_000_000
"""When each history ends, in unix seconds: long past, so that every finished job is closed at once."""


@dataclass(frozen=True)
class World:
    """A history.

    Attributes:
        jobs: How many finished jobs.
        checkpoints: Checkpoints of each.
        events: Events of each.
        files: Whether each job has a training file and a result file of 100 steps.
        newer: Jobs with one checkpoint each that came after the history was first read.
    """

    jobs: int
    checkpoints: int = 0
    events: int = 0
    files: bool = False
    newer: int = 0

    def grown(self) -> World:
        """The same with one job more, of one checkpoint."""
        return replace(self, newer=self.newer + 1)

    def job_ids(self) -> list[str]:
        """Newest first."""
        return [f"ftjob-{number:06d}" for number in reversed(range(self.jobs + self.newer))]

    def child_ids(self, job_id: str, kind: str) -> list[str]:
        """Newest first."""
        number = int(job_id.removeprefix("ftjob-"))
        count = {"checkpoints": self.checkpoints, "events": self.events}[kind]
        if number >= self.jobs:
            count = int(kind == "checkpoints")
        return [f"{kind}-{number:06d}-{step:07d}" for step in reversed(range(1, count + 1))]

    def job(self, job_id: str) -> dict[str, Any]:
        """A job as OpenAI shows it."""
        created_at = self._created_at(job_id)
        return {
            "object": "fine_tuning.job",
            "id": job_id,
            "created_at": created_at,
            "finished_at": created_at + 3000,
            "estimated_finish": None,
            "status": "succeeded",
            "model": "gpt-4o-mini-2024-07-18",
            "fine_tuned_model": f"ft:gpt-4o-mini-2024-07-18:org::{job_id[-6:]}",
            "organization_id": "org-benchmark",
            "training_file": f"file-train-{job_id[-6:]}" if self.files else "file-train",
            "validation_file": None,
            "result_files": [f"file-result-{job_id[-6:]}"] if self.files else [],
            "trained_tokens": 123_456,
            "seed": 7,
            "error": {},
            "hyperparameters": {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.8},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
            "integrations": [],
            "metadata": {"team": "search"},
            "user_provided_suffix": None,
        }

    def checkpoint(self, checkpoint_id: str) -> dict[str, Any]:
        """A checkpoint with all seven metrics."""
        job_id, step = self._owner(checkpoint_id)
        return {
            "object": "fine_tuning.job.checkpoint",
            "id": checkpoint_id,
            "created_at": self._created_at(job_id) + step % 3000,
            "fine_tuned_model_checkpoint": f"ft:gpt-4o-mini-2024-07-18:org::{job_id[-6:]}:ckpt-step-{step}",
            "fine_tuning_job_id": job_id,
            "step_number": step,
            "metrics": {
                "step": step,
                "train_loss": 2.0 / step,
                "train_mean_token_accuracy": 1 - 1.0 / (step + 1),
                "valid_loss": 2.1 / step,
                "valid_mean_token_accuracy": 1 - 1.1 / (step + 2),
                "full_valid_loss": 2.2 / step,
                "full_valid_mean_token_accuracy": 1 - 1.2 / (step + 3),
            },
        }

    def event(self, event_id: str) -> dict[str, Any]:
        """A metrics event."""
        job_id, step = self._owner(event_id)
        return {
            "object": "fine_tuning.job.event",
            "id": event_id,
            "created_at": self._created_at(job_id) + step % 3000,
            "level": "info",
            "message": f"Step {step}/{self.events}: training loss={2.0 / step:.2f}",
            "data": {
                "step": step,
                "total_steps": self.events,
                "train_loss": 2.0 / step,
                "train_mean_token_accuracy": 1 - 1.0 / (step + 1),
            },
            "type": "metrics",
        }

    def file_ids(self) -> list[str]:
        """Newest first."""
        return [f"file-{kind}-{job_id[-6:]}" for job_id in self.job_ids() if self.files for kind in ("result", "train")]

    def file(self, file_id: str) -> dict[str, Any]:
        """The description of a file."""
        _, kind, number = file_id.split("-")
        return {
            "object": "file",
            "id": file_id,
            "bytes": 5_000,
            "created_at": self._created_at(f"ftjob-{number}"),
            "filename": f"{kind}.csv",
            "purpose": "fine-tune-results" if kind == "result" else "fine-tune",
            "status": "processed",
        }

    @staticmethod
    def result_file(_file_id: str) -> bytes:
        """The content of a result file."""
        lines = (f"{step},{2.0 / step},{1 - 1.0 / (step + 1)},," for step in range(1, 101))
        return "\n".join(["step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy", *lines]).encode()

    def _created_at(self, job_id: str) -> int:
        return NOW - 3600 * (self.jobs + 1000) + 3600 * int(job_id.removeprefix("ftjob-"))

    @staticmethod
    def _owner(child_id: str) -> tuple[str, int]:
        _, number, step = child_id.split("-")
        return f"ftjob-{number}", int(step)


WORLDS = {
    "empty": World(jobs=0),
    "thousand-rows": World(jobs=20, checkpoints=50),
    "hundred-thousand-rows": World(jobs=20, checkpoints=5_000),
    "million-rows": World(jobs=200, checkpoints=5_000),
    "many-small-jobs": World(jobs=600, checkpoints=3),
    "everything": World(jobs=600, checkpoints=3, events=150, files=True),
    "ten-thousand-jobs": World(jobs=10_000, checkpoints=1),
    "million-events": World(jobs=500, events=2_000),
}
