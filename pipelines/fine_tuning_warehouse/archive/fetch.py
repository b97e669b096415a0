"""How the files that jobs name come from their host into an archive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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


@dataclass
class Outcome:
    """What came of fetching.

    Attributes:
        entries: The files that are there now, by path.
        written: How many of them were written.
        missing: Those that could not be had.
        failure: What ended the fetching, where something did that concerns every file.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    written: int = 0
    missing: list[Missing] = field(default_factory=list)
    failure: str | None = None


class Fetcher:
    """Brings files of one account from its host into an archive.

    Args:
        api: The host.
        store: The archive.
        watch: Told of every piece, in bytes.
    """

    def __init__(self, api: FineTuningApi, store: Store, watch: Callable[[int], None] | None = None) -> None:
        self._api = api
        self._store = store
        self._watch = watch
        self._refusal: str | None = None
        self._failure: str | None = None

    def describe(self, originals: Iterable[Original]) -> tuple[list[Original], list[Missing]]:
        """Ask for the size of files where it is not known: those that are there, and those that are not."""
        described: list[Original] = []
        missing: list[Missing] = []
        for result in self._all(self._describe, originals):
            if isinstance(result, Missing):
                missing.append(result)
            else:
                described.append(result)
        return described, missing

    def fetch(self, originals: Iterable[Original]) -> Outcome:
        """Bring files, several at once."""
        outcome = Outcome()
        for result in self._all(self._fetch, originals):
            if isinstance(result, Missing):
                outcome.missing.append(result)
            else:
                original, entry = result
                outcome.entries[original.path] = entry
                outcome.written += 1
        outcome.failure = self._failure
        return outcome

    def _all(self, work: Callable[[Original], Any], originals: Iterable[Original]) -> Iterator[Any]:
        rest = list(originals)
        if not rest:
            return
        # The first goes alone: a scope that the key lacks is the same for all.
        yield self._done_or_missing(work, rest.pop(0))
        pool = ThreadPoolExecutor(self._api.limiter.concurrency, thread_name_prefix="archive")
        try:
            yield from pool.map(lambda one: self._done_or_missing(work, one), rest)
        except BaseException:
            self._api.close()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _done_or_missing(self, work: Callable[[Original], Any], original: Original) -> Any:
        """Do it; `Missing` with the reason where that cannot be."""
        if not is_safe_id(original.id):
            return original.missing("no host can be asked for a file of this id")
        if (reason := self._failure or self._refusal) is not None:
            return original.missing(reason)
        try:
            return work(original)
        except RequestError as error:
            reason = _reason(error)
            if error.is_missing_scope:
                self._refusal = reason
            return original.missing(reason)
        except HostError as error:
            self._failure = str(error)
            return original.missing(str(error))

    def _describe(self, original: Original) -> Original:
        if original.bytes is not None:
            return original
        try:
            about = self._api.get_json(file_path(original.id)).content
        except RequestError as error:
            if error.is_missing_endpoint:
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
        # A result file may be counted before it is encoded: its size proves nothing.
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
    if error.status is None or not error.detail:
        return str(error).replace(error.url, "the host")
    return f"{error.status}{f' ({error.code})' if error.code else ''}: {error.detail}"


def check_room(store: Store, bytes_to_come: int) -> None:
    """Raise `CommandError` where it is clear that the files will not fit."""
    room = store.room()
    if room is not None and bytes_to_come > room:
        raise CommandError(
            f"The files take {counted(bytes_to_come, 'byte')}, and {store.shown} has room for {room:,}. "
            "Nothing was fetched."
        )


def verified(
    originals: Iterable[Original], before: Mapping[str, Entry], left: Mapping[str, int], store: Store
) -> tuple[dict[str, Entry], list[Original]]:
    """Those that the archive has, and those that it lacks, or has damaged.

    Args:
        originals: What is wanted.
        before: The files of the archive by its manifest.
        left: Files that are there, with their sizes; whole ones, since none appears half.
        store: The archive.
    """
    held: dict[str, Entry] = {}
    lacking: list[Original] = []
    for one in originals:
        entry, size = before.get(one.path), left.get(one.path)
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
