"""dlt's own `rest_api` source with the same tables, in Parquet, its fastest way into DuckDB.

`python rest_api.py BASE_URL DATABASE KIND`, where KIND is `checkpoints` or `events`.
"""

import sys

import dlt
from dlt.sources.rest_api import rest_api_source

base_url, database, kind = sys.argv[1:4]
paginator = {
    "type": "cursor",
    "cursor_path": "data[-1].id",
    "cursor_param": "after",
    "has_more_path": "has_more",
}
source = rest_api_source(
    {
        "client": {"base_url": base_url, "auth": {"type": "bearer", "token": "key"}, "paginator": paginator},
        "resource_defaults": {
            "primary_key": "id",
            "write_disposition": "merge",
            "max_table_nesting": 1,
            "parallelized": True,
            "endpoint": {"params": {"limit": 100}, "data_selector": "data"},
        },
        "resources": [
            {"name": "jobs", "endpoint": {"path": "fine_tuning/jobs"}},
            {"name": kind, "endpoint": {"path": f"fine_tuning/jobs/{{resources.jobs.id}}/{kind}"}},
        ],
    },
    name="fine_tuning",
)
pipeline = dlt.pipeline(
    "benchmark",
    destination=dlt.destinations.duckdb(database),
    dataset_name="fine_tuning",
    pipelines_dir=f"{database}.pipelines",
)
pipeline.run(source, loader_file_format="parquet")
