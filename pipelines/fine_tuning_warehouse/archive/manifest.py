"""The manifest: every file of an archive with its checksum, and what could not be had. Written last."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.version import __version__

from .store import MANIFEST, SUMS, Store

ARCHIVE_VERSION = 1

Kind = Literal["table", "view", "result_file", "training_file", "validation_file", "readme", "checksums"]


@dataclass(frozen=True)
class Entry:
    """A file of an archive.

    Attributes:
        kind: What it is.
        bytes: Its size.
        sha256: Its checksum, in hex.
        rows: Of a table or view, how many it has.
        name: Of a table or view, its name.
        account: Of a file of the host, whose it is.
        id: Of a file of the host, its id there.
        filename: What the host calls it: data, and never a path.
        jobs: Ids of the jobs that name it.
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
        """Whether it is a file as the host gave it."""
        return self.kind in ORIGINALS


ORIGINALS = ("result_file", "training_file", "validation_file")


@dataclass(frozen=True, order=True)
class Missing:
    """A file that jobs name and that could not be had.

    Attributes:
        account: Whose it is.
        id: Its id at the host.
        kind: What it is to its job.
        job: The first job that names it.
        reason: Why it is not there, in the host's words where it has said something.
    """

    account: str
    id: str
    kind: str
    job: str
    reason: str


@dataclass
class Manifest:
    """What an archive holds.

    Attributes:
        dataset: The schema that the tables were in.
        archived_at: When it last changed (ISO 8601, UTC).
        account: The account that was last archived from its host; None where none ever was, and where several were.
        accounts: Every account in the tables, with its host where that is known.
        files: Path to file.
        missing: Files that jobs name and that are not there.
        versions: What wrote it.
        digest: The SHA-256 of `manifest.json` as it was read or written, in hex. Kept elsewhere, it tells a forged
            archive from the true one.
    """

    dataset: str
    archived_at: str = ""
    account: str | None = None
    accounts: dict[str, dict[str, str | None]] = field(default_factory=dict)
    files: dict[str, Entry] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    digest: str = ""

    def rows(self, kind: Kind) -> dict[str, int]:
        """Rows by the name of the table or view."""
        return {str(entry.name): entry.rows or 0 for _, entry in sorted(self.files.items()) if entry.kind == kind}

    @property
    def size(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(entry.bytes for entry in self.files.values())

    def as_json(self) -> dict[str, Any]:
        """The content of `manifest.json`."""
        host = self.accounts.get(self.account or "", {}).get("host")
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
            "host": host,
            "missing": [asdict(missing) for missing in sorted(self.missing)],
            "tables": self.rows("table"),
            "versions": self.versions,
            "views": self.rows("view"),
        }
        return {**content, "sha256": _checksum(content)}

    def as_bytes(self) -> bytes:
        """`manifest.json`, the same for the same content."""
        return _bytes(self.as_json())

    def sums(self) -> bytes:
        """What `sha256sum -c` takes: every file but this one and the manifest, which holds its checksum."""
        lines = [f"{entry.sha256}  {path}\n" for path, entry in sorted(self.files.items()) if path != SUMS]
        return "".join(lines).encode()

    def says_the_same_as(self, other: Manifest | None) -> bool:
        """Whether nothing differs but the time."""
        if other is None:
            return False
        return bool(self.as_json()["sha256"] == other.as_json()["sha256"])


def _bytes(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()


def _checksum(content: dict[str, Any]) -> str:
    """The manifest's own SHA-256, of all in it but itself and the time: it is written last, so no other file has it."""
    rest = {name: value for name, value in content.items() if name not in ("archived_at", "sha256")}
    return hashlib.sha256(_bytes(rest)).hexdigest()


def read_manifest(store: Store) -> Manifest:
    """The manifest of an archive.

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
            files={str(path): _entry(about) for path, about in found["files"].items()},
            missing=[Missing(**about) for about in found["missing"]],
            versions=dict(found["versions"]),
            digest=hashlib.sha256(content).hexdigest(),
        )
    except FileNotFoundError:
        raise CommandError(f"{store.shown} is no archive: there is no {MANIFEST}.") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CommandError(
            f"{where} is damaged, or no archive's: put it back from a copy. (`sha256sum -c {SUMS}` "
            "there checks the other files.)"
        ) from None


def _entry(about: dict[str, Any]) -> Entry:
    jobs = about.get("jobs")
    return Entry(**{**about, "jobs": None if jobs is None else tuple(jobs)})


def current_versions() -> dict[str, str]:
    """What writes archives now."""
    return {
        "fine_tuning_warehouse": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("dlt", "duckdb", "pyarrow")},
    }
