"""Write the tables and views of a warehouse as Parquet, and refuse to lose rows that the archive has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.text import counted
from fine_tuning_warehouse.warehouses.rows import Relation, open_rows
from fine_tuning_warehouse.warehouses.rows import relation as described
from fine_tuning_warehouse.warehouses.warehouse import Warehouse

from .manifest import Entry, Manifest, Tombstone
from .parquet import lost_columns, lost_rows, path_of, write
from .plan import Progress
from .store import Store, digest

_AGE = "age_seconds"
"""A column that is of the moment of the query, so that an archive does without it."""


@dataclass(frozen=True)
class Exported:
    """A table or view that was written as a draft.

    Attributes:
        relation: The table or view.
        path: The path of its file in the archive.
        entry: What the manifest says of that file.
        accounts: The labels in its column `account`.
    """

    relation: Relation
    path: str
    entry: Entry
    accounts: frozenset[str]


def export(store: Store, warehouse: Warehouse, progress: Progress) -> list[Exported]:
    """Write every table and view as a draft, all as of one moment.

    Raises:
        CommandError: The warehouse cannot be read, or holds nothing.
    """
    exported = []
    with open_rows(warehouse) as rows, progress("Exporting", None) as watch:
        if not rows.relations:
            raise CommandError(f"{warehouse.shown} holds no dataset {warehouse.dataset} yet: `ftw sync` makes it.")
        for found in rows.relations:
            columns = {field.name: field.type for field in found.schema if field.name != _AGE}
            relation = described(found.name, columns)
            path = path_of(relation)
            draft = store.draft(path)
            number, accounts = write(relation, rows.batches(relation), draft)
            with draft.open("rb") as file:
                sha256 = digest(file)
            size = draft.stat().st_size
            watch(size)
            entry = Entry(relation.kind, size, sha256, rows=number, name=relation.name)
            exported.append(Exported(relation, path, entry, frozenset(accounts)))
    return exported


def refuse_losses(
    store: Store,
    before: Manifest,
    warehouse: Warehouse,
    exported: list[Exported],
    removed: Sequence[Tombstone] = (),
) -> None:
    """Raise `UsageError` if rows of the archive would be lost: then it is an archive of another warehouse.

    Args:
        store: The archive.
        before: Its manifest so far; an empty one for a new archive.
        warehouse: The warehouse.
        exported: What was exported from it.
        removed: What was removed from the warehouse on purpose.
    """
    advice = f"Archive {warehouse.shown} into another folder; nothing was changed here."
    refuse_other_dataset(store, before, warehouse, advice)
    now = {one.path: one for one in exported}
    for path, entry in before.files.items():
        if entry.kind in ("table", "view") and (lost := _lost(store, path, entry, now.get(path), removed)):
            raise UsageError(
                f"{store.shown} holds {lost}, and {warehouse.shown} does not: it is an archive of another warehouse. "
                f"{advice} If rows were removed on purpose, name this archive and all that was removed: "
                f"`ftw forget --account LABEL --archive {store.shown}`, with one --account for each."
            )


def refuse_other_dataset(store: Store, before: Manifest, warehouse: Warehouse, advice: str) -> None:
    """Raise `UsageError`, which ends with some advice, if an archive is one of another dataset."""
    if before.dataset != warehouse.dataset:
        raise UsageError(
            f"{store.shown} is an archive of the dataset {before.dataset}, and not of {warehouse.dataset}. {advice}"
        )


def _lost(store: Store, path: str, entry: Entry, now: Exported | None, removed: Sequence[Tombstone]) -> str | None:
    """Describe what the earlier file of a table or view has and the new one lacks; None if it lacks nothing."""
    if now is None:
        return f"the {entry.kind} {entry.name}"
    if entry.kind == "view" or entry.sha256 == now.entry.sha256 or not store.holds(path, entry.sha256):
        return None
    earlier, draft = store.local_copy(path), store.draft(path)
    if columns := lost_columns(earlier, draft):
        return f"columns of {entry.name} such as {columns[0]}"
    count, example = lost_rows(now.relation, earlier, draft, removed)
    return f"{counted(count, 'row')} of {entry.name} such as {example}" if count else None
