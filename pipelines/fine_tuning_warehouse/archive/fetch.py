"""Download the files that jobs name from their host into an archive."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from openai_fine_tuning import HostError, RequestError
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.urls import content_path, is_safe_id

from .manifest import Entry, Missing
from .originals import Original
from .store import Store, digest

FEW = 3
"""After this many refusals in the same words, and no file that came, the other files are not requested."""

MANY = 12
"""The same number after a file that came: refusals in a row."""

_MOST_ALONE = 10
"""The most files that are requested one by one, until it is clear whether files come."""

_REQUEST_IDS = re.compile(r"\b(?:req[_-]\w+|[0-9a-f]{8}-[0-9a-f-]{27})\b", re.IGNORECASE)


class _Refusals:
    """Notice when a host refuses all files of a kind in the same words, so that the others need no request.

    Attributes:
        has_come: Whether a file of this kind came.
        reason: The reason that holds for all files of this kind; None if there is none so far.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._same: Counter[str] = Counter()
        self.has_come = False
        self.reason: str | None = None

    def count_success(self) -> None:
        """Count a file that came: the host does not refuse all of them so far."""
        with self._lock:
            self.has_come = True
            self._same.clear()

    def count_failure(self, original: Original, error: RequestError, reason: str) -> None:
        """Count a failed request. A refusal that names its file, or says 404 or 410 of it, says nothing of others."""
        is_client_error = error.status is not None and 400 <= error.status < 500 and error.status not in (404, 410)
        names_file = any(name in reason for name in (original.id, original.filename) if name)
        if names_file or not (is_client_error or error.is_missing_endpoint):
            return
        with self._lock:
            self._same[words := _REQUEST_IDS.sub("", reason)] += 1
            if self._same[words] >= (MANY if self.has_come else FEW):
                self.reason = reason


class Fetcher:
    """Fetch the files of one account.

    Args:
        api: The host.
        store: The archive.
        watch: Called with the number of bytes of each piece that came.

    Attributes:
        failure: What ended the fetching, if it concerns every file of the account.
    """

    def __init__(self, api: FineTuningApi, store: Store, watch: Callable[[int], None]) -> None:
        self._api = api
        self._store = store
        self._watch = watch
        self._missing_scope: str | None = None
        self.failure: str | None = None

    def fetch(self, originals: Sequence[Original]) -> Iterator[tuple[Original, Entry | Missing]]:
        """Download files, several at once and result files first; yield what became of each."""
        for is_training in (False, True):
            yield from self._fetch_kind([one for one in originals if one.is_training == is_training])

    def _fetch_kind(self, rest: list[Original]) -> Iterator[tuple[Original, Entry | Missing]]:
        refusals = _Refusals()
        if len(rest) > FEW:
            random.shuffle(rest)  # files that are always refused must not come first in each run
        for _ in range(_MOST_ALONE):
            if rest and not refusals.has_come and refusals.reason is None:
                yield self._try(rest.pop(0), refusals)
        if not rest:
            return
        pool = ThreadPoolExecutor(self._api.limiter.concurrency, thread_name_prefix="archive")
        try:
            yield from pool.map(lambda one: self._try(one, refusals), rest)
        except BaseException:
            self._api.close()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _try(self, original: Original, refusals: _Refusals) -> tuple[Original, Entry | Missing]:
        """Download a file; return its entry, or why it is missing."""
        if not is_safe_id(original.id):
            return original, original.missing("no host can be asked for a file of this id")
        if (reason := self.failure or self._missing_scope or refusals.reason) is not None:
            return original, original.missing(reason)
        try:
            entry = self._download(original)
        except RequestError as error:
            reason = _reason(error)
            if error.is_missing_scope:  # it holds for files of every kind
                self._missing_scope = reason
            refusals.count_failure(original, error, reason)
            return original, original.missing(reason)
        except HostError as error:
            self.failure = str(error)
            return original, original.missing(str(error))
        refusals.count_success()
        return original, entry

    def _download(self, original: Original) -> Entry:
        draft = self._store.draft(original.path)
        # Hosts may count the size of a result file before they encode it: that size proves nothing.
        size = original.bytes if original.is_training else None
        try:
            with draft.open("w+b") as file:
                received = self._api.download(content_path(original.id), file, size=size, watch=self._watch)
                file.seek(0)
                entry = original.entry(received, digest(file))
            self._store.publish(original.path)
        finally:
            draft.unlink(missing_ok=True)
        return entry


def _reason(error: RequestError) -> str:
    if error.status in (None, 200, 206, 416) or not error.detail:
        return str(error).replace(error.url, "the host")
    return f"{error.status}{f' ({error.code})' if error.code else ''}: {error.detail}"
