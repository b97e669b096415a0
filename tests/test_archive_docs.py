"""The pages about archives are true: their commands are run, in their order, against a simulated host and an S3 API."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from command import Command, Ended
from fine_tuning_simulator import GeneratedWorld, Simulator

if TYPE_CHECKING:
    from bucket import Bucket

pytest_plugins = ["bucket"]

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The code of a page in one language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(page: str) -> list[str]:
    """The commands of a page, a line each."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].strip() for line in lines]


@pytest.fixture
def ftw(tmp_path: Path) -> Command:
    """The command, in an empty folder, with nothing set."""
    return Command(tmp_path)


def run(ftw: Command, line: str) -> Ended:
    """Run a line that may begin with settings of the environment."""
    words = shlex.split(line)
    env = dict(word.split("=", 1) for word in words[: words.index("ftw")])
    ended = ftw(*words[words.index("ftw") + 1 :], env=env)
    assert ended.code == 0, f"{line}: {ended.all}"
    return ended


@pytest.mark.thorough
@pytest.mark.timeout(400)
def test_everything_before_2027(ftw: Command, bucket: Bucket) -> None:
    page, ran = "before-2027.md", []
    with Simulator(GeneratedWorld(jobs=6)) as host:
        ftw.env.update({"OPENAI_BASE_URL": host.base_url, **bucket.env})
        for line in commands(page):
            if line.startswith("export"):
                name, value = line.removeprefix("export ").split("=")
                ftw.env[name] = value
            elif "ftw " in line:
                ran.append(run(ftw, line.replace("s3://our-fine-tuning", bucket.url)))
            elif line.startswith("cd history"):
                subprocess.run(["sh", "-c", line], cwd=ftw.folder, check=True)
            elif "put-object-lock-configuration" in line:
                bucket.lock(json.loads(shlex.split(line)[-1]))
            elif line.startswith("duckdb"):
                (query,) = shlex.split(line)[2:]
                assert duckdb.sql(query.replace("history/", f"{ftw.folder}/history/")).fetchall()
            else:
                assert line.startswith(("pip install", "aws s3api create-bucket")), line
    assert len(ran) >= 8
    assert "is whole" in ran[3].out
    manifest = json.loads(bucket.get("history/manifest.json"))
    assert {one["account"] for one in manifest["missing"]} == {"research"}, (
        "it went into the folder, as the page has it"
    )
    assert any(path.startswith("training_files/") for path in manifest["files"])


@pytest.mark.engine
def test_the_python_of_the_page_reads_an_archive(
    ftw: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("pandas") is None:
        pytest.skip("needs pandas: uv run --group engines pytest")
    run(ftw, "ftw archive --demo history")
    monkeypatch.chdir(ftw.folder)
    (code,) = blocks("before-2027.md", "python")
    exec(code, {})
    assert "ft:gpt-4" in capsys.readouterr().out


@pytest.mark.thorough
def test_the_page_about_archives(ftw: Command) -> None:
    lines = commands("archive.md")
    assert len(lines) == 3
    with Simulator(GeneratedWorld(jobs=4)) as host:
        ftw.env["OPENAI_BASE_URL"] = host.base_url
        for line in lines:
            run(ftw, line)
    kept = {path.relative_to(ftw.folder / "history").as_posix() for path in (ftw.folder / "history").rglob("*.*")}
    shown = re.findall(r"^\| `([^`]+)` \|", (DOCS / "archive.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for pattern in shown[:7]:
        assert any(Path(path).match(pattern) for path in kept | {"SHA256SUMS"}), pattern
