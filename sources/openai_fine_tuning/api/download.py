"""A file on its way: what of it has come, and how to ask for the rest after a break."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

import requests

from . import decoding


class MisplacedRangeError(Exception):
    """An answer that goes on at another place than the one asked for."""


class Download:
    """The state of one download, over all its attempts.

    Args:
        file: Where it is written to; empty at first.
        size: Bytes that it must have in the end; None where that is not known.
        watch: Called with the size of every piece.

    Attributes:
        position: How many bytes have come.
        failures: Attempts since the last one that got further than ever before.
        write_error: The error of this machine's disk, which no other attempt mends.
    """

    def __init__(self, file: BinaryIO, size: int | None, watch: Callable[[int], None] | None) -> None:
        self._file = file
        self._size = size
        self._watch = watch or (lambda _: None)
        self._furthest = 0
        self._version: str | None = None
        self._is_encoded = False
        self.position = 0
        self.failures = 0
        self.write_error: OSError | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that ask for the rest."""
        if self._is_encoded:
            self.start_again()  # a range counts encoded bytes, and what was written is decoded
        # Compressed on the way, a range would mean other bytes.
        asked = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self.position:
            asked["Range"] = f"bytes={self.position}-"
            if self._version is not None:
                asked["If-Range"] = self._version
        return asked

    @property
    def wrong_size(self) -> str | None:
        """What is wrong with the size, in words; None if the host has sent as much as it says."""
        if self._size is None or self.position == self._size:
            return None
        sent, size = self.position, self._size
        if sent > size:
            self.start_again()
        return f"sent {sent:,} bytes of a file that has {size:,}"

    def start_again(self) -> None:
        """Forget what has come."""
        self._watch(-self.position)
        self._file.seek(0)
        self._file.truncate()
        self.position = 0

    def pieces(self, response: requests.Response) -> Iterator[bytes]:
        """Yield the content of an answer, once it is clear at which byte it begins."""
        start = _range_start(response) if response.status_code == 206 else 0
        if start != self.position:
            if start != 0:
                self.start_again()
                raise MisplacedRangeError("goes on at another byte than the one asked for")
            self.start_again()
        version = response.headers.get("etag", "")
        self._version = version if version.startswith('"') else None
        self._is_encoded = response.headers.get("content-encoding", "identity") != "identity"
        for piece in decoding.pieces(response):
            yield piece
            if self._size is not None and self.position > self._size:
                return

    def is_page(self, response: requests.Response, piece: bytes) -> bool:
        """Return whether it begins as a page of HTML, which proxies put in a file's place."""
        if self.position or piece[:1000].lstrip()[:1] != b"<":
            return False
        return self._size is None or "html" in response.headers.get("content-type", "").lower()

    def write(self, piece: bytes) -> None:
        """Append a piece."""
        try:
            self._file.write(piece)
        except OSError as error:
            self.write_error = error
            raise
        self.position += len(piece)
        self._watch(len(piece))

    def has_advanced(self) -> bool:
        """Return whether an attempt that has ended got further than all before it; count a failure where not."""
        advanced = self.position > self._furthest
        self._furthest = max(self._furthest, self.position)
        self.failures = 0 if advanced else self.failures + 1
        return advanced


def _range_start(response: requests.Response) -> int | None:
    found = re.match(r"bytes (\d{1,18})-", response.headers.get("content-range", ""))
    return int(found[1]) if found else None
