"""One run at a time: a lock on this machine, and a file in the archive that other machines see."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fine_tuning_warehouse.errors import BusyError, CommandError

from .store import UNFINISHED, Store


@contextmanager
def only_run(store: Store) -> Iterator[None]:
    """Keep other runs of this machine out of an archive; make its folder if need be.

    Raises:
        BusyError: Another run writes to it.
        CommandError: The folder cannot be written.
    """
    busy = BusyError(f"Another archive run is writing to {store.shown}: wait for it to end.")
    with ExitStack() as stack:
        if store.folder is not None:
            if not store.folder.exists():
                stack.callback(_remove_empty, store.folder)
            store.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(store.folder, os.W_OK):
                raise CommandError(f"The archive {store.shown} cannot be written: the folder takes no files.")
        if store.folder is not None and os.name == "posix":
            import fcntl  # noqa: PLC0415 - POSIX alone has it

            # A lock on the folder itself leaves no file in it, and ends with the process.
            descriptor = os.open(store.folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            except OSError:
                pass  # NFS and some others lock no folders
            else:
                yield
                return
        name = hashlib.sha256(str(store.folder or store.shown).encode()).hexdigest()[:16]
        try:
            stack.enter_context(FileLock(Path(tempfile.gettempdir()) / f"fine-tuning-archive-{name}.lock", timeout=0))
        except Timeout:
            raise busy from None
        yield


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


class Marker:
    """The file `archive.unfinished`, which says that a run has not ended, and which run it is.

    Attributes:
        was_there: Whether an earlier run has left the file.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._run = str(uuid.uuid4())
        self.was_there = UNFINISHED in store.files()
        content = {
            "archive_version": 1,
            "note": "A run of `ftw archive` has not ended. Run it again.",
            "run": self._run,
        }
        store.write(UNFINISHED, f"{json.dumps(content)}\n".encode())

    def check(self) -> None:
        """Raise `BusyError` if a run of another machine has begun since."""
        try:
            with self._store.open(UNFINISHED) as file:
                found = json.loads(file.read()).get("run")
        except (FileNotFoundError, ValueError, AttributeError):
            found = None
        if found != self._run:
            raise BusyError(f"Another archive run has begun to write to {self._store.shown}: run this one again.")


@contextmanager
def unfinished(store: Store) -> Iterator[Marker]:
    """Mark the archive as unfinished during a run. At its end the drafts are deleted, however it ends."""
    store.clear_drafts(abandoned=True)
    listed = store.files().keys() | {UNFINISHED}
    marker = None
    try:
        marker = Marker(store)
        yield marker
    except BaseException:
        store.clear_drafts()
        if marker is not None and not marker.was_there and store.files().keys() | {UNFINISHED} == listed:
            store.remove(UNFINISHED)  # nothing has changed
        raise
    store.clear_drafts()
    store.remove(UNFINISHED)
