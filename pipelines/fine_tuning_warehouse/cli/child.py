"""Run a part of a command in a process of its own, which may crash."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from fine_tuning_warehouse.errors import DONE, CommandError


def run_in_child(work: Callable[[], None], what: str) -> int:
    """Run a function in a child process, and return the exit code of the command.

    The child goes on from here: it prints, and ends as the command would. On Windows, all runs in this process.

    Args:
        work: The function.
        what: What it is, for the message if it crashes.

    Raises:
        CommandError: The child ended by a signal, such as that of a crash.
    """
    if sys.platform == "win32":
        work()
        return DONE
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _only_once(signal.getsignal(number)))
        work()
        return DONE
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code >= 0:
        return code
    raise CommandError(f"{what} was ended by {signal.Signals(-code).name}: it crashed DuckDB, or took too much memory.")


def _only_once(handler: Any) -> Callable[[int, FrameType | None], Any]:
    """Return a handler that ignores a second signal: a terminal sends Ctrl-C to both processes."""

    def handle(number: int, frame: FrameType | None) -> Any:
        signal.signal(number, signal.SIG_IGN)
        return handler(number, frame)

    return handle


def _end_with(parent: int) -> None:
    """End this process when its parent was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
