"""The simulator as a server on this machine."""

import contextlib
import logging
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote

from typing_extensions import Self, override

from fine_tuning_simulator.app import Api, World
from fine_tuning_simulator.clock import Clock
from fine_tuning_simulator.faults import Fault, applying, faulty_answer
from fine_tuning_simulator.generated import GeneratedWorld
from fine_tuning_simulator.messages import Answer, Request, credential
from fine_tuning_simulator.profiles import profile_named

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_TIMEOUT = 10.0
_UNTIL_READ = 0.05
"""Seconds that half a body gets to arrive before the connection is reset behind it."""


class Simulator:
    """A host on a loopback port, inside a `with` block (or between `start` and `stop`).

    Args:
        world: What it shows.
        profile: The host that it behaves as; by default the one of the world.
        clock: The host's time; by default the one of the world.
        port: The port; 0 for a free one.
        api_keys: Each accepted key, and the scopes that it *lacks* (`JOBS_SCOPE`, `FILES_SCOPE`, `MODELS_SCOPE`). By
            default any key is accepted that is not empty.

    Attributes:
        requests: All requests so far, in the order in which they came.
        faults: The faults to apply: append to this list, or clear it.
        latency: Seconds added to each answer.
        connections: The number of TCP connections accepted so far.
        peak_in_flight: The highest number of requests that were being answered at once.
    """

    def __init__(
        self,
        world: World,
        profile: str | None = None,
        clock: Clock | None = None,
        port: int = 0,
        api_keys: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self.world = world
        self.profile = profile_named(profile or str(getattr(world, "profile_name", "openai")))
        self.clock: Clock = clock or getattr(world, "clock", None) or Clock()
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.latency = 0.0
        self.connections = 0
        self.peak_in_flight = 0
        self._port = port
        self._api = Api(world, self.profile, api_keys)
        self._server: _Server | None = None
        self._in_flight = 0
        self._answered = 0
        self._lock = threading.Lock()

    @property
    def base_url(self) -> str:
        """The base URL for a client."""
        return f"http://{_HOST}:{self._port}{self.profile.base_path}"

    def reset_peak(self) -> None:
        """Start to measure `peak_in_flight` again."""
        self.peak_in_flight = self._in_flight

    def start(self) -> None:
        """Start to answer requests, and return. Raises OSError if the port is in use."""
        if self._server is not None:
            raise RuntimeError("the simulator runs already")
        self._server = _Server(self, self._port)
        self._port = self._server.server_address[1]
        log.debug("the simulator listens at %s", self.base_url)

    def stop(self) -> None:
        """Close all connections and stop; do nothing if the simulator does not run."""
        server, self._server = self._server, None
        if server is not None:
            server.end()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @contextlib.contextmanager
    def receiving(self, request: Request) -> Iterator[list[Fault]]:
        """Log a request, and count it as in flight. Yields the faults that apply to it."""
        with self._lock:
            self.requests.append(request)
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
            faults = applying(self.faults, request)
        try:
            yield faults
        finally:
            with self._lock:
                self._in_flight -= 1

    def answer(self, request: Request, faults: list[Fault]) -> Answer:
        """Return the answer to a request; the world is asked by one thread at a time."""
        with self._lock:
            answer = faulty_answer(faults, request, self._api.answer)
            self._answered += 1
            answer.headers["date"] = formatdate(self.clock.now(), usegmt=True)
            answer.headers.setdefault("x-request-id", f"req_{self._answered:032x}")
            answer.headers["content-length"] = str(len(answer.body))
            request.status = answer.status
            return answer


class _Server(socketserver.ThreadingTCPServer):
    """A server that runs until `end`, with a thread for each connection."""

    allow_reuse_address = sys.platform != "win32"
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, simulator: Simulator, port: int) -> None:
        super().__init__((_HOST, port), _Handler)
        self.simulator = simulator
        self._is_ending = False
        self._open: set[Any] = set()
        self._closed = threading.Condition()
        self._thread = threading.Thread(target=self._accept, name="fine-tuning-simulator", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while not self._is_ending:
            self.handle_request()

    def end(self) -> None:
        """Close every connection, and wait until all threads have ended."""
        self._is_ending = True
        with contextlib.suppress(OSError):
            socket.create_connection((_HOST, self.server_address[1]), _TIMEOUT).close()  # wakes the thread that accepts
        self._thread.join(_TIMEOUT)
        self.server_close()
        with self._closed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._closed.wait_for(lambda: not self._open, _TIMEOUT)

    @override
    def verify_request(self, request: Any, client_address: Any) -> bool:
        return not self._is_ending

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        self.simulator.connections += 1
        with self._closed:
            self._open.add(request)
        super().process_request(request, client_address)

    @override
    def shutdown_request(self, request: Any) -> None:
        with self._closed:
            self.close_request(request)  # no orderly end before it: a reset is to be a reset
            self._open.discard(request)
            self._closed.notify_all()

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # else the client has left
            log.error("the simulator failed", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # which costs 40 ms an answer
    wbufsize = -1
    server: _Server

    def _respond(self) -> None:
        """Answer one request, or fail as the faults say."""
        self.rfile.read(int(self.headers.get("content-length") or 0))
        simulator = self.server.simulator
        headers = {name.lower(): value for name, value in self.headers.items()}
        path, _, query = self.path.partition("?")
        key = credential(headers, accepts_api_key_header=simulator.profile.accepts_api_key_header)
        queried = dict(parse_qsl(query, keep_blank_values=True))
        request = Request(self.command, unquote(path), queried, None, key, headers)
        with simulator.receiving(request) as faults:
            kind = faults[-1].kind if faults else None
            late = simulator.latency + sum(fault.seconds or 0 for fault in faults if fault.kind == "slow")
            if late and not self._pause(late):
                self.close_connection = True
            elif kind in ("reset", "silent"):
                if kind == "silent":
                    self._pause(faults[-1].seconds)
                self._reset()
            else:
                self._send(simulator.answer(request, faults), is_cut=kind == "reset_body")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_CONNECT = _respond  # noqa: N815

    def _send(self, answer: Answer, *, is_cut: bool) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if is_cut else answer.body)
        self.wfile.flush()
        if is_cut:
            self._pause(_UNTIL_READ)
            self._reset()

    def _pause(self, seconds: float | None) -> bool:
        """Wait until the time or the connection ends. Return False if the client has left, or the simulator stops."""
        self.connection.settimeout(seconds)
        try:
            self.connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        except OSError:
            return False
        finally:
            self.connection.settimeout(None)
        return False

    def _reset(self) -> None:
        """Have the connection end in a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: the simulator keeps its requests."""


def serve(
    port: int = 0,
    seed: int = 0,
    jobs: int = 24,
    profile: str = "openai",
    speed: float = 0,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Run a generated world until Ctrl-C. `on_ready` is called with the base URL once requests are answered."""
    clock = Clock(speed=speed)
    world = GeneratedWorld(seed=seed, jobs=jobs, profile=profile, clock=clock)
    with contextlib.suppress(KeyboardInterrupt), Simulator(world, port=port) as simulator:
        if on_ready is not None:
            on_ready(simulator.base_url)
        forever = threading.Event()
        while not forever.wait(0.5):
            pass
