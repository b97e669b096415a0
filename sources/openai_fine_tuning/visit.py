"""The visit of one job: what is requested of it for each resource, and how what comes becomes rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import result_files
from .addresses import is_safe_id, quoted
from .api import FineTuningApi
from .errors import RequestError
from .files import Files, Found
from .frontier import Frontier, Job
from .listing import Order, pages
from .records import Batches
from .values import UnfitError, escaped, number_from_text

_KEPT_BYTES = 1_000_000
"""How much is kept of a result file that is none."""


@dataclass
class Visit:
    """The reading of one job: what of it is owed, and what is known of it so far.

    Attributes:
        job: The job as it was shown before the visit began.
        owed: The resources that owe it.
        reads: How many of them are still being read.
        checkpoints_listed_at: When its checkpoints were listed (microseconds); None where they were not, or not all.
        newest_event: `created_at` of its newest event (unix seconds).
        files: Of its files, what each resource knows: id to `read` or `gone`.
    """

    job: Job
    owed: frozenset[str]
    reads: int = 0
    checkpoints_listed_at: int | None = None
    newest_event: float | None = None
    files: dict[str, dict[str, str]] = field(default_factory=dict)

    def learned(self, resource: str) -> dict[str, Any]:
        """What the next read of a resource wants to know, if the job stays open."""
        learned: dict[str, dict[str, Any]] = {
            "checkpoints": {"listed_at": self.checkpoints_listed_at},
            "events": {"newest_event": self.newest_event},
            "result_metrics": {"files": self.files.get("result_metrics", {})},
            "files": {"files": self.files.get("files", {})},
        }
        return learned[resource]


# in the crew's threads --------------------------------------------------------------------------------------------


def read_checkpoints(api: FineTuningApi, visit: Visit) -> Iterator[list[Any]]:
    """All checkpoints, a page at a time."""
    visit.checkpoints_listed_at = time.time_ns() // 1000
    for page in pages(api, f"{visit.job.path}/checkpoints"):
        yield page.records


def read_events(api: FineTuningApi, visit: Visit, frontier: Frontier) -> Iterator[list[Any]]:
    """The events back to the newest one known, where the host lists newest first; all of them the last time."""
    known = frontier.open.get(visit.job.id, {}).get("newest_event")
    bound = None if frontier.is_over(visit.job) else known
    order = Order()
    for page in pages(api, f"{visit.job.path}/events"):
        order.see(page.times, page.host_time)
        visit.newest_event = order.newest if known is None else max(known, order.newest or known)
        if bound is None or not order.is_newest_first:
            yield page.records
            continue
        yield [record for record, at in zip(page.records, page.times, strict=True) if at is None or at >= bound]
        if order.is_past(bound):
            return


def read_result_files(
    api: FineTuningApi, visit: Visit, frontier: Frontier, *, is_known_endpoint: bool
) -> Iterator[tuple[Any, bytes | None]]:
    """Each result file with its content, None where the host no longer has it (or where its id is none)."""
    for file_id in _result_files_to_read(visit, frontier):
        if not _is_file_id(file_id):
            yield file_id, None
            continue
        try:
            content = api.get_bytes(f"/files/{quoted(file_id)}/content").content
        except RequestError as error:
            if error.status != 404 or (error.is_missing_endpoint and not is_known_endpoint):
                raise
            yield file_id, None
        else:
            yield file_id, content


def read_files(
    visit: Visit, frontier: Frontier, files: Files, *, is_known_endpoint: bool
) -> Iterator[tuple[Any, Found | None]]:
    """What the host tells of each file that the job names, None where its id is none."""
    for file_id in _files_to_read(visit, frontier):
        if not _is_file_id(file_id):
            yield file_id, None
            continue
        try:
            found = files.find(file_id)
        except RequestError as error:
            if error.status != 404 or not is_known_endpoint:
                raise
            found = Found(None, is_first=True)
        yield file_id, found


def has_nothing_to_read(resource: str, visit: Visit, frontier: Frontier) -> bool:
    """Whether a resource owes the job, but there is nothing to request for it."""
    if resource == "result_metrics":
        return not _result_files_to_read(visit, frontier)
    return resource == "files" and not _files_to_read(visit, frontier)


def _files_to_read(visit: Visit, frontier: Frontier) -> list[Any]:
    """Files that the job names and that were not read for it before."""
    before = frontier.open.get(visit.job.id, {}).get("files", {})
    visit.files["files"] = dict(before)
    return [
        file_id
        for file_id in _distinct(visit.job.files)
        if not isinstance(file_id, str) or escaped(file_id) not in before
    ]


def _result_files_to_read(visit: Visit, frontier: Frontier) -> list[Any]:
    """Result files of a job that has ended: those not read before, and all that still exist the last time."""
    if not visit.job.is_terminal:
        return []
    before = frontier.open.get(visit.job.id, {}).get("files", {})
    visit.files["result_metrics"] = dict(before)
    again = frontier.is_over(visit.job)
    return [
        file_id
        for file_id in _distinct(visit.job.result_files)
        if not isinstance(file_id, str)
        or (before.get(escaped(file_id)) != "gone" and (again or escaped(file_id) not in before))
    ]


# in the reader's thread -------------------------------------------------------------------------------------------


def take_in(batches: Batches, resource: str, visit: Visit, found: Any) -> str | None:
    """Make rows of what a read has found. Returns what is to be reported, if anything."""
    if resource == "result_metrics":
        return _take_in_content(batches, visit, *found)
    if resource == "files":
        return _take_in_file(batches, visit, *found)
    job_id = visit.job.id
    own = {"last_listed_at": visit.checkpoints_listed_at} if resource == "checkpoints" else {}
    batches.add_all(resource, found, job_id=job_id, own=own, defaults={"fine_tuning_job_id": job_id})
    return None


def _take_in_file(batches: Batches, visit: Visit, file_id: Any, found: Found | None) -> str | None:
    job_id = visit.job.id
    if found is None:
        batches.reject("files", file_id, job_id=job_id, reason="the id of a file is no text")
        return None
    known = visit.files.setdefault("files", {})
    known[escaped(file_id)] = "gone" if found.record is None else "read"
    if found.record is None:
        is_told_elsewhere = "result_metrics" in visit.owed and file_id in visit.job.result_files
        return None if is_told_elsewhere else f"the host no longer has its file {file_id} (404)"
    if found.is_first:
        shown_id = found.record.get("id") if isinstance(found.record, dict) else None
        if shown_id not in (None, file_id):
            reason = f"the host was asked for the file {file_id}"
            batches.reject("files", found.record, job_id=job_id, reason=reason)
        else:
            batches.add("files", found.record, job_id=job_id, defaults={"id": escaped(file_id)})
    return None


def _take_in_content(batches: Batches, visit: Visit, file_id: Any, content: bytes | None) -> str | None:
    job_id = visit.job.id
    if not _is_file_id(file_id):
        batches.reject("result_metrics", file_id, job_id=job_id, reason="the id of a result file is no text")
        return None
    known = visit.files.setdefault("result_metrics", {})
    known[escaped(file_id)] = "gone" if content is None else "read"
    if content is None:
        return f"the host no longer has its result file {file_id} (404)"
    own = {"file_id": escaped(file_id), "fine_tuning_job_id": job_id}
    steps: set[Any] = set()
    try:
        for row in result_files.rows(content):
            step, shown = row.get("step"), {**row, "file_id": file_id}
            if step is not None and step in steps:
                reason = f"step {step} stands twice in the file, with different values"
                batches.reject("result_metrics", shown, job_id=job_id, reason=reason)
            else:
                steps.add(step)
                typed = {name: number_from_text(cell) for name, cell in row.items()}
                batches.add("result_metrics", typed, job_id=job_id, own=own, shown=shown)
    except UnfitError as error:
        shown = {"file_id": file_id, "content": content[:_KEPT_BYTES].decode("utf-8", "replace")}
        batches.reject("result_metrics", shown, job_id=job_id, reason=str(error))
    return None


def _is_file_id(file_id: Any) -> bool:
    return isinstance(file_id, str) and is_safe_id(file_id)


def _distinct(values: list[Any]) -> list[Any]:
    """The values in order, each text once."""
    return list({value if isinstance(value, str) else index: value for index, value in enumerate(values)}.values())
