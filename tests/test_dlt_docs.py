"""The page about dlt's own ways is true: its files are written, and its code is run in its order."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from command import HOUR, KEY, NOW
from fine_tuning_simulator import Clock, ScriptedWorld, Simulator

PAGE = (Path(__file__).parent.parent / "docs/dlt.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
DLT = Path(sys.executable).with_name("dlt")


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    """Two jobs that ended, and one that runs."""
    for number in (1, 2):
        world.add_job(id=f"ftjob-{number}", created_at=NOW - (10 + number) * HOUR)
        world.add_checkpoint(f"ftjob-{number}", id=f"ftckpt-{number}", step_number=10)
        world.add_event(f"ftjob-{number}", id=f"ftevent-{number}")
    world.add_job(id="ftjob-3", created_at=NOW - HOUR, status="running")


def run(folder: Path, *command: str | Path, **env: str) -> str:
    """Run a program that must end well and warn of nothing; returns what it printed."""
    ran = subprocess.run(
        command,
        cwd=folder,
        env={
            "PATH": "",
            "HOME": str(folder),
            "DLT_DATA_DIR": str(folder / "dlt"),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


@pytest.mark.thorough
def test_the_python_of_the_page_prints_what_it_shows_and_dlt_answers(tmp_path: Path, host: Simulator) -> None:
    blocks = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE, flags=re.DOTALL)
    assert len(blocks) >= 8
    between = "\n- - -\n"
    code = "".join(f"{block}\nprint({between!r}, end='')\n" for block, _ in blocks)
    surroundings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": host.base_url}
    printed = run(tmp_path, sys.executable, "-c", code, **surroundings).split(between)
    for (block, shown), out in zip(blocks, printed, strict=False):
        assert out.strip() == shown.strip(), block

    (session,) = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
    answers = [run(tmp_path, DLT, *line.split()[2:]) for line in session.splitlines()]
    assert len(answers) == 3
    for answer, word in zip(answers, ("jobs with ", "COMPLETED", "data_type: timestamp"), strict=True):
        assert word in answer
        assert KEY not in answer


@pytest.mark.thorough
def test_the_settings_of_the_page_count(tmp_path: Path, host: Simulator) -> None:
    (tmp_path / ".dlt").mkdir()
    files = re.findall(r"```toml\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(files) == 2
    for name, content in files:
        (tmp_path / name).write_text(content.replace("sk-...", KEY))
    first = BLOCKS[0]
    code = f"{first}\nprint(pipeline.dataset()('SELECT DISTINCT account, _dlt_load_id FROM jobs').fetchall())"
    printed = run(tmp_path, sys.executable, "-c", code, OPENAI_BASE_URL=host.base_url)
    assert re.search(r"^\[\('research', '\d+\.\d+'\)\]$", printed, re.MULTILINE)
    assert {request.key for request in host.requests} == {KEY}


@pytest.mark.nightly
def test_a_load_that_duckdb_refuses_for_the_load_id_is_taken_back_as_the_page_says(
    tmp_path: Path, host: Simulator
) -> None:
    assert "`dlt --yes pipeline my_fine_tuning abort-packages`" in PAGE
    surroundings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": host.base_url}
    first = BLOCKS[0]
    assert "2 checkpoints" in run(tmp_path, sys.executable, "-c", first, **surroundings)
    setting = {"NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_LOAD_ID": "true"}
    with pytest.raises(AssertionError, match="Adding columns with constraints"):
        run(tmp_path, sys.executable, "-c", first, **surroundings, **setting)
    run(tmp_path, DLT, "--yes", "pipeline", "my_fine_tuning", "abort-packages", **surroundings)
    assert "2 checkpoints" in run(tmp_path, sys.executable, "-c", first, **surroundings)


@pytest.mark.nightly
def test_a_pipeline_that_has_read_the_jobs_passes_all_of_them_to_a_transformer_with_a_full_refresh(
    tmp_path: Path, host: Simulator
) -> None:
    tuned = next(block for block in BLOCKS if "def tuned" in block)
    code = f"""
import dlt
from openai_fine_tuning import openai_fine_tuning
{tuned.split("trial =")[0]}
pipeline = dlt.pipeline("read_before", destination="duckdb", dataset_name="trial")
pipeline.run(openai_fine_tuning())
for refresh in (False, True):
    pipeline.run(openai_fine_tuning(fine_tuning_full_refresh=refresh).jobs | tuned)
    print(pipeline.dataset()("SELECT count(*) FROM tuned").fetchone()[0])
"""
    printed = run(tmp_path, sys.executable, "-c", code, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=host.base_url)
    assert printed.split() == ["1", "3"]


@pytest.mark.nightly
def test_a_database_from_a_backup_misses_nothing_after_the_command_that_the_page_names(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, clock: Clock
) -> None:
    assert "`dlt --yes pipeline my_fine_tuning sync`" in PAGE
    surroundings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": host.base_url}
    first, database = BLOCKS[0], tmp_path / "my_fine_tuning.duckdb"

    def loaded() -> str:
        code = f"{first}\nprint(pipeline.dataset()('SELECT id FROM jobs ORDER BY id').fetchall())"
        return run(tmp_path, sys.executable, "-c", code, **surroundings).splitlines()[-1]

    loaded()
    backup = database.read_bytes()
    world.add_job(id="ftjob-4", created_at=NOW + HOUR, finished_at=NOW + 2 * HOUR)
    clock.advance(24 * HOUR)
    assert "ftjob-4" in loaded()
    database.write_bytes(backup)
    assert "ftjob-4" not in loaded(), "dlt's own state would do, and the page need not warn"
    database.write_bytes(backup)
    run(tmp_path, DLT, "--yes", "pipeline", "my_fine_tuning", "sync", **surroundings)
    assert "ftjob-4" in loaded()
