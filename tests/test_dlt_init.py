"""The source stands alone: `dlt init` takes it from this repository, and it needs no more than it says."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from command import KEY, NOW
from fine_tuning_simulator import ScriptedWorld, Simulator
from repository import ROOT, kept_files

DLT = Path(sys.executable).with_name("dlt")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """This repository as it stands, as one that can be cloned."""
    folder = tmp_path / "repository"
    for name in kept_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    author = ("-c", "user.name=Someone", "-c", "user.email=someone@example.com")
    for command in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "--quiet", "--message", "All"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.mark.thorough
def test_dlt_init_brings_the_source_and_its_pipeline_runs(
    tmp_path: Path, repository: Path, world: ScriptedWorld, host: Simulator
) -> None:
    world.add_job(id="ftjob-1", created_at=NOW - 100_000)
    world.add_checkpoint("ftjob-1", id="ftckpt-1")
    project = tmp_path / "project"
    project.mkdir()
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "DLT_DATA_DIR": str(tmp_path / "dlt"),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "OPENAI_BASE_URL": host.base_url,
    }

    def run(*command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=project, env={**env, **more}, capture_output=True, text=True, check=False)

    # dlt as it is installed at first: the requirements that the source names come after this.
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/sitecustomize.py").write_text("import sys; sys.modules['pyarrow'] = None")
    init = run(
        *(DLT, "--non-interactive", "init", "openai_fine_tuning", "duckdb", "--location", repository),
        PYTHONPATH=str(tmp_path / "bare"),
    )
    assert init.returncode == 0, init.stdout + init.stderr
    assert (project / "openai_fine_tuning/README.md").is_file()
    wanted = (ROOT / "sources/openai_fine_tuning/requirements.txt").read_text().split()
    found = (project / "requirements.txt").read_text().split()
    assert sorted(map(_sorted_bounds, found)) == sorted(map(_sorted_bounds, wanted))

    untouched = run(sys.executable, "openai_fine_tuning_pipeline.py")
    assert untouched.returncode != 0
    assert host.requests == [], "what stands in place of a key is sent to no one"

    secrets = project / ".dlt/secrets.toml"
    shown = secrets.read_text()
    assert "<configure me>" in shown
    secrets.write_text(shown.replace("<configure me>", KEY))
    for _ in range(2):
        ran = run(sys.executable, "-W", "default", "openai_fine_tuning_pipeline.py")
        assert (ran.returncode, ran.stderr) == (0, "")
    where = run(sys.executable, "-c", "import openai_fine_tuning; print(openai_fine_tuning.__file__)")
    assert Path(where.stdout.strip()) == project / "openai_fine_tuning/__init__.py"
    with duckdb.connect(str(project / "openai_fine_tuning.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT id FROM fine_tuning.checkpoints").fetchall() == [("ftckpt-1",)]
    assert {request.key for request in host.requests} == {KEY}


def _sorted_bounds(requirement: str) -> tuple[str, list[str]]:
    name, bounds = re.fullmatch(r"([\w\[\]-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
    return name, sorted(bounds.split(","))


def test_the_source_imports_only_what_its_requirements_name() -> None:
    source = ROOT / "sources/openai_fine_tuning"
    required = {
        re.split(r"[^\w-]", line)[0].replace("-", "_") for line in (source / "requirements.txt").read_text().split()
    }
    imported = {name.split(".")[0] for file in source.rglob("*.py") for name in _imports(file)}
    assert imported - sys.stdlib_module_names <= required | {"openai_fine_tuning"}


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
