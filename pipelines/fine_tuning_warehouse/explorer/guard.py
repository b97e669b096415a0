"""Show the explorer's page to nobody but the user who started it, and let the page ask nobody else."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import secrets
from urllib.parse import urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OUR_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_POLICY = (
    "default-src 'none'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' ws://{host}; manifest-src 'self'; worker-src 'self' blob:; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page: marimo and Vega set styles on elements, and nothing needs `eval`."""

# Browsers send a cookie of SameSite=Strict only with what a page of this server asks for, so the page asks once more.
_WELCOME = '<!doctype html><meta http-equiv="refresh" content="0;url={}"><title>Fine-tuning explorer</title>'


class Guard:
    """An ASGI application that lets a request through to another one only if it comes from the user's own browser.

    The token of the address becomes a cookie (HttpOnly, SameSite=Strict). Every path needs the cookie, files and
    WebSockets included. A Host other than this machine (DNS rebinding) and a foreign Origin are refused; a WebSocket,
    and every request that may change something, needs an Origin. Pages get a Content-Security-Policy.

    Args:
        app: The application to guard.
        port: The port that the application is served on.
        token: The token of the address.
        single_use_token: A second token, which works once.
    """

    def __init__(self, app: ASGIApp, *, port: int, token: str, single_use_token: str) -> None:
        self._app = app
        self._token = token
        self._single_use_token: str | None = single_use_token
        self._cookie_name = f"ftw_explorer_{port}"
        self._cookie = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        response: Response = PlainTextResponse("Open the address that `ftw explore` printed, with its token.", 403)
        if _is_from_our_page(request):
            if self._takes_token(request):
                cookie = f"{self._cookie_name}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"
                response = HTMLResponse(_WELCOME.format(_without_token(request)), headers={"Set-Cookie": cookie})
            elif _equal(request.cookies.get(self._cookie_name, ""), self._cookie):
                await self._app(scope, receive, _with_policy(send, request.headers["host"]))
                return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: the client gets 403
            return
        await response(scope, receive, _with_policy(send, "127.0.0.1"))

    def _takes_token(self, request: HTTPConnection) -> bool:
        if request.scope["type"] != "http" or request.scope["path"] != "/":
            return False
        given = request.query_params.get("token", "")
        if self._single_use_token and _equal(given, self._single_use_token):
            self._single_use_token = None
            return True
        return _equal(given, self._token)


def _without_token(request: HTTPConnection) -> str:
    """Return the address that a request asks for without its token, for an attribute in HTML."""
    others = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "token"])
    return html.escape(f"/?{others}" if others else "/")


def _equal(given: str, expected: str) -> bool:
    return secrets.compare_digest(given.encode(), expected.encode())


def _is_from_our_page(request: HTTPConnection) -> bool:
    hosts, origins = request.headers.getlist("host"), request.headers.getlist("origin")
    if len(hosts) != 1 or not _OUR_HOST.fullmatch(hosts[0]):
        return False
    may_lack_origin = request.scope["type"] == "http" and request.scope["method"] in ("GET", "HEAD")
    return origins == [f"http://{hosts[0]}"] or (may_lack_origin and not origins)


def _with_policy(send: Send, host: str) -> Send:
    """Return a `send` that adds the security headers; a page waits until the hashes of its scripts are known."""
    waiting: Message = {}
    page = bytearray()

    async def start(message: Message) -> None:
        hashes = {base64.b64encode(hashlib.sha256(script).digest()).decode() for script in _INLINE_SCRIPT.findall(page)}
        policy = _POLICY.format(hashes="".join(f" 'sha256-{value}'" for value in sorted(hashes)), host=host)
        MutableHeaders(scope=message).update({**_HEADERS, "Content-Security-Policy": policy})
        await send(message)

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            if MutableHeaders(scope=message).get("content-type", "").startswith("text/html"):
                waiting.update(message)
            else:
                await start(message)
        elif waiting and message["type"] == "http.response.body":
            page.extend(message.get("body", b""))
            if not message.get("more_body"):
                await start(waiting)
                await send({"type": "http.response.body", "body": bytes(page)})
        else:
            await send(message)

    return guarded
