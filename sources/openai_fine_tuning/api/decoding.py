"""From the bytes of an answer to what was asked for: JSON as hosts send it, or a file."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_LARGE_INTEGER = re.compile(rb"(?<![\d.eE+])\d{19,}(?![\d.eE])")
# The same but for what follows, found in a tenth of the time where it is not there: digits as 0, what may stand before
# them in a fraction or an exponent as a point, all else as a space.
_KINDS = bytes(b"0"[0] if one in b"0123456789" else b"."[0] if one in b".eE+" else b" "[0] for one in range(256))
_MAYBE_LARGE_INTEGER = b" " + 19 * b"0"
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_PARSED_DEPTH = 200


def parse_json(body: bytes) -> Any:
    """A body as JSON. Raises ValueError where it is none.

    What is nested deeper than any parser goes stays as its JSON text.
    """
    if not (_MAYBE_LARGE_INTEGER in body.translate(_KINDS) and _LARGE_INTEGER.search(body)):
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
    # orjson refuses NaN and lone surrogates, which hosts do send, and rounds integers of more than 64 bits.
    text = body.decode("utf-8", errors="replace")
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        return json.loads(_made_shallow(text), parse_int=_integer)


def file_content(body: bytes) -> bytes:
    """A file as it is. Raises ValueError for a page of HTML, which proxies put in its place."""
    if body[:1000].lstrip()[:1] == b"<":
        raise ValueError("a page of HTML")
    return body


def _made_shallow(text: str) -> str:
    """JSON in which everything below a depth is a string that holds it as JSON text."""
    parts, depth, kept, start = [], 0, 0, 0
    for token in _STRUCTURE.finditer(text):
        if token.group() in ("[", "{"):
            depth += 1
            if depth == _PARSED_DEPTH:
                start = token.start()
        elif token.group() in ("]", "}"):
            if depth == _PARSED_DEPTH:
                parts += [text[kept:start], json.dumps(text[start : token.end()])]
                kept = token.end()
            depth -= 1
    return "".join([*parts, text[kept:]])


def _integer(text: str) -> int | str:
    # int() refuses texts of more than 4,300 digits; such a number stays as its text.
    return int(text) if len(text) < 4000 else text
