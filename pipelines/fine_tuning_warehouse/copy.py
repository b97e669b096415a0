"""Copy a history from one warehouse into another without asking the API again (`ftw copy`).

The rows go through dlt, under the pipeline and schema names of a sync, and the state of each account is committed with
its rows: the next sync into the copy reads only what is new. A copy that is killed has not committed the state of the
account at hand. The next copy merges the same rows once more.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.compute as pc

from fine_tuning_warehouse.schema import SYNCS, TABLES, schema

from .errors import CommandError, UsageError
from .warehouses.errors import destination_errors
from .warehouses.preflight import merge_hints
from .warehouses.rows import Relation, Rows, open_rows
from .warehouses.state import Stored, find_stored, stored_by
from .warehouses.tables import LOAD_ID, add_load_ids, set_aside_changed
from .warehouses.warehouse import Warehouse
from .warehouses.working_directory import working_directory

_MARK = "copied"
"""The key of the state under which a copy keeps the digest of the state that it copied."""


@dataclass
class Copied:
    """The result of copying one account.

    Attributes:
        account: The label of the account.
        rows: The number of rows of each table.
        load_ids: The loads that brought the rows.
        has_state: Whether the account had a state to copy. Without one, the next sync reads everything once more.
    """

    account: str
    rows: dict[str, int] = field(default_factory=dict)
    load_ids: list[str] = field(default_factory=list)
    has_state: bool = True


def copy_history(source: Warehouse, target: Warehouse) -> Iterator[Copied]:
    """Copy all tables of all accounts, one account at a time; make the views last.

    Args:
        source: The warehouse to copy from. Nothing is written to it.
        target: The warehouse to copy into. Rows with the same keys are replaced.

    Yields:
        Each account, once it is copied.

    Raises:
        UsageError: The target holds a history of an account that is not a copy of this one. Nothing was written.
        CommandError: There is nothing to copy, or the copy failed. It can be run again.
    """
    if source == target:
        raise UsageError(f"{source.shown} cannot be copied into itself.")
    failed = f"The copy into {target.shown} failed; run it again"
    labels = _labels(source)
    if not labels:
        raise CommandError(f"{source.shown} holds no rows of a sync: there is nothing to copy.")
    with target.lock(labels), working_directory() as directory:
        present = _labels(target) if target.exists() else []
        stored = {}
        for number, label in enumerate(labels):
            # The state is read before the rows, so that it never counts on rows of a later sync.
            stored[label] = find_stored(label, source, directory / f"from-{number}")
            if present:
                there = find_stored(label, target, directory / f"there-{number}")
                _refuse_another(there, stored[label], source, target, label)
        with open_rows(source, names=[*TABLES, "sync_history"]) as rows:
            for number, label in enumerate(labels):
                history = _History(rows, label, stored[label])
                pipeline = target.pipeline(directory / f"to-{number}", label=label)

                def extract(history: _History = history, pipeline: dlt.Pipeline = pipeline) -> None:
                    set_aside_changed(pipeline, check_types=target.keeps_types)
                    pipeline.sync_destination()
                    there = stored_by(pipeline)
                    _refuse_another(there, history.stored, source, target, history.label)
                    if not pipeline.has_pending_data:
                        # Another copy may have brought the same rows since the target was read.
                        is_new = history.label not in present and history.copied.has_state and not _has_state(there)
                        history.extract(pipeline, merge_hints(target, pipeline), is_new=is_new)

                with destination_errors(target, failed):
                    # No other load can come between the look at the target and the end of this one.
                    history.copied.load_ids += target.load(pipeline, prepare=extract).loads_ids
                yield history.copied
        pipeline = target.pipeline(directory / "views", label=labels[-1])
        with destination_errors(target, failed):
            target.restore(pipeline)
            for problem in target.describe(pipeline):
                raise CommandError(problem)


def _labels(warehouse: Warehouse) -> list[str]:
    """Return the accounts that have rows in a warehouse."""
    with open_rows(warehouse, names=list(TABLES)) as rows:
        return rows.accounts()


class _History:
    """The rows and the state of one account, as a source of dlt.

    Attributes:
        label: The label of the account.
        stored: The state to copy.
        copied: What was copied so far.
    """

    def __init__(self, rows: Rows, label: str, stored: Stored) -> None:
        self._rows = rows
        self._tables = [relation for relation in rows.relations if relation.kind == "table"]
        self.label = label
        self.stored = stored
        self.copied = Copied(label, {one.name: 0 for one in self._tables}, has_state=_has_state(stored))

    def extract(self, pipeline: dlt.Pipeline, merge: Mapping[str, Any], *, is_new: bool) -> None:
        """Extract and normalise everything, under the names of a sync.

        Args:
            pipeline: A pipeline into the target.
            merge: The hints of dlt that merge rows into those that are there.
            is_new: Whether the target has no rows of the account, so that nothing need be merged.
        """
        into = schema()
        self.stored.columns_into(into, [relation.name for relation in self._tables])
        hints: Any = {**merge, "write_disposition": "append"} if is_new else merge

        @dlt.source(section="openai_fine_tuning", schema=into)
        def history() -> Any:
            # One resource reads, so that one table is read at a time.
            rows = dlt.resource(self._tables_in_turn(), name="history", selected=False)
            yield rows
            for one in self._tables:
                yield dlt.transformer(
                    _rows_of(one.name),
                    data_from=rows,
                    name=one.name,
                    primary_key=one.keys,
                    parallelized=False,
                    **hints,
                )

        source = history()
        add_load_ids(source.selected_resources.values())
        pipeline.extract(source)
        pipeline.normalize()

    def _tables_in_turn(self) -> Iterator[dict[str, pa.Table]]:
        """Yield every table in batches, each under its name; store the state, which dlt commits with the rows."""
        if self.copied.has_state:
            state = dlt.current.source_state()
            state.update(copy.deepcopy(_without_mark(self.stored.state)))
            state[_MARK] = _digest(self.stored)
        completed = self._completed_syncs()
        for relation in self._tables:
            columns = relation.only(*(name for name in relation.schema.names if name != LOAD_ID))
            yield {relation.name: _typed(relation, columns).empty_table()}  # a table without rows is made too
            for batch in self._rows.batches(columns, {"account": [self.label]}):
                found = pa.Table.from_arrays(batch.columns, schema=_typed(relation, columns))
                if relation.name == SYNCS.name and completed is not None:
                    # In the copy, all syncs belong to the load that brings them, which completes.
                    found = found.filter(pc.is_in(found["id"], completed))
                self.copied.rows[relation.name] += found.num_rows
                yield {relation.name: found}

    def _completed_syncs(self) -> pa.Array | None:
        """Return the ids of the syncs that were loaded completely; None if that is not known."""
        history = self._rows.relation("sync_history")
        if history is None:
            return None
        ids = self._rows.batches(history.only("account", "sync_id"), {"account": [self.label]})
        return pa.array([sync_id for batch in ids for sync_id in batch["sync_id"].to_pylist()], pa.string())


def _typed(relation: Relation, columns: Relation) -> pa.Schema:
    """Return the columns as dlt knows them: without descriptions, and nullable unless they are keys."""
    return pa.schema([pa.field(one.name, one.type, one.name not in relation.keys) for one in columns.schema])


def _rows_of(name: str) -> Any:
    def rows(tables: dict[str, pa.Table]) -> Iterator[pa.Table]:
        if name in tables:
            yield tables[name]

    return rows


def _refuse_another(there: Stored, stored: Stored, source: Warehouse, target: Warehouse, label: str) -> None:
    """Raise `UsageError` if the target's history of an account is another one, or was synced since the last copy."""
    if not _has_state(there) or _digest(there) in (_digest(stored), there.state.get(_MARK)):
        return
    raise UsageError(
        f"{target.shown} has a history of account {label} that is not a copy of {source.shown}, or was synced "
        "since: nothing was written. Go on there with `ftw sync`, or copy into another dataset: "
        f"{target.option} --dataset NAME."
    )


def _has_state(stored: Stored) -> bool:
    return bool(stored.state.get("resources"))


def _digest(stored: Stored) -> str:
    """Return the SHA-256 of a state. Every sync that brings something changes it."""
    return hashlib.sha256(json.dumps(_without_mark(stored.state), sort_keys=True, default=str).encode()).hexdigest()


def _without_mark(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state without the mark of a copy, which no sync writes."""
    return {name: value for name, value in state.items() if name != _MARK}
