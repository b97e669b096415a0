"""Connections to a host: the trusted certificates, and bounds on the time of an answer from its first byte on."""

from __future__ import annotations

import http.client
import io
import math
import os
import ssl
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import urlsplit

import certifi
import requests
import truststore
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from typing_extensions import override
from urllib3 import BaseHTTPResponse as Response
from urllib3 import PoolManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import Retry, parse_url

from openai_fine_tuning.errors import ConfigurationError

from .retry import ODD_RETRIES, AttemptError
from .urls import is_loopback

_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_MAX_LINES, _MAX_LINE_BYTES = 100, 65_536
"""Bounds on the lines around an answer's body; the same as those of http.client for headers."""
CERTIFICATES = (*_BUNDLES, "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables that name trusted authorities, in the order in which they are looked at."""


@dataclass(frozen=True)
class Pace:
    """The lowest pace of an answer.

    Attributes:
        seconds: From the request to the last byte; infinity for a download.
        bytes_per_second: On average over `window` seconds of waiting.
        window: See above.
    """

    seconds: float = math.inf
    bytes_per_second: float = 0
    window: float = math.inf


pace: ContextVar[Pace] = ContextVar("pace")
"""Set by the client before it sends a request, in the thread that sends it."""


class _PacedStream(io.RawIOBase):
    """The bytes of one answer, headers included, as they come from the socket."""

    def __init__(self, raw: io.RawIOBase, sock: socket, bounds: Pace) -> None:
        self._raw, self._socket, self._bounds = raw, sock, bounds
        self._deadline = time.monotonic() + bounds.seconds
        self._waited = 0.0
        self._bytes = -1  # none has come: the host thinks, which the read timeout bounds

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int | None:
        began, timeout = time.monotonic(), self._socket.gettimeout() or math.inf
        left = self._deadline - began
        try:
            if left <= 0:
                raise TimeoutError
            if left < timeout:
                self._socket.settimeout(left)
            count = self._raw.readinto(buffer)
        except TimeoutError:
            if left >= timeout:
                raise
            raise _too_slow(f"took longer than {self._bounds.seconds:g} s", "fine_tuning_answer_seconds") from None
        self._measure(time.monotonic() - began, count or 0)
        return count

    def _measure(self, seconds: float, count: int) -> None:
        if self._bytes >= 0:
            self._waited += seconds
        self._bytes = max(self._bytes, 0) + count
        if self._waited >= self._bounds.window:
            if self._bytes < self._waited * self._bounds.bytes_per_second:
                words = f"sent fewer than {self._bounds.bytes_per_second:g} bytes a second for {self._waited:.0f} s"
                raise _too_slow(words, "fine_tuning_timeout_seconds")
            self._waited, self._bytes = 0.0, 0

    @override
    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def _too_slow(words: str, setting: str) -> AttemptError:
    advice = f", a bound on one answer. The setting {setting} lifts it"
    return AttemptError(words, advice=advice, retries=ODD_RETRIES, setting=setting)


class _PacedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_PacedStream(self.fp.detach(), sock, pace.get(Pace())))
        self._statuses = 0

    # Two methods of http.client that are not public: what it reads before and behind an answer has no end.

    def _read_status(self) -> Any:
        self._statuses += 1
        if self._statuses > _MAX_LINES:
            raise http.client.HTTPException(f"got more than {_MAX_LINES} answers 100 Continue")
        return super()._read_status()  # type: ignore[misc]

    def _read_and_discard_trailer(self) -> None:
        for _ in range(_MAX_LINES):
            line = self.fp.readline(_MAX_LINE_BYTES + 1)
            if len(line) > _MAX_LINE_BYTES:
                raise http.client.LineTooLong("trailer line")
            if line in (b"", b"\n", b"\r\n"):
                return
        raise http.client.HTTPException(f"got more than {_MAX_LINES} trailers")


class _Connection(HTTPConnection):
    response_class = _PacedResponse


class _TLSConnection(HTTPSConnection):
    response_class = _PacedResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


_NO_RETRIES = Retry(False, redirect=False)
_POOLS = {"http": _Pool, "https": _TLSPool}


class Connections:
    """The connections to one host, or to the proxy that the environment names for it. Safe to share between threads.

    Args:
        url: An address of the host.
        size: The most that are kept open.

    Raises:
        ConfigurationError: The trusted certificates cannot be read.
    """

    def __init__(self, url: str, size: int) -> None:
        parts = urlsplit(url)
        self._tls: dict[str, Any] = {}
        if parts.scheme == "https":
            self._tls = {"ssl_context": tls_context(), "cert_reqs": "CERT_REQUIRED"}
        # What is on this machine is reached directly, whatever proxy the environment names for the world.
        self._proxy = None if is_loopback(parts.hostname or "") else select_proxy(url, get_environ_proxies(url))
        self._size = size
        self._opening = threading.Lock()
        self._opened: PoolManager | None = None

    def get(self, url: str, headers: Mapping[str, str], *, connect_timeout: float, read_timeout: float) -> Response:
        """Send a GET request, and return the answer with its body unread and as it is sent. Redirects are answers.

        Args:
            url: The address.
            headers: All headers but `Host`.
            connect_timeout: Seconds.
            read_timeout: Seconds for which the host may stay silent.

        Raises:
            urllib3.exceptions.HTTPError, requests.RequestException, OSError, http.client.HTTPException: No answer came.
        """
        return self._manager().urlopen(
            "GET",
            url,
            headers=headers,
            timeout=Timeout(connect=connect_timeout, read=read_timeout),
            retries=_NO_RETRIES,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )

    def close(self) -> None:
        """Close those that wait for a request."""
        with self._opening:
            if self._opened is not None:
                self._opened.clear()

    def _manager(self) -> PoolManager:
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> PoolManager:
        manager: PoolManager
        if self._proxy is None:
            manager = PoolManager(1, maxsize=self._size, **self._tls)
        else:
            proxy = self._proxy if "://" in self._proxy else f"http://{self._proxy}"
            if not parse_url(proxy).host:
                raise requests.exceptions.InvalidProxyURL
            manager = HTTPAdapter(1, self._size).proxy_manager_for(proxy, **self._tls)
            if proxy.lower().startswith("socks"):  # its connections are classes of their own
                return manager
        manager.pool_classes_by_scheme = _POOLS
        return manager


def tls_context() -> ssl.SSLContext:
    """Return the authorities that are trusted.

    The file or folder in `REQUESTS_CA_BUNDLE`, else in `CURL_CA_BUNDLE`, else those in `SSL_CERT_FILE` and
    `SSL_CERT_DIR`, are trusted alone. If none is set: the operating system's store, and certifi's authorities.

    Raises:
        ConfigurationError: What a variable names cannot be read.
    """
    found = {name: os.environ[name] for name in CERTIFICATES if os.environ.get(name)}
    first = next(iter(found), None)
    chosen = [first] if first in _BUNDLES else list(found)
    return _context(tuple((str(name), found[str(name)]) for name in chosen))


@lru_cache(maxsize=4)
def _context(places: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    if not places:
        context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(certifi.where())
        return context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, value in places:
        for place in value.split(os.pathsep) if name == "SSL_CERT_DIR" else [value]:
            try:
                if Path(place).is_dir():
                    context.load_verify_locations(capath=place)
                else:
                    context.load_verify_locations(cafile=place)
            except OSError as error:
                reason = error.strerror or "it holds no certificate"
                raise ConfigurationError(f"{name} names {place}, which cannot be used: {reason}.") from None
    return context
