"""Ending the process at once, which runs no `finally`: what others wait for is given back first."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_LONGEST_SECONDS = 2.0

_releases: list[Callable[[], None]] = []


@contextmanager
def released_at_exit(release: Callable[[], None]) -> Iterator[None]:
    """Call `release` if the process is ended by `exit_now` while the block runs."""
    _releases.append(release)
    try:
        yield
    finally:
        _releases.remove(release)


def exit_now(code: int) -> NoReturn:
    """End the process without waiting for its threads; leases and locks are released, for at most two seconds."""

    def release_all() -> None:
        for release in reversed(_releases):
            with suppress(Exception):
                release()

    if _releases:
        releasing = threading.Thread(target=release_all, daemon=True)
        releasing.start()
        releasing.join(_LONGEST_SECONDS)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
