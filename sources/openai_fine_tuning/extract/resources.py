"""The resources that are read job by job: what each requests of a job, and how what comes becomes rows.

A child is one resource of one job. It lives in the reader's thread, but for `read`, which runs in one of the crew's and
changes nothing: what it has to say travels with what it yields.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.files import Files, Found
from openai_fine_tuning.api.jobs import Job
from openai_fine_tuning.api.pagination import Order, Page, pages
from openai_fine_tuning.api.urls import content_path, is_safe_id, listing_path
from openai_fine_tuning.convert import result_csv as result_files
from openai_fine_tuning.convert.table_builder import Batches
from openai_fine_tuning.convert.values import UnfitError, escaped, number_from_text
from openai_fine_tuning.errors import RequestError
from openai_fine_tuning.state.watermark import Frontier

_KEPT_BYTES = 1_000_000
"""How much is kept of a result file that is none."""


@dataclass
class Visit:
    """The reading of one job, for every resource that owes it.

    Attributes:
        job: The job as it was shown before the visit began.
        owed: The resources that owe it.
        reads: How many of them are still being read.
        learned: What those that were read to the end have learned, by resource.
    """

    job: Job
    owed: frozenset[str]
    reads: int = 0
    learned: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def checkpoints_listed_at(self) -> int | None:
        """When its checkpoints were listed (microseconds); None where they were not, or not all."""
        listed_at: int | None = self.learned.get("checkpoints", {}).get("listed_at")
        return listed_at


class Child(ABC):
    """One resource of one job.

    Args:
        visit: The visit that it belongs to.
        frontier: The resource's; only looked at.
        api: The host.
        files: What the host tells of files.
    """

    name: ClassVar[str]
    """The resource."""

    is_known_endpoint = False
    """Whether a read of this resource has worked for another job, before this one begins."""

    def __init__(self, visit: Visit, frontier: Frontier, api: FineTuningApi, files: Files) -> None:
        self.visit = visit
        self._api = api
        self._files = files
        self._known: dict[str, Any] = frontier.open.get(visit.job.id, {})
        self._is_last = frontier.is_over(visit.job)

    @property
    def has_nothing_to_read(self) -> bool:
        """Whether nothing is to be requested, though the job is owed."""
        return False

    @abstractmethod
    def read(self) -> Iterator[Any]:
        """Request it, in a thread of the crew.

        Raises:
            RequestError, EndlessListingError: It cannot be read of this job.
            HostError, CancelledError: Nothing can be read any more.
        """

    def _refuse_foreign(self, page: Page) -> None:
        """Raise `RequestError` where all records of a page that name their job name another one."""
        named = [r["fine_tuning_job_id"] for r in page.records if isinstance(r, dict) and r.get("fine_tuning_job_id")]
        own = self.visit.job.record["id"]
        if named and all(str(job_id) != str(own) for job_id in named):
            url = self._api.url(listing_path(self.visit.job.path, self.name))
            raise RequestError(f"{url} answered with records of another job ({named[0]}).", url=url, status=200)

    @abstractmethod
    def take_in(self, batches: Batches, found: Any) -> str | None:
        """Make rows of one thing that `read` has yielded. Returns what is to be reported, if anything."""

    @abstractmethod
    def learned(self) -> dict[str, Any]:
        """What the next read of the job wants to know, if it stays open."""


class Checkpoints(Child):
    """All of them, each time: the host may show one minutes after its job's end, and later drop it again."""

    name = "checkpoints"
    _listed_at: int | None = None

    def read(self) -> Iterator[tuple[list[Any], int]]:
        """A page of checkpoints, and when their listing began (microseconds)."""
        listed_at = time.time_ns() // 1000
        for page in pages(self._api, listing_path(self.visit.job.path, self.name)):
            self._refuse_foreign(page)
            yield page.records, listed_at

    def take_in(self, batches: Batches, found: tuple[list[Any], int]) -> None:
        """See `Child`."""
        records, self._listed_at = found
        job_id = self.visit.job.id
        own = {"last_listed_at": self._listed_at}
        batches.add_all(self.name, records, job_id=job_id, own=own, defaults={"fine_tuning_job_id": job_id})

    def learned(self) -> dict[str, Any]:
        """See `Child`."""
        return {"listed_at": self._listed_at}


class Events(Child):
    """Back to the newest one known, where the host lists newest first; all of them the last time."""

    name = "events"
    _newest: float | None = None

    def read(self) -> Iterator[tuple[list[Any], float | None]]:
        """The events of a page, and `created_at` of the newest one so far (unix seconds)."""
        known: float | None = self._known.get("newest_event")
        bound = None if self._is_last else known
        order = Order()
        for page in pages(self._api, listing_path(self.visit.job.path, self.name)):
            self._refuse_foreign(page)
            order.see(page.times, page.host_time)
            newest = order.newest if known is None else max(known, order.newest or known)
            if bound is None or not order.is_newest_first:
                yield page.records, newest
                continue
            at_least = zip(page.records, page.times, strict=True)
            yield [record for record, at in at_least if at is None or at >= bound], newest
            if order.is_past(bound):
                return

    def take_in(self, batches: Batches, found: tuple[list[Any], float | None]) -> None:
        """See `Child`."""
        records, self._newest = found
        job_id = self.visit.job.id
        batches.add_all(self.name, records, job_id=job_id, own={}, defaults={"fine_tuning_job_id": job_id})

    def learned(self) -> dict[str, Any]:
        """See `Child`."""
        return {"newest_event": self._newest}


class _OfFiles(Child):
    """What is read of a job's files: each one once, and what became of it is remembered for as long as it is open."""

    def __init__(self, visit: Visit, frontier: Frontier, api: FineTuningApi, files: Files) -> None:
        super().__init__(visit, frontier, api, files)
        self._met: dict[str, str] = dict(self._known.get("files", {}))  # id to `read`, `growing` or `gone`
        ids = self._named()
        distinct = {file_id if isinstance(file_id, str) else index: file_id for index, file_id in enumerate(ids)}
        self._to_read = [
            file_id for file_id in distinct.values() if not isinstance(file_id, str) or self._wants(escaped(file_id))
        ]

    @abstractmethod
    def _named(self) -> list[Any]:
        """The ids of the files that the job names, as the host gives them."""

    def _wants(self, file_id: str) -> bool:  # noqa: ARG002 - for those that decide by it
        """Whether a file is to be read, by what is known of it."""
        return True

    @property
    def has_nothing_to_read(self) -> bool:
        """See `Child`."""
        return not self._to_read

    @abstractmethod
    def _ask(self, file_id: str) -> Any:
        """Request one file."""

    def read(self) -> Iterator[tuple[Any, Any]]:
        """Each file with what came of asking for it; None where its id is none."""
        for file_id in self._to_read:
            yield file_id, self._ask(file_id) if _is_file_id(file_id) else None

    def learned(self) -> dict[str, Any]:
        """See `Child`."""
        return {"files": self._met}

    def _meet(self, file_id: str, *, is_gone: bool) -> None:
        self._met[escaped(file_id)] = "gone" if is_gone else "read"


class ResultMetrics(_OfFiles):
    """All result files that the job lists, each time: some hosts go on writing them while the job runs."""

    name = "result_metrics"

    def _named(self) -> list[Any]:
        return self.visit.job.result_files

    def _ask(self, file_id: str) -> bytes | None:
        """Its content; None where the host no longer has it."""
        try:
            content: bytes = self._api.get_bytes(content_path(file_id)).content
        except RequestError as error:
            if error.status != 404 or (error.is_missing_endpoint and not self.is_known_endpoint):
                raise
            return None
        return content

    def take_in(self, batches: Batches, found: tuple[Any, bytes | None]) -> str | None:
        """See `Child`."""
        file_id, content = found
        job_id = self.visit.job.id
        if not _is_file_id(file_id):
            batches.reject(self.name, file_id, job_id=job_id, reason="the id of a result file is no text")
            return None
        was_gone = self._met.get(escaped(file_id)) == "gone"
        self._meet(file_id, is_gone=content is None)
        if content is None:
            return None if was_gone else f"the host no longer has its result file {file_id} (404)"
        own = {"file_id": escaped(file_id), "fine_tuning_job_id": job_id}
        steps: set[Any] = set()
        try:
            for row in result_files.rows(content):
                step, shown = row.get("step"), {**row, "file_id": file_id}
                if step is not None and step in steps:
                    reason = f"step {step} stands twice in the file, with different values"
                    batches.reject(self.name, shown, job_id=job_id, reason=reason)
                else:
                    steps.add(step)
                    typed = {name: number_from_text(cell) for name, cell in row.items()}
                    batches.add(self.name, typed, job_id=job_id, own=own, shown=shown)
        except UnfitError as error:
            shown = {"file_id": file_id, "content": content[:_KEPT_BYTES].decode("utf-8", "replace")}
            batches.reject(self.name, shown, job_id=job_id, reason=str(error))
        return None


class NamedFiles(_OfFiles):
    """What the host tells of each file that the job names, read when it is met: it hardly ever changes."""

    name = "files"

    def _named(self) -> list[Any]:
        return self.visit.job.files

    def _wants(self, file_id: str) -> bool:
        known = self._met.get(file_id)
        return known is None or (known == "growing" and self.visit.job.is_terminal)

    def _ask(self, file_id: str) -> Found:
        """What the host tells of it."""
        try:
            return self._files.find(file_id)
        except RequestError as error:
            if error.status != 404 or not self.is_known_endpoint:
                raise
            return Found(None, is_first=True)

    def take_in(self, batches: Batches, found: tuple[Any, Found | None]) -> str | None:
        """See `Child`."""
        file_id, told = found
        job = self.visit.job
        if told is None:
            batches.reject(self.name, file_id, job_id=job.id, reason="the id of a file is no text")
            return None
        self._meet(file_id, is_gone=told.record is None)
        if told.record is not None and file_id in job.result_files and not job.is_terminal:
            self._met[escaped(file_id)] = "growing"  # its size is known once the job has ended
        if told.record is None:
            is_told_elsewhere = ResultMetrics.name in self.visit.owed and file_id in job.result_files
            return None if is_told_elsewhere else f"the host no longer has its file {file_id} (404)"
        if told.is_first:
            shown_id = told.record.get("id") if isinstance(told.record, dict) else None
            if shown_id not in (None, file_id):
                reason = f"the host was asked for the file {file_id}"
                batches.reject(self.name, told.record, job_id=job.id, reason=reason)
            else:
                batches.add(self.name, told.record, job_id=job.id, defaults={"id": escaped(file_id)})
        return None


CHILDREN: dict[str, type[Child]] = {child.name: child for child in (Checkpoints, Events, ResultMetrics, NamedFiles)}
"""By the name of the resource."""


def _is_file_id(file_id: Any) -> bool:
    return isinstance(file_id, str) and is_safe_id(file_id)
