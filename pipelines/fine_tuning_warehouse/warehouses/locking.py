"""How long commands wait for a database that another program holds, and the file that keeps a second sync out."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from tenacity import RetryCallState, Retrying, retry_if_exception, retry_if_result, stop_after_delay, wait_fixed

from fine_tuning_warehouse.errors import BusyError, CommandError

logger = logging.getLogger(__name__)

LOCK_WAIT_SECONDS = 60.0
"""How long a sync waits for a reader that holds the DuckDB file, or for another load."""

READ_WAIT_SECONDS = 10.0
"""How long a quick look into a DuckDB file waits for a sync that holds it."""

NO_LOCKS = (
    "The file system of {} has no locks, as a network drive (SMB, NFS) may not: two programs could damage the file. "
    "Put it on a disk of this machine, or take another --destination, such as ducklake or postgres."
)
"""What to say of a database on a file system without locks."""

_PAUSE_SECONDS = 0.2

_LACKS_LOCKS = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)

Result = TypeVar("Result")


def retried(
    step: Callable[[], Result],
    seconds: float,
    *,
    is_held: Callable[[BaseException], bool] = lambda _: False,
    waiting: Callable[[BaseException | None], str],
) -> Result:
    """Repeat a step while it returns False, or fails because something is held. Return or raise its last outcome.

    Args:
        step: The step.
        seconds: How long to repeat it.
        is_held: Whether an error means that something is held.
        waiting: Returns what to log when the waiting begins, given the error of the step.
    """

    def announce(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if state.attempt_number == 1:
            logger.warning("%s", waiting(error))

    return Retrying(
        retry=retry_if_exception(is_held) | retry_if_result(lambda result: result is False),
        stop=stop_after_delay(seconds),
        wait=wait_fixed(_PAUSE_SECONDS),
        before_sleep=announce,
        retry_error_callback=lambda state: state.outcome.result() if state.outcome is not None else None,
    )(step)


@contextmanager
def file_lock(lock_file: Path, shown: str, *, what: str | None = None, wait_seconds: float = 0) -> Iterator[None]:
    """Hold a file beside a database, so that one sync runs on it at a time.

    Args:
        lock_file: The file. It stays there; the lock on it ends with the process.
        shown: The name of the database in messages.
        what: What the other holder is doing, in words.
        wait_seconds: How long to wait for another holder.

    Raises:
        BusyError: Another sync holds it.
        CommandError: The file cannot be made or locked.
    """
    lock = FileLock(lock_file, timeout=wait_seconds)
    try:
        lock.acquire()
    except Timeout:
        if not lock_file.exists():
            raise CommandError(f"The database {shown} cannot be written: its folder takes no files.") from None
        what = what or f"Another sync is running on {shown}"
        raise BusyError(f"{what}: wait for it to end (it holds {lock_file.name}).") from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, NotImplementedError) or error.errno in _LACKS_LOCKS:
            raise CommandError(NO_LOCKS.format(shown)) from None
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise CommandError(f"The database {shown} cannot be written (lock file {lock_file.name}): {reason}.") from None
    try:
        yield
    finally:
        lock.release()
