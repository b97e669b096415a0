"""Write an archive again after an account or a job was removed from its warehouse, or an account was renamed there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timezone

from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.warehouses.warehouse import Warehouse

from .export import refuse_other_dataset
from .lock import only_run, unfinished
from .manifest import Manifest, Tombstone, read_manifest
from .originals import named
from .plan import Archived, Context, Plan, no_progress
from .run import Run
from .store import Store, open_store


def rewrite(
    store: Store,
    warehouse: Warehouse,
    *accounts: str,
    jobs: Sequence[str] = (),
    renamed_to: str | None = None,
) -> Archived:
    """Bring an archive in line with its warehouse, from which something was removed; leave a tombstone in the manifest.

    The rows are exported again, and the files of the host that only the removed jobs have named are deleted. A call
    that is killed can be repeated.

    Args:
        store: The archive.
        warehouse: Its warehouse, from which the rows were removed before.
        accounts: The accounts that were removed or renamed, or of which jobs were removed.
        jobs: The jobs that were removed; empty for whole accounts.
        renamed_to: The new label of the account; None if it was removed.

    Raises:
        BusyError: Another run is writing to the archive.
        CommandError: There is no archive, or it cannot be written.
        UsageError: It is an archive of another warehouse.
    """
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    archived = Archived(store.shown, accounts[0])
    plan = Plan(warehouse, [])
    with store.errors(), only_run(store):
        store.refuse_odd_files()
        before = read_manifest(store)
        after, removed, gone = before, [], []
        for account, job in itertools.product(accounts, jobs or (None,)):
            files = () if job is None else _files_of(store, before, account, job, jobs)
            removed.append(Tombstone(account, now, job, files, renamed_to))
            after, files_of_account = _after(after, removed[-1])
            gone += files_of_account
        with unfinished(store) as marker:
            context = Context(store, plan, after, archived, no_progress)
            Run(context, removed=removed, removed_files=gone).run(marker)
    if archived.manifest is None:
        raise CommandError(f"The archive {store.shown} was not written.")
    return archived


def open_archives(places: Sequence[str], warehouse: Warehouse) -> list[Store]:
    """Open archives of a warehouse, before anything is removed from it.

    Raises:
        CommandError: There is no archive, or it cannot be read.
        UsageError: It is an archive of another dataset.
    """
    stores = [open_store(place) for place in places]
    for store in stores:
        with store.errors():
            before = read_manifest(store)
        refuse_other_dataset(store, before, warehouse, "Nothing was changed.")
    return stores


def accounts_of(store: Store) -> Sequence[str]:
    """Return the labels of the accounts that an archive holds."""
    with store.errors():
        return list(read_manifest(store).accounts)


def _files_of(store: Store, before: Manifest, account: str, job: str, jobs: Sequence[str]) -> tuple[str, ...]:
    """Return the ids of the files that a job names in an archive, and no job of the account that stays."""
    if "tables/jobs.parquet" not in before.files:
        return ()
    files = named(store.local_copy("tables/jobs.parquet"), None, before, training=True)
    return tuple(one.id for one in files if one.account == account and job in one.jobs and set(one.jobs) <= set(jobs))


def _after(before: Manifest, removed: Tombstone) -> tuple[Manifest, list[str]]:
    """Return the manifest for the next run to start from, and the paths of the files to delete."""
    files, gone = {}, []
    for path, entry in before.files.items():
        kept = removed.entry_after(entry) if entry.is_original else entry
        if kept is None:
            gone.append(path)
        else:
            files[path] = kept
    host = before.accounts.get(removed.account)
    accounts = {label: about for label, about in before.accounts.items() if label != removed.account or removed.job}
    if removed.renamed_to is not None and host is not None:
        accounts[removed.renamed_to] = host
    is_kept = before.account != removed.account or removed.job is not None
    manifest = Manifest(
        before.dataset,
        before.archived_at,
        before.account if is_kept else removed.renamed_to,
        accounts,
        files,
        [after for one in before.missing if (after := removed.missing_after(one)) is not None],
        before.versions,
        [*before.tombstones, removed],
        before.digest,
    )
    return manifest, gone
