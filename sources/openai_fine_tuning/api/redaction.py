"""Secrets that must not be stored or shown: found in what a host sends, in every form in which a host may echo them."""

from __future__ import annotations

import base64
import json
import re
from collections import deque
from contextlib import suppress
from functools import cached_property
from itertools import islice

MIN_LENGTH = 8
"""A shorter secret is hidden in messages only, and only as a whole word: it may be an ordinary word."""
HIDDEN = "[key]"

_REMEMBERED_TOKENS = 100
_SEARCHED_TOKENS = 4
"""How many of the latest tokens are searched for in answers: they change about once an hour."""
_LAYERS = 3
"""How many escapes around escapes are looked through, such as those of a URL in those of JSON."""
_ESCAPES = (
    (b"%", re.compile(rb"%(?:25){0,4}([0-9A-Fa-f]{2})"), 16),
    (b"\\", re.compile(rb"\\{1,15}(?:u00|x)([0-9A-Fa-f]{2})"), 16),
    (b"&#", re.compile(rb"&#[xX]0{0,6}([0-9A-Fa-f]{2});"), 16),
    (b"&#", re.compile(rb"&#0{0,6}([1-9][0-9]{1,2});"), 10),
)
"""Escapes of URLs, JSON and HTML, once or several times: a sign of them, a pattern, and the base of its digits."""
_NAMED = {b"/": b"\\/", b'"': b"&quot;", b"<": b"&lt;", b">": b"&gt;", b"&": b"&amp;"}
"""Escapes without the number of the character."""


class Redactor:
    """Hides secrets, those of the past included. Safe to share between threads."""

    def __init__(self) -> None:
        self._lasting: tuple[_Secret, ...] = ()
        self._tokens: deque[_Secret] = deque(maxlen=_REMEMBERED_TOKENS)

    def add(self, secret: str, *, lasts: bool = True) -> None:
        """Hide a secret from now on; `lasts` is False for a token, of which only the latest are remembered."""
        if lasts:
            self._lasting += (_Secret(secret),)
        elif all(secret != known.secret for known in tuple(self._tokens)):
            self._tokens.appendleft(_Secret(secret))

    def text(self, text: str) -> str:
        """Return a text for a message without any secret, in whatever case and form."""
        for secret in (*self._lasting, *self._tokens):
            text = secret.hide_words(text)
        return self.body(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def body(self, body: bytes) -> bytes:
        """Return the bytes of an answer without any secret. Costs little if there is none."""
        if b"\0" in body:  # UTF-16 and UTF-32, which are read as well
            with suppress(ValueError):
                text = body.decode(json.detect_encoding(body)).encode().replace(b"\0", b"")
                return body if (hidden := self.body(text)) == text else hidden
        for secret in (*self._lasting, *islice(tuple(self._tokens), _SEARCHED_TOKENS)):
            if len(secret.secret) >= MIN_LENGTH:
                body = secret.hide(body)
        return body


class _Secret:
    """One secret and its forms: as it is, in base64, as hexadecimal digits, and each of them escaped."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def hide_words(self, text: str) -> str:
        edge = "" if len(self.secret) >= MIN_LENGTH else r"\b"
        return re.sub(f"{edge}{re.escape(self.secret)}{edge}", HIDDEN, text, flags=re.IGNORECASE)

    def hide(self, body: bytes) -> bytes:
        """Replace every form in the bytes of an answer."""
        body = self._hide_literal(body)
        for _ in range(_LAYERS):
            if self._revealed(body) is None:
                break
            body = self._escapable.sub(HIDDEN.encode(), body)
            # Escapes of several kinds around each other: what is left may no longer be JSON, and then cannot be read.
            if (plain := self._revealed(body)) is not None:
                body = self._hide_literal(plain)
        return body

    def _revealed(self, body: bytes) -> bytes | None:
        """Return a body with as many layers of escapes undone as hide a form; None if it holds none."""
        for _ in range(_LAYERS):
            plain = _unescaped(body)
            if plain == body:
                return None
            if any(form in plain for form in self._literal):
                return plain
            body = plain
        return None

    @cached_property
    def _literal(self) -> dict[bytes, bytes]:
        """The forms, each with its replacement."""
        raw = self.secret.encode()
        forms = {raw: HIDDEN.encode()}
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            for offset, first in enumerate((0, 2, 3)):
                # The text before and behind a secret decides the characters at the edges: they are left alone.
                # The replacement decodes to as many bytes, so that what is encoded can still be read.
                last = 4 * ((offset + len(raw)) // 3)
                form, stars = (encode(b"-" * offset + text)[first:last] for text in (raw, b"*" * len(raw)))
                forms[form] = stars
        forms[raw.hex().encode()] = forms[raw.hex().upper().encode()] = b"2a" * len(raw)
        return forms

    @cached_property
    def _escapable(self) -> re.Pattern[bytes]:
        """A regular expression for the forms, in which any character may be escaped."""
        signs = {byte: _any_escape(byte) for form in self._literal for byte in form}
        return re.compile(b"|".join(b"".join(signs[byte] for byte in form) for form in self._literal), re.IGNORECASE)

    def _hide_literal(self, body: bytes) -> bytes:
        for form, replacement in self._literal.items():
            if form in body:
                body = body.replace(form, replacement)
        return body


def _any_escape(byte: int) -> bytes:
    """Return the pattern of a character that may be escaped."""
    sign = bytes((byte,))
    return rb"(?:%b|%b|%%(?:25){0,4}%02x|\\{1,15}(?:u00|x)%02x|&#x0{0,6}%02x;|&#0{0,6}%d;)" % (
        re.escape(sign),
        re.escape(_NAMED.get(sign, sign)),
        byte,
        byte,
        byte,
        byte,
    )


def _unescaped(body: bytes) -> bytes:
    for plain, named in _NAMED.items():
        if named[:1] in body:  # one byte is found 30 times as fast as two
            body = body.replace(named, plain)
    for sign, escape, base in _ESCAPES:
        if sign[:1] in body and sign in body:
            body = escape.sub(lambda found: bytes((int(found[1], base) & 0xFF,)), body)  # noqa: B023 - called at once
    return body
