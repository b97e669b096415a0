"""What a run must not do to an archive: lose rows of it, or replace what no run has written."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from fine_tuning_warehouse.errors import UsageError
from fine_tuning_warehouse.text import counted
from fine_tuning_warehouse.warehouses.rows import Relation
from fine_tuning_warehouse.warehouses.warehouse import Warehouse

from .manifest import Entry, Manifest
from .parquet import Written, lost, lost_columns, path_of
from .store import MANIFEST, Store


@dataclass(frozen=True)
class Exported:
    """A table or view that was drafted."""

    relation: Relation
    written: Written
    entry: Entry


class Guard:
    """Keeps an archive from another warehouse, and from what is not its own.

    Args:
        store: The archive.
        warehouse: What is about to be archived into it.
        before: Its manifest; None where it is new.
    """

    def __init__(self, store: Store, warehouse: Warehouse, before: Manifest | None) -> None:
        self._store = store
        self._warehouse = warehouse
        self._before = before
        self._known = before.files if before else {}

    def refuse_losses(self, exported: list[Exported]) -> None:
        """Raise `UsageError` where rows of the archive would go: it is another warehouse's."""
        now = {path_of(one.relation): one for one in exported}
        advice = f"Archive {self._warehouse.shown} into another folder; nothing was changed here."
        if self._before is not None and self._before.dataset != self._warehouse.dataset:
            raise UsageError(
                f"{self._store.shown} is an archive of the dataset {self._before.dataset}, and not of "
                f"{self._warehouse.dataset}. {advice}"
            )
        for path, entry in self._known.items():
            if entry.kind not in ("table", "view"):
                continue
            if path not in now:
                raise UsageError(
                    f"{self._store.shown} holds the {entry.kind} {entry.name}, which is not in "
                    f"{self._warehouse.shown}: it is an archive of another warehouse. {advice}"
                )
            one = now[path]
            if entry.kind == "view" or entry.sha256 == one.entry.sha256 or not is_whole(self._store, path, entry):
                continue
            earlier = self._store.local_copy(path)
            if columns := lost_columns(earlier, self._store.draft(path)):
                raise UsageError(
                    f"{self._store.shown} holds columns of {entry.name} that are not in {self._warehouse.shown}, "
                    f"such as {columns[0]}: it is an archive of another warehouse. {advice}"
                )
            count, example = lost(one.relation, earlier, self._store.draft(path))
            if count:
                raise UsageError(
                    f"{self._store.shown} holds {counted(count, 'row')} of {entry.name} not in "
                    f"{self._warehouse.shown}, such as {example}: it is an archive of another warehouse. {advice}"
                )

    def refuse_to_replace(self, paths: Iterable[str], there: Collection[str]) -> None:
        """Raise `UsageError` where a file that no run has written stands in the way."""
        for path in paths:
            if path in there and path not in self._known:
                raise UsageError(
                    f"{self._store.shown} holds {path}, which is not listed in its {MANIFEST}: move it away. "
                    "Nothing was changed."
                )


def is_whole(store: Store, path: str, entry: Entry) -> bool:
    """Whether a file is there as the manifest has it."""
    try:
        return store.digest(path) == entry.sha256
    except FileNotFoundError:
        return False
