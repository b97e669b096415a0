"""Listings, read page by page, with an end in every case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from openai_fine_tuning import settings
from openai_fine_tuning.convert.values import unix_seconds
from openai_fine_tuning.errors import EndlessListingError, RequestError

from .client import FineTuningApi

MAX_RESTARTS = 3
"""How often a listing starts again because the host no longer knows the last record of a page."""

_TOLERATED_SKEW_SECONDS = 3600.0


@dataclass(frozen=True)
class Page:
    """A page of a listing.

    Attributes:
        records: The records as the host sent them, without those with an id that was on this listing before.
        times: `created_at` of each record in unix seconds, None if it has none.
        host_time: The host's time in unix seconds when it sent the page.
        cursor: The `after` of the next page; None on the last page.
    """

    records: list[Any]
    times: list[float | None]
    host_time: float
    cursor: str | None


def pages(
    api: FineTuningApi,
    path: str,
    *,
    after: str | None = None,
    limit: int | None = settings.PAGE_LIMIT,
    max_pages: int = settings.MAX_PAGES,
    attempts: int | None = None,
) -> Iterator[Page]:
    """Yield the pages of a listing.

    Args:
        api: The host.
        path: The listing, below the base URL.
        after: The id of the record behind which to begin; None for the start.
        limit: How many records to ask for in one page; None for a listing that most hosts do not page: no number is
            asked for, and a page that does not say `has_more` is the last one.
        max_pages: Pages after which the listing counts as endless.
        attempts: How often each page is asked for at the most; by default as the policy says.

    Raises:
        EndlessListingError: The cursor does not move, a page comes again, or more is promised without data.
        RequestError, HostError, CancelledError: As `FineTuningApi.get_json` raises them.
    """
    url = api.url(path)
    seen: set[str] = set()
    cursors: set[str] = set()
    restarts = 0
    for _ in range(max_pages):
        try:
            query = {"limit": limit, "after": after}
            answer = api.get_page(
                path, {name: value for name, value in query.items() if value is not None}, attempts=attempts
            )
        except RequestError as error:
            if error.status == 404 and after is not None and cursors and restarts < MAX_RESTARTS:
                # The last record of the page before is gone: start again, and leave out what came already.
                after, cursors, restarts = None, set(), restarts + 1
                continue
            raise
        data, has_more = answer.content["data"], answer.content.get("has_more")
        fresh = [record for record in data if _is_fresh(record, seen)]
        times = [unix_seconds(record.get("created_at")) if isinstance(record, dict) else None for record in fresh]
        is_repeated = bool(data) and not fresh and restarts == 0
        if has_more and not data:
            raise EndlessListingError(f"{url} says has_more without data, so the listing has no end.")
        is_last = (limit is None or is_repeated) if has_more is None else not has_more
        if not data or is_last:
            yield Page(fresh, times, answer.host_time, None)
            return
        after = next(filter(None, map(_id, reversed(data))), None) or _id({"id": answer.content.get("last_id")})
        if after is None:
            raise EndlessListingError(f"{url} has more pages, but no record on this one has an id to go on from.")
        if after in cursors or is_repeated:
            raise EndlessListingError(f"{url} sends the page after {after!r} again, so the listing has no end.")
        cursors.add(after)
        yield Page(fresh, times, answer.host_time, after)
    raise EndlessListingError(f"{url} did not end within {max_pages:,} pages.")


class Order:
    """Judges whether a listing is newest first, by all records that were seen of it."""

    def __init__(self) -> None:
        self.is_newest_first = True
        self.first: float | None = None
        self.last: float | None = None
        self.newest: float | None = None

    def see(self, times: Iterable[float | None], host_time: float) -> None:
        """Take the `created_at` of the next records into account, in unix seconds.

        A record without a time, or with one well beyond the host's now, says nothing about the order.
        """
        for time in times:
            if time is None or time > host_time + _TOLERATED_SKEW_SECONDS:
                continue
            if self.last is not None and time > self.last:
                self.is_newest_first = False
            self.first = time if self.first is None else self.first
            self.newest = time if self.newest is None else max(self.newest, time)
            self.last = time

    def is_past(self, bound: float) -> bool:
        """Return whether all records that follow are older than `bound`. Equal times do not show an order yet."""
        if not self.is_newest_first or self.first is None or self.last is None:
            return False
        return bound > self.last and (self.first >= bound or self.first > self.last)


def _is_fresh(record: Any, seen: set[str]) -> bool:
    record_id = _id(record)
    is_fresh = record_id not in seen
    if record_id is not None:
        seen.add(record_id)
    return is_fresh


def _id(record: Any) -> str | None:
    """Return the id of a record as text; None if it has none."""
    record_id = record.get("id") if isinstance(record, dict) else None
    if isinstance(record_id, int) and not isinstance(record_id, bool):
        return str(record_id)
    return record_id if isinstance(record_id, str) and record_id else None
