"""The file that says that a run has not ended."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from fine_tuning_warehouse.errors import BusyError

from .store import UNFINISHED, Store


class Marker:
    """The file that says that a run has not ended, and which run it is.

    Attributes:
        was_there: Whether an earlier run has left one.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._run = str(uuid.uuid4())
        self.was_there = UNFINISHED in store.files()

    def set(self) -> None:
        """Begin."""
        note = "A run of `ftw archive` has not ended. Run it again."
        content = json.dumps({"archive_version": 1, "note": note, "run": self._run}) + "\n"
        self._store.write(UNFINISHED, content.encode())

    def check(self) -> None:
        """Raise `BusyError` where another run, of another machine, has begun since."""
        try:
            with self._store.open(UNFINISHED) as file:
                found = json.loads(file.read()).get("run")
        except (FileNotFoundError, ValueError, AttributeError):
            found = None
        if found != self._run:
            raise BusyError(f"Another archive run has begun to write to {self._store.shown}: run this one again.")

    def remove(self) -> None:
        """The run has ended."""
        self._store.remove(UNFINISHED)


@contextmanager
def unfinished(store: Store) -> Iterator[Marker]:
    """Mark the archive as unfinished for the time of a run; drafts are gone at its end, however it ends."""
    marker = Marker(store)
    if marker.was_there:
        store.clear_drafts(left=True)
    listed = store.files()
    marker.set()
    try:
        yield marker
    except BaseException:
        store.clear_drafts()
        if not marker.was_there and {**store.files(), UNFINISHED: 0}.keys() == {**listed, UNFINISHED: 0}.keys():
            marker.remove()  # nothing has changed
        raise
    store.clear_drafts()
    marker.remove()
