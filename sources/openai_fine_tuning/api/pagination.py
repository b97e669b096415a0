"""Walking along a listing, page by page, with an end in every case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from openai_fine_tuning import settings
from openai_fine_tuning.convert.values import unix_seconds
from openai_fine_tuning.errors import EndlessListingError, RequestError

from .client import FineTuningApi

MAX_RESTARTS = 3
"""How often a listing starts again because the host no longer knows the record that it had got to."""

_TOLERATED_SKEW_SECONDS = 3600.0


@dataclass(frozen=True)
class Page:
    """A page of a listing.

    Attributes:
        records: The records as the host sent them, less those whose id stood on this listing before.
        times: `created_at` of each of them in unix seconds, None where there is none.
        host_time: The host's time in unix seconds when it sent the page.
        cursor: What the next page is `after`; None on the last page.
    """

    records: list[Any]
    times: list[float | None]
    host_time: float
    cursor: str | None


def pages(
    api: FineTuningApi, path: str, *, after: str | None = None, limit: int = settings.PAGE_LIMIT
) -> Iterator[Page]:
    """The pages of a listing from its start, or from behind `after`; `limit` records are asked for in one.

    Raises:
        EndlessListingError: The cursor does not move, a page repeats, or more is promised without data.
        RequestError, HostError, CancelledError: As `FineTuningApi.get_json` does.
    """
    seen: set[str] = set()
    cursors: set[str] = set()
    restarts = 0
    for _ in range(settings.MAX_PAGES):
        params = {"limit": limit, **({"after": after} if after is not None else {})}
        try:
            answer = api.get_page(path, params)
        except RequestError as error:
            if error.status == 404 and after is not None and cursors and restarts < MAX_RESTARTS:
                # The record that the listing had got to is gone: start again; what was met before is left out.
                after, cursors, restarts = None, set(), restarts + 1
                continue
            raise
        data, has_more, last_id = (answer.content.get(name) for name in ("data", "has_more", "last_id"))
        fresh = [record for record in data if _is_fresh(record, seen)]
        repeated = bool(data) and not fresh and restarts == 0
        if not data or has_more is False or (has_more is None and repeated):
            if has_more and not data:
                raise EndlessListingError(f"{api.url(path)} says has_more without data: its listing has no end.")
            yield Page(fresh, _times(fresh), answer.host_time, None)
            return
        after = _next_cursor(data, last_id, api.url(path))
        if after in cursors or repeated:
            raise EndlessListingError(
                f"{api.url(path)} repeats itself: the page after {after!r} was met before, so its listing has no end."
            )
        cursors.add(after)
        yield Page(fresh, _times(fresh), answer.host_time, after)
    raise EndlessListingError(f"{api.url(path)} did not end within {settings.MAX_PAGES:,} pages.")


class Order:
    """Whether a listing is in fact newest first, judged by all that was seen of it."""

    def __init__(self) -> None:
        self.is_newest_first = True
        self.first: float | None = None
        self.last: float | None = None
        self.newest: float | None = None

    def see(self, times: Iterable[float | None], host_time: float) -> None:
        """Take in the `created_at` of the next records, in unix seconds.

        A record without a time, or with one that lies well beyond the host's now, says nothing about the order.
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
        """Whether all that follows is older than `bound`: newest first down to here, by more than one record."""
        if not self.is_newest_first or self.first is None or self.last is None:
            return False
        return bound > self.last and (self.first >= bound or self.first > self.last)


def _next_cursor(data: list[Any], last_id: str | None, url: str) -> str:
    for record in reversed(data):
        if (record_id := _id(record)) is not None:
            return record_id
    if last_id:
        return last_id
    raise EndlessListingError(f"{url} has more pages, but no record on this one has an id to go on from.")


def _is_fresh(record: Any, seen: set[str]) -> bool:
    record_id = _id(record)
    if record_id is None:
        return True
    if record_id in seen:
        return False
    seen.add(record_id)
    return True


def _id(record: Any) -> str | None:
    record_id = record.get("id") if isinstance(record, dict) else None
    if isinstance(record_id, int) and not isinstance(record_id, bool):
        return str(record_id)
    return record_id if isinstance(record_id, str) and record_id else None


def _times(data: list[Any]) -> list[float | None]:
    return [unix_seconds(record.get("created_at")) if isinstance(record, dict) else None for record in data]
