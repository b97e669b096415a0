"""The health file: when each account was last synced, for a container's health check and for monitoring."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from fine_tuning_warehouse.errors import CommandError, UsageError

from .summary import AccountResult, SyncResult

INTERVALS = 3
"""How many intervals `ftw sync --every` may go without a success, unless `--max-age` says otherwise."""

_FORMAT = 2
_METRICS = "fine_tuning_warehouse"


@dataclass
class AccountHealth:
    """An account in a health file.

    Attributes:
        last_success: When a sync of it last succeeded (ISO 8601, UTC); None if none ever did.
        last_attempt: When a sync of it last ended.
        error: Why the last attempt failed, in words; None if it succeeded.
        rows: Rows that the last attempt loaded, by table.
        jobs: Jobs that the last completed sync has `seen`, and those that are `open`; 0 if none ever completed.
    """

    last_success: str | None = None
    last_attempt: str | None = None
    error: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)


@dataclass
class Health:
    """The content of a health file.

    Attributes:
        every: The interval of the syncs in seconds; None for single syncs.
        last_success: When a sync last succeeded for all its accounts.
        accounts: Each account by its label; empty in a file of an earlier release.
        last: What the last sync that succeeded for all its accounts did, in all.
    """

    every: float | None = None
    last_success: str | None = None
    accounts: dict[str, AccountHealth] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)


class HealthFile:
    """A file that is written after every sync.

    Args:
        path: The file. Its folder must exist. What it says about other accounts is kept.
        every: The interval of the syncs in seconds; None for a single sync.
        metrics: The text file for Prometheus; None for none.
        is_whole: Each sync reads all accounts: what the file says about others is dropped.

    Raises:
        UsageError: A file cannot be written.
    """

    def __init__(self, path: Path, every: float | None, *, metrics: Path | None = None, is_whole: bool = False) -> None:
        for name, one in (("health file", path), ("metrics file", metrics)):
            if one is not None and (one.is_dir() or not os.access(one.parent, os.W_OK)):
                raise UsageError(f"The {name} {one} cannot be written: name a file in a folder that can be.")
        self._path = path
        self._every = every
        self._metrics = metrics
        self._is_whole = is_whole

    def write(self, result: SyncResult, *, strict: bool = False) -> None:
        """Write it in one step, so that every reader finds it whole.

        Args:
            result: What the last sync did.
            strict: A sync that has skipped or rejected something is not a success.

        Raises:
            CommandError: A file cannot be written.
        """
        try:
            health = read_health(self._path)
        except CommandError:
            health = Health()  # there is none, or something else
        health.every = self._every
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        if self._is_whole and result.accounts:
            labels = {one.account for one in result.accounts}
            health.accounts = {label: one for label, one in health.accounts.items() if label in labels}
        for one in result.accounts:
            known = health.accounts.setdefault(str(one.account), AccountHealth())
            known.last_attempt, known.error = now, _error(one, strict=strict)
            known.rows = dict(one.rows)
            if one.status == "done" or not known.jobs:  # a key that was refused says nothing about jobs
                known.jobs = dict(one.jobs)
            if known.error is None:
                known.last_success = now
        if result.text is None and not (strict and result.is_incomplete):
            done = result.as_json()
            health.last_success = now
            health.last = {name: done[name] for name in ("rows", "requests", "jobs", "rejected", "seconds")}
            health.last["skipped"] = len(done["skipped"])
        content = {
            "format": _FORMAT,
            "last_success": health.last_success,
            "last_attempt": now,
            "error": result.text,
            "every_seconds": health.every,
            **health.last,
            "accounts": {label: asdict(one) for label, one in sorted(health.accounts.items())},
        }
        _replace(self._path, "health file", json.dumps(content) + "\n")
        if self._metrics is not None:
            _replace(self._metrics, "metrics file", as_metrics(health))


def _error(result: AccountResult, *, strict: bool) -> str | None:
    """Return why a sync of an account is not a success; None if it is one."""
    if result.status != "done":
        return result.error or "It failed."
    return "Something was skipped or rejected (--strict)." if strict and result.is_incomplete else None


def _replace(path: Path, name: str, content: str) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        beside.write_text(content, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise CommandError(f"The {name} {path} cannot be written: {error.strerror or error}.") from None


def read_health(path: Path) -> Health:
    """Read a health file, also one that an earlier release wrote.

    Raises:
        CommandError: There is none, or it is something else.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        accounts = {str(label): AccountHealth(**one) for label, one in found.get("accounts", {}).items()}
        health = Health(found["every_seconds"], found["last_success"], accounts)
        for time in (health.last_success, *(one.last_success for one in accounts.values())):
            _ = time is None or datetime.fromisoformat(time).astimezone(timezone.utc)
        last = ("rows", "requests", "jobs", "rejected", "seconds", "skipped")
        health.last = {name: found[name] for name in last if name in found}
    except FileNotFoundError:
        raise CommandError(f"No sync has succeeded yet: there is no {path}.") from None
    except OSError as error:
        raise CommandError(f"The health file {path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CommandError(f"{path} is not a health file of `ftw sync --health-file`.") from None
    return health


@dataclass(frozen=True)
class Checked:
    """Whether an account, or a warehouse of which no accounts are known, was synced lately.

    Attributes:
        account: The label; None for a file of an earlier release.
        healthy: Whether the last success is young enough.
        age: Seconds since the last success; None if there is none.
        health: What the file holds.
    """

    account: str | None
    healthy: bool
    age: float | None
    health: AccountHealth

    @property
    def sentence(self) -> str:
        """How long ago the last sync succeeded, in words."""
        of_account = "" if self.account is None else f" of account {self.account}"
        error = f" The last attempt failed: {self.health.error}" if self.health.error else ""
        if self.age is None:
            return f"No sync{of_account} has succeeded yet, by this file.{error}"
        ago = f"{span(self.age)} ago, at {self.health.last_success}"
        return f"The last sync{of_account} that succeeded ended {ago}.{error}"

    def as_json(self) -> dict[str, Any]:
        """Return the fields of `--output json`."""
        age = None if self.age is None else round(self.age)
        return {"account": self.account, "healthy": self.healthy, "age_seconds": age, **asdict(self.health)}


def check_health(path: Path, max_age: float | None, labels: Sequence[str] = ()) -> tuple[float, list[Checked]]:
    """Check how long ago each account was last synced.

    Args:
        path: The health file.
        max_age: How old the last success may be, in seconds; None for three times the interval of `ftw sync --every`.
        labels: The accounts to check; empty for all.

    Returns:
        The limit in seconds, and the accounts. An account that the file does not know is not healthy.

    Raises:
        CommandError: There is no file, or it is something else.
        UsageError: The file is of a single sync, and `max_age` is None.
    """
    health = read_health(path)
    if max_age is None:
        if health.every is None:
            raise UsageError(f"{path} is of a single sync: say with --max-age how old it may be.")
        max_age = INTERVALS * float(health.every)
    whole = AccountHealth(health.last_success)
    known: dict[str | None, AccountHealth] = {None: whole} if not health.accounts else dict(health.accounts.items())
    missing = AccountHealth()
    wanted: list[str | None] = [*(labels or known)]
    return max_age, [_checked(label, known.get(label, missing), max_age) for label in wanted]


def _checked(label: str | None, health: AccountHealth, max_age: float) -> Checked:
    if health.last_success is None:
        return Checked(label, healthy=False, age=None, health=health)
    last = datetime.fromisoformat(health.last_success).astimezone(timezone.utc)
    age = max((datetime.now(timezone.utc) - last).total_seconds(), 0)
    return Checked(label, age <= max_age, age, health)


def span(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    return str(timedelta(seconds=max(round(seconds), 0)))


def as_metrics(health: Health) -> str:
    """Return the accounts in the text format of Prometheus."""
    metrics: list[tuple[str, str, list[tuple[str, float]]]] = [
        ("last_success_timestamp_seconds", "When a sync of the account last succeeded.", []),
        ("last_attempt_timestamp_seconds", "When a sync of the account last ended.", []),
        ("last_attempt_succeeded", "Whether that sync succeeded: 1 or 0.", []),
        ("jobs_open", "Jobs that the next sync reads again.", []),
        ("rows_loaded", "Rows that the last sync loaded, new or changed.", []),
    ]
    for label, one in sorted(health.accounts.items()):
        account = f'account="{_escaped(label)}"'
        for number, time in enumerate((one.last_success, one.last_attempt)):
            if time is not None:
                metrics[number][2].append((account, datetime.fromisoformat(time).timestamp()))
        metrics[2][2].append((account, float(one.error is None)))
        metrics[3][2].append((account, one.jobs.get("open", 0)))
        metrics[4][2].extend((f'{account},table="{table}"', rows) for table, rows in one.rows.items())
    lines = []
    for name, words, values in metrics:
        lines += [f"# HELP {_METRICS}_{name} {words}", f"# TYPE {_METRICS}_{name} gauge"]
        lines += [f"{_METRICS}_{name}{{{labels}}} {value:.10g}" for labels, value in values]
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
