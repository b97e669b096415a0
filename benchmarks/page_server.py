"""A host that answers from prepared bytes: `python page_server.py WORLD [--latency SECONDS]`.

It prints its base URL and serves until it is ended. A page is built when it is first asked for, and is only bytes from
then on, so that after a warm-up the server costs each contender the same and as little as possible.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from worlds import WORLDS, World

LARGEST_PAGE = 100


class PageServer:
    """The fine-tuning API of one world, as an ASGI application.

    Args:
        world: What it shows.
        latency: Seconds that each answer is held back.
    """

    def __init__(self, world: World, latency: float) -> None:
        self.world = world
        self.latency = latency
        self.requests = 0
        self._bodies: dict[tuple[str, str], bytes] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path, query = scope["path"], scope["query_string"].decode()
        if path == "/requests":  # how many were sent since it was last asked
            body, self.requests = str(self.requests).encode(), 0
        elif path == "/grow":
            self.world, body = self.world.grown(), b"{}"
            self._bodies.clear()
        else:
            self.requests += 1
            if self.latency:
                await asyncio.sleep(self.latency)
            found = self._bodies.get((path, query))
            body = found if found is not None else self._bodies.setdefault((path, query), self._page(path, query))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _page(self, path: str, query: str) -> bytes:
        asked = {name: values[-1] for name, values in parse_qs(query).items()}
        limit = min(int(asked.get("limit", 20)), LARGEST_PAGE)
        if path.startswith("/v1/files"):
            return self._files(path.removeprefix("/v1/files").strip("/"))
        if path == "/v1/models":
            return json.dumps({"object": "list", "data": [], "has_more": False}).encode()
        parts = path.removeprefix("/v1/fine_tuning/jobs").strip("/").split("/")
        kind = parts[-1] or "jobs"
        ids = self.world.job_ids() if kind == "jobs" else self.world.child_ids(parts[0], kind)
        record = {"jobs": self.world.job, "checkpoints": self.world.checkpoint, "events": self.world.event}[kind]
        start = ids.index(asked["after"]) + 1 if "after" in asked else 0
        shown = ids[start : start + limit]
        page = {
            "object": "list",
            "data": [record(one) for one in shown],
            "first_id": shown[0] if shown else None,
            "last_id": shown[-1] if shown else None,
            "has_more": start + limit < len(ids),
        }
        return json.dumps(page, separators=(",", ":")).encode()

    def _files(self, path: str) -> bytes:
        if path.endswith("/content"):
            return self.world.result_file(path.removesuffix("/content"))
        if path:
            return json.dumps(self.world.file(path)).encode()
        page = {"object": "list", "data": [self.world.file(one) for one in self.world.file_ids()], "has_more": False}
        return json.dumps(page).encode()


def main() -> None:
    """Serve one world until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", choices=sorted(WORLDS))
    parser.add_argument("--latency", type=float, default=0.0)
    options = parser.parse_args()
    # asyncio sends without waiting to fill a packet only where the protocol is named.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        app = PageServer(WORLDS[options.world], options.latency)
        # A client may be busy for longer than uvicorn's five seconds, and the floor repeats no request.
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_keep_alive=600)
        server = uvicorn.Server(config)
        server.run([listener])


if __name__ == "__main__":
    main()
