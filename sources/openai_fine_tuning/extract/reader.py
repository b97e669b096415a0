"""One sync: list the jobs, let the worker threads read what is due of each, and move the watermarks.

`Reader` runs in one thread, which alone changes the state, the rows and the report. A worker thread reads one job at a
time (`job_reader`). What it finds, and its result at the end, come back through a bounded queue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from openai_fine_tuning import settings
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.files import Files
from openai_fine_tuning.api.jobs import Job, job_pages
from openai_fine_tuning.api.pagination import Order
from openai_fine_tuning.convert.table_builder import Batches
from openai_fine_tuning.convert.values import escaped
from openai_fine_tuning.errors import CancelledError, FineTuningSourceError, HostError, RequestError
from openai_fine_tuning.report import Report, Skipped
from openai_fine_tuning.state.run import Run
from openai_fine_tuning.state.watermark import Watermark, short_listing

from .bounds import Bounds
from .failures import listing_failure, raise_if_general
from .job_reader import JobResult, JobTask, read_job
from .models import ModelListing
from .probes import Probes
from .resources import Found, Host, Missing
from .workers import Ended, Workers

logger = logging.getLogger("openai_fine_tuning")

_MOST_NAMED = 5
"""Jobs that an error names."""

_JOBS_A_REQUEST = 2
"""Jobs under way for each request in flight: enough that no thread waits, few enough that a part soon ends."""

_THREADS_A_REQUEST = 1.5
"""Threads for each request in flight: while one works on its answer, another may send its request."""


class Reader:
    """Reads what is due of the jobs of one account.

    Args:
        api: The host.
        account: Label of the account, for messages.
        watermarks: The watermark of each selected resource, by name and in the order in which they are read.
        batches: Makes rows of records.
        report: The figures, updated as the read goes on.
        run: What earlier loads of the same sync have read, updated too.
        bounds: The limits of a partial read.
        models: The listing of models; None if it is not selected.
        known_jobs: The number of jobs that earlier syncs have read.
        stop_after: Seconds after which no further job is begun. None for no limit.
        stop_after_rows: Rows after which no further job is begun. None for no limit.
    """

    def __init__(
        self,
        api: FineTuningApi,
        account: str,
        watermarks: Mapping[str, Watermark],
        batches: Batches,
        report: Report,
        *,
        run: Run,
        bounds: Bounds,
        models: ModelListing | None = None,
        known_jobs: int = 0,
        stop_after: float | None,
        stop_after_rows: int | None = None,
    ) -> None:
        self._api = api
        self._account = account
        self._watermarks = watermarks
        self._batches = batches
        self._report = report
        self._run = run
        self._bounds = bounds
        self._models = models
        self._known_jobs = known_jobs
        self._is_short = False
        self._deadline = None if stop_after is None or bounds.is_partial else time.monotonic() + stop_after
        self._most_rows = None if bounds.is_partial else stop_after_rows
        read_before = {name for name, watermark in watermarks.items() if watermark.bound is not None}
        self._probes = Probes(api.limiter, run.available, read_before=read_before)
        self._host = Host(api, Files(api), self._probes)
        self._workers: Workers[JobTask] = Workers(api.limiter, int(_THREADS_A_REQUEST * api.limiter.concurrency))
        self._in_flight: set[JobTask] = set()
        self._met: set[str] = set()
        self._failed: list[tuple[Job, str, Exception]] = []
        self._missing: set[tuple[str, str]] = set()
        self._absent: set[str] = set()
        self._is_left_over = False
        self._host_time: float | None = None
        self._has_progressed = False
        self._before = (report.requests, report.retries, report.rejected)

    def read(self) -> Iterator[dict[str, pa.Table]]:
        """Yield everything that is due, as Arrow tables by table name.

        Raises:
            HostError: A failure concerns every job. What was yielded must not be committed.
        """
        self._report.is_complete = False
        try:
            if self._bounds.job_ids:
                yield from self._read_by_id(self._bounds.job_ids)
                yield from self._collect(down_to=0)
                self._check_asked_jobs()
            elif self._watermarks:
                yield from self._read_listing()
            self._report_failures()
            self._count_open()
            known = [] if self._bounds.is_partial else [one.known_jobs for one in self._watermarks.values()]
            self._report.jobs_known = max([self._known_jobs, *known])
            self._read_models()
            self._count()
            yield self._take(at_least=1)
            self._report.is_complete = not self._is_left_over
        finally:
            self._count()
            self._workers.stop()

    # Which jobs to read ----------------------------------------------------------------------------------------------

    def _read_listing(self) -> Iterator[dict[str, pa.Table]]:
        """List the jobs as far back as needed, read what is due of each, and move the watermarks."""
        order, began_at, read_pages = Order(), None, 0
        further_pages: int | None = None
        resumed = self._common_resume_point()
        is_whole = True
        listing = job_pages(self._api)
        stopped_after: str | None = None
        while (page := next(listing, None)) is not None:
            began_at = page.host_time if began_at is None else began_at
            read_pages += 1
            order.see(page.times, page.host_time)
            for record in page.records:
                self._meet(record, page.host_time)
                yield from self._collect(down_to=_JOBS_A_REQUEST * self._api.limiter.concurrency)
            if page.cursor is None:
                break
            yield from self._await_probes(order)
            if self._is_far_enough(order):
                # What lies further back is open jobs only: never more pages for them than there are such jobs.
                further_pages = len(self._unmet()) if further_pages is None else further_pages - 1
                if further_pages <= 0 or not self._is_listing_cheaper(order, read_pages):
                    break
            elif resumed is not None and resumed.resume_bound is not None and order.is_past(resumed.resume_bound):
                # An earlier sync has read all that follows down to its resume point: go on behind that.
                after = (resumed.resume_point or {})["after"]
                listing, resumed, is_whole = job_pages(self._api, after=after, otherwise=listing), None, False
            elif resumed is None and self._is_late() and order.is_newest_first and order.last is not None:
                # The next sync goes on behind this page.
                stopped_after = page.cursor
                self._is_left_over = True
                break
        if is_whole and (page is None or page.cursor is None) and not self._bounds.is_partial:
            self._compare_with_known()
        if not self._bounds.is_partial:
            yield from self._read_by_id(list(self._unmet()))
        yield from self._collect(down_to=0)
        began_at = self._host_time = time.time() if began_at is None else began_at
        for watermark in self._readable().values():
            if stopped_after is not None and not self._is_past(watermark, order):
                watermark.listing_stopped(order, began_at, stopped_after)
            else:
                watermark.listing_ended(order, began_at, self._met)

    def _read_models(self) -> None:
        """Read which models can be called, if it is time to. Without a job there is nothing to ask about."""
        is_alone = not self._watermarks
        now = time.time() if self._host_time is None else self._host_time
        is_useful = is_alone or (self._report.jobs_known > 0 and not self._is_left_over)
        if self._models is None or not is_useful or not self._models.is_due(now):
            return
        try:
            found = self._models.read(now)
        except CancelledError:
            raise
        except FineTuningSourceError as error:
            # The host may have no such listing, or not for this key: that is as usual as having it.
            if is_alone and isinstance(error, HostError):
                raise
            if is_alone and isinstance(error, RequestError):
                raise_if_general(self._api, error)
            self._report.models_failure = f"The models of account {self._account} could not be listed: {error}"
            logger.info(self._report.models_failure)
            if is_alone:
                self._report.notes.append(self._report.models_failure)
        else:
            self._batches.add_all(
                found.resource, found.records, job_id=None, own=found.own, defaults={}, shown=found.shown
            )

    def _compare_with_known(self) -> None:
        """Warn if the whole listing has far fewer jobs than were read before. Then no job counts as gone."""
        warning = short_listing(self._account, listed=self._report.jobs_seen, known=self._known_jobs)
        self._is_short = warning is not None
        if warning is not None and warning not in self._report.warnings:
            self._report.warnings.append(warning)

    def _common_resume_point(self) -> Watermark | None:
        """Return a watermark with the resume point of the listing, if all resources that need more share it."""
        wanting = [w for w in self._watermarks.values() if w.resume_point is not None or w.bound is None]
        if self._bounds.is_partial or not wanting or wanting[0].resume_point is None:
            return None
        return (
            wanting[0] if all(w.resume_point == wanting[0].resume_point and w.trusts_order for w in wanting) else None
        )

    def _meet(self, record: Any, host_time: float) -> None:
        """Read a job of the listing, or mark it as pending: else the watermark would pass it by for good."""
        job = Job.of(record, host_time)
        if job is None:
            if "jobs" in self._watermarks:
                self._batches.add("jobs", record, job_id=None)
            return
        self._see(job)
        due = {name: watermark for name, watermark in self._readable().items() if watermark.needs_read(job)}
        if due or job.created_at is None:
            self._met.add(job.id)
        if not due or not self._bounds.admit(job) or job.id in self._run.done:
            return
        if self._is_late():
            for watermark in due.values():
                watermark.mark_pending(job)
            self._run.postponed[job.id] = job
            self._is_left_over = True
        else:
            self._start(JobTask(job.id, job, due, self._last_event(job.id)))

    def _see(self, job: Job) -> None:
        """Count a job that the host has shown, and note when the newest was created."""
        self._report.seen.add(hash(job.id))
        if job.created_at is not None and job.created_at <= job.seen_at:
            self._report.newest_job_at = max(job.created_at, self._report.newest_job_at or 0)

    def _readable(self) -> dict[str, Watermark]:
        """Return the watermarks of the resources that are not known to be unavailable."""
        return {n: w for n, w in self._watermarks.items() if self._probes.is_available(n) is not False}

    def _unmet(self) -> dict[str, float | None]:
        """Return the open jobs that the listing has not shown: id to `created_at`."""
        return {
            job_id: known.get("created_at")
            for watermark in self._readable().values()
            for job_id, known in watermark.open.items()
            if job_id not in self._met and job_id not in self._run.done
        }

    def _is_past(self, watermark: Watermark, order: Order) -> bool:
        return watermark.bound is not None and watermark.trusts_order and order.is_past(watermark.bound)

    def _is_far_enough(self, order: Order) -> bool:
        if self._bounds.since is not None:
            return order.is_past(self._bounds.since)
        return all(self._is_past(watermark, order) for watermark in self._readable().values())

    def _is_listing_cheaper(self, order: Order, read_pages: int) -> bool:
        """Return whether listing on costs fewer requests than asking for the open jobs further back by their ids."""
        if self._bounds.is_partial or not order.is_newest_first or order.first is None or order.last is None:
            return False
        seconds_a_page = (order.first - order.last) / read_pages
        behind = sorted((t for t in self._unmet().values() if t is not None and t <= order.last), reverse=True)
        return seconds_a_page > 0 and any(
            (order.last - created_at) / seconds_a_page + 1 < met for met, created_at in enumerate(behind, start=1)
        )

    def _is_late(self) -> bool:
        """Return whether to begin no further job. At least one is read each time, so that there is always progress."""
        is_late = self._deadline is not None and time.monotonic() >= self._deadline
        is_full = self._most_rows is not None and self._batches.rows >= self._most_rows
        return (is_late or is_full) and self._has_progressed

    def _await_probes(self, order: Order) -> Iterator[dict[str, pa.Table]]:
        """Wait for the probes of the resources that alone need more of the listing: they may be unavailable."""
        while not self._bounds.is_partial:
            wanting = [name for name, watermark in self._readable().items() if not self._is_past(watermark, order)]
            probed = {name for task in self._in_flight for name in task.watermarks}
            if not wanting or any(self._probes.is_available(name) or name not in probed for name in wanting):
                return
            yield from self._collect_one()

    # Reading jobs ----------------------------------------------------------------------------------------------------

    def _read_by_id(self, job_ids: Iterable[str]) -> Iterator[dict[str, pa.Table]]:
        for job_id in job_ids:
            if self._is_late():
                self._is_left_over = True
                return
            due = {n: w for n, w in self._readable().items() if self._bounds.is_partial or job_id in w.open}
            self._start(JobTask(job_id, self._run.postponed.pop(job_id, None), due, self._last_event(job_id)))
            yield from self._collect(down_to=_JOBS_A_REQUEST * self._api.limiter.concurrency)

    def _start(self, task: JobTask) -> None:
        self._report.jobs_to_read += 1
        if task.job is not None and task.watermarks.keys() == {"jobs"}:
            self._finish(task, JobResult(task.job))  # nothing is to be requested
            return
        self._in_flight.add(task)
        self._workers.start(task, read_job(self._host, task, self._bounds))

    # What the workers find -------------------------------------------------------------------------------------------

    def _collect(self, down_to: int) -> Iterator[dict[str, pa.Table]]:
        """Take what the workers find until at most `down_to` tasks are under way."""
        while len(self._in_flight) > down_to:
            yield from self._collect_one()

    def _collect_one(self) -> Iterator[dict[str, pa.Table]]:
        task, found = self._workers.next()
        if isinstance(found, Ended):
            self._in_flight.remove(task)
            if found.error is not None:
                raise found.error
            self._finish(task, found.result)
        else:
            self._keep(task.job_id, found)
            if full := self._take(at_least=settings.BATCH_ROWS):
                yield full
        self._count()

    def _keep(self, job_id: str, found: Found) -> None:
        """Make rows of what a worker found, or report it."""
        if isinstance(found, Missing):
            # The resources `result_metrics` and `files` may both miss it.
            if (job_id, found.file_id) not in self._missing:
                self._missing.add((job_id, found.file_id))
                self._skip(job_id, found.resource, f"the host no longer has its file {escaped(found.file_id)} (404)")
        elif found.reason:
            for record in found.records:
                self._batches.reject(found.resource, record, job_id=job_id, reason=found.reason)
        else:
            self._batches.add_all(
                found.resource,
                found.records,
                job_id=job_id,
                own=found.own,
                defaults=found.defaults,
                shown=found.shown,
            )

    def _take(self, at_least: int) -> dict[str, pa.Table]:
        tables = self._batches.take(at_least=at_least)
        for name, table in tables.items():
            self._report.rows[name] += table.num_rows
            self._report.largest_batch = max(self._report.largest_batch, table.nbytes)
        return tables

    def _finish(self, task: JobTask, result: JobResult) -> None:
        """Note what was read of a job. Its own row comes last: it says when its checkpoints were listed."""
        job = result.job
        if result.error is not None:
            self._skip_job(task.job_id, result.error, is_gone=job is not None)
        if job is None:
            self._report.jobs_to_read -= 1
            return
        self._has_progressed = True
        self._report.jobs_read += 1
        self._see(job)
        self._met.add(job.id)
        self._run.done.add(job.id)
        known_event = self._last_event(job.id)
        listed_at = result.next_states.get("checkpoints", {}).get("listed_at")
        jobs = self._watermarks.get("jobs")
        if jobs is not None and self._bounds.admit(job) and ("jobs" in task.watermarks or listed_at is not None):
            if listed_at is None:
                listed_at = jobs.open.get(job.id, {}).get("listed_at")
            self._batches.add("jobs", job.record, job_id=None, own={"checkpoints_listed_at": listed_at})
            result.next_states["jobs"] = {} if listed_at is None else {"listed_at": listed_at}
        if result.error is None:
            read_event = result.next_states.get("events", {}).get("newest_event")
            for name, next_state in result.next_states.items():
                watermark = self._watermarks[name]
                last_event = known_event if job.id in watermark.open else read_event
                watermark.mark_read(job, last_event=last_event, **next_state)
            self._failed += [(job, name, error) for name, error in result.failures.items()]

    def _last_event(self, job_id: str) -> float | None:
        """Return the time of a job's newest event that an earlier read has found, in unix seconds."""
        events = self._watermarks.get("events")
        return None if events is None else events.open.get(job_id, {}).get("newest_event")

    # What could not be read ------------------------------------------------------------------------------------------

    def _skip(self, job_id: str | None, resource: str, reason: str) -> None:
        """Report that a resource is left out, for one job or (None) for all jobs."""
        self._report.skipped.append(Skipped(self._account, job_id, resource, reason))

    def _skip_job(self, job_id: str, error: RequestError, *, is_gone: bool) -> None:
        """Report a job that cannot be read. Close it if the host no longer has it."""
        is_open = any(job_id in watermark.open for watermark in self._watermarks.values())
        if is_gone or error.status == 404:
            self._absent.add(job_id)
        if not is_gone and error.status == 404 and job_id in self._bounds.job_ids and not is_open:
            self._skip(job_id, "jobs", f"the host has no job {job_id}: is the id right? ({error})")
        elif is_gone or (error.status == 404 and not error.is_missing_endpoint):
            self._skip(job_id, "jobs", f"the host no longer has this job: {error}")
            for watermark in () if self._is_short else self._watermarks.values():
                watermark.mark_gone(job_id)
        else:
            self._skip(job_id, "jobs", str(error))

    def _report_failures(self) -> None:
        """Report each unavailable resource once, and each other failure with its job, which stays open."""
        for resource, failure in self._probes.failures.items():
            self._skip(None, resource, str(failure))
        for job, resource, error in self._failed:
            if self._probes.is_available(resource) is not False:
                self._skip(job.id, resource, str(error))
                self._watermarks[resource].mark_pending(job)

    def _check_asked_jobs(self) -> None:
        """Raise `HostError` if the host has none of the jobs that the user named: what of them could be loaded?"""
        if not self._absent.issuperset(self._bounds.job_ids):
            return
        if (error := listing_failure(self._api)) is not None:
            raise HostError.of(error, self._api.base_url)
        named = ", ".join(escaped(job_id) for job_id in self._bounds.job_ids[:_MOST_NAMED])
        more = " ..." if len(self._bounds.job_ids) > _MOST_NAMED else ""
        raise HostError(
            f"{self._api.base_url} has none of the jobs that were asked for ({named}{more}): are the ids, the key and "
            "the project right?"
        )

    def _count_open(self) -> None:
        """Count the jobs that the next sync reads again, and those of them that have not ended."""
        opened = [item for watermark in self._watermarks.values() for item in watermark.open.items()]
        ended = {job_id for job_id, known in opened if "terminal_at" in known}
        self._report.jobs_open = len({job_id for job_id, _ in opened})
        self._report.jobs_in_progress = self._report.jobs_open - len(ended)

    def _count(self) -> None:
        requests, retries, rejected = self._before
        self._report.requests = requests + self._api.requests
        self._report.retries = retries + self._api.retries
        self._report.rejected = rejected + self._batches.rejected
