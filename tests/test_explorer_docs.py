"""The code of the notebooks page runs as it stands there."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from command import Command

PAGE = Path(__file__).parent.parent / "docs" / "notebooks.md"
BLOCKS = re.findall(r"^## (\w+)$.*?^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
NEEDED = {"marimo": "altair", "Jupyter": "duckdb", "pandas": "pandas", "polars": "polars"}
MADE = {
    "marimo": "assert severe and checkpoints",
    "Jupyter": "assert len(best) > 10",
    "pandas": "assert len(by_model) > 2",
    "polars": "assert smooth['train_loss_smooth'].null_count() < len(smooth)",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's database."""
    ftw = Command(tmp_path_factory.mktemp("docs"))
    assert ftw("sync", "--demo").code == 0
    return ftw.folder


def test_the_page_has_an_example_for_each() -> None:
    assert [title for title, _ in BLOCKS] == list(NEEDED)


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_its_code_runs(folder: Path, title: str, code: str) -> None:
    if importlib.util.find_spec(NEEDED[title]) is None:
        pytest.skip(f"{NEEDED[title]} is not installed")
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}\n{MADE[title]}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
