"""The source in the hands of someone who knows dlt and nothing of the command."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pyarrow as pa
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from command import HOUR, KEY, NOW
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from openai_fine_tuning import ConfigurationError, openai_fine_tuning
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.settings import RESOURCES


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    """Two jobs that ended, and one that runs."""
    world.add_file("file-results", b"step,train_loss\n1,0.5\n2,0.4\n")
    for number in (1, 2):
        world.add_job(
            id=f"ftjob-{number}", created_at=NOW - (10 + number) * HOUR, result_files=["file-results"][: number % 2]
        )
        world.add_checkpoint(f"ftjob-{number}", id=f"ftckpt-{number}")
        world.add_event(f"ftjob-{number}", id=f"ftevent-{number}")
    world.add_job(id="ftjob-3", created_at=NOW - HOUR, status="running")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, host: Simulator, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", host.base_url)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))  # root's would be /var/dlt, whatever the home


@pytest.fixture
def pipeline(tmp_path: Path) -> dlt.Pipeline:
    """A pipeline into a DuckDB file, with a working directory of its own."""
    return dlt.pipeline(
        "my_fine_tuning",
        pipelines_dir=str(tmp_path / "pipelines"),
        destination=dlt.destinations.duckdb(str(tmp_path / "mine.duckdb")),
        dataset_name="tuning",
    )


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[str], list[tuple[Any, ...]]]:
    """Asks the DuckDB file."""

    def ask(sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(tmp_path / "mine.duckdb"), read_only=True) as connection:
            connection.execute("SET search_path = 'tuning'")
            return connection.execute(sql).fetchall()

    return ask


Rows = Callable[[str], list[tuple[Any, ...]]]


def tables(rows: Rows) -> set[str]:
    """The tables but for dlt's own."""
    names = rows("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'tuning'")
    return {name for (name,) in names if not name.startswith("_dlt")}


def test_a_bare_run_finds_key_and_host_in_the_environment(host: Simulator, pipeline: dlt.Pipeline, rows: Rows) -> None:
    pipeline.run(openai_fine_tuning())
    assert {request.key for request in host.requests} == {KEY}
    assert tables(rows) == {*RESOURCES, "rejected_records"}
    assert rows("SELECT id FROM checkpoints ORDER BY id") == [("ftckpt-1",), ("ftckpt-2",)]
    assert rows("SELECT DISTINCT account FROM jobs") == [("default",)]
    counts = [rows(f"SELECT count(*) FROM {name}") for name in RESOURCES]
    assert counts == [[(3,)], [(2,)], [(2,)], [(2,)], [(2,)], [(5,)]]
    host.requests.clear()
    pipeline.run(openai_fine_tuning())
    assert len(host.requests) <= 4
    assert [rows(f"SELECT count(*) FROM {name}") for name in RESOURCES] == counts


def test_the_key_comes_from_dlts_secrets_too(
    host: Simulator, pipeline: dlt.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("SOURCES__OPENAI_FINE_TUNING__OPENAI_API_KEY", "from-a-section")
    pipeline.run(openai_fine_tuning().with_resources("jobs"))
    assert {request.key for request in host.requests} == {"from-a-section"}


def test_strangers_settings_are_ignored(
    host: Simulator, pipeline: dlt.Pipeline, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BASE_URL", "URL", "HOST", "ENDPOINT"):
        monkeypatch.setenv(name, "https://stranger.example.com/v1")
    for name in ("ACCOUNT", "LABEL", "PROJECT", "PROJECT_ID", "ORG_ID", "ORGANIZATION", "API_KEY", "KEY", "TOKEN"):
        monkeypatch.setenv(name, "stranger")
    for name in (
        "JOB",
        "JOBS",
        "JOB_IDS",
        "SINCE",
        "LIMIT",
        "CONCURRENCY",
        "TIMEOUT",
        "REPORT",
        "STATE",
        "FULL_REFRESH",
    ):
        monkeypatch.setenv(name, "1")
    pipeline.run(openai_fine_tuning())
    assert {request.key for request in host.requests} == {KEY}
    for request in host.requests:
        assert "stranger" not in str(request.headers) + str(request.query)
    assert rows("SELECT account, count(*) FROM jobs GROUP BY ALL") == [("default", 3)]


def test_resources_are_those_of_the_contract() -> None:
    source = openai_fine_tuning()
    assert tuple(source.selected_resources) == RESOURCES
    assert "rejected_records" not in source.resources
    assert "syncs" not in source.resources
    assert {*source.schema.data_table_names(include_incomplete=True)} == {*RESOURCES, "rejected_records"}


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("resource", RESOURCES)
def test_each_resource_alone(host: Simulator, pipeline: dlt.Pipeline, rows: Rows, resource: str) -> None:
    pipeline.run(openai_fine_tuning().with_resources(resource))
    assert tables(rows) == {resource, "rejected_records"}
    assert rows(f"SELECT count(*) > 0 FROM {resource}") == [(True,)]
    asked = {request.path.rsplit("/", 1)[-1] for request in host.requests}
    asked = {"files" if part.startswith("file-") else part for part in asked}
    listed = set() if resource == "models" else {"jobs"}
    assert asked == {*listed, {"result_metrics": "content"}.get(resource, resource)}

    pipeline.run(openai_fine_tuning())
    counts = [rows(f"SELECT count(*) FROM {name}") for name in RESOURCES]
    assert counts == [[(3,)], [(2,)], [(2,)], [(2,)], [(2,)], [(5,)]]


def test_a_rejected_record_is_kept_whatever_is_selected(
    world: ScriptedWorld, pipeline: dlt.Pipeline, rows: Rows
) -> None:
    world.add_raw_checkpoint("ftjob-1", "no record")
    pipeline.run(openai_fine_tuning().with_resources("checkpoints"))
    assert rows("SELECT resource, record FROM rejected_records") == [("checkpoints", '"no record"')]


@pytest.mark.filterwarnings("ignore:fetch_arrow_table")  # dlt's own call
def test_steps_one_by_one_and_the_dataset(pipeline: dlt.Pipeline) -> None:
    pipeline.extract(openai_fine_tuning())
    pipeline.normalize()
    pipeline.load()
    table = pipeline.dataset()["checkpoints"].arrow()
    assert table is not None
    assert sorted(table.column("id").to_pylist()) == ["ftckpt-1", "ftckpt-2"]


@pytest.mark.first_only
@pytest.mark.parametrize("items", [1, 3])
def test_a_run_that_dlt_ends_early_loses_nothing(
    items: int, world: ScriptedWorld, pipeline: dlt.Pipeline, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai_fine_tuning.settings.BATCH_ROWS", 50)
    for number in range(60):
        job_id = f"ftjob-ended-{number}"
        world.add_job(id=job_id, created_at=NOW - 100 * HOUR + number, finished_at=NOW - 50 * HOUR)
        for step in range(5):
            world.add_checkpoint(job_id, id=f"ftckpt-{number}-{step}")
    limited = openai_fine_tuning().with_resources("jobs", "checkpoints")
    limited.resources["account"].add_limit(items)
    pipeline.run(limited)
    pipeline.run(openai_fine_tuning())
    assert rows("SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM checkpoints)") == [(63, 302)]


@pytest.mark.thorough
@pytest.mark.parametrize("ending", ["whole", "limit", "failure", "transformer"])
def test_the_connections_are_closed_however_a_run_ends(
    ending: str, host: Simulator, pipeline: dlt.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[FineTuningApi] = []

    def open_api(*arguments: Any, **options: Any) -> FineTuningApi:
        opened.append(FineTuningApi(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr("openai_fine_tuning.FineTuningApi", open_api)
    source = openai_fine_tuning()
    if ending == "limit":
        source.resources["account"].add_limit(1)
    if ending == "failure":
        host.faults.append(Fault("status", path="/jobs$", status=401))
    if ending == "transformer":
        source.resources["jobs"].add_map(lambda jobs: 1 / 0)
    if ending in ("failure", "transformer"):
        with pytest.raises(PipelineStepFailed):
            pipeline.run(source)
    else:
        pipeline.run(source)
    assert [api.limiter.cancelled for api in opened] == [True, True]


@pytest.mark.thorough
def test_a_transformer_of_ones_own_reads_what_it_needs(pipeline: dlt.Pipeline, rows: Rows) -> None:
    @dlt.transformer(name="tuned", primary_key="id")
    def tuned(jobs: pa.Table) -> Any:
        yield [{"id": row["id"], "model": row["model"]} for row in jobs.to_pylist()]

    source = openai_fine_tuning()
    source.resources.add(source.resources["jobs"] | tuned)
    pipeline.run(source.with_resources("tuned", "events"))
    assert rows("SELECT count(*) FROM tuned") == [(3,)]
    assert rows("SELECT count(*) FROM events") == [(2,)]
    assert "jobs" not in tables(rows)
    pipeline.run(openai_fine_tuning())
    assert rows("SELECT count(*) FROM checkpoints") == [(2,)]


def test_without_a_resource_of_its_names_it_says_so(pipeline: dlt.Pipeline) -> None:
    with pytest.raises(PipelineStepFailed, match="select at least one of jobs, checkpoints"):
        pipeline.run(openai_fine_tuning().with_resources("account"))


def test_one_job_may_be_named_by_a_text(pipeline: dlt.Pipeline, rows: Rows) -> None:
    pipeline.run(openai_fine_tuning(fine_tuning_job_ids="ftjob-1"))
    assert rows("SELECT id FROM jobs") == [("ftjob-1",)]


@pytest.mark.thorough
def test_dlts_own_refresh_reads_everything_again(host: Simulator, pipeline: dlt.Pipeline, rows: Rows) -> None:
    pipeline.run(openai_fine_tuning())
    pipeline.run(openai_fine_tuning(), refresh="drop_sources")
    counts = [rows(f"SELECT count(*) FROM {name}") for name in RESOURCES]
    assert counts == [[(3,)], [(2,)], [(2,)], [(2,)], [(2,)], [(5,)]]


def test_a_resource_of_the_source_alone_keeps_its_keys(pipeline: dlt.Pipeline, rows: Rows) -> None:
    for _ in range(2):
        pipeline.run(openai_fine_tuning().resources["jobs"])
    assert rows("SELECT count(*), count(DISTINCT id) FROM jobs") == [(3, 3)]


def test_a_failure_raises_and_the_next_run_goes_on(
    host: Simulator, pipeline: dlt.Pipeline, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.faults.append(Fault("status", path="/jobs$", status=401, message="No such key."))
    with pytest.raises(PipelineStepFailed) as raised:
        pipeline.run(openai_fine_tuning())
    assert "No such key." in str(raised.value)
    assert KEY not in str(raised.value)
    pipeline.run(openai_fine_tuning())
    assert rows("SELECT count(*) FROM checkpoints") == [(2,)]
    assert KEY not in str(pipeline.last_trace)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fine_tuning_since": "yesterday"}, "fine_tuning_since 'yesterday': expected a date such as 2026-01-31"),
        (
            {"fine_tuning_since": "2026-01-31", "fine_tuning_full_refresh": True},
            "leave out fine_tuning_job_ids and fine_tuning_since",
        ),
        (
            {"fine_tuning_job_ids": ["ftjob-1"], "fine_tuning_full_refresh": True},
            "leave out fine_tuning_job_ids and fine_tuning_since",
        ),
        ({"openai_extra_headers": "x-config: pc-secret"}, "Invalid openai_extra_headers: expected a mapping or a JSON"),
        ({"openai_extra_headers": '["pc-secret"]'}, "Invalid openai_extra_headers: expected a mapping or a JSON"),
        ({"openai_api_key": ""}, "The API key is empty"),
        ({"openai_api_key": " "}, "The API key is empty"),
    ],
)
def test_an_argument_that_cannot_be_right_is_told_before_anything_is_requested(
    host: Simulator, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as raised:
        openai_fine_tuning(**{"openai_api_key": KEY, **arguments})
    assert "pc-secret" not in str(raised.value)
    assert host.requests == []


@pytest.mark.thorough
@pytest.mark.parametrize("given", [{"x-config": "pc-1"}, '{"x-config": "pc-1"}'])
def test_extra_headers_may_be_a_mapping_or_the_text_of_one(
    given: Any, host: Simulator, pipeline: dlt.Pipeline, rows: Rows
) -> None:
    pipeline.run(openai_fine_tuning(openai_extra_headers=given).with_resources("jobs"))
    assert rows("SELECT count(*) FROM jobs") == [(3,)]
    assert {request.headers["x-config"] for request in host.requests} == {"pc-1"}


def python(code: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(code)],
        cwd=folder,
        env={
            "HOME": str(folder),
            "PATH": "",
            "DLT_DATA_DIR": str(folder / "dlt"),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            **env,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.thorough
def test_a_script_prints_no_warning_and_imports_no_more_than_the_source(tmp_path: Path, host: Simulator) -> None:
    ran = python(
        """
        import sys
        import dlt
        from openai_fine_tuning import openai_fine_tuning

        looked_at = [table for table in openai_fine_tuning().resources["checkpoints"] if table.num_rows]
        assert sorted(looked_at[0].column("id").to_pylist()) == ["ftckpt-1", "ftckpt-2"]
        pipeline = dlt.pipeline("my_fine_tuning", destination="duckdb", dataset_name="tuning")
        for _ in range(2):
            pipeline.run(openai_fine_tuning())
        pipeline.run(openai_fine_tuning().with_resources("checkpoints"))
        wanted = ("fine_tuning_", "http.server")
        print(sorted(name for name in sys.modules if name.startswith(wanted)))
        """,
        tmp_path,
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL=host.base_url,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"
    assert ran.stderr == ""
    with duckdb.connect(str(tmp_path / "my_fine_tuning.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM tuning.checkpoints").fetchall() == [(2,)]
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_without_a_key_dlt_says_where_it_may_stand(tmp_path: Path) -> None:
    ran = python("import openai_fine_tuning as source; source.openai_fine_tuning()", tmp_path)
    assert ran.returncode != 0
    assert "OPENAI_API_KEY" in ran.stderr
