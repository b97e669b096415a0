"""Download the files that jobs name from their host into an archive."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.text import counted
from openai_fine_tuning import HostError, RequestError
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.urls import content_path, file_path, is_safe_id

from .manifest import Entry, Missing
from .originals import Original
from .store import Store, digest

FEW = 3
"""After so many refusals in the same words, and no file that came, the other files are not requested."""

MANY = 12
"""The same after a file that came: so many refusals in a row."""

_MOST_ALONE = 10
"""So many files are requested one by one at the most, until it is clear whether files come."""

_REQUEST_IDS = re.compile(r"\b(?:req[_-]\w+|[0-9a-f]{8}-[0-9a-f-]{27})\b", re.IGNORECASE)


@dataclass
class Outcome:
    """The result of fetching.

    Attributes:
        entries: The files that were written, by path.
        missing: The files that could not be fetched.
        failure: What ended the fetching, if it concerns every file of the account.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    failure: str | None = None


class _Refusals:
    """Notice when a host refuses all files of a kind in the same words, so that the others need no request.

    Attributes:
        came: Whether a file of this kind came.
        reason: The reason that holds for all files of this kind; None if there is none so far.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = 0
        self._same: Counter[str] = Counter()
        self.came = False
        self.reason: str | None = None

    def has_come(self) -> None:
        """Count a file that came: the host does not refuse all of them so far."""
        with self._lock:
            self.came = True
            self._same.clear()

    @property
    def is_settled(self) -> bool:
        """Whether it is clear if files come, or enough files were requested one by one."""
        return self.came or self.reason is not None or self._asked >= _MOST_ALONE

    def note(self, original: Original, error: RequestError, reason: str) -> None:
        """Count a failed request. A refusal that names its file, or says 404 or 410 of it, says nothing of others."""
        names = [name for name in (original.id, original.filename) if name]
        is_client_error = error.status is not None and 400 <= error.status < 500 and error.status not in (404, 410)
        is_general = (is_client_error or error.is_missing_endpoint) and not any(name in reason for name in names)
        with self._lock:
            self._asked += 1
            if not is_general:
                return
            words = _REQUEST_IDS.sub("", reason)
            self._same[words] += 1
            if self._same[words] >= (MANY if self.came else FEW):
                self.reason = reason


class Fetcher:
    """Fetch the files of one account.

    Args:
        api: The host.
        store: The archive.
        watch: Called with the number of bytes of each piece that came.
    """

    def __init__(self, api: FineTuningApi, store: Store, watch: Callable[[int], None] | None = None) -> None:
        self._api = api
        self._store = store
        self._watch = watch
        self._refused: str | None = None  # by a scope that the key lacks, which holds for every file
        self._failure: str | None = None
        self._has_records = True

    def describe(self, originals: Iterable[Original]) -> tuple[list[Original], list[Missing]]:
        """Ask the host for the size of each file whose size is not known.

        Returns:
            The files that are there, and the files that are not.
        """
        described: list[Original] = []
        missing: list[Missing] = []
        for result in self._each(self._describe, originals):
            if isinstance(result, Missing):
                missing.append(result)
            else:
                described.append(result)
        return described, missing

    def fetch(self, originals: Sequence[Original]) -> Outcome:
        """Download files, several at once: result files first."""
        outcome = Outcome()
        for is_training in (False, True):
            for result in self._each(self._fetch, (one for one in originals if one.is_training == is_training)):
                if isinstance(result, Missing):
                    outcome.missing.append(result)
                else:
                    original, entry = result
                    outcome.entries[original.path] = entry
        outcome.failure = self._failure
        return outcome

    def _each(self, work: Callable[[Original], Any], originals: Iterable[Original]) -> Iterator[Any]:
        """Yield the result of `work` for each file, or `Missing`."""
        refusals = _Refusals()
        rest = list(originals)
        if len(rest) > FEW:
            random.shuffle(rest)  # files that are always refused must not come first in each run
        while rest and not refusals.is_settled:
            yield self._try(work, rest.pop(0), refusals)
        if not rest:
            return
        pool = ThreadPoolExecutor(self._api.limiter.concurrency, thread_name_prefix="archive")
        try:
            yield from pool.map(lambda one: self._try(work, one, refusals), rest)
        except BaseException:
            self._api.close()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _try(self, work: Callable[[Original], Any], original: Original, refusals: _Refusals) -> Any:
        if not is_safe_id(original.id):
            return original.missing("no host can be asked for a file of this id")
        if (reason := self._failure or self._refused or refusals.reason) is not None:
            return original.missing(reason)
        try:
            result = work(original)
        except RequestError as error:
            reason = _reason(error)
            if error.is_missing_scope:
                self._refused = reason
            refusals.note(original, error, reason)
            return original.missing(reason)
        except HostError as error:
            self._failure = str(error)
            return original.missing(str(error))
        refusals.has_come()
        return result

    def _describe(self, original: Original) -> Original:
        if original.bytes is not None or not self._has_records:
            return original
        try:
            about = self._api.get_json(file_path(original.id)).content
        except RequestError as error:
            if error.is_missing_endpoint:
                self._has_records = False
                return original  # a host may have the content alone
            raise
        about = about if isinstance(about, dict) else {}
        size, filename = about.get("bytes"), about.get("filename")
        return replace(
            original,
            bytes=size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
            filename=filename if isinstance(filename, str) else None,
        )

    def _fetch(self, original: Original) -> tuple[Original, Entry]:
        draft = self._store.draft(original.path)
        path = content_path(original.id)
        # Hosts may count the size of a result file before they encode it: that size proves nothing.
        size = original.bytes if original.is_training else None
        try:
            with draft.open("w+b") as file:
                came = self._api.download(path, file, size=size, watch=self._watch)
                file.seek(0)
                entry = original.entry(came, digest(file))
            self._store.publish(original.path)
        finally:
            draft.unlink(missing_ok=True)
        return original, entry


def _reason(error: RequestError) -> str:
    if error.status in (None, 200, 206, 416) or not error.detail:
        return str(error).replace(error.url, "the host")
    return f"{error.status}{f' ({error.code})' if error.code else ''}: {error.detail}"


def check_free_bytes(store: Store, bytes_to_come: int) -> None:
    """Raise `CommandError` if the disk cannot hold the files."""
    free = store.free_bytes()
    if free is not None and bytes_to_come > free:
        raise CommandError(
            f"The files take {counted(bytes_to_come, 'byte')}, and {store.shown} has {free:,} bytes free. "
            "Nothing was fetched."
        )


def split_held(
    originals: Iterable[Original], before: Mapping[str, Entry], there: Mapping[str, int], store: Store
) -> tuple[dict[str, Entry], list[Original]]:
    """Split the wanted files into those that the archive holds, and those that it lacks or that are damaged.

    Args:
        originals: The wanted files.
        before: The files of the archive by its manifest.
        there: The files that exist, with their sizes. A file outside the manifest is whole: none appears half.
        store: The archive.
    """
    held: dict[str, Entry] = {}
    lacking: list[Original] = []
    for one in originals:
        entry, size = before.get(one.path), there.get(one.path)
        if entry is not None:
            is_whole = size == entry.bytes and (not store.is_read_cheaply or store.digest(one.path) == entry.sha256)
            if is_whole:
                filename = one.filename or entry.filename
                held[one.path] = replace(one, filename=filename, kind=entry.kind).entry(entry.bytes, entry.sha256)
                continue
        elif size is not None and (one.bytes in (size, None) or not one.is_training):
            held[one.path] = one.entry(size, store.digest(one.path))
            continue
        lacking.append(one)
    return held, lacking
