# /// script
# requires-python = ">=3.10"
# dependencies = ["apache-airflow>=3.1", "fine-tuning-warehouse"]
#
# [tool.uv]
# exclude-newer = "2026-11-20T00:00:00Z"
#
# [tool.uv.sources]
# fine-tuning-warehouse = { path = "..", editable = true }
# ///
"""Parse the DAG and run it once, with Airflow's own means, in an environment of its own.

Usage: uv run --script tests/airflow_run.py FOLDER-OF-DAGS DAG. Takes dlt's secrets on stdin, for the variable that dlt
reads them from, and prints what came of it as one line of JSON, last.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag
from airflow.models import Variable
from airflow.utils import db


def main(folder: Path, name: str) -> None:
    """Parse, run, and tell."""
    db.initdb()
    bag = DagBag(folder)
    dag = bag.dags[name]
    if variable := sys.stdin.read():
        Variable.set("dlt_secrets_toml", variable)
    run = dag.test()
    tasks = sorted(run.get_task_instances(), key=lambda one: one.map_index)
    told = {
        "import_errors": {str(name): str(error) for name, error in bag.import_errors.items()},
        "state": str(run.state),
        "tasks": [str(one.state) for one in tasks],
        "returned": [one.xcom_pull(task_ids=one.task_id, map_indexes=one.map_index) for one in tasks],
    }
    print(json.dumps(told))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
