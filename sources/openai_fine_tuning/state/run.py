"""Go on within one sync that loads several times: know what its earlier loads have read.

Only the process knows it, so it holds as long as the state in force is the one that was stored with it. If a load
failed, or the next one goes to another database, the state there does not carry its mark, and it is forgotten.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from openai_fine_tuning.api.jobs import Job

_MARK = "part"


@dataclass
class Run:
    """The memory of one sync: what its loads have read so far.

    Attributes:
        done: Ids of the jobs that were read. Those that are still open stay so in the state.
        postponed: Jobs as the listing showed them, by id: a later load need not ask for them again.
        available: Resources that are known to be available, or not.
    """

    done: set[str] = field(default_factory=set)
    postponed: dict[str, Job] = field(default_factory=dict)
    available: dict[str, bool] = field(default_factory=dict)
    _mark: str | None = None

    def begin(self, states: Iterable[dict[str, Any]]) -> bool:
        """Begin a load with the states of the watermarks. Return whether it continues an earlier load."""
        is_continued = self._mark is not None and all(state.get(_MARK) == self._mark for state in states)
        if not is_continued:
            self.done.clear()
            self.postponed.clear()
            self.available.clear()
        self._mark = uuid.uuid4().hex
        return is_continued

    def end(self, states: Iterable[dict[str, Any]], *, is_complete: bool) -> None:
        """End a load. Mark the states of the watermarks, in place, if another load is to follow."""
        self._mark = None if is_complete else self._mark
        for state in states:
            state.pop(_MARK, None)
            if self._mark is not None:
                state[_MARK] = self._mark
