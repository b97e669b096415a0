"""A hook of MkDocs: the repository's pages as pages of a site, with links that lead where they lead on a forge.

Links in the pages are relative to the repository, so that a forge can follow them. Some pages stand at its root,
outside `docs/`, and a few links lead to code: the former become pages, the latter files of the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent

PAGES = {
    "README.md": "index.md",
    "docs/README.md": "contents.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Pages that have another place on the site: from the path in the repository to that on the site."""

_REPOSITORY = {there: here for here, there in PAGES.items()}
_LINK = re.compile(r"(?<=\]\()([^)#:\s]+)")
_FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have another place, and the files that a page links to."""
    readme = files.get_file_from_path("README.md")
    if readme is not None:
        files.remove(readme)
    for here, there in PAGES.items():
        files.append(File.generated(config, there, content=(ROOT / here).read_text(encoding="utf-8")))
    for page in files.documentation_pages():
        here = _place_in_repository(page.src_uri)
        for target in _LINK.findall(page.content_string):
            linked = _linked(here, target)
            if (ROOT / linked).is_file() and files.get_file_from_path(_place_on_site(linked)) is None:
                content = (ROOT / linked).read_bytes()
                files.append(File.generated(config, _place_on_site(linked), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs' names
    """A page with its links as they lead on the site."""
    there = page.file.src_uri
    here = _place_in_repository(there)

    def on_site(found: re.Match[str]) -> str:
        linked = _linked(here, found[1])
        if not (ROOT / linked).exists():
            return found[1]  # MkDocs warns of it
        return posixpath.relpath(_place_on_site(linked), posixpath.dirname(there) or ".")

    parts = _FENCED.split(markdown)  # text and code in turn
    parts[::2] = [_LINK.sub(on_site, part) for part in parts[::2]]
    return "".join(parts)


def _linked(here: str, target: str) -> str:
    """The path in the repository that a link of one of its pages means."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), target))


def _place_in_repository(there: str) -> str:
    return _REPOSITORY.get(there, f"docs/{there}")


def _place_on_site(here: str) -> str:
    return PAGES.get(here, here.removeprefix("docs/"))
