"""A world that a test writes record by record."""

import math
import threading
from collections.abc import Sequence
from typing import Any, Literal

from fine_tuning_simulator.clock import DEFAULT_START

Order = Literal["newest_first", "oldest_first", "as_added"]
Child = Literal["checkpoints", "events"]

_TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
_UNSET: Any = object()


class _Shelf:
    """Records in the order they were added, and that order sorted: kept until something changes."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._added: list[Any] = []
        self._sorted: list[Any] | None = None
        self._by_id: dict[Any, dict[str, Any]] | None = None

    def add(self, record: Any) -> None:
        self._added.append(record)
        self.touch()

    def touch(self) -> None:
        self._sorted = None
        self._by_id = None

    def remove(self, record_id: str) -> bool:
        before = len(self._added)
        self._added = [r for r in self._added if not (isinstance(r, dict) and r.get("id") == record_id)]
        self.touch()
        return len(self._added) < before

    def all(self) -> list[Any]:
        if self._sorted is None:
            self._sorted = self._arranged()
        return self._sorted

    def find(self, record_id: str) -> dict[str, Any] | None:
        if self._by_id is None:
            self._by_id = {}
            for record in self.all():
                if isinstance(record, dict) and isinstance(record.get("id"), str):
                    self._by_id.setdefault(record["id"], record)
        return self._by_id.get(record_id)

    def _arranged(self) -> list[Any]:
        if self._order == "as_added":
            return list(self._added)
        keyed: list[tuple[float, int, Any]] = []
        last = -math.inf
        for position, record in enumerate(self._added):
            last = _created_at(record, otherwise=last)
            keyed.append((last, position, record))
        keyed.sort(key=lambda entry: entry[:2], reverse=self._order == "newest_first")
        return [record for _, _, record in keyed]


def _created_at(record: Any, otherwise: float) -> float:
    """The number that `record` sorts by; one without a time stays beside the record added before it."""
    value = record.get("created_at") if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        return otherwise
    try:
        return float(value)
    except OverflowError:
        return math.inf


TRAINING_FILE = "file-scripted-training"
"""The file that jobs are trained on where a test names none; it is there from the start."""


class ScriptedWorld:
    """A mutable world for tests. It holds raw records and shows them verbatim, malformed ones included.

    Records sort by `created_at` where that is a number; among ties the one added later is the newer.
    Every change shows in the next answer.
    """

    def __init__(self, order: Order = "newest_first") -> None:
        self.page_limit: int | None = None
        self._order: Order = order
        self._jobs = _Shelf(order)
        self._files = _Shelf("newest_first")
        self._children: dict[tuple[str, str], _Shelf] = {}
        self._contents: dict[str, bytes] = {}
        self._hidden: set[tuple[str, str]] = set()
        self._count = 0
        self._lock = threading.RLock()
        self.add_file(
            TRAINING_FILE, b'{"messages": []}\n', purpose="fine-tune", filename="training.jsonl", created_at=0
        )

    # -- what a test says ------------------------------------------------------------------------------------------

    def add_job(
        self,
        id: str | None = None,  # noqa: A002 - the field's name on the wire
        created_at: Any = None,
        status: str = "succeeded",
        finished_at: Any = _UNSET,
        **fields: Any,
    ) -> dict[str, Any]:
        """Add a job that has every field of the specification; `fields` replace or extend them."""
        with self._lock:
            number = self._next()
            job_id = f"ftjob-scripted{number:05d}" if id is None else id
            created = DEFAULT_START - 86_400 + 60 * number if created_at is None else created_at
            succeeded = status == "succeeded"
            if finished_at is _UNSET:
                finished_at = created + 600 if status in _TERMINAL and isinstance(created, int | float) else None
            model = fields.get("model", "gpt-4o-mini-2024-07-18")
            numbers = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.8}
            hyperparameters = numbers if succeeded else dict.fromkeys(numbers, "auto")
            record: dict[str, Any] = {
                "object": "fine_tuning.job",
                "id": job_id,
                "model": model,
                "created_at": created,
                "finished_at": finished_at,
                "fine_tuned_model": f"ft:{model}:example-org::{job_id[-8:]}" if succeeded else None,
                "organization_id": "org-scripted",
                "result_files": [],
                "status": status,
                "validation_file": None,
                "training_file": TRAINING_FILE,
                "hyperparameters": hyperparameters,
                "trained_tokens": 12_000 if succeeded else None,
                "error": {},
                "user_provided_suffix": None,
                "seed": 7,
                "estimated_finish": None,
                "integrations": [],
                "metadata": None,
                "usage_metrics": None,
                "shared_with_openai": False,
                "eval_id": None,
                "method": {"type": "supervised", "supervised": {"hyperparameters": dict(hyperparameters)}},
            }
            if status == "failed":
                record["error"] = {"code": "server_error", "message": "The job failed.", "param": None}
            record.update(fields)
            self._jobs.add(record)
            return record

    def add_checkpoint(
        self,
        job_id: str,
        id: str | None = None,  # noqa: A002
        created_at: Any = None,
        step_number: Any = 10,
        metrics: Any = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Add a checkpoint of a job; `metrics` default to those of a plain supervised run."""
        with self._lock:
            number = self._next()
            record: dict[str, Any] = {
                "object": "fine_tuning.job.checkpoint",
                "id": f"ftckpt_scripted{number:05d}" if id is None else id,
                "created_at": self._beside(job_id, number) if created_at is None else created_at,
                "fine_tuned_model_checkpoint": (
                    f"ft:gpt-4o-mini-2024-07-18:example-org::{job_id[-8:]}:ckpt-step-{step_number}"
                ),
                "fine_tuning_job_id": job_id,
                "metrics": (
                    {"step": step_number, "train_loss": 0.5, "train_mean_token_accuracy": 0.9}
                    if metrics is None
                    else metrics
                ),
                "step_number": step_number,
                **fields,
            }
            self._shelf(job_id, "checkpoints").add(record)
            return record

    def add_event(
        self,
        job_id: str,
        id: str | None = None,  # noqa: A002
        created_at: Any = None,
        message: str = "Fine-tuning job started",
        **fields: Any,
    ) -> dict[str, Any]:
        """Add an event of a job: a plain message unless `fields` give it `type` and `data`."""
        with self._lock:
            number = self._next()
            record: dict[str, Any] = {
                "object": "fine_tuning.job.event",
                "id": f"ftevent-scripted{number:05d}" if id is None else id,
                "created_at": self._beside(job_id, number) if created_at is None else created_at,
                "level": "info",
                "message": message,
                "data": {},
                "type": "message",
                **fields,
            }
            self._shelf(job_id, "events").add(record)
            return record

    def add_file(self, id: str, content: bytes = b"", **fields: Any) -> dict[str, Any]:  # noqa: A002
        """Add a file and its bytes, sent exactly as given."""
        with self._lock:
            record: dict[str, Any] = {
                "object": "file",
                "id": id,
                "purpose": "fine-tune-results",
                "filename": "step_metrics.csv",
                "bytes": len(content),
                "created_at": DEFAULT_START - 86_400 + 60 * self._next(),
                "status": "processed",
                "status_details": None,
                **fields,
            }
            self._files.add(record)
            self._contents[id] = content
            return record

    def update_job(self, id: str, **fields: Any) -> dict[str, Any]:  # noqa: A002
        """Set fields of a job."""
        with self._lock:
            record = self._jobs.find(id)
            if record is None:
                raise KeyError(id)
            record.update(fields)
            self._jobs.touch()
            return record

    def update_checkpoint(self, id: str, **fields: Any) -> dict[str, Any]:  # noqa: A002
        """Set fields of a checkpoint."""
        with self._lock:
            for (_, kind), shelf in self._children.items():
                record = shelf.find(id) if kind == "checkpoints" else None
                if record is not None:
                    record.update(fields)
                    shelf.touch()
                    return record
            raise KeyError(id)

    def remove_job(self, id: str) -> None:  # noqa: A002
        """Take a job away with all that hangs on it: from now on it is a 404."""
        with self._lock:
            if not self._jobs.remove(id):
                raise KeyError(id)
            for kind in ("checkpoints", "events"):
                self._children.pop((id, kind), None)

    def remove_checkpoint(self, id: str) -> None:  # noqa: A002
        """Take a checkpoint out of its job's listing."""
        with self._lock:
            shelves = [shelf for (_, kind), shelf in self._children.items() if kind == "checkpoints"]
            removed = [shelf.remove(id) for shelf in shelves]
            if not any(removed):
                raise KeyError(id)

    def remove_file(self, id: str) -> None:  # noqa: A002
        """Take a file away: from now on it is a 404."""
        with self._lock:
            if not self._files.remove(id):
                raise KeyError(id)
            self._contents.pop(id, None)

    def add_raw_job(self, record: Any) -> None:
        """Add anything at all to the listing of jobs."""
        with self._lock:
            self._jobs.add(record)

    def add_raw_checkpoint(self, job_id: str, record: Any) -> None:
        """Add anything at all to a job's checkpoints."""
        with self._lock:
            self._shelf(job_id, "checkpoints").add(record)

    def add_raw_event(self, job_id: str, record: Any) -> None:
        """Add anything at all to a job's events."""
        with self._lock:
            self._shelf(job_id, "events").add(record)

    def hide(self, job_id: str, kind: Child) -> None:
        """Make one child listing of a job a 404, while the job itself stays."""
        with self._lock:
            self._hidden.add((job_id, kind))

    def show(self, job_id: str, kind: Child) -> None:
        """Undo `hide`."""
        with self._lock:
            self._hidden.discard((job_id, kind))

    # -- what the host shows ---------------------------------------------------------------------------------------

    def jobs(self) -> Sequence[Any]:
        """All jobs in the world's order."""
        with self._lock:
            return self._jobs.all()

    def job(self, job_id: str) -> dict[str, Any] | None:
        """One job."""
        with self._lock:
            return self._jobs.find(job_id)

    def checkpoints(self, job_id: str) -> Sequence[Any] | None:
        """A job's checkpoints."""
        return self._child(job_id, "checkpoints")

    def events(self, job_id: str) -> Sequence[Any] | None:
        """A job's events."""
        return self._child(job_id, "events")

    def files(self) -> Sequence[Any]:
        """All files, newest first."""
        with self._lock:
            return self._files.all()

    def file(self, file_id: str) -> dict[str, Any] | None:
        """One file."""
        with self._lock:
            return self._files.find(file_id)

    def file_content(self, file_id: str) -> bytes | None:
        """A file's bytes."""
        with self._lock:
            return self._contents.get(file_id)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _child(self, job_id: str, kind: Child) -> Sequence[Any] | None:
        with self._lock:
            if (job_id, kind) in self._hidden or self._jobs.find(job_id) is None:
                return None
            shelf = self._children.get((job_id, kind))
            return [] if shelf is None else shelf.all()

    def _shelf(self, job_id: str, kind: Child) -> _Shelf:
        return self._children.setdefault((job_id, kind), _Shelf(self._order))

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _beside(self, job_id: str, number: int) -> int:
        job = self._jobs.find(job_id)
        created = job.get("created_at") if job else None
        return (created if isinstance(created, int) else DEFAULT_START - 86_400) + number
