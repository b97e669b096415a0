"""The files of an archive: in a folder of this machine, or at a URL that fsspec knows, such as one of S3."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.text import named_path, safe, shown_path, without_credentials
from fine_tuning_warehouse.warehouses.working_directory import working_directory
from openai_fine_tuning import ConfigurationError

FOLDERS = ("tables", "views", "result_files", "training_files")
"""The folders of an archive."""

README, SUMS, MANIFEST, UNFINISHED = "README.md", "SHA256SUMS", "manifest.json", "archive.unfinished"
"""The files of an archive outside the folders. The last one is there only until a run has ended."""

DRAFTS = ".ftw-archive-drafts-"
"""The beginning of the name of the folder for the drafts of a run, in a local archive."""

_PIECE_BYTES = 1 << 20


def is_ours(path: str) -> bool:
    """Return whether an archive may hold a file at this path."""
    folder, _, name = path.rpartition("/")
    is_plain = re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name) is not None
    return (folder in FOLDERS and is_plain) or path in (README, SUMS, MANIFEST, UNFINISHED)


class Store:
    """Read and write the files of one archive, each by its path below the archive (with `/`).

    A file is written to a draft first, and published when it is whole: in a folder by a rename, at a URL by one upload.
    In a folder no link is followed, and a file that is replaced keeps its mode.

    Args:
        files: The file system of fsspec.
        root: The path of the archive there.
        shown: The name of the archive in messages.
        folder: The folder of this machine that it is; None for a URL.
    """

    def __init__(self, files: Any, root: str, shown: str, folder: Path | None = None) -> None:
        self.shown = shown
        self.folder = folder
        self._files = files
        self._root = root.rstrip("/") or "/"
        self._work = ExitStack()
        self._drafts: Path | None = None

    @property
    def is_read_cheaply(self) -> bool:
        """Whether every file may be read again to make sure that it is whole."""
        return self.folder is not None

    def files(self) -> dict[str, int]:
        """Return every file that is there, with its size in bytes."""
        return {path: int(info["size"] or 0) for path, info in self._found().items()}

    def odd_files(self) -> list[str]:
        """Return the paths that are not plain files: links, pipes and devices."""
        return [path for path, info in self._found().items() if info["type"] != "file" or info.get("islink")]

    def refuse_odd_files(self) -> None:
        """Raise `UsageError` if there is a link, pipe or device where the archive writes or reads."""
        for path in self.odd_files():
            if is_ours(path) or path in FOLDERS:
                raise UsageError(
                    f"{self.shown} holds {path}, which is a link or not a plain file, and an archive follows no links: "
                    "put the file or folder itself there, or remove the link. Nothing was changed."
                )

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading."""
        with self._accessing():
            return self._files.open(f"{self._root}/{path}", "rb")  # type: ignore[no-any-return]

    def draft(self, path: str) -> Path:
        """Return a local file for the new content of `path`; `publish` puts it there."""
        if not is_ours(path):
            raise CommandError(f"{path!r} cannot be a path of the archive {self.shown}: its manifest is damaged.")
        if self._drafts is None:
            if self.folder is None:
                self._drafts = self._work.enter_context(working_directory())
            else:
                self._drafts = Path(tempfile.mkdtemp(prefix=DRAFTS, dir=self.folder))
                self._work.callback(shutil.rmtree, self._drafts, ignore_errors=True)
        draft = self._drafts / path
        draft.parent.mkdir(exist_ok=True)
        draft.touch()
        return draft

    def publish(self, path: str) -> None:
        """Replace a file by its draft, in one step. Raises `FileNotFoundError` if the drafts were deleted."""
        if self._drafts is None:
            raise FileNotFoundError(f"the draft of {path} was deleted, since the run has ended")
        draft = self._drafts / path
        if self.folder is None:
            with self._accessing():
                self._files.put_file(str(draft), f"{self._root}/{path}")
            draft.unlink()
            return
        place = self.folder / path
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
        if place.parent != self.folder:
            place.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            mode = place.lstat().st_mode
            if stat.S_ISREG(mode):
                draft.chmod(stat.S_IMODE(mode))  # somebody may have set another mode on purpose
        if os.name != "posix":  # Windows opens no folders
            draft.replace(place)
            return
        # By the open folder, not by its path: somebody may put a link there meanwhile.
        folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.replace(draft, place.name, dst_dir_fd=folder)
            os.fsync(folder)  # the name too must outlive a power failure
        finally:
            os.close(folder)

    def write(self, path: str, content: bytes) -> None:
        """Write and publish a small file."""
        self.draft(path).write_bytes(content)
        self.publish(path)

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""
        with suppress(FileNotFoundError), self._accessing():
            self._files.rm_file(f"{self._root}/{path}")

    def local_copy(self, path: str) -> Path:
        """Return a local file with the content of a file of the archive, for reading."""
        if self.folder is not None:
            return self.folder / path
        copy = self.draft(path).with_suffix(".copy")
        with self._accessing():
            self._files.get_file(f"{self._root}/{path}", str(copy))
        return copy

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file, in hex."""
        with self.open(path) as file:
            return digest(file)

    def holds(self, path: str, sha256: str) -> bool:
        """Return whether a file is there with this SHA-256."""
        try:
            return self.digest(path) == sha256
        except FileNotFoundError:
            return False

    def free_bytes(self) -> int | None:
        """Return how many bytes still fit; None if that is not known."""
        return None if self.folder is None else shutil.disk_usage(self.folder).free

    def clear_drafts(self, *, abandoned: bool = False) -> None:
        """Delete the drafts of this run; with `abandoned`, those of killed runs too."""
        self._work.close()
        self._drafts = None
        if self.folder is None:
            return
        if abandoned:
            for left in self.folder.glob(f"{DRAFTS}*"):
                shutil.rmtree(left, ignore_errors=True)
            for left in (*self.folder.glob("*.part"), *self.folder.glob("*/*.part")):  # drafts of earlier releases
                path = left.relative_to(self.folder).as_posix().removesuffix(".part")
                if is_ours(path) and Path(path).suffix in (".parquet", ".csv", ".jsonl", ".md", ".json", ".unfinished"):
                    left.unlink(missing_ok=True)
        for name in FOLDERS:
            with suppress(OSError):
                (self.folder / name).rmdir()  # only an empty one

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise `CommandError` with what the disk or the bucket says."""
        try:
            yield
        except (CommandError, ConfigurationError):
            raise
        except OSError as error:
            reason = error.strerror or error
            raise CommandError(f"The archive {self.shown} cannot be written or read: {reason}.") from error

    def _found(self) -> dict[str, dict[str, Any]]:
        try:
            with self._accessing():
                found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        if self._root in found:
            raise UsageError(f"{self.shown} is an object: an archive is a prefix.")
        # Consoles and other tools mark a "folder" by an empty object whose key ends in a slash.
        return {name[len(self._root) + 1 :]: info for name, info in found.items() if not name.endswith("/")}

    @contextmanager
    def _accessing(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except Exception as error:  # each of fsspec's libraries has its own
            words = without_credentials(str(error)) or type(error).__name__
            raise CommandError(f"The archive {self.shown} cannot be written or read: {words}") from error


def open_store(where: str) -> Store:
    """Return the archive at a folder or a URL; it need not exist.

    Raises:
        UsageError: The text cannot name an archive.
        CommandError: The folder cannot even be looked for.
    """
    from fsspec import filesystem, url_to_fs  # noqa: PLC0415 - the other commands do without

    if not where.strip():
        raise UsageError("Name a folder for the archive, or a URL such as s3://bucket/prefix.")
    for scheme in ("file://", "local://"):
        where = where.removeprefix(scheme)
    if "://" not in where:
        if found := re.match(r"(\w{2,}):/", where):  # one letter is a drive
            raise UsageError(f"{where!r} is neither a folder nor a URL: {found[1]}:// begins with two slashes.")
        folder = named_path(where, "The archive").absolute()
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{shown_path(folder)} is a file: an archive is a folder.")
        true = folder.resolve()  # the archive itself may be a link that its user has named
        return Store(filesystem("file"), true.as_posix(), shown_path(folder), true)
    shown, scheme = safe(without_credentials(where)).rstrip("/"), where.split("://", 1)[0]
    try:
        files, root = url_to_fs(where, use_listings_cache=False)
    except ImportError:
        how = "pip install 'fine-tuning-warehouse[s3]'" if scheme == "s3" else f"fsspec's library for {scheme}"
        raise UsageError(f"An archive at {scheme}:// needs more to be installed: {how}.") from None
    except Exception as error:  # noqa: BLE001 - each of fsspec's libraries has its own
        words = without_credentials(str(error)) or type(error).__name__
        raise UsageError(f"{shown!r} cannot be the address of an archive: {words}.") from None
    if not str(root).strip("/"):
        raise UsageError(f"{shown!r} names no bucket: expected an address such as s3://bucket/prefix.")
    return Store(files, str(root), shown)


def digest(file: BinaryIO) -> str:
    """Return the SHA-256 of the rest of an open file, in hex."""
    result = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        result.update(piece)
    return result.hexdigest()
