"""What the host tells of files: one by one where they are few, from one listing of all where they are many."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import Any

from openai_fine_tuning import settings
from openai_fine_tuning.errors import EndlessListingError, RequestError

from .client import FineTuningApi
from .pagination import pages
from .urls import FILES_PATH, file_path


@dataclass(frozen=True)
class Found:
    """The answer to one question for a file.

    Attributes:
        record: What the host tells; None where it no longer has the file.
        is_first: Whether this is the first question for it, so that the record is taken in once.
    """

    record: Any
    is_first: bool


class Files:
    """The files of one host, each asked for once a sync however many jobs name it. Safe to share between threads.

    A file that stands in no listing is asked for by its id before it counts as gone: gateways shorten listings.
    """

    def __init__(self, api: FineTuningApi) -> None:
        self._api = api
        self._records: dict[str, Future[Any]] = {}
        self._asking = threading.Lock()
        self._listed: dict[str, Any] | None = None
        self._listing = threading.Lock()

    def find(self, file_id: str) -> Found:
        """What the host tells of a file.

        Raises:
            RequestError: It cannot be read; the next question for it is asked anew.
            HostError, CancelledError: As `FineTuningApi.get_json` does.
        """
        with self._asking:
            record = self._records.get(file_id)
            is_first = record is None
            if record is None:
                record = self._records[file_id] = Future()
            are_many = len(self._records) > settings.FEW_FILES
        if is_first:
            try:
                listed = self._all_listed().get(file_id) if are_many else None
                record.set_result(self._by_id(file_id) if listed is None else listed)
            except Exception as error:  # noqa: BLE001 - raised for all who wait for it
                with self._asking:
                    del self._records[file_id]
                record.set_exception(error)
        return Found(record.result(), is_first)

    def _by_id(self, file_id: str) -> Any:
        try:
            return self._api.get_json(file_path(file_id)).content
        except RequestError as error:
            if error.status == 404 and not error.is_missing_endpoint:
                return None
            raise

    def _all_listed(self) -> dict[str, Any]:
        with self._listing:
            if self._listed is None:
                self._listed = {}
                try:
                    for page in islice(
                        pages(self._api, FILES_PATH, limit=settings.FILES_PAGE_LIMIT), settings.MAX_FILES_PAGES
                    ):
                        self._listed.update((r["id"], r) for r in page.records if _has_id(r))
                except (RequestError, EndlessListingError):
                    pass  # what is not listed is asked for one by one
            return self._listed


def _has_id(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("id"), str)
