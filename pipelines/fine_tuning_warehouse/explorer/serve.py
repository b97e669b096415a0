"""The notebook as a page on this machine, for as long as someone looks at it."""

from __future__ import annotations

import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import marimo
import uvicorn

NOTEBOOK = Path(__file__).with_name("notebook.py")

_HOST = "127.0.0.1"
_OURS = frozenset({_HOST, "localhost", "::1"})

_Scope = MutableMapping[str, Any]
_App = Callable[[_Scope, Any, Any], Awaitable[None]]


def serve(database: Path, dataset: str, port: int, on_ready: Callable[[str], None], *, browser: bool) -> None:
    """Serve the page until the process is told to stop; only this machine reaches it.

    Args:
        database: The DuckDB file.
        dataset: The schema that holds the views.
        port: Where; 0 takes a free port.
        on_ready: Called with the address once it answers.
        browser: Whether to open it in the browser.

    Raises:
        OSError: The port is taken.
    """
    os.environ["FTW_DATABASE"], os.environ["FTW_DATASET"] = str(database), dataset
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, port))
    except OSError:
        listener.close()
        raise
    url = f"http://{_HOST}:{listener.getsockname()[1]}/"
    page = marimo.create_asgi_app(quiet=True, include_code=False).with_app(path="/", root=str(NOTEBOOK)).build()
    server = _Server(
        uvicorn.Config(
            _only_from_here(page), log_level="critical", access_log=False, lifespan="on", timeout_graceful_shutdown=1
        )
    )

    def ready() -> None:
        on_ready(url)
        if browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    server.when_ready = ready
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn, telling when it answers."""

    when_ready: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.when_ready()


def _only_from_here(app: _App) -> _App:
    """Refuse what another site's page, or a name that was bent to this machine, asks for."""

    async def guarded(scope: _Scope, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket") and not _is_ours(scope):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": b"Only pages of this address may ask."})
            return
        await app(scope, receive, send)

    return guarded


def _is_ours(scope: _Scope) -> bool:
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get(b"host", "")
    origin = headers.get(b"origin")
    return urlsplit(f"//{host}").hostname in _OURS and (origin is None or urlsplit(origin).netloc == host)
