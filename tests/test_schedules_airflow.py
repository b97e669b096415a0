"""The Airflow DAG, parsed and run by Airflow itself, in an environment of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import pytest

from command import KEY
from fine_tuning_simulator import ScriptedWorld, Simulator
from harness import DAY, NOW

pytestmark = [pytest.mark.scheduler, pytest.mark.thorough, pytest.mark.timeout(400)]

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "tests/airflow_run.py"
DAG = ROOT / "pipelines/schedules/airflow/fine_tuning_sync.py"
SURROUNDINGS = dict(os.environ)
"""As they were before any test: uv keeps its environments under the home."""


def uv(
    command: str, *arguments: str, given: str = "", cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Call uv on the script, without a network."""
    return subprocess.run(
        ["uv", command, "--offline", "--script", str(SCRIPT), *arguments],
        env={**SURROUNDINGS, **env},
        input=given,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def airflow() -> None:
    """Its environment, made once by `uv sync --script tests/airflow_run.py`."""
    if shutil.which("uv", path=SURROUNDINGS.get("PATH")) is None:
        pytest.skip("needs uv")
    if uv("sync").returncode:
        pytest.skip("needs Airflow: uv sync --script tests/airflow_run.py")


def run(folder: Path, dag: str, secrets: str) -> dict[str, Any]:
    """Run a DAG of the folder `dags`, with secrets in Airflow's variable. Return what the script says."""
    ran = uv(
        "run",
        str(folder / "dags"),
        dag,
        given=secrets,
        cwd=folder,
        AIRFLOW_HOME=str(folder / "airflow"),
        AIRFLOW__CORE__DAGS_FOLDER=str(folder / "dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
        DLT_DATA_DIR=str(folder / "dlt"),
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert KEY not in ran.stdout + ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert told["import_errors"] == {}
    return told


@pytest.mark.nightly
def test_airflow_parses_the_dag_and_runs_it_with_secrets_from_its_variable(
    airflow: None, world: ScriptedWorld, host: Simulator, tmp_path: Path
) -> None:
    world.add_job(id="ftjob-1", created_at=NOW - DAY)
    world.add_checkpoint("ftjob-1", id="ftckpt-1")
    dags, database = tmp_path / "dags", tmp_path / "fine_tuning_warehouse.duckdb"
    dags.mkdir()
    shown = DAG.read_text()
    assert "/srv/fine-tuning/" in shown
    (dags / DAG.name).write_text(shown.replace("/srv/fine-tuning/", f"{tmp_path}/"))

    secrets = f'[sources.openai_fine_tuning]\nopenai_api_key = "{KEY}"\nopenai_base_url = "{host.base_url}"\n'
    told = run(tmp_path, "fine_tuning_sync", secrets)
    assert (told["state"], told["tasks"]) == ("success", ["success"])
    (returned,) = told["returned"]
    assert returned["rows"]["checkpoints"] == 1
    assert returned["requests"] == len(host.requests)
    assert {request.key for request in host.requests} == {KEY}
    with duckdb.connect(str(database), read_only=True) as connection:
        assert connection.execute("SELECT load_id FROM fine_tuning.sync_history").fetchall() == [
            (one,) for one in returned["load_ids"]
        ]
    assert not (tmp_path / "dlt/pipelines").exists(), "dlt's directory of the user, which mixes up warehouses"


@pytest.mark.nightly
def test_the_dag_of_the_page_about_monitoring_shows_which_account_fails(
    airflow: None, world: ScriptedWorld, tmp_path: Path
) -> None:
    world.add_job(id="ftjob-1", created_at=NOW - DAY)
    page = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"## Airflow.*?```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "dags").mkdir()
    # Airflow's own test waits for no retry.
    (tmp_path / "dags/page.py").write_text(shown.replace("retries=3", "retries=0"))
    with Simulator(world, api_keys={KEY: frozenset()}) as host:
        told = run(
            tmp_path,
            "fine_tuning",
            "\n".join(
                f'[sources.openai_fine_tuning.accounts.{label}]\nopenai_api_key = "{key}"\n'
                f'openai_base_url = "{host.base_url}"'
                for label, key in (("research", "dead"), ("production", KEY))
            ),
        )
    assert (told["state"], told["tasks"]) == ("failed", ["failed", "success"])
    assert told["returned"][1]["jobs"] == 1
