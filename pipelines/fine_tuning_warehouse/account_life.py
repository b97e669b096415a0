"""The accounts of a warehouse: list them, give one another label, and remove what is stored of one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import dlt

from fine_tuning_warehouse.schema import SCHEMA, SYNCS, TABLES
from openai_fine_tuning.api.jobs import FILE_FIELDS
from openai_fine_tuning.convert.values import stored_file_ids, unix_seconds

from .accounts.account import did_you_mean
from .accounts.labels import checked_label, label_in_names
from .errors import UsageError
from .warehouses.account_rows import AccountRows, conditions, without_job
from .warehouses.errors import destination_errors
from .warehouses.rows import Rows, open_rows
from .warehouses.warehouse import Warehouse
from .warehouses.working_directory import working_directory


@dataclass
class StoredAccount:
    """An account that has rows in a warehouse.

    Attributes:
        account: The label.
        host: The host that the last sync has read, or tried to if none succeeded; None if an earlier release did it.
        rows: The number of rows, by table.
        last_sync: When the last sync that was loaded had read everything; None if none was.
    """

    account: str
    host: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    last_sync: datetime | None = None


@dataclass(frozen=True)
class Removed:
    """The result of a removal.

    Attributes:
        account: The label.
        job: The job; None for the whole account.
        rows: The number of rows that were deleted, by table.
    """

    account: str
    job: str | None
    rows: dict[str, int]


def stored_accounts(warehouse: Warehouse) -> list[StoredAccount]:
    """Return the accounts that have rows in a warehouse, in the order of their labels.

    Raises:
        CommandError: There is no such warehouse, or it cannot be read.
    """
    warehouse.require()
    found: dict[str, StoredAccount] = {}
    with open_rows(warehouse, names=list(TABLES)) as rows:
        for relation in rows.relations:
            for label, number in rows.counts(relation).items():
                found.setdefault(label, StoredAccount(label)).rows[relation.name] = number
        syncs = rows.relation(SYNCS.name)
        if syncs is not None:
            for batch in rows.batches(syncs.only("account", "finished_at", "host", "status")):
                for row in batch.to_pylist():
                    one = found[row["account"]]
                    if row.get("status") == "failed":
                        one.host = one.host or row.get("host")
                    elif one.last_sync is None or (
                        row["finished_at"] is not None and row["finished_at"] > one.last_sync
                    ):
                        one.last_sync, one.host = row["finished_at"], row.get("host")
    return [found[label] for label in sorted(found)]


def forget(
    warehouse: Warehouse,
    label: str,
    job: str | None = None,
) -> Removed:
    """Remove what a warehouse holds of an account, or of one of its jobs: rows, staged rows, and state.

    A job that is removed does not come back with the next sync, unless a full refresh or `--job` reads it. Rows go
    first, so that a call that is killed can be repeated.

    Raises:
        UsageError: The warehouse holds nothing of that account or job.
        BusyError: A sync is running.
        CommandError: The warehouse refuses.
    """
    label = checked_label(label)
    warehouse.require()
    with _Life(warehouse, [label]) as life:
        account = life.rows_of(label)
        files: list[str] = []
        skipped: dict[str, str] = {}
        created_at = None
        with open_rows(warehouse, names=list(TABLES)) as rows:
            labels = rows.accounts()
            if job is not None:
                created_at, files = _of_job(rows, label, job)
                skipped = _skipped(rows, label, job)
        deleted = account.delete(conditions(label, job, files))
        for sync_id, text in skipped.items():
            account.update({SYNCS.name: {"account": [label], "id": [sync_id]}}, "skipped", text)
        known = _jobs_in(account.state()) if job is not None else bool(account.state())
        if not any(deleted.values()) and not (job in known if isinstance(known, set) else known):
            raise _unknown(warehouse, label, labels, job)
        if job is None:
            account.delete_state()
        else:
            account.change_state(lambda state: _close(state, job, created_at))
        return Removed(label, job, deleted)


def require_accounts(warehouse: Warehouse, labels: Sequence[str]) -> None:
    """Raise `UsageError` if a warehouse lacks one of some accounts, before another one is removed."""
    known = [one.account for one in stored_accounts(warehouse)]
    for label in labels:
        if label not in known:
            raise UsageError(f"{_unknown(warehouse, label, known)} Nothing was removed.")


def _unknown(warehouse: Warehouse, label: str, labels: Sequence[str], job: str | None = None) -> UsageError:
    what = f"account {label!r}{did_you_mean(label, labels)}" if job is None else f"job {job!r} of account {label}"
    return UsageError(f"{warehouse.shown} holds no {what}. Its accounts: {', '.join(labels) or 'none'}.")


def rename(warehouse: Warehouse, old: str, new: str) -> None:
    """Give an account of a warehouse another label: its rows and its state, so that the next sync goes on there.

    The state goes last: if the call is killed, run it again. Without it, a sync would read everything once more.

    Raises:
        UsageError: There is no account of the old label, or there is one of the new label.
        BusyError: A sync is running.
        CommandError: The warehouse refuses.
    """
    old, new = checked_label(old), checked_label(new)
    if old == new:
        raise UsageError(f"The account is called {old} already.")
    warehouse.require()
    with _Life(warehouse, [old, new]) as life:
        before, after = life.rows_of(old), life.rows_of(new)
        with open_rows(warehouse, names=list(TABLES)) as rows:
            labels = rows.accounts()
        has_rows, has_state = old in labels, bool(before.state())
        if not has_rows and not has_state:
            raise _unknown(warehouse, old, labels)
        if after.state() or (has_rows and new in labels):
            raise UsageError(f"{warehouse.shown} holds an account {new} already: choose another label.")
        state = copy.deepcopy(before.state())
        for resource in state.get("resources", {}).values():
            for states in (resource.get("frontiers", {}), resource.get("listings", {})):
                if old in states:
                    states[new] = states.pop(old)
        before.update(conditions(old), "account", new)
        if state:
            life.store_state(new, state, before.schema())
        before.delete_state()


class _Life(ExitStack):
    """A warehouse that is locked for some accounts."""

    def __init__(self, warehouse: Warehouse, labels: Sequence[str]) -> None:
        super().__init__()
        self._warehouse = warehouse
        self._labels = labels

    def __enter__(self) -> _Life:
        super().__enter__()
        self.enter_context(self._warehouse.lock(self._labels))
        self._directory: Path = self.enter_context(working_directory())
        self.enter_context(destination_errors(self._warehouse, f"{self._warehouse.shown} cannot be changed"))
        return self

    def rows_of(self, label: str) -> AccountRows:
        """Return the rows of an account, with its state as the last sync has left it."""
        pipeline = self._warehouse.pipeline(self._directory / label_in_names(label), label=label)
        self._warehouse.restore(pipeline)
        return AccountRows(self._warehouse, pipeline)

    def store_state(self, label: str, state: Mapping[str, Any], schema: dlt.Schema) -> None:
        """Load a state as that of an account; `schema` is the schema of the tables, which stays."""
        pipeline = self._warehouse.pipeline(self._directory / f"{label_in_names(label)}-new", label=label)
        self._warehouse.restore(pipeline)

        @dlt.source(section=SCHEMA, schema=schema)
        def nothing() -> Any:
            @dlt.resource(name="nothing", columns={})
            def none() -> Any:
                dlt.current.source_state().update(copy.deepcopy(dict(state)))
                yield from ()

            return none

        pipeline.extract(nothing())
        pipeline.normalize()
        self._warehouse.load(pipeline)


def _of_job(rows: Rows, label: str, job: str) -> tuple[float | None, list[str]]:
    """Return when a job was created, in unix seconds, and the ids of the files that only this job names."""
    jobs = rows.relation("jobs")
    created_at, own, others = None, set[str](), set[str]()
    if jobs is not None:
        wanted = jobs.only("id", "created_at", *FILE_FIELDS)
        for batch in rows.batches(wanted, {"account": [label]}):
            for row in batch.to_pylist():
                ids = {one for name in FILE_FIELDS for one in stored_file_ids(row.get(name))}
                (own if row["id"] == job else others).update(ids)
                if row["id"] == job:
                    created_at = unix_seconds(row["created_at"].isoformat()) if row["created_at"] else None
    return created_at, sorted(own - others)


def _skipped(rows: Rows, label: str, job: str) -> dict[str, str]:
    """Return the syncs that have skipped something of a job: id to the new text of `skipped`."""
    syncs = rows.relation(SYNCS.name)
    if syncs is None:
        return {}
    return {
        row["id"]: text
        for batch in rows.batches(syncs.only("id", "skipped"), {"account": [label]})
        for row in batch.to_pylist()
        if (text := without_job(row["skipped"], job)) is not None
    }


def _watermarks(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the states of all watermarks in the state of the source."""
    return [
        watermark
        for resource in state.get("resources", {}).values()
        for states in resource.get("frontiers", {}).values()
        for watermark in states.values()
    ]


def _jobs_in(state: Mapping[str, Any]) -> set[str]:
    return {job for watermark in _watermarks(state) for job in watermark.get("open", {})}


def _close(state: dict[str, Any], job: str, created_at: float | None) -> None:
    """Close a job in the state of the source, so that no sync reads it again."""
    for watermark in _watermarks(state):
        known = watermark.get("open", {}).pop(job, {})
        watermark.setdefault("recent", {}).setdefault(job, known.get("created_at", created_at))
