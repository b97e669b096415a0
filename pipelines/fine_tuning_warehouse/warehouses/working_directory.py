"""The private, throw-away directory that each sync works in.

The destination is the only memory: a directory that outlived its sync would carry one database's state into another.
"""

from __future__ import annotations

import getpass
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

_LOCK = ".lock"
_TIDYING = ".tidying"
_FRESH_SECONDS = 60.0


@contextmanager
def working_directory() -> Iterator[Path]:
    """Make a private directory for one sync, and remove it at the end; what killed syncs left is removed first."""
    root = _root()
    try:
        # One at a time: a directory looks abandoned before its sync has taken the lock.
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
    finally:
        if root.name != _root_name():
            shutil.rmtree(root, ignore_errors=True)


def user_name() -> str:
    """Return the name of the user, or the number of a user without a name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _root_name() -> str:
    return f"fine-tuning-warehouse-{user_name()}"


def _root() -> Path:
    """Return the directory of all syncs of this user; a new one if the usual one belongs to somebody else."""
    root = Path(tempfile.gettempdir()) / _root_name()
    with suppress(FileExistsError):
        root.mkdir(mode=0o700, parents=True)
    status = root.lstat()
    is_ours = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o077)
    if stat.S_ISDIR(status.st_mode) and is_ours:
        return root
    private = Path(tempfile.mkdtemp(prefix=f"{root.name}-"))
    logger.warning("%s is a link, belongs to somebody else or is open to others: %s is used instead.", root, private)
    return private


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
