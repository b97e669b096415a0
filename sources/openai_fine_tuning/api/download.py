"""Download a file: know what has come of it, and ask for the rest after a break."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO

from urllib3 import BaseHTTPResponse as Response

from . import answers, decoding
from .retry import AttemptError

_PROGRESS_BYTES = 1_000


class Download:
    """The state of one download, over all its attempts.

    Args:
        file: The file to write to; empty at first.
        size: Bytes that it must have in the end; None if that is not known.
        max_megabytes: How much may come of a file of unknown size.
        watch: Called with the size of every piece.

    Attributes:
        position: How many bytes have come.
        failures: Attempts since the last one that got further than all before it.
        write_error: The error of this machine's disk, which no other attempt mends.
    """

    def __init__(
        self, file: BinaryIO, size: int | None, max_megabytes: float, watch: Callable[[int], None] | None
    ) -> None:
        self._file = file
        self._size = size
        self._max_megabytes = max_megabytes
        self._watch = watch or (lambda _: None)
        self._furthest = 0
        self._version: str | None = None
        self._is_encoded = False
        self.position = 0
        self.failures = 0
        self.write_error: OSError | None = None

    def next_headers(self) -> dict[str, str]:
        """Return the headers of the next request: they ask for the rest, or for the whole file once more."""
        if self._is_encoded:
            self.start_again()  # a range counts encoded bytes, and what was written is decoded
        # Compressed on the way, a range would mean other bytes.
        asked = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self.position:
            asked["Range"] = f"bytes={self.position}-"
            if self._version is not None:
                asked["If-Range"] = self._version
        return asked

    def start_again(self) -> None:
        """Forget what has come."""
        self._watch(-self.position)
        self._file.seek(0)
        self._file.truncate()
        self.position = 0

    def take(self, response: Response, on_piece: Callable[[], None]) -> None:
        """Write the content of an answer, once it is clear at which byte it begins.

        Args:
            response: An answer to a request with `next_headers`, of any status of success, or 416.
            on_piece: Called after every piece.

        Raises:
            AttemptError: The content is not, or not yet, the file.
        """
        if response.status == 416:
            self._check_size()
            self.start_again()
            raise AttemptError("does not go on where it broke off")
        start = _range_start(response) if response.status == 206 else 0
        if start != self.position:
            self.start_again()
            if start != 0:
                raise AttemptError("goes on at another byte than the one asked for")
        version = response.headers.get("etag", "")
        self._version = version if version.startswith('"') else None
        self._is_encoded = response.headers.get("content-encoding", "identity") != "identity"
        for piece in decoding.pieces(response):
            if not self.position and (self._size is None or "html" in response.headers.get("content-type", "").lower()):
                answers.raise_if_page(piece, response)
            try:
                self._file.write(piece)
            except OSError as error:
                self.write_error = error
                raise
            self.position += len(piece)
            self._watch(len(piece))
            on_piece()
            if self._size is None and self.position > self._max_megabytes * 1_000_000:
                raise decoding.too_large(f"{self._max_megabytes:g} MB", response.status)
            if self._size is not None and self.position > self._size:
                break
        self._check_size()

    def _check_size(self) -> None:
        if self._size is not None and self.position != self._size:
            words = f"sent {self.position:,} bytes of a file that has {self._size:,}"
            if self.position > self._size:
                self.start_again()
            raise AttemptError(words, detail=words)

    def has_advanced(self) -> bool:
        """Return whether an attempt that has ended got further than all before it; count a failure if not.

        Less than `_PROGRESS_BYTES` are not further: a byte at a time, no file would ever come whole.
        """
        advanced = self.position >= self._furthest + _PROGRESS_BYTES
        self._furthest = max(self._furthest, self.position)
        self.failures = 0 if advanced else self.failures + 1
        return advanced


def _range_start(response: Response) -> int | None:
    found = re.match(r"bytes (\d{1,18})-", response.headers.get("content-range", ""))
    return int(found[1]) if found else None
