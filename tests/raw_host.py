"""A host on this machine that answers with exactly the bytes of a test, for what no real web server would send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable

Answer = Callable[[str, int], Iterable[bytes]]
"""Yields the bytes of the answer to a request: its text, and its number from 0."""

EMPTY_PAGE = b'{"object": "list", "data": [], "has_more": false}'


def answer_with(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """The bytes of a whole answer, after which the connection ends."""
    lines = [f"HTTP/1.1 {status}", "connection: close", *headers]
    if not any(line.lower().startswith(("content-length:", "transfer-encoding:")) for line in headers):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class RawHost:
    """Listens on a free port of 127.0.0.1 for as long as the block runs.

    Attributes:
        requests: The heads of the requests that came.
        connections: How many connections were opened.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._stopping = threading.Event()
        self.port: int = self._socket.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.requests: list[str] = []
        self.connections = 0

    def __enter__(self) -> RawHost:
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with socket.create_connection(("127.0.0.1", self.port)):
            pass
        self._thread.join(10)
        self._socket.close()

    def wait(self, seconds: float) -> None:
        """Let time pass between two bytes, but no longer than the block runs."""
        self._stopping.wait(seconds)

    def _serve(self) -> None:
        while not self._stopping.is_set():
            connection, _ = self._socket.accept()
            if not self._stopping.is_set():
                self.connections += 1
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()
            else:
                connection.close()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            head = b""
            try:
                while b"\r\n\r\n" not in head and (piece := connection.recv(65536)):
                    head += piece
                if not head:
                    return
                self.requests.append(head.decode("latin-1"))
                for piece in self._answer(self.requests[-1], len(self.requests) - 1):
                    if self._stopping.is_set():
                        return
                    connection.sendall(piece)
            except OSError:
                return  # the client has gone
