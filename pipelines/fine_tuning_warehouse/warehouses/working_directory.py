"""The private, throw-away directory that each sync works in.

The destination is the only memory: a directory that outlived its sync would carry one database's state into another.
"""

from __future__ import annotations

import getpass
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_LOCK = ".lock"
_TIDYING = ".tidying"
_FRESH_SECONDS = 60.0


@contextmanager
def working_directory() -> Iterator[Path]:
    """A fresh directory for one sync, removed at its end; what killed syncs left behind is removed first."""
    root = _root()
    # One at a time: a directory whose lock another is just about to take looks abandoned.
    with FileLock(root / _TIDYING):
        _remove_abandoned(root)
        directory = Path(tempfile.mkdtemp(prefix="sync-", dir=root))
        lock = FileLock(directory / _LOCK)
        lock.acquire()
    try:
        yield directory
    finally:
        lock.release()
        shutil.rmtree(directory, ignore_errors=True)


def user_name() -> str:
    """Who runs this: a name, or the number of a user who has none, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _root() -> Path:
    root = Path(tempfile.gettempdir()) / f"fine-tuning-warehouse-{user_name()}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return root


def _remove_abandoned(root: Path) -> None:
    for directory in root.glob("sync-*"):
        lock_file = directory / _LOCK
        try:
            if not lock_file.exists() and time.time() - directory.stat().st_mtime < _FRESH_SECONDS:
                continue  # another sync has just made it
            with FileLock(lock_file, timeout=0):
                pass
        except (Timeout, OSError):
            continue
        shutil.rmtree(directory, ignore_errors=True)
