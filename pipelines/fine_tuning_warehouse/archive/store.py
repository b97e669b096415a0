"""What holds an archive, and what its files are called. A file appears whole or not at all."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

PART = ".part"
_PIECE_BYTES = 1 << 20

FOLDERS = ("tables", "views", "result_files", "training_files")
"""The folders of an archive."""

README, SUMS, MANIFEST, UNFINISHED = "README.md", "SHA256SUMS", "manifest.json", "archive.unfinished"
"""The files of an archive that lie in no folder; the last one is there only as long as a run has not ended."""


def is_ours(path: str) -> bool:
    """Whether a path is one that an archive may write."""
    folder, _, name = path.rpartition("/")
    return (folder in FOLDERS and name not in ("", ".", "..")) or path in (README, SUMS, MANIFEST, UNFINISHED)


class Store(ABC):
    """The files of one archive, by their path below it (with `/`).

    A file is drafted on this machine first, and published once it is whole.

    Attributes:
        shown: What people call it.
    """

    shown: str

    @abstractmethod
    def files(self) -> dict[str, int]:
        """Every file that is there, with its size in bytes."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Read a file."""

    @abstractmethod
    def draft(self, path: str) -> Path:
        """Where the content of a file is to be written before it is published."""

    @abstractmethod
    def publish(self, path: str) -> None:
        """Put a draft in the place of the file, at once."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Take a file away."""

    @abstractmethod
    def local_copy(self, path: str) -> Path:
        """A file of the archive on this machine, for reading."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Bytes that still fit; None where that is not known."""

    @abstractmethod
    def clear_drafts(self, *, left: bool = False) -> None:
        """Remove the drafts of this run; with `left`, those that a killed run has left too."""

    @abstractmethod
    def only_run(self) -> Any:
        """A context in which no other run of this machine writes here. Raises `BusyError` where one does."""

    @property
    def is_read_cheaply(self) -> bool:
        """Whether all of it may be read again to be sure."""
        return False

    def discard(self, path: str) -> None:
        """Remove a draft."""
        self.draft(path).unlink(missing_ok=True)

    def write(self, path: str, content: bytes) -> None:
        """Publish a small file."""
        self.draft(path).write_bytes(content)
        self.publish(path)

    def digest(self, path: str) -> str:
        """SHA-256 of a file."""
        with self.open(path) as file:
            return digest(file)


def digest(file: BinaryIO) -> str:
    """SHA-256 of what is left to read."""
    result = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        result.update(piece)
    return result.hexdigest()
