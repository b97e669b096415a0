"""The health file: when a sync last succeeded, for a container's health check and for monitoring."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from fine_tuning_warehouse.errors import CommandError, UsageError

from .summary import SyncResult

INTERVALS = 3
"""How many intervals `ftw sync --every` may go without a success, unless `--max-age` says otherwise."""


class HealthFile:
    """A file that describes the last sync that succeeded.

    Args:
        path: The file. Its folder must exist.
        every: The interval of the syncs in seconds; None for a single sync.

    Raises:
        UsageError: The file cannot be written.
    """

    def __init__(self, path: Path, every: float | None) -> None:
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            raise UsageError(f"The health file {path} cannot be written: name a file in a folder that can be.")
        self._path = path
        self._every = every

    def write(self, result: SyncResult) -> None:
        """Write it in one step, so that every reader finds it whole. Raises `CommandError`."""
        done = result.as_json()
        health = {
            "last_success": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "every_seconds": self._every,
            **{name: done[name] for name in ("rows", "requests", "jobs", "rejected", "seconds")},
            "skipped": len(done["skipped"]),
        }
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            beside.write_text(json.dumps(health) + "\n", encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise CommandError(f"The health file {self._path} cannot be written: {error.strerror or error}.") from None


def check_health(path: Path, max_age: float | None) -> str:
    """Return a sentence that says how long ago the last sync succeeded.

    Args:
        path: The health file.
        max_age: Seconds; None for three times the interval of `ftw sync --every`.

    Raises:
        CommandError: No sync has succeeded for longer than that, or none ever has.
        UsageError: The file is of a single sync, and `max_age` is None.
    """
    try:
        health: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        last, every = datetime.fromisoformat(health["last_success"]), health["every_seconds"]
    except FileNotFoundError:
        raise CommandError(f"No sync has succeeded yet: there is no {path}.") from None
    except OSError as error:
        raise CommandError(f"The health file {path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError):
        raise CommandError(f"{path} is not a health file of `ftw sync --health-file`.") from None
    if max_age is None:
        if every is None:
            raise UsageError(f"{path} is of a single sync: say with --max-age how old it may be.")
        max_age = INTERVALS * float(every)
    age = datetime.now(timezone.utc) - last
    words = f"The last sync that succeeded ended {_span(age)} ago, at {last.isoformat()}"
    if age.total_seconds() > max_age:
        raise CommandError(f"{words}: more than {_span(timedelta(seconds=max_age))}.")
    return f"{words}."


def _span(time: timedelta) -> str:
    return str(timedelta(seconds=max(round(time.total_seconds()), 0)))
