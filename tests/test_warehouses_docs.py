"""The page about warehouses is true: what it shows for the engines that are here is run, in its order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from command import Command
from engines import Engine
from fine_tuning_simulator import GeneratedWorld, Simulator
from fine_tuning_warehouse.warehouses.duckdb_extensions import extension_file

if TYPE_CHECKING:
    from bucket import Bucket
    from postgres import Postgres

pytest_plugins = ["lakes", "spark"]
pytestmark = pytest.mark.engine

PAGE = Path(__file__).parent.parent / "docs" / "warehouses.md"


def blocks(section: str) -> list[tuple[str, str]]:
    """The code below a heading: language and text."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```(sh|python)\n(.*?)```", text, flags=re.DOTALL)


def run(ftw: Command, section: str, replaced: Mapping[str, str], **known: Any) -> int:
    """Run what stands below a heading; `replaced` has the settings that are others here. Returns how many ran."""
    ran = 0
    with Simulator(GeneratedWorld(jobs=5)) as host:
        ftw.env["OPENAI_BASE_URL"] = host.base_url
        for language, code in blocks(section):
            if language == "python":
                exec(code, dict(known))
                continue
            for line in code.splitlines():
                words = shlex.split(line)
                if words[0] == "export":
                    name, value = words[1].split("=", 1)
                    ftw.env[name] = replaced.get(name, value)
                    continue
                assert words[0] == "ftw", line
                words, _, file = (words, "", "") if ">" not in words else (words[:-2], ">", words[-1])
                ended = ftw(*words[1:])
                assert ended.code == 0, f"{line}: {ended.all}"
                if file:
                    (ftw.folder / file).write_text(ended.out, encoding="utf-8")
                ran += 1
    return ran


@pytest.fixture
def ftw(tmp_path: Path) -> Command:
    """The command, in an empty folder, with nothing set."""
    return Command(tmp_path)


def test_duckdb_and_postgresql(ftw: Command, postgres: Postgres) -> None:
    assert run(ftw, "DuckDB", {}) == 2
    assert run(ftw, "PostgreSQL", {"DESTINATION__POSTGRES__CREDENTIALS": postgres.credentials}) == 2


@pytest.mark.timeout(300)
def test_the_roles_for_postgresql_load_and_read(ftw: Command, postgres: Postgres) -> None:
    recipe = PAGE.read_text(encoding="utf-8").split("```sql\n")[1].split("```")[0]
    name = postgres.credentials.rpartition("/")[2]
    loader, analyst = f"loader_{name}", f"analyst_{name}"
    for word, role in (("loader", loader), ("analyst", analyst)):
        recipe = re.sub(rf"\b{word}\b", role, recipe)
    postgres.execute(recipe)
    ftw.env["DESTINATION__POSTGRES__CREDENTIALS"] = postgres.credentials.replace("postgres:any", f"{loader}:change-me")
    with Simulator(GeneratedWorld(jobs=3)) as host:
        ftw.env["OPENAI_BASE_URL"] = host.base_url
        for _ in range(2):
            ended = ftw("sync", "--destination", "postgres")
            assert ended.code == 0, ended.all
    counted = postgres.rows(f"SET ROLE {analyst}; SELECT count(*) FROM job_overview")
    assert counted == [(3,)]


def test_ducklake(ftw: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if extension_file("ducklake") is None or extension_file("sqlite_scanner") is None:
        pytest.skip("needs the extra ducklake: uv run --group engines pytest")
    monkeypatch.chdir(ftw.folder)
    assert run(ftw, "DuckLake", {}) == 3
    assert "succeeded" in capsys.readouterr().out


def test_iceberg_in_a_folder(
    ftw: Command, lake: Engine, spark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ftw.folder)
    assert run(ftw, "Iceberg", {}, spark=spark) == 3
    shown = capsys.readouterr().out
    assert "succeeded" in shown
    assert "fine_tuning_job_id" in shown


@pytest.mark.nightly
def test_iceberg_in_s3(ftw: Command, bucket: Bucket, bucket_lake: Engine) -> None:
    ftw.env["DESTINATION__FILESYSTEM__CREDENTIALS__ENDPOINT_URL"] = bucket.env["AWS_ENDPOINT_URL"]
    name = "ICEBERG_CATALOG__ICEBERG_CATALOG_CONFIG"
    catalog = {name: bucket_lake.env[name].replace(f"{bucket.url}/lake", f"{bucket.url}/history")}
    assert run(ftw, "Iceberg in S3", {"DESTINATION__FILESYSTEM__BUCKET_URL": f"{bucket.url}/history", **catalog}) == 1
    assert any(key.startswith("history/fine_tuning/jobs/metadata/") for key in bucket.objects())
