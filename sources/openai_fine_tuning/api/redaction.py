"""Secrets that must not be stored or shown: found in what a host sends, in every form in which a host may echo them."""

from __future__ import annotations

import base64
import re
from collections import deque
from functools import cached_property
from itertools import islice

MIN_LENGTH = 8
"""A shorter secret is hidden in messages only, and only where it stands as a word: it may be an ordinary one."""
HIDDEN = "[key]"

_REMEMBERED_TOKENS = 100
_SEARCHED_TOKENS = 4
"""How many of the latest tokens are searched for in answers: they change about once an hour."""
_ESCAPES = {b"\\u00": re.compile(rb"\\u00([0-9A-Fa-f]{2})"), b"%": re.compile(rb"%([0-9A-Fa-f]{2})")}


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
        """Return the bytes of an answer without any secret. Costs little where there is none."""
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
        plain = _unescaped(body)
        if plain is body or not self._stands_in(plain):
            return body
        body = self._escapable.sub(HIDDEN.encode(), body)
        # A form that is escaped twice: what is left may no longer be JSON, and is then an answer that cannot be read.
        return self._hide_literal(plain) if self._stands_in(_unescaped(body)) else body

    @cached_property
    def _literal(self) -> dict[bytes, bytes]:
        """The forms, each with its replacement."""
        raw = self.secret.encode()
        forms = {raw: HIDDEN.encode()}
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            for offset, first in enumerate((0, 2, 3)):
                # What stands before and behind a secret decides the characters at the edges: they are left alone.
                # The replacement decodes to as many bytes, so that what is encoded can still be read.
                last = 4 * ((offset + len(raw)) // 3)
                form, stars = (encode(b"-" * offset + text)[first:last] for text in (raw, b"*" * len(raw)))
                forms[form] = stars
        forms[raw.hex().encode()] = forms[raw.hex().upper().encode()] = b"2a" * len(raw)
        return forms

    @cached_property
    def _escapable(self) -> re.Pattern[bytes]:
        """The forms as a regular expression in which any character may be escaped."""
        signs = {
            byte: rb"(?:%b|%%%02x|\\u00%02x%b)"
            % (re.escape(bytes((byte,))), byte, byte, rb"|\\/" if byte == b"/"[0] else b"")
            for form in self._literal
            for byte in form
        }
        return re.compile(b"|".join(b"".join(signs[byte] for byte in form) for form in self._literal), re.IGNORECASE)

    def _stands_in(self, body: bytes) -> bool:
        return any(form in body for form in self._literal)

    def _hide_literal(self, body: bytes) -> bytes:
        for form, replacement in self._literal.items():
            if form in body:
                body = body.replace(form, replacement)
        return body


def _unescaped(body: bytes) -> bytes:
    body = body.replace(rb"\/", b"/")
    for sign, escape in _ESCAPES.items():
        if sign in body:
            body = escape.sub(lambda found: bytes.fromhex(found[1].decode()), body)
    return body
