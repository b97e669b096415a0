"""Write the README of an archive: what each file is, and how to read it without this software.

Its text is in README.template.md, and the questions that it answers in questions.md, beside this module.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from fine_tuning_warehouse.text import counted
from fine_tuning_warehouse.warehouses.rows import Relation

from .manifest import Manifest
from .parquet import path_of

_MOST_QUESTIONS = 4

_TYPES = {"timestamp[us, tz=UTC]": "time, UTC", "string": "text", "int64": "integer"}


def readme(manifest: Manifest, relations: Sequence[Relation]) -> bytes:
    """Return the README of an archive that holds these tables and views."""
    originals = [entry.kind for entry in manifest.files.values() if entry.is_original]
    training = sum(kind != "result_file" for kind in originals)
    missing = ""
    if manifest.missing:
        number = counted(len(manifest.missing), "file")
        missing = (
            f"\n## What is missing\n\n{number} of the jobs could not be fetched: see `missing` in `manifest.json`.\n"
        )
    text = Template(_read("README.template.md")).substitute(
        accounts=", ".join(f"`{_cell(label)}`" for label in sorted(manifest.accounts)) or "no account yet",
        files="\n".join(_file(relation, manifest) for relation in relations),
        results=f"{len(originals) - training:,}",
        training=f"{training:,}",
        without="" if training else " (`ftw archive --training-files` fetches them)",
        questions="".join(f"\n{question}\n" for question in _questions(manifest)),
        missing=missing,
        columns="".join(map(_columns, relations)),
    )
    return (text.rstrip("\n") + "\n").encode()


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _questions(manifest: Manifest) -> list[str]:
    """Return the first questions about files that the archive has."""
    questions = re.split(r"\n(?=### )", _read("questions.md"))
    about = {question: re.findall(r"(?:tables|views)/\w+\.parquet", question) for question in questions}
    return [one.strip() for one, paths in about.items() if manifest.files.keys() >= set(paths)][:_MOST_QUESTIONS]


def _file(relation: Relation, manifest: Manifest) -> str:
    path, view = path_of(relation), "View. " if relation.kind == "view" else ""
    about = _cell(relation.schema.metadata[b"description"].decode())
    return f"| `{path}` | {manifest.files[path].rows:,} | {view}{about} |"


def _columns(relation: Relation) -> str:
    lines = ["", f"### `{relation.name}`", "", "| column | type | what it holds |", "|---|---|---|"]
    for field in relation.schema:
        description = (field.metadata or {}).get(b"description", b"").decode()
        kind = _TYPES.get(str(field.type), str(field.type))
        lines.append(f"| `{_cell(field.name)}` | {kind} | {_cell(description)} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """Return a text in the form of a table's cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")
