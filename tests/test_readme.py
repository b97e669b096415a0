"""What the README shows is what happens: its commands are run, in its order, and their output compared."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.views import VIEWS

ROOT = Path(__file__).parent.parent
FTW = Path(sys.executable).with_name("ftw")


def console_sessions(text: str) -> list[tuple[str, str]]:
    """The commands of all ```console blocks with the output that the page shows."""
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    sessions = [re.split(r"^\$ ", block, flags=re.MULTILINE)[1:] for block in blocks]
    return [tuple(session.split("\n", 1)) for block in sessions for session in block]


def comparable(output: str) -> str:
    """An output without what differs from run to run: seconds."""
    return re.sub(r"\d+\.\d s\.", "N s.", output).strip()


def test_every_table_and_view_is_named() -> None:
    readme, changelog = ((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "CHANGELOG.md"))
    views = [view.name for view in VIEWS]
    assert [name for name in (*TABLES, *views) if f"`{name}`" not in readme] == []
    assert [name for name in views if f"`{name}`" not in changelog] == []


@pytest.mark.thorough
def test_the_readme_shows_what_its_commands_print(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "COLUMNS": "200"}
    sessions = console_sessions((ROOT / "README.md").read_text())
    assert sessions
    for command, shown in sessions:
        words = shlex.split(command)
        assert words[0] == "ftw"
        ran = subprocess.run(
            [str(FTW), *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr == ""
        assert comparable(ran.stdout) == comparable(shown), command
    best, earlier = sessions[1]
    later = subprocess.run(
        [str(FTW), *shlex.split(best)[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert set(earlier.splitlines()) < set(later.stdout.splitlines()), "the page says that there is one more"
    assert len(later.stdout.splitlines()) == len(earlier.splitlines()) + 2
    assert " deploy " in earlier
    assert "cannot tell" not in earlier


def test_the_first_lines_say_what_it_is_for_whom_and_why_now() -> None:
    first = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:10])
    for word in ("fine-tuning", "checkpoint to deploy", "**For**", "**Why now**", "2027-01-06"):
        assert word in first


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


@pytest.mark.parametrize(
    "code",
    [
        *python_blocks("README.md"),
        *python_blocks("sources/openai_fine_tuning/README.md"),
        (ROOT / "sources/openai_fine_tuning_pipeline.py").read_text(),
    ],
    ids=["README", "README of the source", "smallest pipeline"],
)
def test_the_python_that_is_shown_runs_and_loads(tmp_path: Path, code: str) -> None:
    world = ScriptedWorld()
    world.add_job(id="ftjob-1", created_at=1_780_000_000)
    with Simulator(world) as host:
        environment = {
            **os.environ,
            "HOME": str(tmp_path),
            "DLT_DATA_DIR": str(tmp_path / ".dlt"),
            "OPENAI_API_KEY": "any",
            "OPENAI_BASE_URL": host.base_url,
            "RUNTIME__DLTHUB_TELEMETRY": "false",
        }
        ran = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    (database,) = tmp_path.glob("*.duckdb")
    with duckdb.connect(str(database), read_only=True) as connection:
        assert connection.execute("SELECT id FROM fine_tuning.jobs").fetchall() == [("ftjob-1",)]
