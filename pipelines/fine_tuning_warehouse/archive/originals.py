"""The files that jobs name: which they are, and where they lie in an archive."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from .manifest import Entry, Kind, Manifest, Missing

_PLAIN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
"""Ids that can be file names. A leading dash reads as an option to other programs, and a leading dot hides a file."""

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
"""Names that Windows keeps for devices, whatever their ending."""

_FOLDERS = {"result_file": ("result_files", "csv")}
_TRAINING = ("training_files", "jsonl")


@dataclass(frozen=True)
class Original:
    """A file that jobs name.

    Attributes:
        account: Whose it is.
        id: Its id at the host, as the warehouse has it.
        kind: `result_file`, `training_file` or `validation_file`: what it is to the first job that names it.
        jobs: Ids of the jobs that name it, in order.
        path: Where it lies in the archive; empty where its id can be none.
        filename: What the host calls it, where that is known.
        bytes: Its size by the host's word, where that is known.
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
        """Whether it was uploaded, and not made by a job."""
        return self.kind != "result_file"

    def missing(self, reason: str) -> Missing:
        """That it could not be had."""
        return Missing(self.account, self.id, self.kind, self.jobs[0], reason)

    def entry(self, size: int, sha256: str) -> Entry:
        """That it is there."""
        return Entry(self.kind, size, sha256, account=self.account, id=self.id, filename=self.filename, jobs=self.jobs)


def named(jobs: Path | None, files: Path | None, before: Manifest | None, *, training: bool) -> list[Original]:
    """The files that the jobs of a warehouse name, in a fixed order.

    Args:
        jobs: The exported table `jobs`; None where there is none.
        files: The exported table `files`; None where there is none.
        before: The manifest of the archive so far.
        training: Whether training and validation files count too.
    """
    if jobs is None:
        return []
    found: dict[tuple[str, str], tuple[Kind, list[str]]] = {}
    for account, job_id, kind, file_id in _mentions(jobs):
        if kind == "result_file" or training:
            found.setdefault((account, file_id), (kind, []))[1].append(job_id)
    known = _known_files(files)
    originals = []
    for (account, file_id), (kind, job_ids) in sorted(found.items()):
        filename, size = known.get((account, file_id), (None, None))
        distinct = tuple(sorted(set(job_ids)))
        originals.append(Original(account, file_id, kind, distinct, filename=filename, bytes=size))
    return _placed(originals, before)


def _mentions(jobs: Path) -> Iterator[tuple[str, str, Kind, str]]:
    """Every mention of a file: account, job, kind, file id."""
    wanted = ["account", "id", "result_files", "training_file", "validation_file"]
    with pq.ParquetFile(jobs) as file:
        columns = [name for name in wanted if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist():
                account, job_id = str(row["account"]), str(row["id"])
                for file_id in _ids(row.get("result_files")):
                    yield account, job_id, "result_file", file_id
                if row.get("training_file"):
                    yield account, job_id, "training_file", row["training_file"]
                if row.get("validation_file"):
                    yield account, job_id, "validation_file", row["validation_file"]


def _ids(text: str | None) -> list[str]:
    listed = json.loads(text or "[]")
    listed = listed if isinstance(listed, list) else [listed]
    return [file_id if isinstance(file_id, str) else json.dumps(file_id) for file_id in listed if file_id is not None]


def _known_files(files: Path | None) -> dict[tuple[str, str], tuple[str | None, int | None]]:
    """What the table `files` says: account and id to file name and bytes."""
    if files is None:
        return {}
    with pq.ParquetFile(files) as file:
        return {
            (row["account"], row["id"]): (row["filename"], row["bytes"])
            for batch in file.iter_batches(columns=["account", "id", "filename", "bytes"])
            for row in batch.to_pylist()
        }


def _placed(originals: list[Original], before: Manifest | None) -> list[Original]:
    """Each with its path. What the host calls a file is never part of it."""
    taken = {}
    for path, entry in (before.files if before else {}).items():
        if entry.is_original:
            taken[entry.account, entry.id] = path
    plain = {(one.account, one.id): _plain_path(one) for one in originals if (one.account, one.id) not in taken}
    # On a file system that tells no case apart, two ids may be one name; so may one id of two accounts.
    used: dict[str, int] = defaultdict(int)
    for path in (*taken.values(), *plain.values()):
        used[path.casefold()] += 1
    placed = []
    for one in originals:
        path = taken.get((one.account, one.id)) or plain[one.account, one.id]
        if (one.account, one.id) in plain and used[path.casefold()] > 1:
            stem, _, ending = path.rpartition(".")
            path = f"{stem}-{_hash(f'{one.account} {one.id}')[:16]}.{ending}"
        placed.append(replace(one, path=path))
    return placed


def _plain_path(original: Original) -> str:
    folder, ending = _FOLDERS.get(original.kind, _TRAINING)
    is_plain = _PLAIN_ID.fullmatch(original.id) and not _DEVICES.fullmatch(original.id)
    return f"{folder}/{original.id if is_plain else _hash(original.id)}.{ending}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
