"""Bring an archive up to date: sync, export the rows, fetch the files of the host, and write the manifest last."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from urllib.parse import urlsplit, urlunsplit

from rich.filesize import decimal

from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.sync.run import SyncOptions, Watch, sync_accounts, watch_nothing
from fine_tuning_warehouse.sync.summary import SyncResult
from fine_tuning_warehouse.text import counted
from fine_tuning_warehouse.warehouses.warehouse import Warehouse

from .export import Exported, Progress, export, refuse_losses
from .fetch import Fetcher
from .lock import Marker, only_run, unfinished
from .manifest import Entry, Kind, Manifest, Missing, current_versions, read_manifest
from .originals import Original, named
from .readme import readme
from .store import DRAFTS, MANIFEST, README, SUMS, UNFINISHED, Store, is_ours

logger = logging.getLogger(__name__)

_NOT_REQUESTED = "not in the archive yet, and --no-sync makes no request"


@dataclass(frozen=True)
class Plan:
    """What a run does.

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
        store: The archive.
        plan: What to do.
        watch: Shows the progress of the sync.
        progress: Shows the progress of files.
        archived: The result, filled in step by step, so that a failed run can be reported too.

    Raises:
        CommandError: The run failed. The archive is as it was, except for files of the host that came whole.
    """
    archived = archived or Archived(store.shown, plan.account)
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            with store.errors():
                stack.enter_context(only_run(store))
                store.refuse_odd_files()
                before = _read_before(store)
            if plan.accounts:
                archived.sync = SyncResult.of(plan.accounts)
                sync_accounts(
                    plan.accounts, plan.warehouse, plan.options, watch=watch or watch_nothing, result=archived.sync
                )
                if archived.sync.failure is not None and len(archived.sync.failures) == len(plan.accounts):
                    raise archived.sync.failure
                archived.failures = {label: str(error) for label, error in archived.sync.failures.items()}
            with store.errors(), unfinished(store) as marker:
                _Run(store, plan, before, archived, progress or _no_progress).run(marker)
    finally:
        archived.seconds = time.monotonic() - began
    if archived.failures:
        if archived.account is not None:
            raise CommandError(f"Not all files could be fetched: {archived.failures[archived.account]}")
        words = " ".join(f"Account {label}: {failure}" for label, failure in archived.failures.items())
        raise CommandError(f"{len(archived.failures)} of {len(plan.accounts)} accounts failed. {words}")
    return archived


def _read_before(store: Store) -> Manifest | None:
    """Return the manifest of the archive; None for a new one. Raises `UsageError` if the folder holds other things."""
    # The drafts of a run that was killed as it began, and those of earlier releases.
    found = [path for path in store.files() if not path.startswith(DRAFTS) and path != f"{UNFINISHED}.part"]
    if MANIFEST in found:
        before = read_manifest(store)
        if odd := [path for path in before.files if not is_ours(path)]:
            raise CommandError(f"{store.shown}/{MANIFEST} is damaged: {odd[0]!r} cannot be a path of an archive.")
        return before
    if found and UNFINISHED not in found:
        raise UsageError(
            f"{store.shown} is not an archive and not empty (it holds {min(found)}): name an empty or a new folder. "
            "Nothing was changed."
        )
    return None


class _Run:
    """A run, after the sync."""

    def __init__(
        self, store: Store, plan: Plan, before: Manifest | None, archived: Archived, progress: Progress
    ) -> None:
        self._store = store
        self._plan = plan
        self._before = before
        self._known = before.files if before else {}
        self._found = store.files()
        self._archived = archived
        self._progress = progress
        self._manifest = Manifest(plan.warehouse.dataset, versions=current_versions())

    def run(self, marker: Marker) -> None:
        """Write everything that has changed."""
        lock_wait = self._plan.options.lock_wait_seconds
        exported = export(self._store, self._plan.warehouse, lock_wait, self._progress)
        refuse_losses(self._store, self._before, self._plan.warehouse, exported)
        self._manifest.account, self._manifest.accounts = self._accounts(exported)
        drafts = {one.path: self._store.draft(one.path) for one in exported}
        if "tables/jobs.parquet" not in drafts:
            logger.warning("There is no table jobs, so it is not known which files belong to the archive.")
        wanted = named(
            drafts.get("tables/jobs.parquet"),
            drafts.get("tables/files.parquet"),
            self._before,
            training=self._plan.training_files,
        )
        if not marker.was_there:  # otherwise a run that was killed may have left them
            self._refuse_to_replace([*drafts, *(one.path for one in wanted), README, SUMS])
        self._add_originals(wanted)
        self._publish(exported, marker)
        self._archived.manifest = self._manifest

    def _refuse_to_replace(self, paths: Sequence[str]) -> None:
        """Raise `UsageError` if there is a file that no run has written."""
        for path in paths:
            if path in self._found and path not in self._known:
                raise UsageError(
                    f"{self._store.shown} holds {path}, which is not listed in its {MANIFEST}: move it away. "
                    "Nothing was changed."
                )

    def _accounts(self, exported: Sequence[Exported]) -> tuple[str | None, dict[str, dict[str, str | None]]]:
        """Return the account that was read, and every account with its host."""
        known = self._before.accounts if self._before else {}
        labels = sorted({label for one in exported for label in one.accounts})
        accounts: dict[str, dict[str, str | None]] = {label: known.get(label, {"host": None}) for label in labels}
        for account in self._plan.accounts:
            if account.label not in self._archived.failures:
                accounts[account.label] = {"host": self._plan.host or _without_query(account.base_url)}
        if self._plan.accounts:
            return self._plan.account, accounts
        return (self._before.account if self._before else None), accounts

    def _add_originals(self, wanted: Sequence[Original]) -> None:
        """Add every file that jobs name to the manifest: as a file, or as missing."""
        manifest, failed = self._manifest, dict(self._archived.failures)
        # A file that came once stays, whatever the jobs name now.
        manifest.files.update({path: entry for path, entry in self._known.items() if entry.is_original})
        lacking = []
        for one in wanted:
            if (entry := self._held(one)) is None:
                lacking.append(one)
            else:
                manifest.files[one.path] = entry
        self._archived.unchanged += len(manifest.files)
        asked = {account.label: account for account in self._plan.accounts if account.label not in failed}
        manifest.missing += [self._not_requested(one, failed) for one in lacking if one.account not in asked]
        for label, account in asked.items():
            if own := [one for one in lacking if one.account == label]:
                self._fetch(account, own)
        if not self._plan.training_files and self._before is not None:
            held_ids = {(entry.account, entry.id) for entry in manifest.files.values() if entry.is_original}
            manifest.missing += [
                one
                for one in self._before.missing
                if one.kind != "result_file" and (one.account, one.id) not in held_ids
            ]
        manifest.missing.sort()

    def _held(self, original: Original) -> Entry | None:
        """Return the entry of a file that the archive holds; None if it must be fetched."""
        entry, size = self._known.get(original.path), self._found.get(original.path)
        if entry is not None:
            if not self._is_there(original.path, entry):
                return None
            original = replace(original, filename=original.filename or entry.filename, kind=entry.kind)
            return original.entry(entry.bytes, entry.sha256)
        # A killed run has left a file that is not in the manifest. It is whole: no file appears half.
        if size is not None and (not original.is_training or original.bytes in (size, None)):
            return original.entry(size, self._store.digest(original.path))
        return None

    def _not_requested(self, original: Original, failed: dict[str, str]) -> Missing:
        """Return why a file was not requested, or what the host said when it was."""
        label = original.account
        belongs = f"belongs to the account {label}: archive with --account {label}"
        if not self._plan.accounts:
            reason = _NOT_REQUESTED
        elif label in failed:
            reason = f"the account {label} could not be read: {failed[label]}"
        else:
            reason = belongs
        for earlier in self._before.missing if self._before else ():
            if (earlier.account, earlier.id) == (label, original.id) and earlier.reason not in (
                _NOT_REQUESTED,
                belongs,
            ):
                reason = earlier.reason
        return original.missing(reason)

    def _fetch(self, account: Account, lacking: Sequence[Original]) -> None:
        training = [one for one in lacking if one.is_training]
        size = sum(one.bytes or 0 for one in training)
        if training:
            unknown = sum(one.bytes is None for one in training)
            logger.warning(
                "Fetching %s: %s (%s)%s.",
                counted(len(training), "training and validation file"),
                counted(size, "byte"),
                decimal(size),
                f", and {unknown:,} of unknown size" if unknown else "",
            )
        if (free := self._store.free_bytes()) is not None and size > free:
            raise CommandError(
                f"The files take {counted(size, 'byte')}, and {self._store.shown} has {free:,} bytes free. "
                "Nothing was fetched."
            )
        with closing(account.api(self._plan.options.concurrency)) as api, self._progress("Fetching", size) as watch:
            fetcher = Fetcher(api, self._store, watch)
            for original, result in fetcher.fetch(lacking):
                if isinstance(result, Missing):
                    self._manifest.missing.append(result)
                    continue
                self._archived.unchanged -= original.path in self._manifest.files
                self._archived.written += 1
                self._manifest.files[original.path] = result
        if fetcher.failure is not None:
            self._archived.failures[account.label] = fetcher.failure

    def _publish(self, exported: Sequence[Exported], marker: Marker) -> None:
        """Put what has changed into its place: tables and views, the README, the checksums, and last the manifest."""
        manifest = self._manifest
        manifest.files.update({one.path: one.entry for one in exported})
        marker.check()
        for one in exported:
            self._put(one.path, one.entry)
        self._put_text(README, "readme", readme(manifest, [one.relation for one in exported]))
        self._put_text(SUMS, "checksums", manifest.sums())
        if self._before is not None and manifest.as_json()["sha256"] == self._before.as_json()["sha256"]:
            manifest.archived_at, manifest.digest = self._before.archived_at, self._before.digest
            return
        manifest.archived_at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        marker.check()
        manifest.write(self._store)

    def _put_text(self, path: str, kind: Kind, content: bytes) -> None:
        self._manifest.files[path] = Entry(kind, len(content), hashlib.sha256(content).hexdigest())
        self._store.draft(path).write_bytes(content)
        self._put(path, self._manifest.files[path])

    def _put(self, path: str, entry: Entry) -> None:
        """Publish a draft, unless the file is there with the same content."""
        known = self._known.get(path)
        if known is not None and known.sha256 == entry.sha256 and self._is_there(path, entry):
            self._archived.unchanged += 1
        else:
            self._store.publish(path)
            self._archived.written += 1

    def _is_there(self, path: str, entry: Entry) -> bool:
        """Return whether a file is whole; of a bucket, whether it has the right size."""
        if self._found.get(path) != entry.bytes:
            return False
        return not self._store.is_read_cheaply or self._store.holds(path, entry.sha256)


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


@contextmanager
def _no_progress(_words: str, _size: int | None) -> Iterator[Callable[[int], None]]:
    yield lambda _: None
