"""`ftw copy`: a history from one warehouse into another, without asking the API again.

The rows go through dlt, under the same pipeline and schema names as a sync would load them, and each account's state
is committed with its rows: the next sync into the copy reads what is new, and nothing else. A copy that is killed has
committed no state of the account that it was at; the next one merges the same rows once more.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dlt
import pyarrow as pa
import pyarrow.compute as pc

from openai_fine_tuning.schema import SYNCS, TABLES, schema

from .errors import CommandError, UsageError
from .warehouses.errors import destination_errors
from .warehouses.load_id import LOAD_ID, add_load_ids
from .warehouses.locking import LOCK_WAIT_SECONDS
from .warehouses.rows import Rows, open_rows
from .warehouses.state import Stored, find_stored, stored_by
from .warehouses.tables import make_lacking
from .warehouses.warehouse import Warehouse
from .warehouses.working_directory import working_directory

if TYPE_CHECKING:
    from dlt.common.pipeline import LoadInfo

_MARK = "copied"


@dataclass
class Copied:
    """What was copied of one account.

    Attributes:
        account: Its label.
        rows: Rows by table.
        load_ids: The loads that brought them.
        has_state: Whether its state came along. Without one, the next sync reads everything once more.
    """

    account: str
    rows: dict[str, int] = field(default_factory=dict)
    load_ids: list[str] = field(default_factory=list)
    has_state: bool = True


def copy_history(
    source: Warehouse, target: Warehouse, *, lock_wait_seconds: float = LOCK_WAIT_SECONDS
) -> Iterator[Copied]:
    """Copy all tables of all accounts, an account at a time; then the views are made.

    Args:
        source: Where from. Nothing is written to it.
        target: Where to. What it holds under the same keys is replaced.
        lock_wait_seconds: How long to wait for a program that holds a DuckDB file.

    Yields:
        Each account when it is there.

    Raises:
        UsageError: The target holds a history of an account that is no copy of this one. Nothing was written.
        CommandError: There is nothing to copy, or it failed. Run it again.
    """
    if source == target:
        raise UsageError(f"{source.shown} cannot be copied into itself.")
    failed = f"The copy into {target.shown} failed; run it again"
    labels, stored = _labels(source, lock_wait_seconds), {}
    if not labels:
        raise CommandError(f"{source.shown} holds no rows of ours: there is nothing to copy.")
    with target.lock(labels, lock_wait_seconds), working_directory() as directory:
        present = _present(target, lock_wait_seconds)
        for number, label in enumerate(labels):
            # The state before the rows: a sync in between brings rows that the state does not count on.
            stored[label] = find_stored(label, source, directory / f"from-{number}", lock_wait_seconds)
            if present:
                there = find_stored(label, target, directory / f"there-{number}", lock_wait_seconds)
                _refuse_another(there, stored[label], source, target, label)
        with open_rows(source, names=[*TABLES, "sync_history"], lock_wait_seconds=lock_wait_seconds) as rows:
            for number, label in enumerate(labels):
                history = _History(rows, label, stored[label])
                pipeline = target.pipeline(directory / f"to-{number}", label=label)
                with destination_errors(target, failed):
                    copied = _load(
                        pipeline, history, source, target, present=present, lock_wait_seconds=lock_wait_seconds
                    )
                yield copied
        pipeline = target.pipeline(directory / "views", label=labels[-1])
        with destination_errors(target, failed):
            target.restore(pipeline, lock_wait_seconds)
            target.describe(pipeline, lock_wait_seconds)


def _labels(warehouse: Warehouse, lock_wait_seconds: float) -> list[str]:
    """The accounts that have rows in a warehouse."""
    with open_rows(warehouse, names=list(TABLES), lock_wait_seconds=lock_wait_seconds) as rows:
        return sorted({label for relation in rows.relations for label in rows.accounts(relation)})


def _present(target: Warehouse, lock_wait_seconds: float) -> list[str]:
    if not target.exists():
        return []
    return _labels(target, lock_wait_seconds)


def _load(
    pipeline: dlt.Pipeline,
    history: _History,
    source: Warehouse,
    target: Warehouse,
    *,
    present: list[str],
    lock_wait_seconds: float,
) -> Copied:
    def load() -> LoadInfo:
        pipeline.sync_destination()
        there = stored_by(pipeline)
        _refuse_another(there, history.stored, source, target, history.label)
        if not pipeline.has_pending_data:
            # Where several may load, another copy may have brought the same rows since they were looked for.
            is_new = history.label not in present and history.copied.has_state and not _has_state(there)
            copied = history.source(target.hints(pipeline), is_new=is_new)
            add_load_ids(copied.selected_resources.values())
            pipeline.extract(copied)
            pipeline.normalize()
        make_lacking(pipeline)
        return pipeline.load()

    # Nobody else loads between the look at what is there and the end.
    history.copied.load_ids += target.load(pipeline, load, lock_wait_seconds).loads_ids
    return history.copied


class _History:
    """What is copied of one account, as a source of dlt's.

    Attributes:
        label: The account's.
        stored: The state that comes along.
        copied: What came out of it so far.
    """

    def __init__(self, rows: Rows, label: str, stored: Stored) -> None:
        self._rows = rows
        self._tables = [relation for relation in rows.relations if relation.kind == "table"]
        self.label = label
        self.stored = stored
        self.copied = Copied(label, {one.name: 0 for one in self._tables}, has_state=_has_state(stored))

    def source(self, merge: Mapping[str, Any], *, is_new: bool) -> Any:
        """The source: under the name of the one that syncs, with the columns that the tables have.

        Args:
            merge: dlt's hints for merging rows into those that are there.
            is_new: There are none of this account, so that they need no merging.
        """
        into = schema()
        self.stored.columns_into(into, [relation.name for relation in self._tables])
        hints: Any = {**merge, "write_disposition": "append"} if is_new else merge

        @dlt.source(section="openai_fine_tuning", schema=into)
        def history() -> Any:
            # One resource reads, so that one table is read at a time.
            rows = dlt.resource(self._batches(), name="history", selected=False)
            return [
                rows,
                *(
                    dlt.transformer(
                        _door(one.name),
                        data_from=rows,
                        name=one.name,
                        primary_key=one.keys,
                        parallelized=False,
                        **hints,
                    )
                    for one in self._tables
                ),
            ]

        return history()

    def _batches(self) -> Iterator[dict[str, pa.Table]]:
        """Everything, table by table; and the state, which dlt commits with it."""
        if self.copied.has_state:
            state = dlt.current.source_state()
            state.update(copy.deepcopy(_unmarked(self.stored.state)))
            state[_MARK] = _digest(self.stored)
        completed = self._completed_syncs()
        for relation in self._tables:
            columns = relation.only(*(name for name in relation.schema.names if name != LOAD_ID))
            # What dlt knows of a column, so that it has nothing to warn of.
            typed = pa.schema([pa.field(one.name, one.type, one.name not in relation.keys) for one in columns.schema])
            yield {relation.name: typed.empty_table()}  # a table without rows is made all the same
            for batch in self._rows.batches(columns, account=self.label):
                found = pa.Table.from_arrays(batch.columns, schema=typed)
                if relation.name == SYNCS.name and completed is not None:
                    # In the copy, all of them belong to the load that brings them, which completes.
                    found = found.filter(pc.is_in(found["id"], completed))
                self.copied.rows[relation.name] += found.num_rows
                yield {relation.name: found}

    def _completed_syncs(self) -> pa.Array | None:
        """The ids of the syncs whose load completed; None where that is not known."""
        history = self._rows.relation("sync_history")
        if history is None:
            return None
        ids = self._rows.batches(history.only("account", "sync_id"), account=self.label)
        return pa.array([sync_id for batch in ids for sync_id in batch["sync_id"].to_pylist()], pa.string())


def _door(name: str) -> Any:
    def rows(tables: dict[str, pa.Table]) -> Iterator[pa.Table]:
        if name in tables:
            yield tables[name]

    return rows


# the state ------------------------------------------------------------------------------------------------------------


def _refuse_another(there: Stored, stored: Stored, source: Warehouse, target: Warehouse, label: str) -> None:
    """Raise `UsageError` where the target's history of an account is not this one, or has gone on since."""
    if not _has_state(there) or _digest(there) in (_digest(stored), there.state.get(_MARK)):
        return
    raise UsageError(
        f"{target.shown} has a history of account {label} that is no copy of {source.shown}, or was synced "
        "since: nothing was written. Go on there with `ftw sync`, or copy into another dataset: "
        f"{target.option} --dataset NAME."
    )


def _has_state(stored: Stored) -> bool:
    return bool(stored.state.get("resources"))


def _digest(stored: Stored) -> str:
    """What tells one state from another; every sync that brings something changes it."""
    return hashlib.sha256(json.dumps(_unmarked(stored.state), sort_keys=True, default=str).encode()).hexdigest()


def _unmarked(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != _MARK}
