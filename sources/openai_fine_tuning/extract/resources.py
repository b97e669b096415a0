"""The resources that are read job by job: what each one requests of a job, and what the next read must know.

Each is a generator that runs in a worker thread and changes nothing: it yields what it finds, and returns what the next
read of the job must know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai_fine_tuning import settings
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.files import Files
from openai_fine_tuning.api.jobs import Job
from openai_fine_tuning.api.pagination import Order, Page, pages
from openai_fine_tuning.api.urls import content_path, is_safe_id, listing_path
from openai_fine_tuning.convert import result_csv
from openai_fine_tuning.convert.values import UnfitError, escaped, number_from_text
from openai_fine_tuning.errors import RequestError

from .probes import Probes

_KEPT_BYTES = 1_000_000
"""How much is kept of a result file that is not one."""


@dataclass(frozen=True)
class Records:
    """Records of one resource, to become rows of its table.

    Attributes:
        resource: Name of the resource.
        records: The records.
        own: Columns that the source sets itself, for all of the records.
        defaults: Columns that the source fills if a record leaves them empty.
        shown: For each record, what is kept of it if it does not fit; empty to keep the record itself.
        reason: Why none of the records can become a row; empty if they can.
    """

    resource: str
    records: Sequence[Any]
    own: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    shown: Sequence[Any] = ()
    reason: str = ""


@dataclass(frozen=True)
class Missing:
    """A file that the host no longer has."""

    resource: str
    file_id: str


Found = Records | Missing
Reading = Generator[Found, None, dict[str, Any]]


@dataclass(frozen=True)
class Host:
    """A host, as the reads of all jobs share it: the API, the descriptions of files, and which endpoints it has."""

    api: FineTuningApi
    files: Files
    probes: Probes


@dataclass(frozen=True)
class Due:
    """A resource of a job that is to be read.

    Attributes:
        job: The job, as the host showed it before this read.
        known: What the last read of it returned; empty at the first.
        is_last: Whether the job closes after this read, so that nothing may be left to the next one.
    """

    job: Job
    known: Mapping[str, Any]
    is_last: bool


def read_checkpoints(host: Host, due: Due) -> Reading:
    """Read all checkpoints, each time: the host may show one minutes after the job's end, and drop it later.

    Returns when the listing began, in microseconds, as `listed_at`.
    """
    listed_at = time.time_ns() // 1000
    own, defaults = {"last_listed_at": listed_at}, {"fine_tuning_job_id": due.job.id}
    for page in _pages(host, due.job, "checkpoints"):
        yield Records("checkpoints", page.records, own, defaults)
    return {"listed_at": listed_at}


def read_events(host: Host, due: Due) -> Reading:
    """Read the events back to the newest known one, if the host lists the newest first; read all of them the last time.

    Returns `created_at` of the newest event, in unix seconds, as `newest_event`.
    """
    newest: float | None = due.known.get("newest_event")
    bound = None if due.is_last else newest
    order = Order()
    for page in _pages(host, due.job, "events"):
        order.see(page.times, page.host_time)
        records = page.records
        if bound is not None and order.is_newest_first:
            records = [r for r, at in zip(records, page.times, strict=True) if at is None or at >= bound]
        yield Records("events", records, defaults={"fine_tuning_job_id": due.job.id})
        if bound is not None and order.is_past(bound):
            break
    return {"newest_event": max((time for time in (newest, order.newest) if time is not None), default=None)}


def read_result_metrics(host: Host, due: Due) -> Reading:
    """Read all result files of the job, each time: some hosts go on writing them while the job runs.

    Returns what became of each file, as `files`.
    """

    def read_file(file_id: str) -> Generator[Found, None, bool]:
        content, reason = b"", ""
        for _ in range(2):  # a proxy may have answered in the host's place, so an unfit file is requested again
            content = host.api.get_bytes(content_path(file_id)).content
            try:
                rows = list(result_csv.rows(content))
                break
            except UnfitError as error:
                reason = str(error)
        else:
            shown = {"file_id": file_id, "content": content[:_KEPT_BYTES].decode("utf-8", "replace")}
            yield Records("result_metrics", [shown], reason=reason)
            return True
        own = {"file_id": escaped(file_id), "fine_tuning_job_id": due.job.id}
        for start in range(0, len(rows), settings.BATCH_ROWS):
            batch = rows[start : start + settings.BATCH_ROWS]
            typed = [{name: number_from_text(cell) for name, cell in row.items()} for row in batch]
            yield Records("result_metrics", typed, own, shown=[{**row, "file_id": file_id} for row in batch])
        return True

    return _read_files(host, due, "result_metrics", due.job.result_files, read_file=read_file)


def read_files(host: Host, due: Due) -> Reading:
    """Read the descriptions of the files that the job names, once: they hardly ever change.

    Returns what became of each file, as `files`: `read`, `gone`, or `growing` while the job runs.
    """

    def read_file(file_id: str) -> Generator[Found, None, bool]:
        found = host.files.find(file_id)
        if found.record is not None and found.is_first:
            shown_id = found.record.get("id") if isinstance(found.record, dict) else None
            reason = "" if shown_id in (None, file_id) else f"the host was asked for the file {file_id}"
            yield Records("files", [found.record], defaults={"id": escaped(file_id)}, reason=reason)
        return found.record is not None

    # The size of a file that still grew is known once the job has ended.
    settled = {"read", "gone"} if due.job.is_terminal else {"read", "gone", "growing"}
    return _read_files(host, due, "files", due.job.files, read_file=read_file, settled=settled)


RESOURCES: Mapping[str, Callable[[Host, Due], Reading]] = {
    "checkpoints": read_checkpoints,
    "events": read_events,
    "result_metrics": read_result_metrics,
    "files": read_files,
}
"""In the order in which they are read of a job.

Raises:
    UnavailableError: The host does not offer the resource.
    RequestError, EndlessListingError: It cannot be read of this job.
    HostError, CancelledError: Nothing can be read any more.
"""


def _pages(host: Host, job: Job, resource: str) -> Iterator[Page]:
    """Yield the pages of a listing below a job. Raise `RequestError` if they hold another job's records."""
    path = listing_path(job.path, resource)
    host.probes.admit(resource)
    for page in pages(host.api, path):
        named = {str(r.get("fine_tuning_job_id") or "") for r in page.records if isinstance(r, dict)} - {""}
        if named and str(job.record["id"]) not in named:
            url = host.api.url(path)
            raise RequestError(f"{url} answered with records of another job ({min(named)}).", url=url, status=200)
        host.probes.succeeded(resource)
        yield page


def _read_files(
    host: Host,
    due: Due,
    resource: str,
    named: Sequence[Any],
    *,
    read_file: Callable[[str], Generator[Found, None, bool]],
    settled: Collection[str | None] = (),
) -> Reading:
    """Read each file that a job names, except those that an earlier read has settled.

    `read_file` returns whether the host has the file.
    """
    files: dict[str, str] = dict(due.known.get("files", {}))
    for file_id in dict.fromkeys(filter(_is_file_id, named)):
        became = files.get(escaped(file_id))
        if became in settled:
            continue
        host.probes.admit(resource)
        try:
            has_file = yield from read_file(file_id)
        except RequestError as error:
            # It is the file that is missing only if the endpoint works for other files.
            if error.status != 404 or (error.is_missing_endpoint and not host.probes.is_available(resource)):
                raise
            has_file = False
        host.probes.succeeded(resource)
        if not has_file and became != "gone":
            yield Missing(resource, file_id)
        is_growing = file_id in due.job.result_files and not due.job.is_terminal
        files[escaped(file_id)] = "gone" if not has_file else "growing" if is_growing else "read"
    if odd := [file_id for file_id in named if not _is_file_id(file_id)]:
        yield Records(resource, odd, reason="the id of a file is not a text that an address can hold")
    return {"files": files}


def _is_file_id(file_id: Any) -> bool:
    return isinstance(file_id, str) and is_safe_id(file_id)
