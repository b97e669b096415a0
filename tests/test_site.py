"""The pages make a site: it builds without a warning, links lead somewhere, and nothing comes from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("mkdocs", reason="needs mkdocs-material: uv run --group docs pytest")

ROOT = Path(__file__).parent.parent


class Links(HTMLParser):
    """What a page fetches, what it leads to, and where one can get to on it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.followed: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in what a tag names."""
        for name, value in attrs:
            if value is None:
                continue
            if name == "id":
                self.anchors.add(value)
            elif name == "src" or (tag == "link" and name == "href"):
                self.fetched.append(value)
            elif tag == "a" and name == "href":
                self.followed.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built. Asserts that there was nothing to warn of."""
    folder = tmp_path_factory.mktemp("site")
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert {line.split()[0] for line in ran.stderr.splitlines()} == {"INFO"}, (
        ran.stderr
    )  # `--quiet` would hide warnings
    assert "contains a link" not in ran.stderr, ran.stderr  # MkDocs is content with a link to a file it leaves out
    return folder


def test_nothing_comes_from_another_host(site: Path) -> None:
    pages = {page: Links(page) for page in site.rglob("*.html")}
    assert len(pages) > 25
    fetched = [url for links in pages.values() for url in links.fetched]
    assert [url for url in fetched if urlsplit(url).netloc] == []
    styles = "".join(sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", styles) == []


def test_every_link_and_anchor_leads_somewhere(site: Path) -> None:
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert any("pipelines/schedules" in link for link in pages[site / "schedules.html"].followed)
    for page, links in pages.items():
        for link in (*links.followed, *links.fetched):
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{page.name}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, f"{page.name}: {link}"
