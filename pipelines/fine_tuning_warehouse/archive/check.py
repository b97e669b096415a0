"""Check an archive for damage: read every file and compare it with the manifest. No host is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from fine_tuning_warehouse.text import counted

from .manifest import Entry, Manifest, read_manifest
from .store import MANIFEST, UNFINISHED, Store, is_ours


@dataclass(frozen=True)
class Damage:
    """A file that is damaged or missing, and why."""

    path: str
    reason: str


@dataclass
class Checked:
    """The result of a check.

    Attributes:
        manifest: What the archive should hold.
        files: The number of files that were compared.
        damaged: The files that are not as the manifest says.
    """

    manifest: Manifest
    files: int = 0
    damaged: list[Damage] = field(default_factory=list)


def check(store: Store, watch: Callable[[int], None] | None = None) -> Checked:
    """Compare every file with the manifest.

    Args:
        store: The archive.
        watch: Called with the bytes of every file that was read.

    Raises:
        CommandError: There is no archive, or its manifest cannot be read.
    """
    checked = Checked(read_manifest(store))
    found, odd, damaged = store.files(), set(store.odd_files()), checked.damaged
    if UNFINISHED in found:
        damaged.append(Damage(UNFINISHED, "a run has not ended: run `ftw archive` again"))
    for path, entry in sorted(checked.manifest.files.items()):
        if not is_ours(path):
            damaged.append(Damage(path, "cannot be a path of an archive"))
            continue
        checked.files += 1
        reason = "is a link or not a plain file" if path in odd else _wrong(store, path, entry, found.get(path))
        if reason is not None:
            damaged.append(Damage(path, reason))
        if watch is not None:
            watch(entry.bytes)
    unlisted = found.keys() - checked.manifest.files.keys() - {MANIFEST, UNFINISHED}
    damaged += [Damage(path, "is not listed in the manifest") for path in sorted(unlisted)]
    return checked


def _wrong(store: Store, path: str, entry: Entry, size: int | None) -> str | None:
    """Return why a file is not as the manifest says; None if it is."""
    if size is None:
        return "is missing"
    if size != entry.bytes:
        return f"has {size:,} bytes instead of {entry.bytes:,}"
    try:
        if store.digest(path) != entry.sha256:
            return "is damaged: its SHA-256 is another"
        if entry.rows is not None:
            with store.open(path) as file:
                rows = pq.read_metadata(file).num_rows
            if rows != entry.rows:
                return f"has {counted(rows, 'row')} instead of {entry.rows:,}"
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {error}"
    return None
