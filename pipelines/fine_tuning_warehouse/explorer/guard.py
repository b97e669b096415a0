"""Let nobody but the user who started the explorer see its page, and let the page ask nobody else."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

_Message = MutableMapping[str, Any]
_App = Callable[[_Message, Any, Any], Awaitable[None]]

_OUR_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)
_HEADERS = {
    b"cache-control": b"no-store",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
_POLICY = b"content-security-policy"
# The cookie is sent along only with what a page of this server asks for: so the page asks for itself once more.
_WELCOME = b'<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>Fine-tuning explorer</title>'
_REFUSED = b"Open the address that `ftw explore` printed, with its token."


class Guard:
    """An ASGI application that lets requests through to another one only if they come from the user's own browser.

    The token of the address becomes a cookie (HttpOnly, SameSite=Strict). Every path needs the cookie, files and
    WebSockets included. A Host other than this machine (DNS rebinding) and a foreign Origin are refused; a WebSocket,
    and every request that may change something, needs an Origin. Pages get a Content-Security-Policy: they load and
    ask nothing but this server, and no other page may frame them.

    Args:
        app: The application to guard.
        port: The port that it is served on.
        token: The token of the address.
        single_use_token: A second token, which works once.
    """

    def __init__(self, app: _App, *, port: int, token: str, single_use_token: str) -> None:
        self._app = app
        self._tokens = {token: False, single_use_token: True}
        self._cookie_name = f"ftw_explorer_{port}"
        self._cookie = secrets.token_urlsafe(32)

    async def __call__(self, scope: _Message, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif not self._is_from_our_page(scope):
            await _answer(scope, send, 403, _REFUSED)
        elif self._takes_token(scope):
            cookie = f"{self._cookie_name}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(scope, send, 200, _WELCOME, {b"set-cookie": cookie.encode()}, kind=b"text/html")
        elif self._has_cookie(scope):
            await self._app(scope, receive, _with_policy(send, _all(scope, b"host")[0]))
        else:
            await _answer(scope, send, 403, _REFUSED)

    def _is_from_our_page(self, scope: _Message) -> bool:
        hosts, origins = _all(scope, b"host"), _all(scope, b"origin")
        if len(hosts) != 1 or not _OUR_HOST.fullmatch(hosts[0]):
            return False
        may_lack_origin = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        return origins == [f"http://{hosts[0]}"] or (may_lack_origin and not origins)

    def _has_cookie(self, scope: _Message) -> bool:
        try:
            found = SimpleCookie("; ".join(_all(scope, b"cookie"))).get(self._cookie_name)
        except CookieError:
            return False
        return found is not None and secrets.compare_digest(found.value.encode(), self._cookie.encode())

    def _takes_token(self, scope: _Message) -> bool:
        if scope["type"] != "http" or scope["path"] != "/":
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0].encode()
        for token, is_single_use in list(self._tokens.items()):
            if secrets.compare_digest(given, token.encode()):
                if is_single_use:
                    del self._tokens[token]
                return True
        return False


def _all(scope: _Message, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


async def _answer(
    scope: _Message,
    send: Any,
    status: int,
    body: bytes,
    headers: dict[bytes, bytes] | None = None,
    *,
    kind: bytes = b"text/plain",
) -> None:
    if scope["type"] == "websocket":  # closed before it is accepted: the client gets 403
        await send({"type": "websocket.close", "code": 1008})
        return
    every = {
        **_HEADERS,
        _POLICY: b"default-src 'none'; frame-ancestors 'none'",
        b"content-type": kind,
        **(headers or {}),
    }
    await send({"type": "http.response.start", "status": status, "headers": list(every.items())})
    await send({"type": "http.response.body", "body": body})


def _with_policy(send: Any, host: str) -> Any:
    """Return a `send` that adds the security headers; a page waits until the hashes of its scripts are known."""
    waiting: _Message = {}
    page = bytearray()

    async def guarded(message: _Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower(): value for name, value in message["headers"]}
            if own.get(b"content-type", b"").startswith(b"text/html"):
                waiting.update(message)
                return
            await send(_secured(message, host, b""))
        elif waiting and message["type"] == "http.response.body":
            page.extend(message.get("body", b""))
            if not message.get("more_body"):
                await send(_secured(waiting, host, bytes(page)))
                await send({"type": "http.response.body", "body": bytes(page)})
        else:
            await send(message)

    return guarded


def _secured(start: _Message, host: str, page: bytes) -> _Message:
    hashes = {base64.b64encode(hashlib.sha256(script).digest()).decode() for script in _INLINE_SCRIPT.findall(page)}
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(["'self'", *sorted(f"'sha256-{value}'" for value in hashes)]),
        "style-src": "'self' 'unsafe-inline'",  # marimo and Vega set styles on elements
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "connect-src": f"'self' ws://{host}",
        "manifest-src": "'self'",
        "worker-src": "'self' blob:",
        "base-uri": "'self'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    policy = "; ".join(f"{name} {value}" for name, value in rules.items()).encode()
    own = [(name, value) for name, value in start["headers"] if name.lower() not in _HEADERS]
    return {**start, "headers": [*own, *_HEADERS.items(), (_POLICY, policy)]}
