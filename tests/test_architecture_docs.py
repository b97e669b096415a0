"""The page on architecture names what is there: every module of it exists, and no room is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
SOURCE, PRODUCT = ROOT / "sources/openai_fine_tuning", ROOT / "pipelines/fine_tuning_warehouse"


def named() -> set[str]:
    """The modules and folders that the page names."""
    return set(re.findall(r"`([\w/]+(?:\.py|/))`", PAGE))


@pytest.mark.parametrize("name", sorted(named()))
def test_what_the_page_names_is_there(name: str) -> None:
    assert any((root / name).exists() for root in (ROOT, SOURCE, PRODUCT)), name


def test_every_module_of_the_source_is_named() -> None:
    assert {path.name for path in SOURCE.glob("*.py")} <= named()
