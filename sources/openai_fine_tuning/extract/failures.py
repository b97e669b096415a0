"""What a failure means: for one job, for a resource, or for all."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.jobs import Job, get_job
from openai_fine_tuning.api.urls import JOBS_PATH
from openai_fine_tuning.errors import EndlessListingError, HostError, RequestError
from openai_fine_tuning.report import Report, Skipped
from openai_fine_tuning.state.watermark import Frontier

from .probes import Gates
from .workers import Read


class Failures:
    """Tells what concerns one job from what concerns all, and keeps what was skipped.

    Args:
        api: The host.
        account: Label of the account, for messages.
        frontiers: The frontier of each selected resource: a job that could not be read stays open there.
        gates: A resource that is unavailable is closed there.
        report: Where it is told.
        asked_for: Ids of jobs that the user named.
    """

    def __init__(
        self,
        api: FineTuningApi,
        account: str,
        frontiers: Mapping[str, Frontier],
        gates: Gates,
        report: Report,
        *,
        asked_for: Collection[str] = (),
    ) -> None:
        self._api = api
        self._account = account
        self._frontiers = frontiers
        self._gates = gates
        self._report = report
        self._asked_for = asked_for
        self._gone: set[str] = set()
        self._unknown: set[str] = set()

    def skip(self, job_id: str | None, resource: str, reason: str) -> None:
        """Tell what is left out; of all jobs where there is no id."""
        self._report.skipped.append(Skipped(self._account, job_id, resource, reason))

    def is_gone(self, job_id: str) -> bool:
        """Whether the host is known to have no such job any more."""
        return job_id in self._gone

    def of_read(self, read: Read, error: Exception) -> None:
        """A read of a job's children failed.

        Raises:
            HostError: It concerns all.
            Exception: It is none of the host's: the error itself.
        """
        resource = read.resource
        if not isinstance(error, (RequestError, EndlessListingError)):
            raise error
        if isinstance(error, RequestError):
            self._raise_if_all_concerned(error)
        is_open = self._gates.is_open(resource)
        has_worked_before = self._frontiers[resource].bound is not None
        if self._is_of_gone_job(read, error, is_open=is_open):
            self._close_job(read.job_id, str(error))
            if is_open is None:
                self._gates.probe_again(resource)
        elif isinstance(error, EndlessListingError) or is_open is not None:
            self._leave_open(read)
            self._gates.open(resource)
        elif self._gates.is_convincing(read, error, has_worked_before=has_worked_before):
            # Said once; the frontier stays where it is.
            self.skip(None, resource, str(error))
            self._gates.close(resource)
        else:
            self._gates.probe_failed(read)

    def of_job(self, job_id: str, error: Exception) -> None:
        """A job could not be read by its id. Raises as `of_read` does."""
        if not isinstance(error, RequestError):
            raise error
        if error.status == 404 and job_id in self._asked_for and not self._is_open(job_id):
            self.unknown_job(job_id, str(error))
            return
        if error.status == 404 and not error.is_missing_endpoint:
            self._close_job(job_id, str(error))
            return
        self._raise_if_all_concerned(error)
        self.skip(job_id, "jobs", str(error))

    def unknown_job(self, job_id: str, reason: str) -> None:
        """A job that the user named is none of the host's, as far as is known."""
        self._unknown.add(job_id)
        self.skip(job_id, "jobs", f"the host has no job {job_id}: is the id right? ({reason})")

    def check_unknown_jobs(self) -> None:
        """Where none of the jobs that the user named is the host's, make sure that it is a host of jobs at all.

        Raises:
            HostError: It has no listing of jobs either: the address is wrong, or the key may not read it.
        """
        if not self._unknown or not self._unknown.issuperset(self._asked_for):
            return
        if (error := self._listing_failure()) is not None:
            raise HostError.of(error, self._api.base_url)

    def _is_open(self, job_id: str) -> bool:
        """Whether the host has shown the job to an earlier sync, which left it open."""
        return any(job_id in frontier.open for frontier in self._frontiers.values())

    def conclude_probes(self) -> None:
        """The probes that failed, and that no verdict on their resource explains, concern their own jobs."""
        for read in self._gates.conclude():
            self._leave_open(read)

    def _is_of_gone_job(self, read: Read, error: Exception, *, is_open: bool | None) -> bool:
        """Whether a read failed because the host no longer has the job."""
        if not isinstance(error, RequestError) or error.status != 404:
            return False
        return (is_open is not None or not error.is_missing_endpoint) and self._has_gone(read.job_id)

    def _leave_open(self, read: Read) -> None:
        job: Job = read.context.visit.job
        if self.is_gone(job.id):
            return
        self.skip(read.job_id, read.resource, str(read.error))
        self._frontiers[read.resource].keep_open(job)

    def _raise_if_all_concerned(self, error: RequestError) -> None:
        """One read failed: is it the host, or the key, and not this job?"""
        if error.status == 429:
            raise HostError(f"{error}. The host keeps throttling; lower the concurrency or try again later.")
        if error.status not in (None, 401):
            return
        if (again := self._listing_failure()) is not None and again.status in (None, 401):
            raise HostError.of(again, self._api.base_url)

    def _listing_failure(self) -> RequestError | None:
        """What came of asking for one job of the listing; None where it was answered."""
        try:
            self._api.get_page(JOBS_PATH, {"limit": 1}, attempts=3)
        except RequestError as error:
            return error
        return None

    def _has_gone(self, job_id: str) -> bool:
        """Whether the host has no such job any more, as opposed to not showing one of its listings."""
        if self.is_gone(job_id):
            return True
        try:
            get_job(self._api, job_id)
        except RequestError as error:
            return error.status == 404 and not error.is_missing_endpoint
        return False

    def _close_job(self, job_id: str, reason: str) -> None:
        if self.is_gone(job_id):
            return
        self._gone.add(job_id)
        self.skip(job_id, "jobs", f"the host no longer has this job: {reason}")
        for frontier in self._frontiers.values():
            frontier.close_gone(job_id)
