"""Decode an answer: its bytes to its body, and the body to JSON that is neither too large nor too deep."""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

import orjson
from urllib3 import BaseHTTPResponse as Response

from .retry import AttemptError

MAX_DEPTH = 200
"""How deeply JSON may be nested. Python's recursion limit of 1,000 is far from it, whatever walks the record later."""

_PIECE_BYTES = 1 << 16
_LARGE_INTEGER = re.compile(rb"(?<![\d.eE+])\d{19,}(?![\d.eE])")
# The same but for what follows, with a tenth of the time if nothing is found: digits as 0, what may stand before
# them in a fraction or an exponent as a point, all else as a space.
_KINDS = bytes(b"0"[0] if one in b"0123456789" else b"."[0] if one in b".eE+" else b" "[0] for one in range(256))
_MAYBE_LARGE_INTEGER = b" " + 19 * b"0"
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_STRUCTURE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*\\?(?:"|\Z)|[\[\]{}]', re.DOTALL)
_USUAL_DEPTH = 20


def pieces(response: Response) -> Iterator[bytes]:
    """Yield the body of a streamed answer as it comes, decompressed, in pieces of bounded size.

    Raises:
        AttemptError: It is not compressed as its headers say.
        EOFError, or errors of urllib3: The connection broke.
    """
    sent: Iterator[bytes] = iter(lambda: response.read(_PIECE_BYTES, decode_content=False), b"")
    kind = response.headers.get("content-type", "a body")[:60]
    for encoding in reversed(response.headers.get("content-encoding", "").lower().split(",")):
        name = encoding.strip()[:40]
        if name in {"", "identity"}:
            continue
        wrong = AttemptError(
            f"answered with {kind} that says it is compressed as {name}, which it is not, or was not asked to be",
            retries=1,
            about="page",
            status=response.status,
        )
        if name not in {"gzip", "x-gzip", "deflate"}:
            raise wrong
        sent = _inflated(sent, name, wrong)
    return sent


def read_body(response: Response, max_megabytes: float) -> bytes:
    """Return the whole body of a streamed answer, decompressed. Raises as `pieces` does, and if it is too large."""
    found, left = [], max_megabytes * 1_000_000
    for piece in pieces(response):
        left -= len(piece)
        if left < 0:
            raise too_large(f"{max_megabytes:g} MB", response.status)
        found.append(piece)
    return b"".join(found)


def too_large(bound: str, status: int) -> AttemptError:
    """Return the error for an answer that has more than a bound, such as "64 MB"."""
    words, setting = f"answered with more than {bound}", "fine_tuning_max_answer_megabytes"
    advice = f", the bound on one answer. The setting {setting} lifts it"
    return AttemptError(words, advice=advice, retries=0, setting=setting, status=status)


def _inflated(sent: Iterator[bytes], encoding: str, wrong: AttemptError) -> Iterator[bytes]:
    """Decompress in pieces of bounded size. gzip may have several members; deflate comes with and without a header."""
    decoder, has_begun, is_full = None, False, False
    for piece in sent:
        rest = piece
        while rest or is_full:
            is_first_of_member = decoder is None
            if decoder is None:
                decoder = zlib.decompressobj(31 if "gzip" in encoding else 15 if rest[0] & 0x0F == 8 else -15)
            try:
                inflated = decoder.decompress(rest, _PIECE_BYTES)
            except zlib.error:
                if not has_begun:
                    raise wrong from None
                if is_first_of_member:
                    return  # other programs ignore what follows the last member, too
                raise EOFError("the compressed body is damaged") from None
            has_begun, is_full = True, len(inflated) == _PIECE_BYTES
            if inflated:
                yield inflated
            rest = decoder.unconsumed_tail
            if decoder.eof:
                rest, decoder, is_full = decoder.unused_data, None, False
    if decoder is not None:
        raise EOFError("the compressed body ended too early")


def parse_json(body: bytes, charset: str | None = None) -> Any:
    """Parse a body as JSON. What is nested too deeply becomes a string that holds its JSON text.

    Args:
        body: The bytes.
        charset: What the headers say of their encoding; only used if they are not Unicode.

    Raises:
        ValueError: The body is not JSON.
    """
    is_deep = _is_deep(body)
    if not (is_deep or (_MAYBE_LARGE_INTEGER in body.translate(_KINDS) and _LARGE_INTEGER.search(body))):
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
    # orjson refuses NaN and lone surrogates, which hosts do send, and rounds integers of more than 64 bits.
    text = _text(body, charset)
    return json.loads(_made_shallow(text) if is_deep else text, parse_int=_integer)


def _text(body: bytes, charset: str | None) -> str:
    for name in (json.detect_encoding(body), charset or ""):
        try:
            return body.decode(codecs.lookup(name).name)
        except (LookupError, ValueError):
            continue
    return body.decode("utf-8", errors="replace")


def _is_deep(body: bytes) -> bool:
    """Return whether JSON may be nested more deeply than `MAX_DEPTH`, at a fraction of the cost of parsing it."""
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = body.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    brackets = re.sub(rb'"[^"]*"', b"", marks)  # of strings, only those that hold brackets are left
    for _ in range(_USUAL_DEPTH):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return len(brackets) > MAX_DEPTH


def _made_shallow(text: str) -> str:
    """Replace everything below `MAX_DEPTH` by a string that holds it as JSON text."""
    parts, depth, kept, start = [], 0, 0, 0
    for token in _STRUCTURE.finditer(text):
        if token.group() in ("[", "{"):
            depth += 1
            if depth == MAX_DEPTH:
                start = token.start()
        elif token.group() in ("]", "}"):
            if depth == MAX_DEPTH:
                parts += [text[kept:start], json.dumps(text[start : token.end()])]
                kept = token.end()
            depth -= 1
    if depth > 0:
        raise ValueError("a bracket is not closed")
    return "".join([*parts, text[kept:]])


def _integer(text: str) -> int | str:
    # int() refuses texts of more than 4,300 digits; such a number stays as its text.
    return int(text) if len(text) < 4000 else text
