"""Results of syncs, of one account and of several: what `--output json` prints, and the error that ends a command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from fine_tuning_warehouse.errors import BUSY, FAILED, CommandError
from fine_tuning_warehouse.text import as_time

if TYPE_CHECKING:
    from fine_tuning_warehouse.accounts.account import Account


def now() -> str:
    """Return this machine's time as text, in the form that results have."""
    return as_time(datetime.now(timezone.utc))


@dataclass
class AccountResult:
    """The result of a sync of one account, or the sum over several.

    Attributes:
        account: The label; None for the sum over several accounts.
        status: `done` or `failed`.
        error: What went wrong, in words.
        load_ids: Ids of dlt's loads.
        rows: Rows written, by table.
        requests: Requests sent, retries included.
        retries: Requests that were sent again.
        jobs: Jobs `seen` on the host, and those that are `open`: the next sync reads them again.
        jobs_in_progress: Jobs of these that have not ended.
        skipped: What could not be read: `account`, `job`, `resource` and `reason` of each.
        rejected: Records that could not be typed.
        warnings: Sentences that say what is probably wrong though the sync succeeded.
        seconds: How long it took.
        notes: Sentences for people, which the JSON leaves out.
        started_at: When it started (ISO 8601, UTC).
        finished_at: When it ended; None if it has not.
    """

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
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    jobs_in_progress: int = 0
    started_at: str = field(default_factory=now)
    finished_at: str | None = None

    @property
    def is_incomplete(self) -> bool:
        """Whether something was rejected or skipped, or is probably wrong."""
        return bool(self.rejected or self.skipped or self.warnings)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as `--output json` prints them."""
        content = {"status": self.status, "error": self.error, **asdict(self), "seconds": round(self.seconds, 3)}
        content["finished_at"] = self.finished_at or now()
        del content["notes"]
        return content


class AccountsFailedError(CommandError):
    """Some of several accounts have failed, or all."""

    def __init__(self, message: str, exit_code: int, *, is_lasting: bool) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.is_lasting = is_lasting


@dataclass
class SyncResult:
    """The result of a sync of one account or several.

    Attributes:
        label: The account; None for several.
        accounts: The result of each account.
        error: What ended the sync as a whole, in words.
        seconds: How long it took.
        failures: What went wrong, by account.
        started_at: When it started (ISO 8601, UTC).
        finished_at: When it ended; None if it has not.
    """

    label: str | None = None
    accounts: list[AccountResult] = field(default_factory=list)
    error: str | None = None
    seconds: float = 0.0
    failures: dict[str, CommandError] = field(default_factory=dict)
    started_at: str = field(default_factory=now)
    finished_at: str | None = None

    @classmethod
    def of(cls, accounts: Sequence[Account]) -> SyncResult:
        """Return the result of a sync that has not begun."""
        return cls(accounts[0].label if len(accounts) == 1 else None)

    @property
    def is_incomplete(self) -> bool:
        """Whether something was rejected or skipped, or is probably wrong."""
        return any(account.is_incomplete for account in self.accounts)

    @property
    def rows(self) -> dict[str, int]:
        """Rows written, by table."""
        rows: Counter[str] = Counter()
        for account in self.accounts:
            rows.update(account.rows)
        return dict(rows)

    @property
    def failure(self) -> CommandError | None:
        """The error that ends a command because accounts failed; None if no account failed."""
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
        """The same error, with the reason of each account in its message."""
        failure = self.failure
        if not isinstance(failure, AccountsFailedError):
            return failure
        return AccountsFailedError(f"{failure} {self.text}", failure.exit_code, is_lasting=failure.is_lasting)

    @property
    def text(self) -> str | None:
        """What went wrong, in words; None if nothing did."""
        if self.error is not None or not self.failures:
            return self.error
        if len(self.accounts) == 1:
            return self.accounts[0].error
        return " ".join(f"Account {label}: {error}" for label, error in self.failures.items())

    @property
    def total(self) -> AccountResult:
        """The sum over the accounts."""
        return AccountResult(
            self.label,
            "done" if self.text is None else "failed",
            self.text,
            [load_id for account in self.accounts for load_id in account.load_ids],
            self.rows,
            sum(account.requests for account in self.accounts),
            sum(account.retries for account in self.accounts),
            {what: sum(account.jobs[what] for account in self.accounts) for what in ("seen", "open")},
            [skip for account in self.accounts for skip in account.skipped],
            sum(account.rejected for account in self.accounts),
            [warning for account in self.accounts for warning in account.warnings],
            self.seconds,
            jobs_in_progress=sum(account.jobs_in_progress for account in self.accounts),
            started_at=self.started_at,
            finished_at=self.finished_at,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the sum, and the fields of each account under `accounts`."""
        return {**self.total.as_json(), "accounts": [account.as_json() for account in self.accounts]}
