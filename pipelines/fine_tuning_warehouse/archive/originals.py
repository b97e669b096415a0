"""Find the files that jobs name, and where they lie in an archive."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from openai_fine_tuning.convert.values import stored_file_ids

from .manifest import Entry, Kind, Manifest, Missing

_FIELDS: dict[str, Kind] = {
    "result_files": "result_file",
    "training_file": "training_file",
    "validation_file": "validation_file",
}
"""The columns of a job that name files, and what each file is to the job."""

_PLAIN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
"""Ids that can be file names. A leading dash reads as an option to other programs, and a leading dot hides a file."""

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
"""Names that Windows reserves for devices, whatever their extension."""


@dataclass(frozen=True)
class Original:
    """A file of the host that jobs name.

    Attributes:
        account: The account of the jobs.
        id: The id of the file at the host.
        kind: What the file is to the first job that names it.
        jobs: The ids of the jobs that name it, in order.
        path: Its path in the archive.
        filename: What the host calls it, if that is known.
        bytes: Its size according to the host, if that is known.
    """

    account: str
    id: str
    kind: Kind
    jobs: tuple[str, ...]
    path: str = ""
    filename: str | None = None
    bytes: int | None = None

    @property
    def is_training(self) -> bool:
        """Whether it is a training or validation file."""
        return self.kind != "result_file"

    def missing(self, reason: str) -> Missing:
        """Return the entry of the manifest that says why the file is missing."""
        return Missing(self.account, self.id, self.kind, self.jobs[0], reason)

    def entry(self, size: int, sha256: str) -> Entry:
        """Return the entry of the manifest for the file."""
        return Entry(self.kind, size, sha256, account=self.account, id=self.id, filename=self.filename, jobs=self.jobs)


def named(jobs: Path | None, files: Path | None, before: Manifest | None, *, training: bool) -> list[Original]:
    """Return the files that the jobs of a warehouse name, in a fixed order.

    Args:
        jobs: The exported table `jobs`; None if there is none.
        files: The exported table `files`; None if there is none.
        before: The manifest of the archive so far: a file keeps its path.
        training: Whether to include training and validation files.
    """
    kinds: dict[tuple[str, str], Kind] = {}
    jobs_of: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row in _rows(jobs, ["account", "id", "result_files", "training_file", "validation_file"]):
        for kind, file_id in _mentions(row):
            if kind == "result_file" or training:
                kinds.setdefault((row["account"], file_id), kind)
                jobs_of[row["account"], file_id].add(row["id"])
    known = {(row["account"], row["id"]): row for row in _rows(files, ["account", "id", "filename", "bytes"])}
    originals = []
    for key, kind in sorted(kinds.items()):
        about = known.get(key, {})
        one = Original(
            *key, kind, tuple(sorted(jobs_of[key])), filename=about.get("filename"), bytes=about.get("bytes")
        )
        originals.append(one)
    return _with_paths(originals, before)


def _rows(file: Path | None, wanted: list[str]) -> Iterator[dict[str, Any]]:
    if file is not None:
        with pq.ParquetFile(file) as parquet:
            columns = [name for name in wanted if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(columns=columns):
                yield from batch.to_pylist()


def _mentions(job: dict[str, Any]) -> Iterator[tuple[Kind, str]]:
    """Yield the files that a job names."""
    for field, kind in _FIELDS.items():
        for file_id in stored_file_ids(job.get(field)):
            yield kind, file_id


def _with_paths(originals: list[Original], before: Manifest | None) -> list[Original]:
    """Give each file its path: the one that it has already, else one that is made of its id."""
    known = before.files.items() if before else ()
    taken = {(entry.account, entry.id): path for path, entry in known if entry.is_original}
    paths = [taken.get((one.account, one.id)) or _path(one) for one in originals]
    # Some file systems ignore case, so that two ids are one name. So are equal ids of two accounts.
    used = Counter(path.casefold() for path in taken.values())
    used.update(
        path.casefold() for path, one in zip(paths, originals, strict=True) if (one.account, one.id) not in taken
    )
    for number, one in enumerate(originals):
        if (one.account, one.id) not in taken and used[paths[number].casefold()] > 1:
            stem, _, ending = paths[number].rpartition(".")
            paths[number] = f"{stem}-{_hash(f'{one.account} {one.id}')[:16]}.{ending}"
    return [replace(one, path=path) for one, path in zip(originals, paths, strict=True)]


def _path(original: Original) -> str:
    folder, ending = ("training_files", "jsonl") if original.is_training else ("result_files", "csv")
    is_plain = _PLAIN_ID.fullmatch(original.id) and not _DEVICES.fullmatch(original.id)
    return f"{folder}/{original.id if is_plain else _hash(original.id)}.{ending}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
