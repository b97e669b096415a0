"""What was done, of one account and of several: what `--output json` prints, and what ends a command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import BUSY, FAILED, CommandError


@dataclass
class Summary:
    """What a sync of one account did: the object that `--output json` prints, and `notes` for people."""

    account: str | None
    status: str = "done"
    error: str | None = None
    load_ids: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    retries: int = 0
    jobs: dict[str, int] = field(default_factory=lambda: {"seen": 0, "open": 0})
    skipped: list[dict[str, str | None]] = field(default_factory=list)
    rejected: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def is_incomplete(self) -> bool:
        """Whether something was rejected or skipped."""
        return bool(self.rejected or self.skipped)

    def as_json(self) -> dict[str, Any]:
        """The fields in the order of the contract."""
        order = ("status", "error", "account", "load_ids", "rows", "requests", "retries", "jobs", "skipped", "rejected")
        return {**{name: getattr(self, name) for name in order}, "seconds": round(self.seconds, 3)}


class AccountsFailedError(CommandError):
    """Some of several accounts, or all, have failed.

    Args:
        message: What there is to tell of them together.
        exit_code: What the command ends with.
        is_lasting: See `CommandError`.
    """

    def __init__(self, message: str, exit_code: int, *, is_lasting: bool) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.is_lasting = is_lasting


@dataclass
class Totals:
    """What a sync of one account or several did.

    Attributes:
        label: The account, where it is one.
        accounts: What it did of each.
        error: What ended it, where that was of no account.
        seconds: How long it took.
        failures: What went wrong, by account.
    """

    label: str | None = None
    accounts: list[Summary] = field(default_factory=list)
    error: str | None = None
    seconds: float = 0.0
    failures: dict[str, CommandError] = field(default_factory=dict)

    @classmethod
    def of(cls, accounts: Sequence[Account]) -> Totals:
        """Those of accounts that are still to be synced."""
        return cls(accounts[0].label if len(accounts) == 1 else None)

    @property
    def is_incomplete(self) -> bool:
        """Whether something was rejected or skipped."""
        return any(summary.is_incomplete for summary in self.accounts)

    @property
    def rows(self) -> dict[str, int]:
        """Rows written by table."""
        rows: Counter[str] = Counter()
        for summary in self.accounts:
            rows.update(summary.rows)
        return dict(rows)

    @property
    def failure(self) -> CommandError | None:
        """What the accounts that failed end a command with; None where all went well."""
        failures = list(self.failures.values())
        if not failures:
            return None
        if len(self.accounts) == 1:
            return failures[0]
        return AccountsFailedError(
            f"{len(failures)} of {len(self.accounts)} accounts failed: {', '.join(self.failures)}.",
            BUSY if {error.exit_code for error in failures} == {BUSY} else FAILED,
            is_lasting=len(failures) == len(self.accounts) and all(error.is_lasting for error in failures),
        )

    @property
    def failure_with_reasons(self) -> CommandError | None:
        """The same for somebody who is told nothing else: with what went wrong of each account."""
        failure = self.failure
        if not isinstance(failure, AccountsFailedError):
            return failure
        return AccountsFailedError(f"{failure} {self.text}", failure.exit_code, is_lasting=failure.is_lasting)

    @property
    def text(self) -> str | None:
        """What went wrong, in words; None where nothing did."""
        if self.error is not None or not self.failures:
            return self.error
        if len(self.accounts) == 1:
            return self.accounts[0].error
        return " ".join(f"Account {label}: {error}" for label, error in self.failures.items())

    def as_json(self) -> dict[str, Any]:
        """The contract's fields as totals, and the same fields for each account under `accounts`."""
        total = Summary(
            self.label,
            "done" if self.text is None else "failed",
            self.text,
            [load_id for summary in self.accounts for load_id in summary.load_ids],
            self.rows,
            sum(summary.requests for summary in self.accounts),
            sum(summary.retries for summary in self.accounts),
            {what: sum(summary.jobs[what] for summary in self.accounts) for what in ("seen", "open")},
            [skip for summary in self.accounts for skip in summary.skipped],
            sum(summary.rejected for summary in self.accounts),
            self.seconds,
        )
        return {**total.as_json(), "accounts": [summary.as_json() for summary in self.accounts]}
