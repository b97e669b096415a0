"""An archive in a folder of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.text import shown_path

from .lock import only_run
from .store import FOLDERS, PART, Store, is_ours


class Folder(Store):
    """A folder on this machine. Drafts lie beside the files, so that publishing one is a rename."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shown = shown_path(root)
        self._drafted: set[str] = set()
        if root.exists() and not root.is_dir():
            raise UsageError(f"{self.shown} is a file: an archive is a folder.")

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

    def free_bytes(self) -> int | None:
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
            with only_run(self.shown, self.root):
                yield
        finally:
            if is_new:
                with suppress(OSError):
                    self.root.rmdir()

    @property
    def is_read_cheaply(self) -> bool:
        """See `Store`."""
        return True
