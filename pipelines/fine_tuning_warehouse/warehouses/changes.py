"""Compare rows that were read with those that a warehouse holds: what did not change is not written again.

So `_dlt_load_id` names the load in which a row was new or last changed. The columns in which somebody keeps values of
their own beside ours keep them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from openai_fine_tuning.schema import CHECKPOINTS, EVENTS, JOBS, MODELS, RESULT_METRICS, TABLES

Tables = dict[str, pa.Table]
LookUp = Callable[[str, Mapping[str, Sequence[Any]]], pa.Table | None]
"""Returns the rows of a table that have one of some values in each of some columns; None if it cannot say."""

BOOKKEEPING = frozenset({"_dlt_load_id", "last_listed_at", "checkpoints_listed_at", "rejected_at", "synced_at"})
"""Columns that depend on the sync that wrote the row."""

_LISTED_AT = {JOBS.name: frozenset({"checkpoints_listed_at"}), MODELS.name: frozenset({"last_listed_at"})}
"""Columns among these that make a row a changed one: a model was listed again, or a checkpoint of a job was not."""

_MOST_VALUES = 1000
"""Values in one condition of a query: with more, some databases take longer to plan it than to run it."""

_JOB_OF = {CHECKPOINTS.name: "fine_tuning_job_id", EVENTS.name: "fine_tuning_job_id", RESULT_METRICS.name: "file_id"}
"""By what rows of a table are looked up beside their keys: a job or a file has them together."""


class Changes:
    """What is new or changed, among the rows of one sync of an account.

    A checkpoint is retained by the host if its `last_listed_at` equals `checkpoints_listed_at` of its job. Both stay
    as they are, and further checkpoints get the same time, until the host has dropped one of those that it retained.

    Args:
        look_up: Finds the rows that the warehouse holds.
        added: Returns the columns that somebody has added to a table, each with its type.
        began_at: When the sync began, in microseconds since 1970.
        writes_all: Whether rows that did not change are written too.

    Attributes:
        rows: The rows that were passed on, by table.
    """

    def __init__(
        self,
        look_up: LookUp,
        added: Callable[[str], Mapping[str, pa.DataType]],
        *,
        began_at: int,
        writes_all: bool,
    ) -> None:
        self._look_up = look_up
        self._added = added
        self._began_at = began_at
        self._writes_all = writes_all
        self._listings: dict[str, _Listing] = {}
        self.rows: Counter[str] = Counter()

    def __call__(self, tables: Tables) -> Tables:
        """Return the rows that are new or changed; a table without rows is passed on, since that makes it."""
        if not self._writes_all or any(self._added(name) for name in tables):
            stored = {name: self._stored(name, tables) for name in (*tables, CHECKPOINTS.name)}
            if not self._writes_all:
                tables = self._settle_listings(tables, stored)
            tables = {
                name: kept
                for name, table in tables.items()
                if (kept := self._changed(name, table, stored[name])) is not None
            }
        return self.all_of(tables)

    def all_of(self, tables: Tables) -> Tables:
        """Pass on all rows."""
        self.rows.update({name: table.num_rows for name, table in tables.items()})
        return tables

    def _stored(self, name: str, tables: Tables) -> pa.Table | None:
        """Return the rows that a warehouse holds beside those that were read: of the same keys, and of the same job."""
        table = tables.get(name)
        conditions: dict[str, list[Any]] = {}
        if name == CHECKPOINTS.name:
            conditions["fine_tuning_job_id"] = sorted(
                set(_values(tables.get(JOBS.name), "id")) | set(_values(table, "fine_tuning_job_id")) - {None}
            )
        elif table is not None:
            key = TABLES[name].keys[-1]
            columns = {_JOB_OF.get(name, key), key} - ({"step"} if name == RESULT_METRICS.name else set())
            conditions = {column: sorted(set(_values(table, column)) - {None}) for column in columns}
        if not conditions or not all(conditions.values()):
            return None
        first, *others = sorted(conditions, key=lambda column: len(conditions[column]))
        more = {column: conditions[column] for column in others if len(conditions[column]) <= _MOST_VALUES}
        parts = []
        for start in range(0, len(conditions[first]), _MOST_VALUES):
            part = self._look_up(name, {first: conditions[first][start : start + _MOST_VALUES], **more})
            if part is None:
                return None
            parts.append(part)
        return pa.concat_tables(parts)

    def _settle_listings(self, tables: Tables, stored: Mapping[str, pa.Table | None]) -> Tables:
        """Decide for each job that was read whether its checkpoints were all listed again; return its row with that."""
        jobs, checkpoints = tables.get(JOBS.name), tables.get(CHECKPOINTS.name)
        listed: dict[str, set[str]] = {}
        for job, checkpoint in zip(_values(checkpoints, "fine_tuning_job_id"), _values(checkpoints, "id"), strict=True):
            listed.setdefault(job, set()).add(checkpoint)
        kept: dict[str, dict[str, int]] = {}
        for job, checkpoint, listed_at in _rows(stored[CHECKPOINTS.name], "fine_tuning_job_id", "id", "last_listed_at"):
            kept.setdefault(job, {})[checkpoint] = listed_at or 0
        marks = dict(_rows(self._marks_of(listed, stored), "id", "checkpoints_listed_at"))
        given = dict(_rows(jobs, "id", "checkpoints_listed_at"))
        for job in {*listed, *given} - self._listings.keys():
            is_listed = job in listed or (given.get(job) or 0) >= self._began_at
            self._listings[job] = _Listing(
                kept.get(job, {}), marks.get(job), listed=listed.get(job, set()) if is_listed else None
            )
        result = dict(tables)
        if jobs is not None and jobs.num_rows:
            result[JOBS.name] = _with_times(
                jobs,
                "checkpoints_listed_at",
                [self._listings[job].mark(at, self._began_at) for job, at in given.items()],
            )
        if checkpoints is not None and checkpoints.num_rows:
            at = [
                self._listings[job].listed_at or listed_at
                for job, listed_at in _rows(checkpoints, "fine_tuning_job_id", "last_listed_at")
            ]
            result[CHECKPOINTS.name] = _with_times(checkpoints, "last_listed_at", at)
        return result

    def _marks_of(self, listed: Collection[str], stored: Mapping[str, pa.Table | None]) -> pa.Table | None:
        """Return the stored rows of jobs: those that were read too, else of those that checkpoints were listed of."""
        if stored.get(JOBS.name) is not None or not listed:
            return stored.get(JOBS.name)
        only = pa.table({"id": pa.array(sorted(set(listed) - {None}), pa.string())})
        return self._stored(JOBS.name, {JOBS.name: only})

    def _changed(self, name: str, table: pa.Table, stored: pa.Table | None) -> pa.Table | None:
        """Return the rows that differ from the stored ones, with what somebody has added; None if all are equal."""
        if stored is None or not table.num_rows:
            return table
        keys = [key for key in TABLES[name].keys if key != "account"]
        places: dict[tuple[Any, ...], int | None] = {}
        for place, key in enumerate(_rows(stored, *keys)):
            places[key] = None if key in places else place  # a duplicate goes where its row is written again
        found = pa.array([places.get(key) for key in _rows(table, *keys)], pa.int64())
        same = stored.take(found)
        added = self._added(name)
        ignored = {*keys, "account", *(added.keys() - set(table.column_names)), *BOOKKEEPING}
        for column, type_ in added.items():
            if column in same.column_names and column not in table.column_names:
                with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
                    table = table.append_column(column, same[column].cast(type_))
        if self._writes_all:
            return table
        is_same = pc.is_valid(found)
        for column in {*table.column_names, *same.column_names} - (ignored - _LISTED_AT.get(name, frozenset())):
            is_same = pc.and_(is_same, _equal(table, same, column))
        if name == CHECKPOINTS.name:
            jobs_and_ids = _rows(table, "fine_tuning_job_id", "id")
            is_settled = [one in self._listings[job].settled for job, one in jobs_and_ids]
            is_same = pc.and_(is_same, pa.array(is_settled, pa.bool_()))
        changed = table.filter(pc.invert(is_same))
        return changed if changed.num_rows else None


class _Listing:
    """What the listing of a job's checkpoints means for its rows. Times are in microseconds since 1970.

    Args:
        kept: The stored checkpoints, each with `last_listed_at`.
        mark: The stored `checkpoints_listed_at` of the job.
        listed: The checkpoints that were listed now; None if they were not.

    Attributes:
        settled: Ids of checkpoints that need not be written if nothing else has changed.
        listed_at: `last_listed_at` of the checkpoints that are written; None for what the source gave.
    """

    def __init__(self, kept: Mapping[str, int], mark: int | None, *, listed: Collection[str] | None) -> None:
        since = mark if mark is not None else max(kept.values(), default=None)
        retained = {one for one, listed_at in kept.items() if since is not None and listed_at >= since}
        self._stays = listed is None or retained <= set(listed)
        self._since = since
        self.settled: Collection[str] = retained if self._stays else ()
        self.listed_at = since if self._stays else None

    def mark(self, given: int | None, began_at: int) -> int | None:
        """Return the job's `checkpoints_listed_at`, of which the source gave one, in a sync that began then."""
        is_listed_now = given is not None and given >= began_at
        return given if self._since is None or (is_listed_now and not self._stays) else self._since


def _values(table: pa.Table | None, column: str) -> list[Any]:
    if table is None or column not in table.column_names:
        return []
    values = table[column]
    return list((values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values).to_pylist())


def _rows(table: pa.Table | None, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(_values(table, column) for column in columns), strict=True)


def _with_times(table: pa.Table, column: str, times: Iterable[int | None]) -> pa.Table:
    place = table.column_names.index(column)
    return table.set_column(place, table.field(column), pa.array(times, pa.int64()).cast(table.field(column).type))


def _equal(table: pa.Table, stored: pa.Table, column: str) -> Any:
    """Return for each row whether a column has the same value in both; a column that one lacks is null there."""
    if column not in table.column_names or column not in stored.column_names:
        return pc.is_null((table if column in table.column_names else stored)[column])
    given = table[column]
    try:
        kept = stored[column].cast(given.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([False] * table.num_rows)
    equal = pc.fill_null(pc.equal(given, kept), False)
    if pa.types.is_floating(given.type):
        equal = pc.or_(equal, pc.fill_null(pc.and_(pc.is_nan(given), pc.is_nan(kept)), False))
    return pc.or_(equal, pc.and_(pc.is_null(given), pc.is_null(kept)))
