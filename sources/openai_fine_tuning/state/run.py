"""A sync in several parts: what those before have read, so that a later one neither reads nor asks for it again.

Known to the process alone, it holds for as long as the state in force is the one that was kept with it. Where a part
failed, or the next one goes to another database, the state there knows nothing of it, and it is forgotten.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from openai_fine_tuning.api.jobs import Job

_MARK = "part"


@dataclass
class Parts:
    """What the parts of one sync have read so far.

    Attributes:
        done: Ids of the jobs that were read. Those that are still open stay so in the state.
        postponed: Jobs as the listing showed them, by id: a later part need not ask for them again.
        available: Resources that are known to be available, or not.
    """

    done: set[str] = field(default_factory=set)
    postponed: dict[str, Job] = field(default_factory=dict)
    available: dict[str, bool] = field(default_factory=dict)
    _mark: str | None = None

    def begin(self, states: Iterable[dict[str, Any]]) -> bool:
        """Begin a part.

        Args:
            states: The state of each frontier, as it is in force.

        Returns:
            Whether it goes on where an earlier part of the same sync has stopped.
        """
        goes_on = self._mark is not None and all(state.get(_MARK) == self._mark for state in states)
        if not goes_on:
            self.done.clear()
            self.postponed.clear()
            self.available.clear()
        self._mark = uuid.uuid4().hex
        return goes_on

    def end(self, states: Iterable[dict[str, Any]], *, is_complete: bool) -> None:
        """End a part: mark the states that are kept with it, where another part is to follow.

        Args:
            states: The state of each frontier; changed in place.
            is_complete: Whether everything owed was read, or tried.
        """
        if is_complete:
            self._mark = None
        for state in states:
            if is_complete:
                state.pop(_MARK, None)
            else:
                state[_MARK] = self._mark
