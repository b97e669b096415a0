"""One run at a time, on this machine."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fine_tuning_warehouse.errors import BusyError


@contextmanager
def only_run(shown: str, root: Path | None) -> Iterator[None]:
    """Hold an archive.

    Args:
        shown: What people call it.
        root: Its folder; None where it lies on no disk of this machine.

    Raises:
        BusyError: Another run holds it.
    """
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
    name = hashlib.sha256((shown if root is None else str(root)).encode()).hexdigest()[:16]
    try:
        with FileLock(Path(tempfile.gettempdir()) / f"fine-tuning-archive-{name}.lock", timeout=0):
            yield
    except Timeout:
        raise BusyError(busy) from None
