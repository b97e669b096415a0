"""The manifest of an archive: every file with its checksum, and what is missing. It is written last."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any, Literal

from fine_tuning_warehouse import __version__
from fine_tuning_warehouse.errors import CommandError

from .store import MANIFEST, SUMS, Store

ARCHIVE_VERSION = 1

Kind = Literal["table", "view", "result_file", "training_file", "validation_file", "readme", "checksums"]


@dataclass(frozen=True)
class Entry:
    """A file of an archive.

    Attributes:
        kind: What the file is.
        bytes: Its size.
        sha256: Its checksum, in hex.
        rows: The number of rows of a table or view.
        name: The name of a table or view.
        account: The account of a file of the host.
        id: The id of a file of the host.
        filename: What the host calls the file. It is data, and never part of a path.
        jobs: The ids of the jobs that name a file of the host.
    """

    kind: Kind
    bytes: int
    sha256: str
    rows: int | None = None
    name: str | None = None
    account: str | None = None
    id: str | None = None
    filename: str | None = None
    jobs: tuple[str, ...] | None = None

    @property
    def is_original(self) -> bool:
        """Whether the file came from the host, byte for byte."""
        return self.kind in ("result_file", "training_file", "validation_file")

    def is_in(self, store: Store, path: str, size: int | None) -> bool:
        """Return whether the file is there as it was. In a bucket its size is enough: reading takes too long."""
        return size == self.bytes and (not store.is_read_cheaply or store.holds(path, self.sha256))


@dataclass(frozen=True, order=True)
class Missing:
    """A file that jobs name and that could not be fetched.

    Attributes:
        account: The account of the jobs.
        id: The id of the file at the host.
        kind: What the file is to its first job.
        job: The first job that names the file.
        reason: Why the file is missing, in the words of the host if it has said something.
    """

    account: str
    id: str
    kind: str
    job: str
    reason: str


@dataclass(frozen=True)
class Tombstone:
    """A note that something was removed from an archive on purpose, or given another label.

    Attributes:
        account: The account.
        at: When (ISO 8601, UTC).
        job: The job that was removed; None for the whole account.
        files: Ids of the files that only this job has named.
        renamed_to: The account's new label; None if it was removed.
    """

    account: str
    at: str
    job: str | None = None
    files: tuple[str, ...] = ()
    renamed_to: str | None = None

    def entry_after(self, entry: Entry) -> Entry | None:
        """Return what becomes of the entry of a file of the host; None if the file is removed too."""
        if entry.account != self.account:
            return entry
        if self.renamed_to is not None:
            return replace(entry, account=self.renamed_to)
        jobs = tuple(one for one in entry.jobs or () if one != self.job)
        return replace(entry, jobs=jobs) if self.job is not None and jobs else None

    def missing_after(self, missing: Missing) -> Missing | None:
        """Return what becomes of the entry of a missing file; None if nobody misses the file any more."""
        if missing.account != self.account:
            return missing
        if self.renamed_to is not None:
            return replace(missing, account=self.renamed_to)
        return None if self.job in (None, missing.job) else missing


@dataclass
class Manifest:
    """The content of an archive.

    Attributes:
        dataset: The schema of the tables in the warehouse.
        archived_at: When the archive last changed (ISO 8601, UTC).
        account: The account that was last read from its host; None if none ever was, or several were.
        accounts: Every account in the tables, with its host if that is known.
        files: Every file, by its path.
        missing: The files that jobs name and that are not there.
        versions: The versions of the software that wrote it.
        tombstones: What was removed or renamed on purpose, in order.
        digest: The SHA-256 of `manifest.json`, in hex. A copy kept elsewhere shows whether the archive was changed.
    """

    dataset: str
    archived_at: str = ""
    account: str | None = None
    accounts: dict[str, dict[str, str | None]] = field(default_factory=dict)
    files: dict[str, Entry] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    tombstones: list[Tombstone] = field(default_factory=list)
    digest: str = ""

    def rows(self, kind: Kind) -> dict[str, int]:
        """Return the number of rows of each table, or of each view."""
        return {str(entry.name): entry.rows or 0 for _, entry in sorted(self.files.items()) if entry.kind == kind}

    @property
    def size(self) -> int:
        """The bytes of all files except the manifest."""
        return sum(entry.bytes for entry in self.files.values())

    def as_json(self) -> dict[str, Any]:
        """Return the content of `manifest.json`."""
        content = {
            "account": self.account,
            "accounts": self.accounts,
            "archive_version": ARCHIVE_VERSION,
            "archived_at": self.archived_at,
            "dataset": self.dataset,
            "files": {
                path: {name: value for name, value in asdict(entry).items() if value is not None}
                for path, entry in self.files.items()
            },
            "host": self.accounts.get(self.account or "", {}).get("host"),
            "missing": [asdict(missing) for missing in sorted(self.missing)],
            "tables": self.rows("table"),
            "versions": self.versions,
            "views": self.rows("view"),
        }
        if self.tombstones:
            content["tombstones"] = [
                {name: value for name, value in asdict(one).items() if value} for one in self.tombstones
            ]
        return {**content, "sha256": _checksum(content)}

    def sums(self) -> bytes:
        """Return what `sha256sum -c` reads: every file except itself and the manifest, which holds its checksum."""
        lines = [f"{entry.sha256}  {path}\n" for path, entry in sorted(self.files.items()) if path != SUMS]
        return "".join(lines).encode()

    def write(self, store: Store) -> None:
        """Write `manifest.json`. The same content gives the same bytes."""
        content = _bytes(self.as_json())
        self.digest = hashlib.sha256(content).hexdigest()
        store.write(MANIFEST, content)


def _bytes(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()


def _checksum(content: dict[str, Any]) -> str:
    """Return the manifest's own checksum: of everything in it except the checksum and the time."""
    rest = {name: value for name, value in content.items() if name not in ("archived_at", "sha256")}
    return hashlib.sha256(_bytes(rest)).hexdigest()


def read_manifest(store: Store) -> Manifest:
    """Read the manifest of an archive.

    Raises:
        CommandError: There is none, it is damaged, or a later release wrote it.
    """
    where = f"{store.shown}/{MANIFEST}"
    try:
        with store.open(MANIFEST) as file:
            content = file.read()
        found = json.loads(content)
        if not isinstance(found, dict) or not isinstance(found.get("archive_version"), int):
            raise TypeError
        if found["archive_version"] > ARCHIVE_VERSION:
            raise CommandError(f"{where} was written by a later release: update fine-tuning-warehouse.")
        if found["sha256"] != _checksum(found):
            raise ValueError
        return Manifest(
            dataset=str(found["dataset"]),
            archived_at=str(found["archived_at"]),
            account=found["account"],
            accounts={str(label): dict(about) for label, about in found["accounts"].items()},
            files={
                str(path): Entry(**{**about, "jobs": tuple(about["jobs"]) if "jobs" in about else None})
                for path, about in found["files"].items()
            },
            missing=[Missing(**about) for about in found["missing"]],
            versions=dict(found["versions"]),
            tombstones=[
                Tombstone(**{**about, "files": tuple(about.get("files", ()))}) for about in found.get("tombstones", ())
            ],
            digest=hashlib.sha256(content).hexdigest(),
        )
    except FileNotFoundError:
        raise CommandError(f"{store.shown} is not an archive: it holds no {MANIFEST}.") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CommandError(
            f"{where} is damaged, or not the manifest of an archive: put it back from a copy. "
            f"(`sha256sum -c {SUMS}` there checks the other files.)"
        ) from None


def current_versions() -> dict[str, str]:
    """Return the versions of the software that writes archives now."""
    return {
        "fine_tuning_warehouse": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("dlt", "duckdb", "pyarrow")},
    }
