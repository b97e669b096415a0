"""What the pages for developers name is there: every module and file of them exists, and no module is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SOURCE, PRODUCT = ROOT / "sources/openai_fine_tuning", ROOT / "pipelines/fine_tuning_warehouse"
SIMULATOR = ROOT / "pipelines/fine_tuning_simulator"


def named(page: str) -> set[str]:
    """The modules, files and folders that a page names."""
    return set(re.findall(r"(?<![\w./])(?!NAME)([\w/-]+(?:\.(?:py|md|yml)|(?<=\w)/(?=`)))", page))


@pytest.mark.parametrize("name", sorted(named(PAGE) | named(CONTRIBUTING)))
def test_what_the_pages_name_is_there(name: str) -> None:
    there = (ROOT, ROOT / "docs", SOURCE, PRODUCT, SIMULATOR)
    assert "NAME" in name or name == "site/" or any((root / name).exists() for root in there), name


def test_every_module_of_the_source_is_named() -> None:
    assert {path.name for path in SOURCE.glob("*.py")} <= named(PAGE)


def test_the_way_of_a_checkpoint_has_few_steps_and_names_what_is_there() -> None:
    way = PAGE.partition("## One checkpoint")[2].partition("\n## ")[0]
    steps = re.findall(r"^\d+\. (.*)", way, re.MULTILINE)
    assert 10 <= len(steps) <= 15
    for name, file in re.findall(r"`([\w.]+)` in `([\w/]+\.py)`", way):
        code = next(root / file for root in (SOURCE, PRODUCT) if (root / file).exists()).read_text(encoding="utf-8")
        missing = [part for part in name.split(".") if not re.search(rf"^ *(class|def) {part}\b", code, re.MULTILINE)]
        assert missing == [], f"{file} has no {name}"


def test_no_package_has_more_places_than_twenty() -> None:
    for package in {path.parent for root in (SOURCE, PRODUCT, SIMULATOR) for path in root.rglob("__init__.py")}:
        places = [*package.glob("[!_]*.py"), *(path.parent for path in package.glob("[!_]*/__init__.py"))]
        assert len(places) <= 20, f"{package.name}: group some of {sorted(path.name for path in places)}"


def test_what_contributors_are_told_to_run_is_there() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    groups = set(re.findall(r"--group (\w+)", CONTRIBUTING))
    assert {"lint", "docs", "engines", "browser", "schedulers"} == groups
    assert all(re.search(rf"^{group} = \[", project, re.MULTILINE) for group in groups)
    assert all(f'"{marker}: ' in project for marker in re.findall(r"pytest -m (\w+)", CONTRIBUTING))
