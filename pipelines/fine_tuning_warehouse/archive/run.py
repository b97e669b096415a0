"""Bring an archive up to date: sync, export the rows, fetch the files of the host, and write the manifest last."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from urllib.parse import urlsplit, urlunsplit

from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.sync.run import Watch, sync_accounts, watch_nothing
from fine_tuning_warehouse.sync.summary import SyncResult

from .export import Exported, export, refuse_losses
from .host_files import add_host_files
from .lock import Marker, only_run, unfinished
from .manifest import Entry, Kind, Manifest, Tombstone, current_versions, read_manifest
from .originals import named
from .plan import Archived, Context, Plan, Progress, no_progress
from .readme import readme
from .store import DRAFTS, MANIFEST, README, SUMS, UNFINISHED, Store, is_ours

logger = logging.getLogger(__name__)


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
                before = _read_before(store) or Manifest(plan.warehouse.dataset)
            if plan.accounts:
                archived.sync = SyncResult.of(plan.accounts)
                sync_accounts(
                    plan.accounts, plan.warehouse, plan.options, watch=watch or watch_nothing, result=archived.sync
                )
                if archived.sync.failure is not None and len(archived.sync.failures) == len(plan.accounts):
                    raise archived.sync.failure
                archived.failures = {label: str(error) for label, error in archived.sync.failures.items()}
            with store.errors(), unfinished(store) as marker:
                Run(Context(store, plan, before, archived, progress or no_progress)).run(marker)
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


class Run:
    """The part of a run after the sync: export, fetch what is missing, and publish."""

    def __init__(
        self, context: Context, *, removed: Sequence[Tombstone] = (), removed_files: Sequence[str] = ()
    ) -> None:
        self._context = context
        self._store = context.store
        self._plan = context.plan
        self._before = context.before
        self._archived = context.archived
        self._removed = removed
        self._removed_files = removed_files
        self._manifest = Manifest(
            context.plan.warehouse.dataset, versions=current_versions(), tombstones=[*context.before.tombstones]
        )

    def run(self, marker: Marker) -> None:
        """Write everything that has changed."""
        exported = export(self._store, self._plan.warehouse, self._context.progress)
        refuse_losses(self._store, self._before, self._plan.warehouse, exported, self._removed)
        for path in self._removed_files:
            self._store.remove(path)
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
        add_host_files(self._context, self._manifest, wanted)
        self._publish(exported, marker)
        self._archived.manifest = self._manifest

    def _refuse_to_replace(self, paths: Sequence[str]) -> None:
        """Raise `UsageError` if there is a file that no run has written."""
        for path in paths:
            if path in self._context.found and path not in self._before.files:
                raise UsageError(
                    f"{self._store.shown} holds {path}, which is not listed in its {MANIFEST}: move it away. "
                    "Nothing was changed."
                )

    def _accounts(self, exported: Sequence[Exported]) -> tuple[str | None, dict[str, dict[str, str | None]]]:
        """Return the account that was read, and every account with its host."""
        known = self._before.accounts
        labels = sorted({label for one in exported for label in one.accounts})
        accounts: dict[str, dict[str, str | None]] = {label: known.get(label, {"host": None}) for label in labels}
        for account in self._plan.accounts:
            if account.label not in self._archived.failures:
                accounts[account.label] = {"host": self._plan.host or _without_query(account.base_url)}
        if self._plan.accounts:
            return self._plan.account, accounts
        return self._before.account, accounts

    def _publish(self, exported: Sequence[Exported], marker: Marker) -> None:
        """Put what has changed into its place: tables and views, the README, the checksums, and last the manifest."""
        manifest = self._manifest
        manifest.files.update({one.path: one.entry for one in exported})
        marker.check()
        for one in exported:
            self._put(one.path, one.entry)
        self._put_text(README, "readme", readme(manifest, [one.relation for one in exported]))
        self._put_text(SUMS, "checksums", manifest.sums())
        if manifest.as_json()["sha256"] == self._before.as_json()["sha256"]:
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
        known, size = self._before.files.get(path), self._context.found.get(path)
        if known is not None and known.sha256 == entry.sha256 and entry.is_in(self._store, path, size):
            self._archived.unchanged += 1
        else:
            self._store.publish(path)
            self._archived.written += 1


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
