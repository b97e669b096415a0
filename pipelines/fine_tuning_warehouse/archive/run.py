"""One run: from the rows of a warehouse to the manifest of its archive."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.sync.run import SyncOptions, Watch, sync_accounts, watch_nothing
from fine_tuning_warehouse.sync.summary import SyncResult
from fine_tuning_warehouse.text import counted
from fine_tuning_warehouse.warehouses.rows import open_rows
from fine_tuning_warehouse.warehouses.warehouse import Warehouse

from .fetch import Fetcher, check_free_bytes, split_held
from .guard import Exported, Guard, is_whole
from .lock import Marker, only_run, unfinished
from .manifest import Entry, Manifest, current_versions, read_manifest
from .originals import Original, named
from .parquet import path_of, write
from .readme import readme
from .store import (
    DRAFTS,
    MANIFEST,
    README,
    SUMS,
    UNFINISHED,
    Store,
    digest,
    is_ours,
)

logger = logging.getLogger(__name__)

Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
"""Shows how far something is: its words and its bytes (None where they are not known) to a function told of bytes."""


_NOT_ASKED = "not in the archive yet, and --no-sync makes no request"


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        warehouse: What is archived.
        accounts: Whose hosts are read; none to make no request.
        host: What the manifest calls the host; None for each account's base URL.
        training_files: Whether training and validation files are brought too.
        reading: How the sync reads.
    """

    warehouse: Warehouse
    accounts: Sequence[Account]
    host: str | None = None
    training_files: bool = False
    reading: SyncOptions = field(default_factory=SyncOptions)

    @property
    def account(self) -> str | None:
        """The label of the account, where it is one."""
        return self.accounts[0].label if len(self.accounts) == 1 else None


@dataclass
class Archived:
    """What a run did.

    Attributes:
        archive: Where.
        account: The account that was read, where it is one.
        sync: What the sync of each account did; None where there was none.
        manifest: What the archive holds now; None before it is written.
        written: Files that were written.
        unchanged: Files that were left as they are.
        seconds: How long it took.
        failures: What went wrong, by account: its sync, or the fetching of its files. What is there is in the manifest
            all the same.
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


def archive(
    store: Store,
    plan: Plan,
    *,
    watch: Watch | None = None,
    progress: Progress | None = None,
    archived: Archived | None = None,
) -> Archived:
    """Bring an archive up to date, or make it.

    Args:
        store: Where it lies.
        plan: What it is of.
        watch: Shows the progress of the sync.
        progress: Shows the progress of files.
        archived: Filled in as it goes, so that a failed run can be told too.

    Raises:
        CommandError: It failed; the archive is as it was before, but for files of the host that came whole.
    """
    archived = archived or Archived(store.shown, plan.account)
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            with store.errors():
                stack.enter_context(only_run(store))
                store.refuse_odd_files()
                before = _before(store)
            if plan.accounts:
                archived.sync = SyncResult.of(plan.accounts)
                sync_accounts(
                    plan.accounts, plan.warehouse, plan.reading, watch=watch or watch_nothing, result=archived.sync
                )
                if archived.sync.failure is not None and len(archived.sync.failures) == len(plan.accounts):
                    raise archived.sync.failure
                archived.failures = {label: str(error) for label, error in archived.sync.failures.items()}
            with store.errors(), unfinished(store) as run:
                _Run(store, plan, before, archived, progress or _show_nothing).go(run)
    finally:
        archived.seconds = time.monotonic() - began
    if archived.failures:
        if archived.account is not None:
            raise CommandError(f"Not all files could be fetched: {archived.failures[archived.account]}")
        words = " ".join(f"Account {label}: {failure}" for label, failure in archived.failures.items())
        raise CommandError(f"{len(archived.failures)} of {len(plan.accounts)} accounts failed. {words}")
    return archived


class _Run:
    """One run, from the rows to the manifest."""

    def __init__(
        self, store: Store, plan: Plan, before: Manifest | None, archived: Archived, progress: Progress
    ) -> None:
        self._store = store
        self._plan = plan
        self._before = before
        self._known = before.files if before else {}
        self._there = store.files()
        self._archived = archived
        self._progress = progress

    def go(self, run: Marker) -> None:
        """Do it all."""
        exported = self._export()
        guard = Guard(self._store, self._plan.warehouse, self._before)
        guard.refuse_losses(exported)
        manifest = Manifest(self._plan.warehouse.dataset, versions=current_versions())
        manifest.account, manifest.accounts = self._accounts(exported)
        drafts = {path_of(one.relation): self._store.draft(path_of(one.relation)) for one in exported}
        wanted = named(
            drafts.get("tables/jobs.parquet"),
            drafts.get("tables/files.parquet"),
            self._before,
            training=self._plan.training_files,
        )
        if "tables/jobs.parquet" not in drafts:
            logger.warning("There is no table jobs, so that it is not known which files belong to it.")
        if not run.was_there:  # else a run that was killed may have left them
            guard.refuse_to_replace([*drafts, *(one.path for one in wanted), README, SUMS], self._there)
        self._originals(manifest, wanted)
        self._finish(manifest, exported, run)
        self._archived.manifest = manifest

    def _export(self) -> list[Exported]:
        exported = []
        warehouse = self._plan.warehouse
        with (
            open_rows(warehouse, lock_wait_seconds=self._plan.reading.lock_wait_seconds) as rows,
            self._progress("Exporting", None) as watch,
        ):
            if not rows.relations:
                raise CommandError(f"{warehouse.shown} holds no dataset {warehouse.dataset} yet: `ftw sync` makes it.")
            for relation in rows.relations:
                draft = self._store.draft(path_of(relation))
                written = write(relation, rows.batches(relation), draft)
                with draft.open("rb") as file:
                    sha256 = digest(file)
                size = draft.stat().st_size
                watch(size)
                entry = Entry(relation.kind, size, sha256, rows=written.rows, name=relation.name)
                exported.append(Exported(relation, written, entry))
        return exported

    def _accounts(self, exported: list[Exported]) -> tuple[str | None, dict[str, dict[str, str | None]]]:
        known = self._before.accounts if self._before else {}
        labels = {label for one in exported for label in one.written.accounts}
        accounts: dict[str, dict[str, str | None]] = {
            label: known.get(label, {"host": None}) for label in sorted(labels)
        }
        if not self._plan.accounts:
            return (self._before.account if self._before else None), accounts
        for account in self._plan.accounts:
            if account.label not in self._archived.failures:
                accounts[account.label] = {"host": self._plan.host or _without_query(account.base_url)}
        return self._plan.account, accounts

    # the files of the host ----------------------------------------------------------------------------------------

    def _originals(self, manifest: Manifest, wanted: list[Original]) -> None:
        """Put every file that jobs name into the manifest: there, or missing."""
        held, lacking = split_held(wanted, self._known, self._there, self._store)
        # What came once stays, whatever the jobs name now.
        kept = {path: entry for path, entry in self._known.items() if entry.is_original}
        manifest.files.update({**kept, **held})
        self._archived.unchanged += len({**kept, **held})
        asked = {account.label: account for account in self._plan.accounts}
        failures = dict(self._archived.failures)  # of syncs
        reasons = {(one.account, one.id): one.reason for one in (self._before.missing if self._before else ())}
        for one in lacking:
            belongs = f"belongs to the account {one.account}: archive with --account {one.account}"
            if not asked:
                reason = _NOT_ASKED
            elif one.account not in asked:
                reason = belongs
            elif one.account in failures:
                reason = f"the account {one.account} could not be read: {failures[one.account]}"
            else:
                continue
            earlier = reasons.get((one.account, one.id))
            is_told = earlier in (None, _NOT_ASKED, belongs)  # the host has said nothing yet
            manifest.missing.append(one.missing(reason if is_told else str(earlier)))
        for label, account in asked.items():
            own = [one for one in lacking if one.account == label]
            if own and label not in failures:
                self._fetch(manifest, account, own)
        if not self._plan.training_files and self._before is not None:
            there = {(entry.account, entry.id) for entry in manifest.files.values() if entry.is_original}
            manifest.missing += [
                one for one in self._before.missing if one.kind != "result_file" and (one.account, one.id) not in there
            ]

    def _fetch(self, manifest: Manifest, account: Account, lacking: list[Original]) -> None:
        api = account.api(self._plan.reading.concurrency)
        try:
            fetcher = Fetcher(api, self._store)
            training, missing = fetcher.describe(one for one in lacking if one.is_training)
            manifest.missing += missing
            to_come = sum(one.bytes or 0 for one in training)
            self._warn(training, to_come)
            check_free_bytes(self._store, to_come)
            files = [*(one for one in lacking if not one.is_training), *training]
            with self._progress("Fetching files", to_come or None) as watch:
                outcome = Fetcher(api, self._store, watch).fetch(files)
        finally:
            api.close()
        fetched = len(outcome.entries.keys() & manifest.files.keys())
        self._archived.unchanged -= fetched
        self._archived.written += len(outcome.entries)
        manifest.files.update(outcome.entries)
        manifest.missing += outcome.missing
        if outcome.failure is not None:
            self._archived.failures[account.label] = outcome.failure

    def _warn(self, training: list[Original], to_come: int) -> None:
        if not training:
            return
        unknown = sum(one.bytes is None for one in training)
        more = f", and {unknown:,} of unknown size" if unknown else ""
        logger.warning(
            "Fetching %s: %s (%s)%s.",
            counted(len(training), "training and validation file"),
            counted(to_come, "byte"),
            _readable(to_come),
            more,
        )

    # the end ------------------------------------------------------------------------------------------------------

    def _finish(self, manifest: Manifest, exported: list[Exported], run: Marker) -> None:
        """Put everything into its place: what has changed, the README, the checksums, and last of all the manifest."""
        manifest.files.update({path_of(one.relation): one.entry for one in exported})
        manifest.missing.sort()
        run.check()
        for one in exported:
            if self._is_there(path_of(one.relation), one.entry):
                self._archived.unchanged += 1
            else:
                self._store.publish(path_of(one.relation))
                self._archived.written += 1
        self._put(manifest, README, "readme", readme(manifest, [one.relation for one in exported]))
        self._put(manifest, SUMS, "checksums", manifest.sums())
        if manifest.says_the_same_as(self._before) and self._before is not None:
            manifest.archived_at, manifest.digest = self._before.archived_at, self._before.digest
            return
        manifest.archived_at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        content = manifest.as_bytes()
        manifest.digest = hashlib.sha256(content).hexdigest()
        run.check()
        self._store.write(MANIFEST, content)

    def _put(self, manifest: Manifest, path: str, kind: Any, content: bytes) -> None:
        entry = Entry(kind, len(content), hashlib.sha256(content).hexdigest())
        manifest.files[path] = entry
        if self._is_there(path, entry):
            self._archived.unchanged += 1
        else:
            self._store.write(path, content)
            self._archived.written += 1

    def _is_there(self, path: str, entry: Entry) -> bool:
        known = self._known.get(path)
        if known is None or known.sha256 != entry.sha256:
            return False
        return (
            is_whole(self._store, path, entry) if self._store.is_read_cheaply else self._there.get(path) == entry.bytes
        )


def _before(store: Store) -> Manifest | None:
    """The archive as it is; None for a new one. Raises `UsageError` where something else is there."""
    # The drafts of a run that was killed as it began, and those of earlier releases.
    there = [path for path in store.files() if not path.startswith(DRAFTS) and path != f"{UNFINISHED}.part"]
    if MANIFEST in there:
        before = read_manifest(store)
        if odd := [path for path in before.files if not is_ours(path)]:
            raise CommandError(f"{store.shown}/{MANIFEST} is damaged: {odd[0]!r} cannot be a path of an archive.")
        return before
    if UNFINISHED not in there and there:
        example = min(there)
        raise UsageError(
            f"{store.shown} is no archive, and not empty (it holds {example}): name an empty or a new folder. "
            "Nothing was changed."
        )
    return None


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def _readable(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


@contextmanager
def _show_nothing(_words: str, _size: int | None) -> Iterator[Callable[[int], None]]:
    yield lambda _: None
