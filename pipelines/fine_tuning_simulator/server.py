"""The simulator as a server on this machine."""

import asyncio
import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from fine_tuning_simulator.app import World, make_app
from fine_tuning_simulator.clock import DEFAULT_START, Clock
from fine_tuning_simulator.faults import Fault
from fine_tuning_simulator.generated import GeneratedWorld
from fine_tuning_simulator.middleware import Middleware, Request
from fine_tuning_simulator.profiles import profile_named

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_TIMEOUT = 10.0


class Simulator:
    """A host on a loopback port, inside a `with` block (or between `start` and `stop`).

    Args:
        world: What it shows.
        profile: The host that it behaves as; by default the one of the world.
        clock: The host's time; by default the one of the world.
        port: The port; 0 for a free one.
        api_keys: Each accepted key, and the scopes that it *lacks* (`JOBS_SCOPE`, `FILES_SCOPE`). By default any key is
            accepted that is not empty.
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
        self._port = port
        self._front = Middleware(make_app(world, self.profile, api_keys), self.profile, self.clock)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._connections = [0]

    @property
    def base_url(self) -> str:
        """The base URL for a client."""
        return f"http://{_HOST}:{self._port}{self.profile.base_path}"

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order in which they came."""
        return self._front.requests

    @property
    def faults(self) -> list[Fault]:
        """The faults to apply: append to this list, or clear it."""
        return self._front.faults

    @property
    def latency(self) -> float:
        """Seconds added to each answer."""
        return self._front.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._front.latency = seconds

    @property
    def peak_in_flight(self) -> int:
        """The highest number of requests that were being answered at once."""
        return self._front.peak

    def reset_peak(self) -> None:
        """Start to measure `peak_in_flight` again."""
        self._front.peak = self._front.in_flight

    @property
    def connections(self) -> int:
        """The number of TCP connections accepted so far."""
        return self._connections[0]

    def start(self) -> None:
        """Start to answer requests, and return. Raises OSError where the port is in use."""
        if self._server is not None:
            raise RuntimeError("the simulator runs already")
        # the protocol is named so that asyncio turns Nagle's algorithm off, which costs 40 ms an answer
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if sys.platform != "win32":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((_HOST, self._port))
        except OSError:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        self._front.stopping = asyncio.Event()
        server = _Server(self._front, self._protocol())
        thread = threading.Thread(target=server.run, args=([listener],), name="fine-tuning-simulator", daemon=True)
        self._server, self._thread = server, thread
        thread.start()
        if not server.ready.wait(_TIMEOUT):
            raise RuntimeError("the simulator did not start")
        log.debug("the simulator listens at %s", self.base_url)

    def stop(self) -> None:
        """Close all connections and stop; a simulator that does not run stays as it is."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is None or thread is None:
            return
        server.end()
        thread.join(_TIMEOUT)

    def __enter__(self) -> "Simulator":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _protocol(self) -> type[H11Protocol]:
        """Return uvicorn's protocol, extended: it counts connections, and gives its transport to the application."""
        count = self._connections

        class Counting(H11Protocol):
            def connection_made(self, transport: Any) -> None:
                count[0] += 1
                self.app_state = {**self.app_state, "transport": transport}
                super().connection_made(transport)

        return Counting


class _Server(uvicorn.Server):
    """A uvicorn server that says when it is ready, and does not wait for clients when it ends."""

    def __init__(self, front: Middleware, protocol: type[H11Protocol]) -> None:
        super().__init__(
            uvicorn.Config(
                front,
                http=protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                date_header=False,
                server_header=False,
                proxy_headers=False,
            )
        )
        self.ready = threading.Event()
        self._front = front
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.ready.set()

    async def main_loop(self) -> None:
        await self._front.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        state = self.server_state
        deadline = time.monotonic() + _TIMEOUT / 2
        while (state.connections or state.tasks) and time.monotonic() < deadline:
            for connection in list(state.connections):
                transport: Any = getattr(connection, "transport", None)
                if transport is not None:
                    transport.abort()
            await asyncio.sleep(0.001)

    def end(self) -> None:
        """Ask the server to stop, from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._front.stopping.set)


def serve(
    port: int = 0,
    seed: int = 0,
    jobs: int = 24,
    profile: str = "openai",
    speed: float = 0,
    *,
    on_ready: Callable[[str], None] | None = None,
    start: float = DEFAULT_START,
) -> None:
    """Run a generated world until Ctrl-C. `on_ready` is called with the base URL once requests are answered."""
    clock = Clock(start=start, speed=speed)
    world = GeneratedWorld(seed=seed, jobs=jobs, profile=profile, clock=clock)
    with contextlib.suppress(KeyboardInterrupt), Simulator(world, port=port) as simulator:
        if on_ready is not None:
            on_ready(simulator.base_url)
        forever = threading.Event()
        while not forever.wait(0.5):
            pass
