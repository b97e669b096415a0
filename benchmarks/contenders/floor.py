"""The floor: threads, raw HTTP, orjson, Arrow and DuckDB, and nothing else. No state, no retries, no merge.

`python floor.py BASE_URL DATABASE KIND`, where KIND is `checkpoints` or `events`.
"""

import http.client
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import local
from urllib.parse import urlsplit

import duckdb
import orjson
import pyarrow as pa

THREADS = 16
here = local()


def page(path: str) -> dict:
    """One answer, on this thread's own connection."""
    if not hasattr(here, "connection"):
        here.connection = http.client.HTTPConnection(urlsplit(base_url).netloc)
    here.connection.request("GET", urlsplit(base_url).path + path, headers={"Authorization": "Bearer key"})
    return orjson.loads(here.connection.getresponse().read())


def listing(path: str) -> list:
    """All records of a listing."""
    records, after = [], ""
    while True:
        answer = page(f"{path}?limit=100{after}")
        records += answer["data"]
        if not answer["has_more"]:
            return records
        after = f"&after={answer['data'][-1]['id']}"


def flat(record: dict) -> dict:
    """A checkpoint's metrics, or an event's data, as columns; what else is nested as JSON text."""
    row = {}
    for name, value in record.items():
        if name in ("metrics", "data"):
            row |= {f"{name}__{key}": float(number) for key, number in value.items()}
        else:
            row[name] = orjson.dumps(value).decode() if isinstance(value, dict | list) else value
    return row


def table(records: list) -> pa.Table:
    """Rows of one kind as Arrow."""
    return pa.Table.from_pylist([flat(record) for record in records])


base_url, database, kind = sys.argv[1:4]
jobs = listing("/fine_tuning/jobs")
with ThreadPoolExecutor(THREADS) as pool:
    children = pool.map(lambda job: table(listing(f"/fine_tuning/jobs/{job['id']}/{kind}")), jobs)
    tables = {"jobs": table(jobs), kind: pa.concat_tables(children)}
with duckdb.connect(database) as connection:
    for name, rows in tables.items():
        connection.register("rows", rows)
        connection.execute(f"CREATE TABLE {name} AS FROM rows")
