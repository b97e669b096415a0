"""The resources that are read job by job: what each one requests of a job, and what the next read must know.

Everything here runs in the worker threads and changes nothing: what a read finds leaves as `Records`, `Rejected` and
`Missing`, and what the next read of the job must know is its generator's result.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

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
        defaults: Columns that the source fills where a record leaves them empty.
        shown: For each record, what is kept of it where it cannot become a row; empty where that is the record.
    """

    resource: str
    records: Sequence[Any]
    own: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    shown: Sequence[Any] = ()


@dataclass(frozen=True)
class Rejected:
    """A record that cannot become a row, with the reason."""

    resource: str
    record: Any
    reason: str


@dataclass(frozen=True)
class Missing:
    """A file that the host no longer has."""

    resource: str
    file_id: str


Found = Records | Rejected | Missing
Reading = Generator[Found, None, dict[str, Any]]
"""Yields what is found of one job, and returns what the next read of the job must know."""


@dataclass(frozen=True)
class Due:
    """What is due of one resource of a job.

    Attributes:
        job: The job, as the host showed it before this read.
        known: What the last read of it returned; empty at the first.
        is_last: Whether the job closes after this read, so that nothing may be left to the next one.
    """

    job: Job
    known: Mapping[str, Any]
    is_last: bool


class Resource(ABC):
    """One resource of any job. Safe to share between threads.

    Args:
        api: The host.
        files: The descriptions of files, shared by all jobs.
        probes: What is known of the host's endpoints; updated.
    """

    name: ClassVar[str]

    def __init__(self, api: FineTuningApi, files: Files, probes: Probes) -> None:
        self._api = api
        self._files = files
        self._probes = probes

    def has_requests(self, due: Due) -> bool:  # noqa: ARG002 - for those that decide by it
        """Return whether a read requests anything."""
        return True

    @abstractmethod
    def read(self, due: Due) -> Reading:
        """Read the resource of one job.

        Raises:
            RequestError, EndlessListingError: It cannot be read of this job.
            HostError, CancelledError: Nothing can be read any more.
        """

    def _pages(self, job: Job) -> Iterator[Page]:
        """Yield the pages of a listing below the job. Raise `RequestError` where they hold another job's records."""
        path = listing_path(job.path, self.name)
        for page in pages(self._api, path):
            named = {str(r.get("fine_tuning_job_id") or "") for r in page.records if isinstance(r, dict)} - {""}
            if named and str(job.record["id"]) not in named:
                url = self._api.url(path)
                raise RequestError(f"{url} answered with records of another job ({min(named)}).", url=url, status=200)
            self._probes.succeeded(self.name)
            yield page


class Checkpoints(Resource):
    """All checkpoints, each time: the host may show one minutes after the job's end, and drop it later."""

    name = "checkpoints"

    def read(self, due: Due) -> Reading:
        """Return when the listing began, in microseconds, as `listed_at`."""
        listed_at = time.time_ns() // 1000
        for page in self._pages(due.job):
            own, defaults = {"last_listed_at": listed_at}, {"fine_tuning_job_id": due.job.id}
            yield Records(self.name, page.records, own, defaults)
        return {"listed_at": listed_at}


class Events(Resource):
    """The events back to the newest known one, where the host lists newest first; all of them the last time."""

    name = "events"

    def read(self, due: Due) -> Reading:
        """Return `created_at` of the newest event, in unix seconds, as `newest_event`."""
        newest: float | None = due.known.get("newest_event")
        bound = None if due.is_last else newest
        order = Order()
        for page in self._pages(due.job):
            order.see(page.times, page.host_time)
            records = page.records
            if bound is not None and order.is_newest_first:
                records = [r for r, at in zip(records, page.times, strict=True) if at is None or at >= bound]
            yield Records(self.name, records, defaults={"fine_tuning_job_id": due.job.id})
            if bound is not None and order.is_past(bound):
                break
        times = [time for time in (newest, order.newest) if time is not None]
        return {"newest_event": max(times, default=None)}


class _JobFiles(Resource):
    """What is read of the files that a job names.

    The next read knows what became of each file, as `files`: id to `read`, `gone`, or `growing` while the job runs.
    """

    @abstractmethod
    def _named(self, job: Job) -> list[Any]:
        """Return the ids of the files, as the host gives them."""

    @abstractmethod
    def _to_read(self, due: Due) -> list[str]:
        """Return the ids of the files to read."""

    @abstractmethod
    def _read_file(self, due: Due, file_id: str) -> Generator[Found, None, bool]:
        """Read one file. Return whether the host has it."""

    def has_requests(self, due: Due) -> bool:
        """Return whether any file is to be read."""
        return bool(self._to_read(due))

    def read(self, due: Due) -> Reading:
        """Return what became of each file, as `files`."""
        files: dict[str, str] = dict(due.known.get("files", {}))
        for file_id in self._to_read(due):
            is_growing = file_id in due.job.result_files and not due.job.is_terminal
            has_file = yield from self._read_file(due, file_id)
            self._probes.succeeded(self.name)
            if not has_file and files.get(escaped(file_id)) != "gone":
                yield Missing(self.name, file_id)
            files[escaped(file_id)] = "gone" if not has_file else "growing" if is_growing else "read"
        for odd in self._named(due.job):
            if not _is_file_id(odd):
                yield Rejected(self.name, odd, "the id of a file is not a text that an address can hold")
        return {"files": files}

    def _is_gone(self, error: RequestError) -> bool:
        """Return whether a failure means that the file is gone, and not that the host lacks the endpoint."""
        return error.status == 404 and (not error.is_missing_endpoint or bool(self._probes.is_available(self.name)))


class ResultMetrics(_JobFiles):
    """All result files of the job, each time: some hosts go on writing them while the job runs."""

    name = "result_metrics"

    def _named(self, job: Job) -> list[Any]:
        return job.result_files

    def _to_read(self, due: Due) -> list[str]:
        return _file_ids(due.job.result_files)

    def _read_file(self, due: Due, file_id: str) -> Generator[Found, None, bool]:
        try:
            content: bytes = self._api.get_bytes(content_path(file_id)).content
        except RequestError as error:
            if self._is_gone(error):
                return False
            raise
        try:
            rows = list(result_csv.rows(content))
        except UnfitError as error:
            shown = {"file_id": file_id, "content": content[:_KEPT_BYTES].decode("utf-8", "replace")}
            yield Rejected(self.name, shown, str(error))
            return True
        typed = [{name: number_from_text(cell) for name, cell in row.items()} for row in rows]
        own = {"file_id": escaped(file_id), "fine_tuning_job_id": due.job.id}
        yield Records(self.name, typed, own, shown=[{**row, "file_id": file_id} for row in rows])
        return True


class NamedFiles(_JobFiles):
    """The descriptions of the files that the job names, read once: they hardly ever change."""

    name = "files"

    def _named(self, job: Job) -> list[Any]:
        return job.files

    def _to_read(self, due: Due) -> list[str]:
        files = due.known.get("files", {})
        # The size of a file that still grew is known once the job has ended.
        settled = ("read", "gone") if due.job.is_terminal else ("read", "gone", "growing")
        return [file_id for file_id in _file_ids(due.job.files) if files.get(escaped(file_id)) not in settled]

    def _read_file(self, due: Due, file_id: str) -> Generator[Found, None, bool]:  # noqa: ARG002
        try:
            found = self._files.find(file_id)
        except RequestError as error:
            if self._is_gone(error):
                return False
            raise
        if found.record is not None and found.is_first:
            shown_id = found.record.get("id") if isinstance(found.record, dict) else None
            if shown_id not in (None, file_id):
                yield Rejected(self.name, found.record, f"the host was asked for the file {file_id}")
            else:
                yield Records(self.name, [found.record], defaults={"id": escaped(file_id)})
        return found.record is not None


def _is_file_id(file_id: Any) -> bool:
    return isinstance(file_id, str) and is_safe_id(file_id)


def _file_ids(named: list[Any]) -> list[str]:
    return list(dict.fromkeys(file_id for file_id in named if _is_file_id(file_id)))


RESOURCES: tuple[type[Resource], ...] = (Checkpoints, Events, ResultMetrics, NamedFiles)
"""In the order in which they are read of a job."""
