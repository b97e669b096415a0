"""Where an archive lies: a folder, or a URL that fsspec knows. A file appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from fine_tuning_warehouse.errors import BusyError, CommandError, UsageError
from fine_tuning_warehouse.output import without_credentials
from fine_tuning_warehouse.workspace import working_directory

PART = ".part"
_PIECE_BYTES = 1 << 20


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
    def room(self) -> int | None:
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


class Folder(Store):
    """A folder on this machine. Drafts lie beside the files, so that publishing one is a rename."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shown = str(root)
        self._drafted: set[str] = set()
        if root.exists() and not root.is_dir():
            raise UsageError(f"{root} is a file: an archive is a folder.")

    def files(self) -> dict[str, int]:
        """See `Store`."""
        found = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                file = Path(folder) / name
                path = file.relative_to(self.root).as_posix()
                found[path] = file.lstat().st_size
        return found

    def open(self, path: str) -> BinaryIO:
        """See `Store`."""
        return (self.root / path).open("rb")

    def draft(self, path: str) -> Path:
        """See `Store`."""
        draft = self.root / f"{path}{PART}"
        draft.parent.mkdir(parents=True, exist_ok=True)
        self._drafted.add(path)
        return draft

    def publish(self, path: str) -> None:
        """See `Store`."""
        draft = self.draft(path)
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
        draft.replace(self.root / path)
        if os.name == "posix":  # the name too must outlive a power failure
            folder = os.open(draft.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def remove(self, path: str) -> None:
        """See `Store`."""
        (self.root / path).unlink(missing_ok=True)

    def local_copy(self, path: str) -> Path:
        """See `Store`."""
        return self.root / path

    def room(self) -> int | None:
        """See `Store`."""
        return shutil.disk_usage(self.root).free

    def clear_drafts(self, *, left: bool = False) -> None:
        """See `Store`."""
        drafts = {self.root / f"{path}{PART}" for path in self._drafted}
        if left:
            for draft in self.root.rglob(f"*{PART}"):
                if is_ours(draft.relative_to(self.root).as_posix().removesuffix(PART)):
                    drafts.add(draft)
        for draft in drafts:
            draft.unlink(missing_ok=True)
        self._drafted.clear()
        for folder in FOLDERS:
            with suppress(OSError):
                (self.root / folder).rmdir()  # only where it is empty

    @contextmanager
    def only_run(self) -> Iterator[None]:
        """See `Store`."""
        is_new = not self.root.exists()
        self.root.mkdir(parents=True, exist_ok=True)
        if not os.access(self.root, os.W_OK):
            raise CommandError(f"The archive {self.shown} cannot be written: the folder takes no files.")
        try:
            with _only_run(self.shown, self.root):
                yield
        finally:
            if is_new:
                with suppress(OSError):
                    self.root.rmdir()

    @property
    def is_read_cheaply(self) -> bool:
        """See `Store`."""
        return True


class Bucket(Store):
    """A URL, such as `s3://bucket/prefix`. Drafts lie in a folder of this machine; putting an object is atomic."""

    def __init__(self, url: str) -> None:
        import fsspec  # noqa: PLC0415 - only where it is needed

        self.shown = without_credentials(url).rstrip("/")
        scheme = url.split("://", 1)[0]
        try:
            self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError:
            how = "pip install 'fine-tuning-warehouse[s3]'" if scheme == "s3" else f"fsspec's library for {scheme}"
            raise UsageError(f"An archive at {scheme}:// needs more to be installed: {how}.") from None
        except Exception as error:  # each of fsspec's libraries has its own
            words = without_credentials(str(error)) or type(error).__name__
            raise UsageError(f"{self.shown!r} is no address for an archive: {words}.") from None
        self._root = str(root).rstrip("/")
        if not self._root:
            raise UsageError(f"{self.shown!r} names no bucket: an archive looks like s3://bucket/prefix.")
        self._work = ExitStack()
        self._local: Path | None = None

    def files(self) -> dict[str, int]:
        """See `Store`."""
        try:
            with self._telling():
                found = self._fs.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        if self._root in found:
            raise UsageError(f"{self.shown} is an object: an archive is a prefix.")
        # Consoles and other tools mark a "folder" by an empty object whose key ends in a slash.
        return {
            name[len(self._root) + 1 :]: int(info["size"] or 0)
            for name, info in found.items()
            if not name.endswith("/")
        }

    def open(self, path: str) -> BinaryIO:
        """See `Store`."""
        with self._telling():
            return self._fs.open(f"{self._root}/{path}", "rb")  # type: ignore[no-any-return]

    def draft(self, path: str) -> Path:
        """See `Store`."""
        draft = self._beside("drafts", path)
        draft.parent.mkdir(parents=True, exist_ok=True)
        return draft

    def publish(self, path: str) -> None:
        """See `Store`."""
        draft = self.draft(path)
        with self._telling():
            self._fs.put_file(str(draft), f"{self._root}/{path}")
        draft.unlink()

    def remove(self, path: str) -> None:
        """See `Store`."""
        with suppress(FileNotFoundError), self._telling():
            self._fs.rm_file(f"{self._root}/{path}")

    def local_copy(self, path: str) -> Path:
        """See `Store`."""
        copy = self._beside("copies", path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with self._telling():
            self._fs.get_file(f"{self._root}/{path}", str(copy))
        return copy

    def room(self) -> int | None:
        """See `Store`."""
        return None

    def clear_drafts(self, *, left: bool = False) -> None:  # noqa: ARG002 - a killed run leaves none in a bucket
        """See `Store`."""
        self._work.close()
        self._local = None

    @contextmanager
    def only_run(self) -> Iterator[None]:
        """See `Store`."""
        with _only_run(self.shown, None):
            yield

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except Exception as error:  # each of fsspec's libraries has its own
            words = without_credentials(str(error)) or type(error).__name__
            raise CommandError(f"The archive {self.shown} cannot be written or read: {words}") from error

    def _beside(self, what: str, path: str) -> Path:
        if self._local is None:
            # What a killed run leaves there, of files that may hold what users wrote, the next command removes.
            self._local = self._work.enter_context(working_directory())
        return self._local / what / path


FOLDERS = ("tables", "views", "result_files", "training_files")
"""The folders of an archive."""

README, SUMS, MANIFEST, UNFINISHED = "README.md", "SHA256SUMS", "manifest.json", "archive.unfinished"
"""The files of an archive that lie in no folder; the last one is there only as long as a run has not ended."""


def is_ours(path: str) -> bool:
    """Whether a path is one that an archive may write."""
    folder, _, name = path.rpartition("/")
    return (folder in FOLDERS and name not in ("", ".", "..")) or path in (README, SUMS, MANIFEST, UNFINISHED)


def open_store(where: str) -> Store:
    """The archive at a folder or a URL.

    Raises:
        UsageError: It can be neither.
    """
    if not where.strip():
        raise UsageError("Name a folder for the archive, or a URL such as s3://bucket/prefix.")
    for scheme in ("file://", "local://"):
        where = where.removeprefix(scheme)
    if "://" in where:
        return Bucket(where)
    if found := re.match(r"(\w{2,}):/", where):  # one letter is a drive
        raise UsageError(f"{where!r} is neither a folder nor a URL: {found[1]}:// begins with two slashes.")
    return Folder(Path(where).expanduser().absolute())


def digest(file: BinaryIO) -> str:
    """SHA-256 of what is left to read."""
    result = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        result.update(piece)
    return result.hexdigest()


@contextmanager
def _only_run(shown: str, root: Path | None) -> Iterator[None]:
    busy = f"Another archive run is writing to {shown}: wait for it to end."
    if root is not None and os.name == "posix":
        import fcntl  # noqa: PLC0415 - POSIX alone has it

        # A lock on the folder itself leaves no file in it, and ends with the process.
        folder = os.open(root, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(folder)
            raise BusyError(busy) from None
        except OSError:
            os.close(folder)  # NFS and some others lock no folders
        else:
            try:
                yield
            finally:
                os.close(folder)
            return
    name = hashlib.sha256(shown.encode()).hexdigest()[:16]
    try:
        with FileLock(Path(tempfile.gettempdir()) / f"fine-tuning-archive-{name}.lock", timeout=0):
            yield
    except Timeout:
        raise BusyError(busy) from None
