"""From the bytes of an answer to what was asked for: a record, a page of a listing, or a file."""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

import orjson
import requests

MAX_DEPTH = 200
"""How deeply JSON may be nested. Python's recursion limit of 1,000 is far from it, whatever walks the record later."""

_PIECE_BYTES = 1 << 16
_LARGE_INTEGER = re.compile(rb"(?<![\d.eE+])\d{19,}(?![\d.eE])")
# The same but for what follows, found in a tenth of the time where it is not there: digits as 0, what may stand before
# them in a fraction or an exponent as a point, all else as a space.
_KINDS = bytes(b"0"[0] if one in b"0123456789" else b"."[0] if one in b".eE+" else b" "[0] for one in range(256))
_MAYBE_LARGE_INTEGER = b" " + 19 * b"0"
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_USUAL_DEPTH = 20
_STRUCTURE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*\\?(?:"|\Z)|[\[\]{}]', re.DOTALL)


class WrongEncodingError(Exception):
    """A body that is not compressed as its headers say."""


class LargeAnswerError(Exception):
    """A body of more bytes than may be read."""


class WrongAnswerError(Exception):
    """An answer with a good status that is not what was asked for.

    Attributes:
        code: The code of the error in it, if it holds one.
        words: What came instead, with the host's own words; `{kind}` stands for its content type.
        is_page: Whether it is a web page: another attempt will hardly change that.
    """

    def __init__(self, words: str, *, code: str | None = None, is_page: bool = False) -> None:
        super().__init__(words)
        self.words = words
        self.code = code
        self.is_page = is_page


# bytes ---------------------------------------------------------------------------------------------------------------


def pieces(response: requests.Response) -> Iterator[bytes]:
    """Yield the body of a streamed answer as it comes, decompressed, in pieces of bounded size.

    Raises:
        WrongEncodingError: It is not compressed as its headers say.
        Exception: requests' and urllib3's own, where the connection breaks.
    """
    sent: Iterator[bytes] = iter(lambda: response.raw.read(_PIECE_BYTES, decode_content=False), b"")
    encodings = response.headers.get("content-encoding", "").lower().split(",")
    for encoding in reversed([name for one in encodings if (name := one.strip()) not in ("", "identity")]):
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise WrongEncodingError(f"is compressed as {encoding[:40]!r}, which was not asked for")
        sent = _inflated(sent, encoding)
    return sent


def read_body(response: requests.Response, max_bytes: int) -> bytes:
    """Return the whole body of a streamed answer, decompressed. Raises as `pieces` does, and `LargeAnswerError`."""
    found, size = [], 0
    for piece in pieces(response):
        size += len(piece)
        if size > max_bytes:
            raise LargeAnswerError
        found.append(piece)
    return b"".join(found)


def _inflated(sent: Iterator[bytes], encoding: str) -> Iterator[bytes]:
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
                    raise WrongEncodingError(f"says that it is compressed as {encoding}, and is not") from None
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
        raise EOFError("the compressed body ends too early")


# JSON ----------------------------------------------------------------------------------------------------------------


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
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return len(brackets) > MAX_DEPTH


def _made_shallow(text: str) -> str:
    """Replace everything below a depth by a string that holds it as JSON text."""
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


# what an answer says -------------------------------------------------------------------------------------------------


def error_in(body: Any) -> tuple[str | None, str]:
    """Return the code and the message of the error that a JSON body holds; (None, "") if it holds none."""
    if not isinstance(body, dict):
        return None, ""
    told = next((body[name] for name in ("error", "errors", "detail", "message", "msg") if _says(body.get(name))), None)
    if isinstance(told, list):
        told = told[0]
    if isinstance(told, dict):
        code, message = told.get("code"), told.get("message") or told.get("msg") or told.get("error")
        if isinstance(told.get("loc"), list):  # FastAPI names the parameter that it misses
            message = f"{message} ({'.'.join(map(str, told['loc']))})"
    else:
        code, message = None, told
    code = code or body.get("code")
    return None if code is None else str(code), "" if message is None else str(message)


def page_of_records(body: Any) -> dict[str, Any]:
    """Return a page of a listing: `data` is an array, and no error stands beside it. Raises `WrongAnswerError`."""
    if isinstance(body, dict) and isinstance(body.get("data"), list) and not _holds_error(body):
        return body
    if isinstance(body, dict):
        kind = type(body["data"]).__name__ if "data" in body else "missing"
        what = f"`data` is {_JSON_NAMES.get(kind, kind)}"
    else:
        what = f"it is {_JSON_NAMES.get(type(body).__name__, 'a value')}"
    raise _wrong(body, f"something that is not a listing: {what}")


def record(body: Any) -> dict[str, Any]:
    """Return a single record: an object with an id, whose `error` is its own. Raises `WrongAnswerError`."""
    if isinstance(body, dict) and body.get("id") not in (None, "") and body.get("object") != "error":
        return body
    raise _wrong(body, "something that is not a record with an id")


def file_content(body: bytes) -> bytes:
    """Return a file as it is. Raises `WrongAnswerError` where an error or a web page came in its place."""
    start = body[:1000].lstrip()[:1]
    if start == b"<":
        raise web_page(body)
    if start == b"{":
        try:
            told = parse_json(body)
        except ValueError:
            return body  # lines of JSON
        if _holds_error(told):
            raise _wrong(told, "an error")
    return body


def web_page(body: bytes) -> WrongAnswerError:
    """Return the error for a page that a proxy or a website puts in an answer's place."""
    return WrongAnswerError(f"a web page ({{kind}}) in its place: {beginning(body)!r}", is_page=True)


def beginning(body: bytes) -> str:
    """Return the first characters of a body for a message."""
    return body[:200].decode("utf-8", "replace")[:60]


_JSON_NAMES = {
    "NoneType": "null",
    "list": "an array",
    "dict": "an object",
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
}


def _says(value: Any) -> bool:
    """Return whether a value beside the data tells of an error: `null`, `{}` and objects of nulls do not."""
    return any(value.values()) if isinstance(value, dict) else bool(value)


def _holds_error(body: Any) -> bool:
    return isinstance(body, dict) and (
        _says(body.get("error"))
        or _says(body.get("errors"))
        or body.get("success") is False
        or "error" in (body.get("object"), body.get("type"))
    )


def _wrong(body: Any, what: str) -> WrongAnswerError:
    code, message = error_in(body)
    if message or code:
        named = f" ({code[:100]})" if code else ""
        return WrongAnswerError(f"an error{named}: {message[:300]}", code=code)
    return WrongAnswerError(what)
