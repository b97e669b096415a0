"""The code of the notebooks page runs as it stands there."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import Command

PAGE = Path(__file__).parent.parent / "docs" / "notebooks.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(
    r"^## (\w+)$.*?^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?",
    TEXT,
    flags=re.DOTALL | re.MULTILINE,
)
NEEDED = {"marimo": "altair", "Jupyter": "duckdb", "pandas": "pandas", "polars": "polars", "matplotlib": "matplotlib"}
SHOWN = """
import ast, sys
*lines, last = ast.parse(sys.stdin.read()).body
assert isinstance(last, (ast.Expr, ast.With)), "a cell shows what its last line gives"
cell = {}
exec(compile(ast.Module(lines, []), "cell", "exec"), cell)
if isinstance(last, ast.Expr):
    print(eval(compile(ast.Expression(last.value), "cell", "eval"), cell))
else:
    exec(compile(ast.Module([last], []), "cell", "exec"), cell)
"""
"""Runs a cell, and prints what a notebook shows below it."""


def words(shown: str) -> list[str]:
    """What a table holds, without its lines and blanks."""
    return re.findall(r"[^\s│─┌┐└┘├┤┬┴┼╞═╡┆]+", shown)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's database."""
    ftw = Command(tmp_path_factory.mktemp("docs"))
    assert ftw("sync", "--demo").code == 0
    return ftw.folder


def test_the_page_has_an_example_for_each_and_what_it_shows() -> None:
    assert [title for title, _, _ in BLOCKS] == list(NEEDED)
    assert [title for title, _, shown in BLOCKS if not shown] == ["marimo"], "which shows a chart"


@pytest.mark.thorough
@pytest.mark.parametrize(("title", "code", "shown"), BLOCKS, ids=[title for title, _, _ in BLOCKS])
def test_its_code_runs_and_shows_what_the_page_shows(folder: Path, title: str, code: str, shown: str) -> None:
    if importlib.util.find_spec(NEEDED[title]) is None:
        pytest.skip(f"{NEEDED[title]} is not installed")
    ran = subprocess.run(
        [sys.executable, "-c", SHOWN],
        input=code,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    if shown:
        assert words(ran.stdout) == words(shown)
    else:
        assert "Chart(" in ran.stdout


def in_an_environment(folder: Path, *command: str, needs: tuple[str, ...], code: str = "") -> str:
    """What a command prints where these packages are installed, and nothing of ours is."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed, which makes the environment")
    environment = [uv, "run", "--quiet", "--isolated", "--no-project", *(f"--with={one}" for one in needs)]
    if subprocess.run([*environment, "python", "-c", ""], cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip(f"{', '.join(needs)} cannot be installed here")
    ran = subprocess.run(
        [*environment, *command],
        input=code,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", [1, 2])
def test_what_needs_nothing_of_ours_runs_on_both_versions_of_duckdb(folder: Path, version: int) -> None:
    needs = (f"duckdb=={version}.*", "pandas", "polars", "pyarrow", "matplotlib", "tzdata", "pytz")
    for title, code, shown in BLOCKS:
        if title != "marimo":
            printed = in_an_environment(folder, "python", "-c", SHOWN, needs=needs, code=code)
            assert words(printed) == words(shown), title
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_the_command_line_of_duckdb_shows_what_the_page_shows(folder: Path) -> None:
    ((command, shown),) = re.findall(r"^```sh\n(duckdb .*?)^```\n\n```text\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    arguments = shlex.split(command)
    assert words(in_an_environment(folder, *arguments, needs=("duckdb-cli",))) == words(shown)
