"""What is published: built, looked into, and tried in an environment that holds nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from repository import ROOT, kept_files

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(400)]

PACKAGES = {"openai_fine_tuning": "sources", "fine_tuning_warehouse": "pipelines", "fine_tuning_simulator": "pipelines"}

SURROUNDINGS = dict(os.environ)
"""As they were before any test: uv keeps what it has fetched under the home."""


@dataclass(frozen=True)
class Built:
    """What `uv build` has made.

    Attributes:
        sdist: The source distribution.
        wheel: The wheel, built from the source distribution.
        direct: The wheel, built from the repository.
    """

    sdist: Path
    wheel: Path
    direct: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The distributions, built once for all tests."""
    through, direct = tmp_path_factory.mktemp("through"), tmp_path_factory.mktemp("direct")
    uv("build", "--out-dir", str(through))
    uv("build", "--wheel", "--out-dir", str(direct))
    (sdist,), (wheel,), (other,) = through.glob("*.tar.gz"), through.glob("*.whl"), direct.glob("*.whl")
    return Built(sdist, wheel, other)


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def uv(*arguments: str) -> None:
    """Call uv in the repository without a network: what it needs is what it needed to run these tests."""
    program = shutil.which("uv", path=SURROUNDINGS.get("PATH"))
    if program is None:
        pytest.skip("needs uv")
    ran = subprocess.run(
        [program, *arguments, "--offline"], cwd=ROOT, env=SURROUNDINGS, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_the_wheel_holds_the_packages_whole_and_nothing_else(built: Built) -> None:
    names = set(contents(built.wheel))
    about = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    packaged = {name.split("/", 1)[1] for name in kept_files() if name.split("/", 1)[0] in PACKAGES.values()}
    assert names - about == {name for name in packaged if name.split("/")[0] in PACKAGES}
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert "fine_tuning_warehouse/views/best_checkpoints.sql" in names
    assert {name.split("/", 1)[1] for name in about} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_the_source_distribution_holds_what_git_keeps_and_builds_the_same_wheel(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    assert names - {"PKG-INFO"} == {name for name in kept_files() if name.split("/")[0] not in (".ci", ".github")}
    assert contents(built.wheel) == contents(built.direct)


def test_the_wheel_works_in_an_environment_of_its_own(built: Built, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    uv("venv", "--quiet", "--python", sys.executable, str(environment))
    uv("pip", "install", "--quiet", "--python", str(environment), str(built.wheel))
    programs = environment / ("Scripts" if os.name == "nt" else "bin")

    def ran(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [programs / program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    version = built.wheel.name.split("-")[1]
    assert ran("ftw", "--version").startswith(f"ftw {version} (dlt ")
    assert ran("python", "-m", "fine_tuning_warehouse", "--version") == ran("ftw", "--version")
    assert "Synced account demo" in ran("ftw", "sync", "--demo")
    question = "SELECT count(*) AS n FROM best_checkpoints"
    assert int(ran("ftw", "query", question, "--database", "fine_tuning_demo.duckdb", "--output", "csv").split()[1])
    where = ran("python", "-c", f"import {', '.join(PACKAGES)}; print(openai_fine_tuning.__file__)")
    assert Path(where.strip()).is_relative_to(environment)
