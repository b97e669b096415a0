"""The README of an archive: what each file is, and how to read it without this software."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fine_tuning_warehouse.text import counted
from fine_tuning_warehouse.warehouses.rows import Relation

from .manifest import ORIGINALS, Manifest
from .parquet import path_of


@dataclass(frozen=True)
class _Question:
    """What may be asked of an archive that has a file, in SQL and in pandas."""

    path: str
    words: str
    sql: str
    pandas: str


_QUESTIONS = (
    _Question(
        "tables/jobs.parquet",
        "How many jobs of each base model ended how?",
        """
SELECT model, status, count(*) AS jobs, sum(trained_tokens) AS trained_tokens
FROM 'tables/jobs.parquet'
GROUP BY model, status
ORDER BY jobs DESC, model, status;
""",
        """
import pandas as pd

jobs = pd.read_parquet("tables/jobs.parquet")
print(jobs.groupby(["model", "status"])["trained_tokens"].agg(["size", "sum"]))
""",
    ),
    _Question(
        "views/best_checkpoints.parquet",
        "Which checkpoint of each job was the best, and by what measure?",
        """
SELECT fine_tuning_job_id, base_model, fine_tuned_model_checkpoint, evaluation_metric, evaluation_value
FROM 'views/best_checkpoints.parquet'
ORDER BY evaluation_metric, evaluation_value;
""",
        """
import pandas as pd

best = pd.read_parquet("views/best_checkpoints.parquet")
columns = ["base_model", "fine_tuned_model_checkpoint", "evaluation_metric", "evaluation_value"]
print(best.sort_values(["evaluation_metric", "evaluation_value"])[columns])
""",
    ),
    _Question(
        "tables/result_metrics.parquet",
        "How far did the training loss of each job fall?",
        """
SELECT fine_tuning_job_id, count(*) AS steps, arg_min(train_loss, step) AS first_loss, min(train_loss) AS lowest_loss
FROM 'tables/result_metrics.parquet'
GROUP BY fine_tuning_job_id
ORDER BY lowest_loss;
""",
        """
import pandas as pd

steps = pd.read_parquet("tables/result_metrics.parquet").sort_values("step")
print(steps.groupby("fine_tuning_job_id")["train_loss"].agg(["size", "first", "min"]).sort_values("min"))
""",
    ),
    _Question(
        "tables/checkpoints.parquet",
        "Which checkpoints are there?",
        """
SELECT fine_tuning_job_id, step_number, fine_tuned_model_checkpoint, metrics__valid_loss
FROM 'tables/checkpoints.parquet'
ORDER BY fine_tuning_job_id, step_number;
""",
        """
import pandas as pd

checkpoints = pd.read_parquet("tables/checkpoints.parquet").sort_values(["fine_tuning_job_id", "step_number"])
print(checkpoints[["fine_tuning_job_id", "step_number", "fine_tuned_model_checkpoint", "metrics__valid_loss"]])
""",
    ),
    _Question(
        "tables/events.parquet",
        "What happened last?",
        """
SELECT created_at, fine_tuning_job_id, message
FROM 'tables/events.parquet'
ORDER BY created_at DESC
LIMIT 20;
""",
        """
import pandas as pd

events = pd.read_parquet("tables/events.parquet").sort_values("created_at", ascending=False)
print(events[["created_at", "fine_tuning_job_id", "message"]].head(20))
""",
    ),
    _Question(
        "tables/syncs.parquet",
        "When was each account read last?",
        """
SELECT account, max(finished_at) AS last_read, sum(requests) AS requests
FROM 'tables/syncs.parquet'
GROUP BY account
ORDER BY account;
""",
        """
import pandas as pd

syncs = pd.read_parquet("tables/syncs.parquet")
print(syncs.groupby("account").agg(last_read=("finished_at", "max"), requests=("requests", "sum")))
""",
    ),
    _Question(
        "tables/rejected_records.parquet",
        "What could not be typed, and why?",
        """
SELECT resource, reason, count(*) AS records
FROM 'tables/rejected_records.parquet'
GROUP BY resource, reason
ORDER BY records DESC;
""",
        """
import pandas as pd

rejected = pd.read_parquet("tables/rejected_records.parquet")
print(rejected.groupby(["resource", "reason"]).size())
""",
    ),
)
_ASKED = 3

_HEAD = """# The fine-tuning history of {accounts}

Jobs, checkpoints, events and result files of an OpenAI-compatible fine-tuning API, as `ftw archive` of
fine-tuning-warehouse wrote them. It stands alone: nothing but a reader of Parquet is needed, such as DuckDB, pandas or
Spark. Every table has the column `account`: the label that its rows were read under.

`manifest.json` has the time, the hosts, the versions, and every file with its rows, bytes and SHA-256.

## Is it whole?

```sh
sha256sum -c SHA256SUMS
```

(On macOS: `shasum -a 256 -c SHA256SUMS`.) With the software that wrote it, `ftw archive --check DIR` also counts the
rows and names what does not belong here. A file `archive.unfinished` says that a run has not ended: run it again.

## What is here

| file | rows | what it is |
|---|---:|---|
"""

_ORIGINALS = """| `result_files/` | {results:,} files | The result files of jobs, byte for byte as the host gave them |
| `training_files/` | {training:,} files | Training and validation files, byte for byte{without} |

Which file is whose, what the host called it and which jobs name it stands in `manifest.json`, under `files`. A file is
named by its id, or, where an id can be no file name, by the SHA-256 of it. Result files are CSV with a row a step;
newer OpenAI jobs have them base64-encoded, and so they are here too. This reads both:

```python
import base64
import io
import pathlib

import pandas as pd

for file in sorted(pathlib.Path("result_files").glob("*.csv"))[:3]:
    content = file.read_bytes()
    if b"step" not in content.split(b"\\n", 1)[0]:
        content = base64.b64decode(content)
    print(file.name, pd.read_csv(io.BytesIO(content)).shape)
```

## Questions

Run these in this folder. SQL is DuckDB's (`duckdb`, or `duckdb.sql("...")` in Python); for the rest,
`pip install pandas pyarrow`.
"""

_COLUMNS = """
## Columns

They are described inside the files too: in DuckDB
`SELECT decode(value) FROM parquet_kv_metadata('tables/jobs.parquet') WHERE decode(key) = 'columns'`, in Python
`pyarrow.parquet.read_schema("tables/jobs.parquet").field("status").metadata`. Times are in UTC. What is
described as JSON is JSON text.
"""


def readme(manifest: Manifest, relations: Sequence[Relation]) -> bytes:
    """The README of an archive with these files."""
    return "".join(_parts(manifest, relations)).encode()


def _parts(manifest: Manifest, relations: Sequence[Relation]) -> Iterator[str]:
    accounts = ", ".join(f"`{_cell(label)}`" for label in sorted(manifest.accounts)) or "no account yet"
    yield _HEAD.format(accounts=accounts)
    for relation in relations:
        path = path_of(relation)
        rows = manifest.files[path].rows
        about = relation.schema.metadata[b"description"].decode()
        yield f"| `{path}` | {rows:,} | {'' if relation.kind == 'table' else 'View. '}{_cell(about)} |\n"
    kinds = [entry.kind for entry in manifest.files.values() if entry.kind in ORIGINALS]
    training = sum(kind != "result_file" for kind in kinds)
    without = "" if training else " (`ftw archive --training-files` brings them)"
    yield _ORIGINALS.format(results=len(kinds) - training, training=training, without=without)
    for question in [one for one in _QUESTIONS if one.path in manifest.files][:_ASKED]:
        yield f"\n### {question.words}\n\n```sql{question.sql}```\n\n```python{question.pandas}```\n"
    if manifest.missing:
        yield from _missing(manifest)
    yield _COLUMNS
    for relation in relations:
        yield f"\n### `{relation.name}`\n\n| column | type | what it holds |\n|---|---|---|\n"
        for field in relation.schema:
            description = (field.metadata or {}).get(b"description", b"").decode()
            yield f"| `{_cell(field.name)}` | {_type(str(field.type))} | {_cell(description)} |\n"


def _missing(manifest: Manifest) -> Iterator[str]:
    number = len(manifest.missing)
    yield f"\n## What is missing\n\n{counted(number, 'file')} that jobs name could not be had. "
    yield "Which, and why, stands in `manifest.json` under `missing`.\n"


def _type(arrow: str) -> str:
    return {"timestamp[us, tz=UTC]": "time, UTC", "string": "text", "double": "double", "int64": "integer"}.get(
        arrow, arrow
    )


def _cell(text: str) -> str:
    """A text that can stand in a table's cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")
