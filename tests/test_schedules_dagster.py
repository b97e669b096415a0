"""The Dagster definitions, materialised in process into a real warehouse."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from command import KEY
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from harness import DAY, NOW, Database
from openai_fine_tuning.schema import TABLES
from openai_fine_tuning.settings import RESOURCES

pytestmark = [
    pytest.mark.scheduler,
    # Dagster's own, about pydantic and its gRPC code
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
dg: Any = pytest.importorskip("dagster", reason="needs the dependency group `schedulers`")

DEFINITIONS = Path(__file__).parent.parent / "pipelines/schedules/dagster/definitions.py"


@pytest.fixture(scope="module")
def shown() -> Any:
    """The file, as Dagster loads it."""
    spec = importlib.util.spec_from_file_location("shown_definitions", DEFINITIONS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def instance(
    world: ScriptedWorld, host: Simulator, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Any]:
    """A Dagster instance that keeps its records in a folder; a host with two jobs."""
    world.add_file("file-1", b"step,train_loss\n1,0.5\n")
    world.add_job(id="ftjob-1", created_at=NOW - DAY, result_files=["file-1"])
    world.add_checkpoint("ftjob-1", id="ftckpt-1")
    world.add_event("ftjob-1", id="ftevent-1")
    world.add_job(id="ftjob-2", created_at=NOW - 3600, status="running")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", host.base_url)
    monkeypatch.setenv("FINE_TUNING_DATABASE", str(database.path))
    (tmp_path / "dagster").mkdir()
    with dg.instance_for_test(temp_dir=str(tmp_path / "dagster")) as made:
        yield made


def metadata(result: Any) -> dict[str, dict[str, Any]]:
    """What was said of each materialised asset."""
    return {
        event.asset_key.path[-1]: {
            name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
    }


def test_the_scheduled_job_fills_every_table_and_says_what_it_did(
    shown: Any, instance: Any, host: Simulator, database: Database, tmp_path: Path
) -> None:
    defs = shown.defs
    (schedule,) = defs.schedules
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    job = defs.resolve_job_def(schedule.job_name)
    result = job.execute_in_process(instance=instance)
    assert result.success
    said = metadata(result)
    assert set(said) == set(RESOURCES)
    written = {"jobs": 2, "checkpoints": 1, "events": 1, "result_metrics": 1, "files": 2, "models": 3}
    assert {name: one["rows_written"] for name, one in said.items()} == written
    assert said["jobs"]["requests"] == len(host.requests)
    assert (said["jobs"]["jobs_seen"], said["jobs"]["jobs_open"]) == (2, 1)
    assert database.rows("SELECT load_id FROM sync_history") == [(one,) for one in said["jobs"]["load_ids"]]
    assert database.rows("SELECT count(*) FROM best_checkpoints") == [(1,)]

    host.requests.clear()
    again = job.execute_in_process(instance=instance)
    assert again.success
    assert len(host.requests) <= 4
    assert database.rows("SELECT count(*) FROM syncs") == [(2,)]
    assert not (tmp_path / "home/.dlt/pipelines").exists(), "dlt's directory of the user, which mixes up warehouses"
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_some_assets_are_a_sync_of_some_resources(
    shown: Any, instance: Any, host: Simulator, database: Database
) -> None:
    result = dg.materialize(
        [shown.fine_tuning_tables],
        selection=[shown.asset_key("checkpoints")],
        resources=shown.defs.resources,
        instance=instance,
    )
    assert result.success
    assert set(metadata(result)) == {"checkpoints"}
    assert {request.path.rsplit("/", 1)[-1] for request in host.requests} == {"jobs", "checkpoints"}
    assert database.ids("checkpoints") == ["ftckpt-1"]


def test_assets_are_described_as_their_tables(shown: Any) -> None:
    specs = {spec.key.path[-1]: spec for spec in shown.fine_tuning_tables.specs}
    assert set(specs) == set(RESOURCES)
    for name, spec in specs.items():
        assert spec.description == TABLES[name].description
        assert timedelta(hours=1) < spec.freshness_policy.warn_window.to_timedelta()
        columns = spec.metadata["dagster/column_schema"].columns
        assert [column.name for column in columns] == [column.name for column in TABLES[name].columns]


def test_a_skipped_job_is_a_warning_of_the_assets_check(shown: Any, instance: Any, host: Simulator) -> None:
    host.faults.append(Fault("status", path="ftjob-1/events", times=None, status=403, message="Not yours."))
    result = dg.materialize([shown.fine_tuning_tables], resources=shown.defs.resources, instance=instance)
    assert result.success
    checks = {check.asset_key.path[-1]: check for check in result.get_asset_check_evaluations()}
    assert [name for name, check in checks.items() if not check.passed] == ["events"]
    assert checks["events"].severity == dg.AssetCheckSeverity.WARN
    assert "Not yours." in json.dumps(checks["events"].metadata["skipped"].value)


def test_a_failure_is_told_in_a_line_and_wrong_settings_are_not_tried_again(
    shown: Any, instance: Any, host: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    result = dg.materialize(
        [shown.fine_tuning_tables], resources=shown.defs.resources, instance=instance, raise_on_error=False
    )
    (event,) = [event for event in result.all_events if event.is_step_failure or event.is_step_up_for_retry]
    assert event.is_step_failure
    assert "OPENAI_API_KEY" in event.step_failure_data.user_failure_data.description
    assert host.requests == []


def test_the_assets_of_the_page_about_monitoring_show_which_account_fails(
    instance: Any, host: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = (Path(__file__).parent.parent / "docs/monitoring.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"## Dagster.*?```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # the page's code
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    host.faults.append(Fault("status", times=1, status=401))
    for label in ("RESEARCH", "PRODUCTION"):
        prefix = f"SOURCES__OPENAI_FINE_TUNING__ACCOUNTS__{label}"
        monkeypatch.setenv(f"{prefix}__OPENAI_API_KEY", KEY)
        monkeypatch.setenv(f"{prefix}__OPENAI_BASE_URL", host.base_url)
    defs = names["defs"]
    (schedule,) = defs.schedules
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    for asset in defs.assets:
        assert [spec.freshness_policy for spec in asset.specs] == [names["FRESH"]]
    result = defs.resolve_job_def(schedule.job_name).execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    (done,) = result.get_asset_materialization_events()
    assert {failed.step_key.rsplit("__", 1)[-1], done.asset_key.path[-1]} == {"research", "production"}
    assert metadata(result)[done.asset_key.path[-1]]["jobs"] == 2
