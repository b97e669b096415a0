"""One sync: list the jobs, read what is owed of each, move the frontier.

Everything here runs in one thread. The crew's threads run what `children` yields, and share nothing else with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from openai_fine_tuning import settings
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.files import Files
from openai_fine_tuning.api.jobs import Job, get_job, job_pages, job_pages_behind
from openai_fine_tuning.api.pagination import Order
from openai_fine_tuning.api.urls import is_safe_id
from openai_fine_tuning.convert.table_builder import Batches
from openai_fine_tuning.report import Report
from openai_fine_tuning.state.run import Parts
from openai_fine_tuning.state.watermark import Frontier

from .failures import Failures
from .probes import Gates
from .resources import CHILDREN, Child, Visit
from .workers import Crew, Read

_JOBS_A_THREAD = 2
"""Jobs under way for each thread: enough that none waits for the next, few enough that a part soon ends."""


@dataclass(frozen=True)
class Bounds:
    """A read of less than everything: it never moves a frontier.

    Attributes:
        job_ids: Only these jobs, all of each.
        since: Only jobs created at or after this, in unix seconds.
    """

    job_ids: tuple[str, ...] = ()
    since: float | None = None

    @property
    def is_partial(self) -> bool:
        """Whether anything is left out."""
        return bool(self.job_ids) or self.since is not None

    def admit(self, job: Job) -> bool:
        """Whether the job lies within."""
        return self.since is None or job.created_at is None or job.created_at >= self.since


class Reader:
    """Reads what the selected resources owe.

    Args:
        api: The host.
        account: Label of the account, for messages.
        frontiers: The frontier of each selected resource.
        batches: Where records become rows.
        report: The figures, updated as it goes.
        parts: What earlier parts of the same sync have read, updated too.
        bounds: What to read, where that is not everything owed.
        stop_after: Seconds after which no further job is begun; what is left stays owed. None for no end.
        stop_after_rows: Rows after which no further job is begun. None for no end.
    """

    def __init__(
        self,
        api: FineTuningApi,
        account: str,
        frontiers: Mapping[str, Frontier],
        batches: Batches,
        report: Report,
        *,
        parts: Parts,
        bounds: Bounds,
        stop_after: float | None,
        stop_after_rows: int | None = None,
    ) -> None:
        self._api = api
        self._frontiers = frontiers
        self._batches = batches
        self._report = report
        self._parts = parts
        self._bounds = bounds
        self._deadline = None if stop_after is None or bounds.is_partial else time.monotonic() + stop_after
        self._most_rows = None if stop_after_rows is None or bounds.is_partial else stop_after_rows
        self._crew = Crew(api, api.limiter.concurrency)
        self._files = Files(api)
        self._gates = Gates((name for name in frontiers if name != "jobs"), self._begin_read, self._end_read)
        self._outstanding = 0
        self._met: set[str] = set()
        self._failures = Failures(api, account, frontiers, self._gates, report, asked_for=bounds.job_ids)
        self._is_left_over = False
        self._has_progressed = False
        self._before = (report.requests, report.retries, report.rejected)

    def read(self) -> Iterator[dict[str, pa.Table]]:
        """Everything owed, as Arrow tables by table name.

        Raises:
            HostError: Something that concerns every job. What was handed over must not be committed.
        """
        self._report.is_complete = False
        try:
            if self._bounds.job_ids:
                yield from self._read_by_id(self._bounds.job_ids)
                yield from self._collect(down_to=0)
                self._failures.conclude_probes()
                self._failures.check_unknown_jobs()
            else:
                yield from self._read_listing()
            self._count()
            self._report.jobs_open = len(set().union(*(frontier.open for frontier in self._frontiers.values())))
            yield self._take(at_least=1)
            self._report.is_complete = not self._is_left_over
        finally:
            self._count()
            self._crew.dismiss()

    # the job listing -------------------------------------------------------------------------------------------------

    def _read_listing(self) -> Iterator[dict[str, pa.Table]]:
        """List the jobs as far as needed, read what is owed, and move the frontiers."""
        order, began_at, read_pages = Order(), None, 0
        further_pages: int | None = None
        cut = self._common_cut()
        listing = job_pages(self._api)
        cut_at: str | None = None
        while (page := next(listing, None)) is not None:
            began_at = page.host_time if began_at is None else began_at
            read_pages += 1
            order.see(page.times, page.host_time)
            for record in page.records:
                self._meet(record, page.host_time)
                yield from self._collect(down_to=_JOBS_A_THREAD * self._api.limiter.concurrency)
            if page.cursor is None:
                break
            yield from self._await_probes(order)
            if self._is_far_enough(order):
                # What lies further back is open jobs only: never more pages for them than there are such jobs.
                further_pages = len(self._unmet()) if further_pages is None else further_pages - 1
                if further_pages <= 0 or not self._is_listing_cheaper(order, read_pages):
                    break
            elif cut is not None and cut.cut_bound is not None and order.is_past(cut.cut_bound):
                listing, cut = job_pages_behind(self._api, (cut.cut or {})["after"], listing), None
            elif cut is None and self._is_late() and order.is_newest_first and order.last is not None:
                cut_at = page.cursor
                self._is_left_over = True
                break
        if not self._bounds.is_partial:
            yield from self._read_by_id(list(self._unmet()))
        yield from self._collect(down_to=0)
        self._failures.conclude_probes()
        began_at = time.time() if began_at is None else began_at
        for resource, frontier in self._frontiers.items():
            if self._is_unavailable(resource):
                continue
            if cut_at is not None and not self._is_past(frontier, order):
                frontier.listing_cut(order, began_at, cut_at)
            else:
                frontier.listing_ended(order, began_at, self._met)

    def _common_cut(self) -> Frontier | None:
        """A frontier whose listing was cut, if it was at the same place for all that still need what lies behind."""
        wanting = [f for f in self._frontiers.values() if f.cut is not None or f.bound is None]
        if self._bounds.is_partial or not wanting or wanting[0].cut is None:
            return None
        return wanting[0] if all(f.cut == wanting[0].cut and f.trusts_order for f in wanting) else None

    def _meet(self, record: Any, host_time: float) -> None:
        """Visit a job of the listing, or keep open what is owed of it: else the frontier would pass it by for good."""
        job = Job.of(record, host_time)
        if job is None:
            if "jobs" in self._frontiers:
                self._batches.add("jobs", record, job_id=None)
            return
        self._report.seen.add(hash(job.id))
        owed = self._owed(job)
        if owed or job.created_at is None:
            self._met.add(job.id)
        if not self._bounds.admit(job) or job.id in self._parts.done:
            return
        if owed and self._is_late():
            for resource in owed:
                self._frontiers[resource].keep_open(job)
            self._parts.postponed[job.id] = job
            self._is_left_over = True
        elif owed:
            self._visit(job, owed)

    def _is_unavailable(self, resource: str) -> bool:
        return self._gates.is_open(resource) is False

    def _owed(self, job: Job) -> frozenset[str]:
        return frozenset(
            resource
            for resource, frontier in self._frontiers.items()
            if not self._is_unavailable(resource) and frontier.owes(job)
        )

    def _unmet(self) -> dict[str, float | None]:
        """Open jobs that the listing has not shown: id to `created_at`."""
        return {
            job_id: known.get("created_at")
            for resource, frontier in self._frontiers.items()
            if not self._is_unavailable(resource)
            for job_id, known in frontier.open.items()
            if job_id not in self._met and job_id not in self._parts.done
        }

    def _is_past(self, frontier: Frontier, order: Order) -> bool:
        return frontier.bound is not None and frontier.trusts_order and order.is_past(frontier.bound)

    def _is_far_enough(self, order: Order) -> bool:
        if self._bounds.since is not None:
            return order.is_past(self._bounds.since)
        wanting = [frontier for name, frontier in self._frontiers.items() if not self._is_unavailable(name)]
        return all(self._is_past(frontier, order) for frontier in wanting)

    def _is_listing_cheaper(self, order: Order, read_pages: int) -> bool:
        """Whether open jobs further back come cheaper by listing on than one by one, judged by the jobs' density."""
        if self._bounds.is_partial or not order.is_newest_first or order.first is None or order.last is None:
            return False
        seconds_a_page = (order.first - order.last) / read_pages
        behind = sorted((t for t in self._unmet().values() if t is not None and t <= order.last), reverse=True)
        return seconds_a_page > 0 and any(
            (order.last - created_at) / seconds_a_page + 1 < met for met, created_at in enumerate(behind, start=1)
        )

    def _is_late(self) -> bool:
        """Whether no further job is to be begun. One at least is read each time, so that there is always progress."""
        is_late = self._deadline is not None and time.monotonic() >= self._deadline
        is_full = self._most_rows is not None and self._batches.rows >= self._most_rows
        return (is_late or is_full) and self._has_progressed

    # one job ---------------------------------------------------------------------------------------------------------

    def _read_by_id(self, job_ids: Iterable[str]) -> Iterator[dict[str, pa.Table]]:
        for job_id in job_ids:
            if self._is_late():
                self._is_left_over = True
                return
            job: Job | None = self._parts.postponed.pop(job_id, None)
            if job is not None:
                self._met.add(job_id)
                self._visit(job, self._owed(job))
            elif is_safe_id(job_id):
                self._outstanding += 1
                self._report.jobs_to_read += 1
                self._crew.start(Read("jobs", job_id, partial(self._read_job, job_id)))
            elif job_id in self._bounds.job_ids:
                self._failures.unknown_job(job_id, "it cannot be put into an address")
            else:
                self._failures.skip(job_id, "jobs", "its id cannot be put into an address")
            yield from self._collect(down_to=_JOBS_A_THREAD * self._api.limiter.concurrency)

    def _read_job(self, job_id: str) -> Iterator[Job]:
        yield get_job(self._api, job_id)

    def _visit(self, job: Job, owed: frozenset[str]) -> None:
        visit = Visit(job, owed)
        self._outstanding += 1
        self._report.jobs_to_read += 1
        children = [
            child(visit, self._frontiers[name], self._api, self._files)
            for name, child in CHILDREN.items()
            if name in owed
        ]
        visit.reads = len(children)
        for child in children:
            if self._is_unavailable(child.name):
                visit.reads -= 1
            elif not is_safe_id(job.id):
                self._failures.skip(job.id, child.name, "its id cannot be put into an address")
                self._frontiers[child.name].keep_open(job)
                visit.reads -= 1
            elif child.has_nothing_to_read:
                self._settle(child)
                visit.reads -= 1
            else:
                self._gates.admit(Read(child.name, job.id, child.read, context=child))
        if visit.reads == 0:
            self._end_visit(visit)

    # what the crew finds ---------------------------------------------------------------------------------------------

    def _collect(self, down_to: int) -> Iterator[dict[str, pa.Table]]:
        """Take in what the crew finds until no more than so many jobs are under way."""
        while self._outstanding > down_to:
            yield from self._collect_one()

    def _await_probes(self, order: Order) -> Iterator[dict[str, pa.Table]]:
        """Do not list on merely for a resource that may turn out to be unavailable: wait for its first read."""
        while not self._bounds.is_partial:
            wanting = [name for name, frontier in self._frontiers.items() if not self._is_past(frontier, order)]
            wanting = [name for name in wanting if not self._is_unavailable(name)]
            if not wanting or not all(self._gates.is_probing(name) for name in wanting):
                return
            yield from self._collect_one()

    def _collect_one(self) -> Iterator[dict[str, pa.Table]]:
        read, found = self._crew.next()
        if not read.is_done:
            if read.resource == "jobs":
                read.context = found
            elif (reason := read.context.take_in(self._batches, found)) is not None:
                self._failures.skip(read.job_id, read.resource, reason)
            if full := self._take(at_least=settings.BATCH_ROWS):
                yield full
        elif read.resource == "jobs":
            self._outstanding -= 1
            self._report.jobs_to_read -= 1
            if read.error is not None:
                self._failures.of_job(read.job_id, read.error)
            else:
                job: Job = read.context
                self._report.seen.add(hash(job.id))
                self._met.add(job.id)
                if self._bounds.admit(job):
                    self._visit(job, self._owed(job))
        elif read.error is None:
            self._settle(read.context)
            self._gates.open(read.resource)
            self._end_read(read)
        else:
            self._failures.of_read(read, read.error)
            self._end_read(read)
        self._count()

    def _take(self, at_least: int) -> dict[str, pa.Table]:
        tables = self._batches.take(at_least=at_least)
        for name, table in tables.items():
            self._report.rows[name] += table.num_rows
            self._report.largest_batch = max(self._report.largest_batch, table.nbytes)
        return tables

    def _settle(self, child: Child) -> None:
        visit = child.visit
        visit.learned[child.name] = child.learned()
        if not self._failures.is_gone(visit.job.id):
            self._frontiers[child.name].settle(visit.job, **visit.learned[child.name])

    def _begin_read(self, read: Read) -> None:
        read.context.is_known_endpoint = bool(self._gates.is_open(read.resource))
        self._crew.start(read)

    def _end_read(self, read: Read) -> None:
        visit: Visit = read.context.visit
        visit.reads -= 1
        if visit.reads == 0:
            self._end_visit(visit)

    def _end_visit(self, visit: Visit) -> None:
        """All of the job is read: its own row comes last, since it says when its checkpoints were listed."""
        self._outstanding -= 1
        self._has_progressed = True
        self._report.jobs_read += 1
        self._parts.done.add(visit.job.id)
        frontier = self._frontiers.get("jobs")
        if frontier is None or not ("jobs" in visit.owed or visit.checkpoints_listed_at is not None):
            return
        listed_at = visit.checkpoints_listed_at
        if listed_at is None:
            listed_at = frontier.open.get(visit.job.id, {}).get("listed_at")
        self._batches.add("jobs", visit.job.record, job_id=None, own={"checkpoints_listed_at": listed_at})
        if not self._failures.is_gone(visit.job.id):
            frontier.settle(visit.job, **({} if listed_at is None else {"listed_at": listed_at}))

    def _count(self) -> None:
        requests, retries, rejected = self._before
        self._report.requests = requests + self._api.requests
        self._report.retries = retries + self._api.retries
        self._report.rejected = rejected + self._batches.rejected
