"""The project of the page about dbt, built by dbt itself, in an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from command import FTW

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(500)]

PAGE = (Path(__file__).parent.parent / "docs/dbt.md").read_text(encoding="utf-8")
SURROUNDINGS = dict(os.environ)
"""As they were before any test: uv keeps its cache under the home, and may need a proxy."""


def block(of: str, language: str) -> str:
    """Return the first block of the page in a language after some words."""
    found = re.search(rf"{re.escape(of)}.*?```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found is not None, of
    return found[1]


@pytest.fixture(scope="module")
def dbt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the releases that the page names."""
    folder = tmp_path_factory.mktemp("dbt")
    if shutil.which("uv", path=SURROUNDINGS.get("PATH")) is None:
        pytest.skip("needs uv")
    releases = re.findall(r"dbt-\w+==[\d.]+", PAGE)
    assert len(releases) == 2
    for arguments in (
        ["venv", folder / "env"],
        ["pip", "install", "--python", folder / "env", "--only-binary", ":all:", *releases],
    ):
        made = subprocess.run(["uv", *arguments], env=SURROUNDINGS, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"dbt cannot be installed: {made.stderr[-300:]}")
    return folder / "env/bin/dbt"


@pytest.mark.nightly
def test_the_project_of_the_page_builds_incrementally_and_sees_what_is_not_fresh(dbt: Path, tmp_path: Path) -> None:
    env = {**os.environ, "DO_NOT_TRACK": "1"}
    database = tmp_path / "fine_tuning_demo.duckdb"

    def run(command: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = command.split()
        path = {"ftw": [str(FTW)], "dbt": [str(dbt), "--warn-error", "--no-use-colors"]}[program]
        return subprocess.run(
            [*path, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=200
        )

    def done(command: str) -> str:
        ended = run(command)
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        return ended.stdout

    def rows(sql: str) -> list[tuple[object, ...]]:
        with duckdb.connect(str(database)) as connection:
            return connection.execute(sql).fetchall()

    (tmp_path / "dbt_project.yml").write_text(block("`dbt_project.yml`:", "yaml"))
    (tmp_path / "profiles.yml").write_text(block("`profiles.yml`,", "yaml"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/deployable_checkpoints.sql").write_text(block("`models/deployable_checkpoints.sql`:", "sql"))
    _, sync, _, sources = block("# dbt", "sh").splitlines()
    written = "SELECT count(*), max(synced_at) FROM {} WHERE synced_at > '{}'"
    newest: object = "-infinity"
    for _ in range(2):
        done(sync)
        command, _, file = sources.partition(" > ")
        (tmp_path / file).write_text(done(command))
        ((changed, latest),) = rows(written.format("fine_tuning.checkpoints", newest))
        assert isinstance(changed, int)
        assert changed > 0
        for step in block("## Run it", "sh").splitlines():
            done(step)
        assert rows(written.format("analytics.deployable_checkpoints", newest)) == [(changed, latest)]
        newest = latest
    columns = "SELECT id, synced_at FROM {} ORDER BY id"
    assert rows(columns.format("analytics.deployable_checkpoints")) == rows(columns.format("fine_tuning.checkpoints"))
    rows("UPDATE fine_tuning.syncs SET finished_at = finished_at - INTERVAL 3 DAY")
    assert run("dbt source freshness").returncode == 1
