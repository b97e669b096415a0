"""dlt with rows that are ready: the tables of a DuckDB file, as Arrow, merged into another file.

`python ready_load.py DATABASE SOURCE`, where SOURCE is a file that `ftw sync` made. This is what dlt takes for the
rows, without requests and conversions. It loads as many at a time as `ftw sync` does.
"""

import itertools
import sys
import tempfile

import dlt
import duckdb
import pyarrow as pa

KEYS = {"account", "id", "file_id", "step"}
BATCH_ROWS, COMMIT_ROWS = 10_000, 200_000

_, database, source = sys.argv
with duckdb.connect(source, read_only=True) as ready, tempfile.TemporaryDirectory() as directory:
    found = ready.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'fine_tuning'").fetchall()
    batches = {
        name: ready.cursor().sql(f"SELECT * EXCLUDE _dlt_load_id FROM fine_tuning.{name}").to_arrow_reader(BATCH_ROWS)
        for (name,) in found
        if not name.startswith("_dlt")
    }
    pipeline = dlt.pipeline(
        "benchmark",
        destination=dlt.destinations.duckdb(database),
        dataset_name="benchmark",
        pipelines_dir=directory,
    )
    # dlt warns of a key that Arrow lets be null.
    schemas = {
        name: pa.schema([field.with_nullable(field.name not in KEYS) for field in reader.schema])
        for name, reader in batches.items()
    }
    while parts := {
        name: [pa.Table.from_batches([batch]).cast(schemas[name]) for batch in part]
        for name, reader in batches.items()
        if (part := list(itertools.islice(reader, COMMIT_ROWS // BATCH_ROWS)))
    }:
        pipeline.run(
            [
                dlt.resource(
                    part, name=name, primary_key=sorted(KEYS & set(part[0].schema.names)), write_disposition="merge"
                )
                for name, part in parts.items()
            ]
        )
