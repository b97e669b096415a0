"""Serve the notebook as a page on this machine, for the user who started it alone."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

import marimo
import uvicorn

from .guard import Guard

NOTEBOOK = Path(__file__).with_name("notebook.py")

_HOST = "127.0.0.1"


def serve(database: Path, dataset: str, port: int, on_ready: Callable[[str], None], *, browser: bool) -> None:
    """Serve the page until the process is asked to stop.

    Only this machine reaches the page, and only with the token in the address. The browser is opened with another
    token, which works once: every user of the machine can read the command line of the browser.

    Args:
        database: The DuckDB file.
        dataset: The schema that holds the views.
        port: The port to serve on; 0 takes a free one.
        on_ready: Called with the address, which holds the token, once the page answers.
        browser: Whether to open the page in the browser.

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
    port = listener.getsockname()[1]
    printed, opened = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    page = marimo.create_asgi_app(quiet=True, include_code=False).with_app(path="/", root=str(NOTEBOOK)).build()
    guard = Guard(page, port=port, token=printed, single_use_token=opened)
    server = _Server(
        uvicorn.Config(guard, log_level="critical", access_log=False, lifespan="on", timeout_graceful_shutdown=1)
    )

    def ready() -> None:
        address = f"http://{_HOST}:{port}/?token="
        on_ready(address + printed)
        if browser:
            threading.Thread(target=webbrowser.open, args=(address + opened,), daemon=True).start()

    server.when_ready = ready
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """A uvicorn server that calls `when_ready` once it answers."""

    when_ready: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.when_ready()
