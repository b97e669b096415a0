"""Read descriptions of files: one by one while they are few, from the listing of all files once they are many."""

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
    """The description of a file.

    Attributes:
        record: What the host sent; None if it no longer has the file.
        is_first: Whether no one has asked for this file before, so that the record becomes a row once.
    """

    record: Any
    is_first: bool


class Files:
    """The files of one host. Each is requested once, however many jobs name it. Safe to share between threads.

    A file that is missing in the listing is requested by its id before it counts as gone: gateways shorten listings.
    """

    def __init__(self, api: FineTuningApi) -> None:
        self._api = api
        self._records: dict[str, Future[Any]] = {}
        self._asking = threading.Lock()
        self._listed: dict[str, Any] | None = None
        self._listing = threading.Lock()

    def find(self, file_id: str) -> Found:
        """Return the description of a file.

        Raises:
            RequestError: It cannot be read; the next call for the same file requests it again.
            HostError, CancelledError: As `FineTuningApi.get_json` raises them.
        """
        with self._asking:
            is_first = file_id not in self._records
            record = self._records.setdefault(file_id, Future())
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
                listing = pages(self._api, FILES_PATH, limit=settings.FILES_PAGE_LIMIT)
                try:
                    for record in (r for page in islice(listing, settings.MAX_FILES_PAGES) for r in page.records):
                        if isinstance(record, dict) and isinstance(record.get("id"), str):
                            self._listed[record["id"]] = record
                except (RequestError, EndlessListingError):
                    pass  # what is not listed is requested one by one
            return self._listed
