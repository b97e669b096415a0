"""Faults that a host or the network makes on request: errors, resets, broken bodies, slow answers."""

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from fine_tuning_simulator.messages import Answer, Request, default_error, json_answer, no_such_cursor

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

_ERROR_PAGE = "<!DOCTYPE html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"

_PASSING = frozenset({"slow", "no_ranges"})
"""After these, another fault may apply to the same request."""

_DETAILS: Mapping[str, frozenset[str]] = {
    "status": frozenset({"status", "headers", "body", "code", "message"}),
    "html": frozenset({"status", "body"}),
    "slow": frozenset({"seconds"}),
    "silent": frozenset({"seconds"}),
    "redirect": frozenset({"status", "location"}),
}


class Fault:
    """One way to fail, for requests to paths that match.

    | kind | what happens | details |
    |---|---|---|
    | `status` | an error answer | `status` (500), `headers`, `body` (dict, text or bytes), `code`, `message` |
    | `reset` | the connection is reset before any byte | |
    | `reset_body` | half of the promised body, then a reset | |
    | `truncate` | 200 and a complete HTTP message with JSON that is cut off | |
    | `html` | an HTML error page | `status` (200), `body` |
    | `slow` | the answer comes late; a later fault may still change it | `seconds` (1) |
    | `silent` | no answer, then a reset | `seconds` (until the simulator stops) |
    | `stuck_cursor` | `after` is ignored: the first page for ever, `has_more` true | |
    | `empty_more` | no data, `has_more` true | |
    | `lost_cursor` | 404 if the request carries `after` | |
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

    @property
    def seconds(self) -> float | None:
        """How long the fault lasts; None for as long as the simulator runs."""
        seconds: float | None = self.details.get("seconds", 1 if self.kind == "slow" else None)
        return seconds

    def strikes(self, path: str, query: Mapping[str, str]) -> bool:
        """Return whether this fault applies to a request; count it if so."""
        if self.times is not None and self.hits >= self.times:
            return False
        if self.path.search(path) is None or (self.kind == "lost_cursor" and "after" not in query):
            return False
        if self.probability < 1 and self._random.random() >= self.probability:
            return False
        self.hits += 1
        return True


def applying(faults: list[Fault], request: Request) -> list[Fault]:
    """Return the faults that apply to a request: those that do not change the answer, and the first that does."""
    struck: list[Fault] = []
    for fault in list(faults):
        if fault.strikes(request.path, request.query):
            struck.append(fault)
            if fault.kind not in _PASSING:
                break
    return struck


def faulty_answer(faults: list[Fault], request: Request, ask: Callable[[Request], Answer]) -> Answer:
    """Return the answer to a request under the faults that apply to it; `ask` gives the true one."""
    if any(fault.kind == "no_ranges" for fault in faults):
        headers = {name: value for name, value in request.headers.items() if name != "range"}
        request = replace(request, headers=headers)
    kind, details = (faults[-1].kind, faults[-1].details) if faults else (None, {})
    if kind == "status":
        return _error(details)
    if kind == "stuck_cursor":
        return _endless(request, ask)
    match kind:
        case "html":
            body = _bytes(details.get("body", _ERROR_PAGE))
            answer = Answer(details.get("status", 200), body, {"content-type": "text/html; charset=utf-8"})
        case "redirect":
            answer = Answer(details.get("status", 307), b"", {"location": details["location"]})
        case "lost_cursor":
            answer = json_answer(no_such_cursor(request.query["after"]), 404)
        case "empty_more":
            answer = json_answer({"object": "list", "data": [], "has_more": True})
        case _:
            answer = ask(request)
            if kind == "truncate":
                answer.body = answer.body[: len(answer.body) // 2]
    return answer


def _error(details: Mapping[str, Any]) -> Answer:
    status, body = details.get("status", 500), details.get("body")
    if body is None:
        body = default_error(status, details.get("code"), details.get("message"))
    answer = json_answer(body, status) if isinstance(body, dict | list) else Answer(status, _bytes(body))
    answer.headers |= {str(name).lower(): str(value) for name, value in details.get("headers", {}).items()}
    return answer


def _endless(request: Request, ask: Callable[[Request], Answer]) -> Answer:
    """Return the first page of a listing whatever `after` says, with `has_more` true."""
    answer = ask(replace(request, query={name: value for name, value in request.query.items() if name != "after"}))
    page = json.loads(answer.body) if answer.status == 200 else None
    return json_answer({**page, "has_more": True}) if isinstance(page, dict) and "has_more" in page else answer


def _bytes(body: str | bytes) -> bytes:
    return body.encode() if isinstance(body, str) else body
