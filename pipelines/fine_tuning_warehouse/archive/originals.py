"""The files that jobs name: which they are, where they lie in an archive, and how they come from the host."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fine_tuning_warehouse.errors import CommandError
from openai_fine_tuning import FineTuningSourceError, HostError, RequestError
from openai_fine_tuning.api import FineTuningApi, is_safe_id, quoted

from .manifest import Entry, Kind, Manifest, Missing
from .store import Store, digest

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
"""Names that Windows keeps for devices, whatever their ending."""

_FOLDERS = {"result_file": ("result_files", "csv")}
_TRAINING = ("training_files", "jsonl")

_CONTENT = "/files/{}/content"


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


@dataclass
class Outcome:
    """What came of fetching.

    Attributes:
        entries: The files that are there now, by path.
        written: How many of them were written.
        missing: Those that could not be had.
        failure: What ended the fetching, where something did that concerns every file.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    written: int = 0
    missing: list[Missing] = field(default_factory=list)
    failure: str | None = None


# which files there are ------------------------------------------------------------------------------------------------


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
    try:
        listed = json.loads(text or "[]")
    except ValueError:
        listed = [text]
    listed = listed if isinstance(listed, list) else [listed]
    return [file_id if isinstance(file_id, str) else json.dumps(file_id) for file_id in listed if file_id is not None]


def _known_files(files: Path | None) -> dict[tuple[str, str], tuple[str | None, int | None]]:
    """What the table `files` says: account and id to file name and bytes."""
    if files is None:
        return {}
    with pq.ParquetFile(files) as file:
        if not {"account", "id", "filename", "bytes"} <= set(file.schema_arrow.names):
            return {}
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
        placed.append(_with(one, path=path))
    return placed


def _plain_path(original: Original) -> str:
    folder, ending = _FOLDERS.get(original.kind, _TRAINING)
    is_plain = _PLAIN_ID.fullmatch(original.id) and not _DEVICES.fullmatch(original.id)
    return f"{folder}/{original.id if is_plain else _hash(original.id)}.{ending}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _with(original: Original, **changes: Any) -> Original:
    return Original(**{**original.__dict__, **changes})


# how they come --------------------------------------------------------------------------------------------------------


class Fetcher:
    """Brings files of one account from its host into an archive.

    Args:
        api: The host.
        store: The archive.
        watch: Told of every piece, in bytes.
    """

    def __init__(self, api: FineTuningApi, store: Store, watch: Callable[[int], None] | None = None) -> None:
        self._api = api
        self._store = store
        self._watch = watch
        self._refusal: str | None = None
        self._failure: str | None = None

    def describe(self, originals: Iterable[Original]) -> tuple[list[Original], list[Missing]]:
        """Ask for the size of files where it is not known: those that are there, and those that are not."""
        described: list[Original] = []
        missing: list[Missing] = []
        for result in self._all(self._describe, originals):
            if isinstance(result, Missing):
                missing.append(result)
            else:
                described.append(result)
        return described, missing

    def fetch(self, originals: Iterable[Original]) -> Outcome:
        """Bring files, several at once."""
        outcome = Outcome()
        for result in self._all(self._fetch, originals):
            if isinstance(result, Missing):
                outcome.missing.append(result)
            else:
                original, entry = result
                outcome.entries[original.path] = entry
                outcome.written += 1
        outcome.failure = self._failure
        return outcome

    def _all(self, work: Callable[[Original], Any], originals: Iterable[Original]) -> Iterator[Any]:
        rest = list(originals)
        if not rest:
            return
        # The first goes alone: a scope that the key lacks is the same for all.
        yield self._told(work, rest.pop(0))
        pool = ThreadPoolExecutor(self._api.limiter.concurrency, thread_name_prefix="archive")
        try:
            yield from pool.map(lambda one: self._told(work, one), rest)
        except BaseException:
            self._api.close()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _told(self, work: Callable[[Original], Any], original: Original) -> Any:
        """Do it, or say why not."""
        if not is_safe_id(original.id):
            return original.missing("no host can be asked for a file of this id")
        if (reason := self._failure or self._refusal) is not None:
            return original.missing(reason)
        try:
            return work(original)
        except RequestError as error:
            reason = _reason(error)
            if error.is_missing_scope:
                self._refusal = reason
            return original.missing(reason)
        except HostError as error:
            self._failure = str(error)
            return original.missing(str(error))
        except FineTuningSourceError as error:
            return original.missing(str(error))

    def _describe(self, original: Original) -> Original:
        if original.bytes is not None:
            return original
        try:
            about = self._api.get_json(f"/files/{quoted(original.id)}").content
        except RequestError as error:
            if error.is_missing_endpoint:
                return original  # a host may have the content alone
            raise
        about = about if isinstance(about, dict) else {}
        size, filename = about.get("bytes"), about.get("filename")
        return _with(
            original,
            bytes=size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
            filename=filename if isinstance(filename, str) else None,
        )

    def _fetch(self, original: Original) -> tuple[Original, Entry]:
        draft = self._store.draft(original.path)
        path = _CONTENT.format(quoted(original.id))
        # A result file may be counted before it is encoded: its size proves nothing.
        size = original.bytes if original.is_training else None
        try:
            with draft.open("w+b") as file:
                came = self._api.download(path, file, size=size, watch=self._watch)
                file.seek(0)
                entry = original.entry(came, digest(file))
            self._store.publish(original.path)
        finally:
            draft.unlink(missing_ok=True)
        return original, entry


def _reason(error: RequestError) -> str:
    if error.status is None or not error.detail:
        return str(error).replace(error.url, "the host")
    return f"{error.status}{f' ({error.code})' if error.code else ''}: {error.detail}"


def check_room(store: Store, bytes_to_come: int) -> None:
    """Raise `CommandError` where it is clear that the files will not fit."""
    room = store.room()
    if room is not None and bytes_to_come > room:
        raise CommandError(
            f"The files take {bytes_to_come:,} bytes, and {store.shown} has room for {room:,}. Nothing was fetched."
        )


def verified(
    originals: Iterable[Original], before: Mapping[str, Entry], left: Mapping[str, int], store: Store
) -> tuple[dict[str, Entry], list[Original]]:
    """Those that the archive has, and those that it lacks, or has damaged.

    Args:
        originals: What is wanted.
        before: The files of the archive by its manifest.
        left: Files that are there, with their sizes; whole ones, since none appears half.
        store: The archive.
    """
    held: dict[str, Entry] = {}
    lacking: list[Original] = []
    for one in originals:
        entry, size = before.get(one.path), left.get(one.path)
        if entry is not None:
            is_whole = size == entry.bytes and (not store.is_read_cheaply or store.digest(one.path) == entry.sha256)
            if is_whole:
                filename = one.filename or entry.filename
                held[one.path] = _with(one, filename=filename, kind=entry.kind).entry(entry.bytes, entry.sha256)
                continue
        elif size is not None and (one.bytes in (size, None) or not one.is_training):
            held[one.path] = one.entry(size, store.digest(one.path))
            continue
        lacking.append(one)
    return held, lacking
