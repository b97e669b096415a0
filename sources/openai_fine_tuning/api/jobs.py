"""Read jobs: the listing, and one by its id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from openai_fine_tuning import settings
from openai_fine_tuning.convert.values import escaped, file_ids, unix_seconds
from openai_fine_tuning.errors import EndlessListingError, HostError, RequestError

from .client import FineTuningApi
from .pagination import Page, pages
from .urls import JOBS_PATH, is_safe_id, job_path

FILE_FIELDS = ("training_file", "validation_file", "result_files")
"""The fields of a job that name files."""


@dataclass(frozen=True)
class Job:
    """A job, with what decides how it is read. Times are in unix seconds.

    Attributes:
        id: Its id, as it can be stored.
        record: The job as the host sent it.
        seen_at: The host's time when it sent the job.
        created_at: When it was created; None if the host sends no usable time.
    """

    id: str
    record: dict[str, Any]
    seen_at: float
    created_at: float | None

    @classmethod
    def of(cls, record: Any, seen_at: float) -> Job | None:
        """Make a job of a record. Return None if it has no id."""
        job_id = record.get("id") if isinstance(record, dict) else None
        if isinstance(job_id, int) and not isinstance(job_id, bool):
            job_id = str(job_id)
        if not isinstance(job_id, str) or not job_id:
            return None
        return cls(escaped(job_id), record, seen_at, unix_seconds(record.get("created_at")))

    @property
    def is_terminal(self) -> bool:
        """Whether the job had ended when the host sent it: by its status, or because `finished_at` has passed."""
        status = self.record.get("status")
        if isinstance(status, str) and status.lower() in settings.TERMINAL_STATUSES:
            return True
        return self.finished_at is not None and self.finished_at <= self.seen_at

    @property
    def has_failed(self) -> bool:
        """Whether the job failed or was cancelled. Such jobs often have no `finished_at`."""
        return str(self.record.get("status")).lower() in settings.FAILED_STATUSES

    @property
    def path(self) -> str:
        """The job's address below the base URL."""
        return job_path(str(self.record["id"]))

    @property
    def finished_at(self) -> float | None:
        """When the job ended; None if the time is missing or cannot be right (0, or before `created_at`)."""
        finished_at = unix_seconds(self.record.get("finished_at"))
        if finished_at is None or (self.created_at is not None and finished_at < self.created_at):
            return None
        return finished_at

    @property
    def result_files(self) -> list[Any]:
        """The ids of its result files, as the host gives them; an object with an `id` counts as that id."""
        return file_ids(self.record.get("result_files"))

    @property
    def files(self) -> list[Any]:
        """The ids of all files that the job names: for training, for validation, and its result files."""
        return [file_id for name in FILE_FIELDS for file_id in file_ids(self.record.get(name))]


def job_pages(api: FineTuningApi, *, after: str | None = None, otherwise: Iterable[Page] = ()) -> Iterator[Page]:
    """Yield the pages of the job listing from its start, or from behind the job `after`.

    `otherwise` are the pages to yield if the host no longer has that job.

    Raises:
        HostError: The listing cannot be read, which concerns every job.
    """
    try:
        yield from pages(api, JOBS_PATH, after=after)
    except EndlessListingError as error:
        raise HostError(str(error)) from None
    except RequestError as error:
        if after is None or error.status not in (400, 404):
            raise HostError.of(error, api.base_url) from None
        yield from otherwise


def get_job(api: FineTuningApi, job_id: str) -> Job:
    """Return one job. Raise as `FineTuningApi.get_json` does, and `RequestError` if the host shows another job."""
    if not is_safe_id(job_id):
        raise unsafe_id_error(api)
    path = job_path(job_id)
    answer = api.get_json(path)
    job = Job.of(answer.content, answer.host_time)
    if job is None or job.id != job_id:
        raise RequestError(f"{api.url(path)} answered with another job or none", url=api.url(path), status=200)
    return job


def unsafe_id_error(api: FineTuningApi) -> RequestError:
    """Return the error of a job with an id that cannot be part of an address."""
    return RequestError("its id cannot be put into an address", url=api.url(JOBS_PATH), status=400)
