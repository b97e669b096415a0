"""The tables: every column that is always there, with its type and what it holds.

The words are this project's; the facts are those of the API's own reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Literal

import dlt
import pyarrow as pa

Type = Literal["text", "json", "double", "bigint", "bool", "timestamp"]


@cache
def arrow_types() -> dict[str, pa.DataType]:
    """Return the Arrow type for each `Type`."""
    # Not at import: `dlt init` imports a source to look at it, with what is not installed yet replaced by nothing.
    return {
        "text": pa.string(),
        "json": pa.string(),  # an Arrow string under dlt's own json hint warns on every batch, so JSON is text
        "double": pa.float64(),
        "bigint": pa.int64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", "UTC"),
    }


@dataclass(frozen=True)
class Column:
    """A column that is always there. `key` columns are never null and identify the row."""

    name: str
    type: Type
    description: str
    key: bool = False


@dataclass(frozen=True)
class Flattened:
    """A nested object with fields that become columns `<field>__<key>`.

    Attributes:
        type: The type of all its columns; None if each takes the type of its first value.
        keeps_json: Whether the object is also kept whole, as JSON text under its own name.
        numbers_only: Whether only its numbers become columns; what else it holds is in the JSON text.
        keys: The only keys that become columns; None for all.
    """

    type: Type | None = None
    keeps_json: bool = False
    numbers_only: bool = False
    keys: frozenset[str] | None = None


@dataclass(frozen=True)
class Table:
    """A table of the destination. Fields of the objects in `flattened` become columns of their own."""

    name: str
    description: str
    columns: tuple[Column, ...]
    flattened: dict[str, Flattened] = field(default_factory=dict)

    @cached_property
    def types(self) -> dict[str, Type]:
        """Column name to type."""
        return {column.name: column.type for column in self.columns}

    @cached_property
    def catch_all(self) -> str | None:
        """The name of the JSON column for fields that get no column of their own."""
        return next((name for name in (_OTHER_METRICS.name, _OTHER_FIELDS.name) if name in self.types), None)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The names of the key columns."""
        return tuple(column.name for column in self.columns if column.key)

    @cached_property
    def digest(self) -> str:
        """A short hash of its columns and their types. A destination that was made with another one needs an update."""
        declared = repr([(column.name, column.type, column.key) for column in self.columns])
        return hashlib.sha256(declared.encode()).hexdigest()[:8]


ACCOUNT = Column(
    "account", "text", "Label of the account that the row came from; the API itself does not name it.", key=True
)
"""The first column of every table."""

SYNCED_AT = Column("synced_at", "timestamp", "When the row was read as it stands here: new, or with a change.")
"""The last column of every table."""

_OTHER_FIELDS = Column(
    "other_fields",
    "json",
    "Fields that have no column of their own, as a JSON object with the names that the host gave.",
)
_OTHER_METRICS = Column(
    "other_metrics",
    "json",
    "Columns of the file that have no column here, as a JSON object with the names in the file.",
)

_METRICS: tuple[tuple[str, str], ...] = (
    ("step", "Step that the metrics were measured at."),
    ("train_loss", "Loss on the training batch of this step (nats per token)."),
    ("train_mean_token_accuracy", "Share of training tokens predicted right, 0 to 1."),
    ("valid_loss", "Loss on a validation batch at this step (nats per token)."),
    ("valid_mean_token_accuracy", "Share of tokens of the validation batch predicted right, 0 to 1."),
    ("full_valid_loss", "Loss on the whole validation file, measured at the end of an epoch (nats per token)."),
    ("full_valid_mean_token_accuracy", "Share of tokens of the whole validation file predicted right, 0 to 1."),
    ("train_mean_reward", "Mean reward of the graders on training samples (reinforcement runs)."),
    ("valid_mean_reward", "Mean reward of the graders on a validation batch (reinforcement runs)."),
    ("full_valid_mean_reward", "Mean reward of the graders on the whole validation file (reinforcement runs)."),
)


def _metrics(prefix: str) -> tuple[Column, ...]:
    return tuple(Column(f"{prefix}__{name}", "double", description) for name, description in _METRICS)


JOBS = Table(
    "jobs",
    "Fine-tuning jobs, each in the latest state that was read.",
    (
        ACCOUNT,
        Column("id", "text", "Id of the job.", key=True),
        Column("object", "text", "Always fine_tuning.job."),
        Column("created_at", "timestamp", "When the job was created."),
        Column("finished_at", "timestamp", "When the job ended; null while it runs, and for some jobs that failed."),
        Column("estimated_finish", "timestamp", "When the host expects a running job to end."),
        Column("status", "text", "validating_files, queued, running, paused, succeeded, failed, cancelled ..."),
        Column("model", "text", "Base model that is tuned."),
        Column("fine_tuned_model", "text", "Name of the resulting model; null until the job has succeeded."),
        Column("user_provided_suffix", "text", "Suffix asked for in the model's name (OpenAI)."),
        Column("suffix", "text", "Suffix asked for in the model's name (other hosts)."),
        Column("organization_id", "text", "Organisation that owns the job."),
        Column("training_file", "text", "Id of the file trained on."),
        Column("validation_file", "text", "Id of the file validated on, where there is one."),
        Column("result_files", "json", "Ids of the result files, as a JSON array."),
        Column("trained_tokens", "bigint", "Billable tokens trained on; null on most hosts while the job runs."),
        Column("seed", "bigint", "Random seed of the job."),
        Column("error__code", "text", "Error code of a job that failed."),
        Column("error__message", "text", "What went wrong, in the host's words."),
        Column("error__param", "text", "Parameter that was wrong, such as training_file."),
        Column("hyperparameters__n_epochs", "text", "Number of epochs, or auto."),
        Column("hyperparameters__batch_size", "text", "Examples in a batch, or auto."),
        Column("hyperparameters__learning_rate_multiplier", "text", "Factor on the learning rate, or auto."),
        Column(
            "hyperparameters__beta", "text", "Weight of the penalty for moving away from the base model (DPO), or auto."
        ),
        Column("hyperparameters__reasoning_effort", "text", "Reasoning effort (reinforcement runs)."),
        Column("hyperparameters__compute_multiplier", "text", "Factor on the compute spent on exploring, or auto."),
        Column("hyperparameters__eval_interval", "text", "Steps between evaluations, or auto (reinforcement runs)."),
        Column("hyperparameters__eval_samples", "text", "Samples generated in an evaluation, or auto."),
        Column("method", "json", "Method with its own hyperparameters and graders, as JSON."),
        Column("method__type", "text", "supervised, dpo or reinforcement."),
        Column("integrations", "json", "Integrations such as Weights & Biases, as a JSON array."),
        Column("metadata", "json", "Key-value pairs that the user attached, as a JSON object."),
        Column(
            "checkpoints_listed_at",
            "timestamp",
            "When the job's checkpoints were listed to the end; `ftw` changes it once the host has dropped one.",
        ),
        _OTHER_FIELDS,
        SYNCED_AT,
    ),
    {
        "error": Flattened(type="text"),
        "hyperparameters": Flattened(type="text"),
        "method": Flattened(type="text", keeps_json=True, keys=frozenset({"type"})),
    },
)

CHECKPOINTS = Table(
    "checkpoints",
    "Checkpoints of fine-tuning jobs: models that can be deployed, with the metrics of their step.",
    (
        ACCOUNT,
        Column("id", "text", "Id of the checkpoint.", key=True),
        Column("object", "text", "Always fine_tuning.job.checkpoint."),
        Column(
            "created_at", "timestamp", "When the checkpoint was trained; it may become visible only at the job's end."
        ),
        Column("fine_tuning_job_id", "text", "Id of the job that made it."),
        Column(
            "fine_tuned_model_checkpoint", "text", "Name to deploy it by; the last one's is the job's fine_tuned_model."
        ),
        Column("step_number", "bigint", "Step at which it was made."),
        *_metrics("metrics"),
        Column(
            "last_listed_at",
            "timestamp",
            "When the host listed it; equal to its job's checkpoints_listed_at if the host still keeps it.",
        ),
        _OTHER_FIELDS,
        SYNCED_AT,
    ),
    {"metrics": Flattened()},
)

EVENTS = Table(
    "events",
    "Events of fine-tuning jobs: what happened, and the metrics of every logged step.",
    (
        ACCOUNT,
        Column("id", "text", "Id of the event.", key=True),
        Column("object", "text", "Always fine_tuning.job.event."),
        Column("created_at", "timestamp", "When the event happened."),
        Column("fine_tuning_job_id", "text", "Id of the job that the event belongs to."),
        Column("level", "text", "info, warn or error."),
        Column("type", "text", "message, metrics, moderation_checks ..."),
        Column("message", "text", "The event in words."),
        Column("data", "json", "Everything that came with the event, as JSON."),
        *_metrics("data"),
        Column("data__total_steps", "double", "Steps that the job will take in all."),
        _OTHER_FIELDS,
        SYNCED_AT,
    ),
    {"data": Flattened(type="double", keeps_json=True, numbers_only=True)},
)

RESULT_METRICS = Table(
    "result_metrics",
    "Rows of the jobs' result files: the metrics of every step.",
    (
        ACCOUNT,
        Column("file_id", "text", "Id of the result file.", key=True),
        Column("step", "bigint", "Training step.", key=True),
        Column("fine_tuning_job_id", "text", "Id of the job that wrote the file."),
        Column("train_loss", "double", "Loss on the training batch of this step (nats per token)."),
        Column("train_accuracy", "double", "Share of training tokens predicted right, 0 to 1."),
        Column("valid_loss", "double", "Loss on a validation batch at this step (nats per token)."),
        Column(
            "valid_mean_token_accuracy", "double", "Share of tokens of the validation batch predicted right, 0 to 1."
        ),
        _OTHER_METRICS,
        SYNCED_AT,
    ),
)

FILES = Table(
    "files",
    "Files that jobs name: for training, for validation, and with results.",
    (
        ACCOUNT,
        Column("id", "text", "Id of the file.", key=True),
        Column("object", "text", "Always file."),
        Column("created_at", "timestamp", "When it was uploaded, or written by a job."),
        Column("expires_at", "timestamp", "When the host will delete it; null where it is kept."),
        Column("filename", "text", "Its name at the host."),
        Column("bytes", "bigint", "Its size in bytes."),
        Column("purpose", "text", "fine-tune, fine-tune-results ..."),
        Column("status", "text", "uploaded, processed or error, as of when it was read."),
        _OTHER_FIELDS,
        SYNCED_AT,
    ),
)

MODELS = Table(
    "models",
    "Models that the host has listed: base models, fine-tuned models, and on some hosts their checkpoints.",
    (
        ACCOUNT,
        Column("id", "text", "Name to call the model by.", key=True),
        Column("object", "text", "Always model."),
        Column("created_at", "timestamp", "When the model was made."),
        Column("owned_by", "text", "Organisation that owns the model; system or openai for base models."),
        Column("deprecation", "json", "When the model is retired, for what, as JSON (Azure)."),
        Column("deprecation__fine_tune", "timestamp", "When the host stops to fine-tune the model (Azure)."),
        Column("deprecation__inference", "timestamp", "When the host stops to serve the model (Azure)."),
        Column(
            "last_listed_at",
            "timestamp",
            "When the host last listed it. The latest time of an account is that of its last listing.",
        ),
        _OTHER_FIELDS,
        SYNCED_AT,
    ),
    {"deprecation": Flattened(type="timestamp", keeps_json=True, keys=frozenset({"fine_tune", "inference"}))},
)

REJECTED_RECORDS = Table(
    "rejected_records",
    "Records with a value that does not fit its column, or without a key: the record, whole, and the reason.",
    (
        ACCOUNT,
        Column("resource", "text", "Resource that it was read for.", key=True),
        Column("record_hash", "text", "SHA-256 of job id and record: the same record is kept once.", key=True),
        Column("fine_tuning_job_id", "text", "Id of the job that the record was read for."),
        Column(
            "reason",
            "text",
            "Which fields do not fit, and why. The row is loaded with null there, unless it lacks its key.",
        ),
        Column("record", "text", "The record as ASCII-escaped JSON text."),
        Column("rejected_at", "timestamp", "When it was last rejected."),
        SYNCED_AT,
    ),
)

TABLES: dict[str, Table] = {
    table.name: table for table in (JOBS, CHECKPOINTS, EVENTS, RESULT_METRICS, FILES, MODELS, REJECTED_RECORDS)
}
"""The tables that the source fills, by name."""


SCHEMA = "openai_fine_tuning"
"""dlt's name of the schema, which all accounts of a warehouse share."""


def schema(tables: Iterable[Table] = TABLES.values()) -> dlt.Schema:
    """Return the dlt schema of tables: columns, types, keys, descriptions."""
    result = dlt.Schema(SCHEMA)
    for table in tables:
        result.update_table(
            {
                "name": table.name,
                "description": table.description,
                "write_disposition": "merge",
                "columns": {
                    column.name: {
                        "name": column.name,
                        "data_type": "text" if column.type == "json" else column.type,
                        "nullable": not column.key,
                        "description": column.description,
                        **({"primary_key": True} if column.key else {}),
                    }
                    for column in table.columns
                },
            }
        )
    return result
