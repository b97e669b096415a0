"""Faults on the way to a host, on request."""

import random
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

FaultKind = Literal[
    "status",
    "reset",
    "reset_body",
    "truncate",
    "html",
    "slow",
    "silent",
    "stuck_cursor",
    "empty_more",
    "lost_cursor",
    "redirect",
    "no_ranges",
]

PASSING = frozenset({"slow", "no_ranges"})
"""After these, another fault may apply to the same request."""

_DETAILS: Mapping[str, frozenset[str]] = {
    "status": frozenset({"status", "headers", "body", "code", "message"}),
    "html": frozenset({"status", "body"}),
    "slow": frozenset({"seconds"}),
    "silent": frozenset({"seconds"}),
    "redirect": frozenset({"status", "location"}),
}


class Fault:
    """One way to fail, for the requests whose path matches.

    | kind | what happens | details |
    |---|---|---|
    | `status` | an error answer | `status` (500), `headers`, `body` (dict, text or bytes), `code`, `message` |
    | `reset` | the connection is reset before any byte | |
    | `reset_body` | half of the promised body, then a reset | |
    | `truncate` | 200 and a complete HTTP message, whose JSON is cut off | |
    | `html` | an HTML error page | `status` (200), `body` |
    | `slow` | the answer comes late; a later fault may still change it | `seconds` (1) |
    | `silent` | no answer, then a reset | `seconds` (until the simulator stops) |
    | `stuck_cursor` | `after` is ignored: the first page for ever, `has_more` true | |
    | `empty_more` | no data, `has_more` true | |
    | `lost_cursor` | 404 where the request carries `after` | |
    | `redirect` | sent elsewhere | `location`, `status` (307) |
    | `no_ranges` | `Range` is ignored, as some gateways do; a later fault may still change the answer | |

    `path` is a regular expression searched in the path (without the query). `times` is how often it strikes (`None`:
    for ever), `probability` how likely at each match, drawn from `seed`. `hits` counts.
    """

    def __init__(
        self,
        kind: FaultKind,
        path: str = r".*",
        times: int | None = 1,
        probability: float = 1.0,
        seed: int = 0,
        **details: Any,
    ) -> None:
        if kind not in get_args(FaultKind):
            raise ValueError(f"unknown fault {kind!r}: choose one of {', '.join(get_args(FaultKind))}")
        unknown = details.keys() - _DETAILS.get(kind, frozenset())
        if unknown:
            raise TypeError(f"a {kind!r} fault has no {', '.join(sorted(unknown))}")
        if kind == "redirect" and "location" not in details:
            raise TypeError("a 'redirect' fault needs a location")
        self.kind: FaultKind = kind
        self.path = re.compile(path)
        self.times = times
        self.probability = probability
        self.details: dict[str, Any] = details
        self.hits = 0
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose

    def __repr__(self) -> str:
        return f"Fault({self.kind!r}, path={self.path.pattern!r}, times={self.times}, hits={self.hits})"

    def strikes(self, path: str, query: Mapping[str, str]) -> bool:
        """Whether this fault applies to the request; counts it if so."""
        if self.times is not None and self.hits >= self.times:
            return False
        if self.path.search(path) is None or (self.kind == "lost_cursor" and "after" not in query):
            return False
        if self.probability < 1 and self._random.random() >= self.probability:
            return False
        self.hits += 1
        return True


def applying(faults: list[Fault], path: str, query: Mapping[str, str]) -> list[Fault]:
    """Return the faults for one request: any that leave the answer to others, then at most one that changes it."""
    struck: list[Fault] = []
    for fault in list(faults):
        if fault.strikes(path, query):
            struck.append(fault)
            if fault.kind not in PASSING:
                break
    return struck
