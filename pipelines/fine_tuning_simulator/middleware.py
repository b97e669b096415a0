"""The server's outer layer: it logs requests, sets the `Date`, adds latency and applies faults."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fine_tuning_simulator.app import credential, default_error, encoded, error_body
from fine_tuning_simulator.clock import Clock
from fine_tuning_simulator.faults import PASSING, Fault, applying
from fine_tuning_simulator.profiles import Profile

_ERROR_PAGE = "<!DOCTYPE html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"
_UNTIL_READ = 0.05
"""Seconds that half a body gets to arrive before the connection is reset behind it."""


@dataclass
class Request:
    """A request that the simulator received."""

    method: str
    path: str
    query: dict[str, str]
    status: int | None
    """The status of the answer; None while there is none."""
    key: str
    """The credential as it came, or an empty string."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """The headers as they came, with lower-case names."""


@dataclass
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Middleware:
    """An ASGI application around the routes: it keeps the requests, adds latency and faults, and sets the `Date`."""

    def __init__(self, routes: ASGIApp, profile: Profile, clock: Clock) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.latency = 0.0
        self.peak = 0
        self.in_flight = 0
        self.stopping = asyncio.Event()
        self._routes = routes
        self._profile = profile
        self._clock = clock
        self._served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        key = credential(headers, self._profile)
        request = Request(scope["method"], scope["path"], query, None, key, headers)
        self.requests.append(request)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await self._respond(request, scope, receive, send)
        finally:
            self.in_flight -= 1

    async def _respond(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        faults = applying(self.faults, request.path, request.query)
        wait = self.latency + sum(float(fault.details.get("seconds", 1)) for fault in faults if fault.kind == "slow")
        if wait and not await self._pause(wait, receive):
            return
        if any(fault.kind == "no_ranges" for fault in faults):
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}
        fault = faults[-1] if faults and faults[-1].kind not in PASSING else None
        if fault is not None and fault.kind == "silent":
            if await self._pause(fault.details.get("seconds"), receive):
                await _reset(scope, receive)
            return
        if fault is not None and fault.kind == "reset":
            await _reset(scope, receive)
            return
        answer = await self._answer(fault, request, scope, receive)
        self._served += 1
        answer.headers["date"] = formatdate(self._clock.now(), usegmt=True)
        answer.headers.setdefault("x-request-id", f"req_{self._served:032x}")
        answer.headers["content-length"] = str(len(answer.body))
        request.status = answer.status
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        if fault is not None and fault.kind == "reset_body":
            await send({"type": "http.response.body", "body": answer.body[: len(answer.body) // 2], "more_body": True})
            await self._pause(_UNTIL_READ, receive)
            await _reset(scope, receive)
            return
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, fault: Fault | None, request: Request, scope: Scope, receive: Receive) -> _Answer:
        if fault is None:
            return await self._ask(scope, receive)
        made = _made_up(fault, request)
        if made is not None:
            return made
        if fault.kind == "stuck_cursor":
            pairs = [pair for pair in scope["query_string"].split(b"&") if not pair.startswith(b"after=")]
            return _endless(await self._ask({**scope, "query_string": b"&".join(pairs)}, receive))
        answer = await self._ask(scope, receive)
        if fault.kind == "truncate":
            answer.body = answer.body[: len(answer.body) // 2]
        return answer

    async def _ask(self, scope: Scope, receive: Receive) -> _Answer:
        answer = _Answer(500, {}, b"")

        async def take(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in message["headers"]}
            elif message["type"] == "http.response.body":
                answer.body += message.get("body", b"")

        with contextlib.suppress(Exception):  # Starlette raises what it has answered, and logged, as a 500
            await self._routes(scope, receive, take)
        return answer

    async def _pause(self, seconds: float | None, receive: Receive) -> bool:
        """Wait until the time, the simulator or the connection ends. Return False where the client has left."""
        waits = [asyncio.ensure_future(self.stopping.wait()), asyncio.ensure_future(_until_gone(receive))]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return not waits[1].done()
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _reset(scope: Scope, receive: Receive) -> None:
    """Reset the TCP connection, and wait until the server has noticed, so that it sends nothing more."""
    transport: asyncio.Transport = scope["state"]["transport"]
    connection = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await _until_gone(receive)


def _made_up(fault: Fault, request: Request) -> _Answer | None:
    """Return the answer of a fault that does not need the real one."""
    details, answer = fault.details, None
    match fault.kind:
        case "status":
            answer = _status(details)
        case "html":
            body = _bytes(details.get("body", _ERROR_PAGE))
            answer = _Answer(details.get("status", 200), {"content-type": "text/html; charset=utf-8"}, body)
        case "redirect":
            answer = _Answer(details.get("status", 307), {"location": details["location"]}, b"")
        case "lost_cursor":
            text = f"No object is called '{request.query['after']}' - 'after'"
            answer = _json(404, error_body(text, param="after"))
        case "empty_more":
            answer = _json(200, {"object": "list", "data": [], "has_more": True})
    return answer


def _status(details: Mapping[str, Any]) -> _Answer:
    status = details.get("status", 500)
    body = details.get("body")
    if body is None:
        body = default_error(status, details.get("code"), details.get("message"))
    answer = _json(status, body) if isinstance(body, dict | list) else _Answer(status, {}, _bytes(body))
    answer.headers.update({str(name).lower(): str(value) for name, value in details.get("headers", {}).items()})
    return answer


def _endless(answer: _Answer) -> _Answer:
    page = json.loads(answer.body) if answer.status == 200 else None
    if isinstance(page, dict) and "has_more" in page:
        answer.body = encoded({**page, "has_more": True})
    return answer


def _json(status: int, body: Any) -> _Answer:
    return _Answer(status, {"content-type": "application/json"}, encoded(body))


def _bytes(body: str | bytes) -> bytes:
    return body.encode() if isinstance(body, str) else body
