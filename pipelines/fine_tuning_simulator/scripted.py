"""A world that a test writes record by record."""

import itertools
import math
import threading
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from fine_tuning_simulator.clock import DEFAULT_START

Order = Literal["newest_first", "oldest_first", "as_added"]
Child = Literal["checkpoints", "events"]
Record = TypeVar("Record")

TRAINING_FILE = "file-scripted-training"
"""The training file of jobs for which a test names none; it is there from the start."""

_TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
_UNSET: Any = object()


class _Listing:
    """Records in the order they were added, and sorted; the sorted form is kept until a record changes."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._lock = threading.RLock()
        self._added: list[Any] = []
        self._sorted: list[Any] | None = None
        self._by_id: dict[Any, dict[str, Any]] = {}

    def add(self, record: Record) -> Record:
        with self._lock:
            self._added.append(record)
            self._sorted = None
        return record

    def update(self, record_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Set fields of a record. Raises KeyError if no record has this id."""
        with self._lock:
            record = self.find(record_id)
            if record is None:
                raise KeyError(record_id)
            record.update(fields)
            self._sorted = None
            return record

    def remove(self, record_id: str) -> bool:
        with self._lock:
            kept = [r for r in self._added if not (isinstance(r, dict) and r.get("id") == record_id)]
            is_removed = len(kept) < len(self._added)
            self._added, self._sorted = kept, None
            return is_removed

    def all(self) -> list[Any]:
        with self._lock:
            if self._sorted is None:
                self._sorted = self._in_order()
                self._by_id = {}
                for record in self._sorted:
                    if isinstance(record, dict) and isinstance(record.get("id"), str):
                        self._by_id.setdefault(record["id"], record)
            return self._sorted

    def find(self, record_id: str) -> dict[str, Any] | None:
        with self._lock:
            self.all()
            return self._by_id.get(record_id)

    def _in_order(self) -> list[Any]:
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
    """Return the time to sort a record by; one without a time stays beside the record added before it."""
    value = record.get("created_at") if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        return otherwise
    try:
        return float(value)
    except OverflowError:
        return math.inf


class ScriptedWorld:
    """A mutable world for tests. It holds raw records and sends them as they are, malformed ones included.

    Records sort by `created_at` if that is a number; of several with the same time, the one added later is newer.
    Every change shows in the next answer.

        world = ScriptedWorld()
        job = world.add_job(status="running")
        world.add_checkpoint(job["id"], step_number=10)
    """

    def __init__(self, order: Order = "newest_first") -> None:
        self.page_limit: int | None = None
        self._order: Order = order
        self._jobs = _Listing(order)
        self._files = _Listing("newest_first")
        self._children: dict[Child, dict[str, _Listing]] = {"checkpoints": {}, "events": {}}
        self._contents: dict[str, bytes] = {}
        self._hidden: set[tuple[str, Child]] = set()
        self._models: list[Any] | None = None
        self._removed_models: set[str] = set()
        self._has_models = True
        self._count = itertools.count(1)
        self.add_file(
            TRAINING_FILE, b'{"messages": []}\n', purpose="fine-tune", filename="training.jsonl", created_at=0
        )

    # -- what a test adds and changes ----------------------------------------------------------------------------------

    def add_job(
        self,
        id: str | None = None,  # noqa: A002 - the field's name in the API
        created_at: Any = None,
        status: str = "succeeded",
        finished_at: Any = _UNSET,
        **fields: Any,
    ) -> dict[str, Any]:
        """Add a job that has every field of the specification; `fields` replace or extend them."""
        number = next(self._count)
        job_id = f"ftjob-scripted{number:05d}" if id is None else id
        created = DEFAULT_START - 86_400 + 60 * number if created_at is None else created_at
        succeeded = status == "succeeded"
        if finished_at is _UNSET:
            finished_at = created + 600 if status in _TERMINAL and isinstance(created, int | float) else None
        model = fields.get("model", "gpt-4o-mini-2024-07-18")
        numbers = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.8}
        hyperparameters = numbers if succeeded else dict.fromkeys(numbers, "auto")
        failed = {"code": "server_error", "message": "The job failed.", "param": None}
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
            "error": failed if status == "failed" else {},
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
        return self.add_raw_job(record | fields)

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
        number = next(self._count)
        usual = {"step": step_number, "train_loss": 0.5, "train_mean_token_accuracy": 0.9}
        model = f"ft:gpt-4o-mini-2024-07-18:example-org::{job_id[-8:]}"
        record: dict[str, Any] = {
            "object": "fine_tuning.job.checkpoint",
            "id": f"ftckpt_scripted{number:05d}" if id is None else id,
            "created_at": self._near(job_id, number) if created_at is None else created_at,
            "fine_tuned_model_checkpoint": f"{model}:ckpt-step-{step_number}",
            "fine_tuning_job_id": job_id,
            "metrics": usual if metrics is None else metrics,
            "step_number": step_number,
        }
        return self.add_raw_checkpoint(job_id, record | fields)

    def add_event(
        self,
        job_id: str,
        id: str | None = None,  # noqa: A002
        created_at: Any = None,
        message: str = "Fine-tuning job started",
        **fields: Any,
    ) -> dict[str, Any]:
        """Add an event of a job: a plain message unless `fields` give it `type` and `data`."""
        number = next(self._count)
        record: dict[str, Any] = {
            "object": "fine_tuning.job.event",
            "id": f"ftevent-scripted{number:05d}" if id is None else id,
            "created_at": self._near(job_id, number) if created_at is None else created_at,
            "level": "info",
            "message": message,
            "data": {},
            "type": "message",
        }
        return self.add_raw_event(job_id, record | fields)

    def add_file(self, id: str, content: bytes = b"", **fields: Any) -> dict[str, Any]:  # noqa: A002
        """Add a file and its bytes, which are sent exactly as given."""
        record: dict[str, Any] = {
            "object": "file",
            "id": id,
            "purpose": "fine-tune-results",
            "filename": "step_metrics.csv",
            "bytes": len(content),
            "created_at": DEFAULT_START - 86_400 + 60 * next(self._count),
            "status": "processed",
            "status_details": None,
            **fields,
        }
        self._contents[id] = content
        self._files.add(record)
        return record

    def add_raw_job(self, record: Record) -> Record:
        """Add any value to the listing of jobs."""
        return self._jobs.add(record)

    def add_raw_checkpoint(self, job_id: str, record: Record) -> Record:
        """Add any value to the checkpoints of a job."""
        return self._add_child(job_id, "checkpoints", record)

    def add_raw_event(self, job_id: str, record: Record) -> Record:
        """Add any value to the events of a job."""
        return self._add_child(job_id, "events", record)

    def update_job(self, id: str, **fields: Any) -> dict[str, Any]:  # noqa: A002
        """Set fields of a job."""
        return self._jobs.update(id, fields)

    def update_checkpoint(self, id: str, **fields: Any) -> dict[str, Any]:  # noqa: A002
        """Set fields of a checkpoint."""
        found = (listing for listing in self._children["checkpoints"].values() if listing.find(id) is not None)
        return next(found, self._jobs).update(id, fields)

    def remove_job(self, id: str) -> None:  # noqa: A002
        """Remove a job with its checkpoints and events: from now on it is a 404."""
        if not self._jobs.remove(id):
            raise KeyError(id)
        for listings in self._children.values():
            listings.pop(id, None)

    def remove_checkpoint(self, id: str) -> None:  # noqa: A002
        """Remove a checkpoint from the listing of its job."""
        removed = [listing.remove(id) for listing in self._children["checkpoints"].values()]
        if not any(removed):
            raise KeyError(id)

    def remove_file(self, id: str) -> None:  # noqa: A002
        """Remove a file: from now on it is a 404."""
        if not self._files.remove(id):
            raise KeyError(id)
        self._contents.pop(id, None)

    def hide(self, job_id: str, kind: Child) -> None:
        """Make one listing of a job a 404, while the job itself stays."""
        self._hidden.add((job_id, kind))

    def show(self, job_id: str, kind: Child) -> None:
        """Show a listing of a job again that `hide` has hidden."""
        self._hidden.discard((job_id, kind))

    def remove_model(self, id: str) -> None:  # noqa: A002
        """Delete a model: it vanishes from the listing of models, while its job and checkpoints stay."""
        self._removed_models.add(id)

    def retire_model(self, base_model: str) -> None:
        """Remove a base model from the listing of models, with all models that were tuned from it."""
        self._removed_models.add(base_model)
        for job in self._tuned_jobs():
            if job.get("model") == base_model:
                self._removed_models.update(self._names_of(job))

    def list_models(self, records: list[Any] | None) -> None:
        """Have exactly these records listed as models; None for no such listing: it is a 404."""
        self._models, self._has_models = records, records is not None

    # -- what the host shows -------------------------------------------------------------------------------------------

    def jobs(self) -> Sequence[Any]:
        """Return all jobs in the world's order."""
        return self._jobs.all()

    def job(self, job_id: str) -> dict[str, Any] | None:
        """Return one job."""
        return self._jobs.find(job_id)

    def checkpoints(self, job_id: str) -> Sequence[Any] | None:
        """Return the checkpoints of a job."""
        return self._of_job(job_id, "checkpoints")

    def events(self, job_id: str) -> Sequence[Any] | None:
        """Return the events of a job."""
        return self._of_job(job_id, "events")

    def files(self) -> Sequence[Any]:
        """Return all files, newest first."""
        return self._files.all()

    def file(self, file_id: str) -> dict[str, Any] | None:
        """Return one file."""
        return self._files.find(file_id)

    def file_content(self, file_id: str) -> bytes | None:
        """Return the bytes of a file."""
        return self._contents.get(file_id)

    def models(self) -> Sequence[Any] | None:
        """Return the models that jobs name, with those of their checkpoints, as OpenAI lists them."""
        if self._models is not None or not self._has_models:
            return self._models
        names: dict[str, str] = {}
        for job in self._tuned_jobs():
            names |= dict.fromkeys(self._names_of(job), "example-org")
            if isinstance(job.get("model"), str) and job["model"]:
                names.setdefault(job["model"], "system")
        return [
            {"id": name, "object": "model", "created": DEFAULT_START - 86_400, "owned_by": owner}
            for name, owner in names.items()
            if name not in self._removed_models
        ]

    def _tuned_jobs(self) -> list[dict[str, Any]]:
        return [job for job in self._jobs.all() if isinstance(job, dict)]

    def _names_of(self, job: dict[str, Any]) -> list[str]:
        """Return the names of the models that a job has made."""
        listing = self._children["checkpoints"].get(str(job.get("id")))
        checkpoints = [] if listing is None else [one for one in listing.all() if isinstance(one, dict)]
        names = [job.get("fine_tuned_model"), *(one.get("fine_tuned_model_checkpoint") for one in checkpoints)]
        return [name for name in names if isinstance(name, str) and name]

    def _of_job(self, job_id: str, kind: Child) -> Sequence[Any] | None:
        if (job_id, kind) in self._hidden or self._jobs.find(job_id) is None:
            return None
        listing = self._children[kind].get(job_id)
        return [] if listing is None else listing.all()

    def _add_child(self, job_id: str, kind: Child, record: Record) -> Record:
        return self._children[kind].setdefault(job_id, _Listing(self._order)).add(record)

    def _near(self, job_id: str, number: int) -> int:
        job = self._jobs.find(job_id)
        created = job.get("created_at") if job else None
        return (created if isinstance(created, int) else DEFAULT_START - 86_400) + number
