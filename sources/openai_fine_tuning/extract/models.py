"""Read which models can be called: once a day, after everything else."""

from __future__ import annotations

from typing import Any

from openai_fine_tuning import settings
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.pagination import pages
from openai_fine_tuning.api.urls import MODELS_PATH

from .resources import Records


class ModelListing:
    """The host's listing of the models that an account can call.

    Args:
        api: The host.
        known: What dlt's state knows of it, by the fingerprint of host and key; changed in place. `tried_at` is when
            the host was last asked, and `listed_at` the time that the rows of the last listing have, in unix seconds.
        is_asked_for: Whether it is read, whenever it was last read.
    """

    def __init__(self, api: FineTuningApi, known: dict[str, dict[str, Any]], *, is_asked_for: bool) -> None:
        self._api = api
        self._known = known
        self._is_asked_for = is_asked_for

    def is_due(self, now: float) -> bool:
        """Return whether it is to be read at a time (unix seconds).

        What one key of the account has read counts for all. A new key may be allowed to read what others were refused.
        """
        own = self._known.get(self._api.identity)
        states = [one for one in self._known.values() if one is own or "listed_at" in one]
        tried_at = max((one["tried_at"] for one in states), default=None)
        return self._is_asked_for or tried_at is None or abs(now - tried_at) >= settings.MODELS_SECONDS

    def read(self, now: float) -> Records:
        """Return the whole listing, or raise: of a part of it, each model that is missing would count as gone.

        Args:
            now: The time (unix seconds). Until a day later the host is not asked again, whether it answers or not.

        Raises:
            RequestError, EndlessListingError: It cannot be read.
            HostError, CancelledError: As `FineTuningApi.get_page` raises them.
        """
        state = self._known.setdefault(self._api.identity, {})
        state["tried_at"] = now
        records: list[Any] = []
        # Two attempts: a sync does without it, and a gateway may answer 5xx to a path that it does not know.
        for page in pages(self._api, MODELS_PATH, limit=None, max_pages=settings.MAX_MODELS_PAGES, attempts=2):
            records += page.records
            now = page.host_time
        state["tried_at"] = now
        # A later listing has a later time, whatever the clock of the host says: the last listing is the latest one.
        listed_at: int = max(int(now), *(one.get("listed_at", 0) + 1 for one in self._known.values()))
        if records:
            state["listed_at"] = listed_at
        own = {"last_listed_at": listed_at * 1_000_000}
        return Records("models", [_with_created_at(record) for record in records], own, shown=records)


def _with_created_at(record: Any) -> Any:
    """Return a model with its time under the name that all other records have. OpenAI calls it `created`."""
    if not isinstance(record, dict) or record.get("created_at") is not None or "created" not in record:
        return record
    others = {name: value for name, value in record.items() if name != "created"}
    return {**others, "created_at": record["created"]}
