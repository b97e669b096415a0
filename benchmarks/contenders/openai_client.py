"""The official client in a loop, its records put into DuckDB through Arrow.

`python openai_client.py BASE_URL DATABASE KIND`, where KIND is `checkpoints` or `events`.
"""

import json
import sys

import duckdb
import pyarrow as pa
from openai import OpenAI

base_url, database, kind = sys.argv[1:4]
client = OpenAI(base_url=base_url, api_key="key")


def flat(record: dict) -> dict:
    """A checkpoint's metrics, or an event's data, as columns; what else is nested as JSON text."""
    row = {}
    for name, value in record.items():
        if name in ("metrics", "data"):
            row |= {f"{name}__{key}": float(number) for key, number in value.items() if number is not None}
        else:
            row[name] = json.dumps(value) if isinstance(value, dict | list) else value
    return row


jobs, children = [], []
for job in client.fine_tuning.jobs.list(limit=100):
    jobs.append(flat(job.to_dict(mode="json")))
    if kind == "checkpoints":
        listing = client.fine_tuning.jobs.checkpoints.list(job.id, limit=100)
    else:
        listing = client.fine_tuning.jobs.list_events(job.id, limit=100)
    children += [flat(record.to_dict(mode="json")) for record in listing]

with duckdb.connect(database) as connection:
    for name, records in {"jobs": jobs, kind: children}.items():
        connection.register("rows", pa.Table.from_pylist(records))
        connection.execute(f"CREATE OR REPLACE TABLE {name} AS FROM rows")
