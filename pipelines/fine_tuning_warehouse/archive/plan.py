"""The task of a run of the archive, and its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.sync.run import SyncOptions
from fine_tuning_warehouse.sync.summary import SyncResult
from fine_tuning_warehouse.warehouses.warehouse import Warehouse

from .manifest import Manifest
from .store import Store

Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
"""Show the progress of a task: its name and its size in bytes (or None), to a function that takes bytes done."""


@dataclass(frozen=True)
class Plan:
    """The task of a run.

    Attributes:
        warehouse: The warehouse to archive.
        accounts: The accounts to sync and to fetch files of; none to make no request.
        host: The name of the host in the manifest; None for the base URL of each account.
        training_files: Whether to fetch training and validation files too.
        options: The options of the sync.
    """

    warehouse: Warehouse
    accounts: Sequence[Account]
    host: str | None = None
    training_files: bool = False
    options: SyncOptions = field(default_factory=SyncOptions)

    @property
    def account(self) -> str | None:
        """The label of the account, if there is one only."""
        return self.accounts[0].label if len(self.accounts) == 1 else None


@dataclass
class Archived:
    """The result of a run.

    Attributes:
        archive: The name of the archive.
        account: The label of the account, if there is one only.
        sync: The result of the sync; None if there was none.
        manifest: What the archive holds now; None before it is written.
        written: The number of files that were written.
        unchanged: The number of files that were left as they were.
        seconds: How long the run took.
        failures: Why the sync or the fetching of an account failed, by its label.
    """

    archive: str
    account: str | None
    sync: SyncResult | None = None
    manifest: Manifest | None = None
    written: int = 0
    unchanged: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def is_incomplete(self) -> bool:
        """Whether something is missing, or was skipped or rejected."""
        skipped = self.sync is not None and self.sync.is_incomplete
        return skipped or bool(self.manifest and self.manifest.missing)


@dataclass
class Context:
    """The things that the steps of a run share.

    Attributes:
        store: The archive.
        plan: What the run does.
        before: The manifest of the archive so far; an empty one for a new archive.
        archived: The result, which is filled in.
        progress: Shows the progress of files.
        found: The files that are there, with their sizes in bytes.
    """

    store: Store
    plan: Plan
    before: Manifest
    archived: Archived
    progress: Progress
    found: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.found = self.store.files()


@contextmanager
def no_progress(_words: str, _size: int | None) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    yield lambda _: None
