"""dlt with nothing to do: an empty Arrow table into DuckDB. `python empty_load.py BASE_URL DATABASE KIND`."""

import sys
import tempfile

import dlt
import pyarrow as pa

_, database, kind = sys.argv[1:4]
nothing = pa.schema([pa.field("id", pa.string(), nullable=False)]).empty_table()
with tempfile.TemporaryDirectory() as directory:
    pipeline = dlt.pipeline(
        "benchmark",
        destination=dlt.destinations.duckdb(database),
        dataset_name="benchmark",
        pipelines_dir=directory,
    )
    pipeline.run(dlt.resource([nothing], name=kind, primary_key="id", write_disposition="merge"))
