"""Secrets that must not be stored or shown: found in what a host sends, in every form that a host may echo."""

from __future__ import annotations

import base64
import re
from collections import deque

MIN_LENGTH = 8
"""A secret that is shorter is not searched for in what is stored: it may be a word."""

_SHORT = 12
"""A secret that is shorter is hidden in messages only where it stands as a word."""
_REMEMBERED = 100
_SEARCHED = 4
"""How many of the latest secrets are searched for in answers: tokens change about once an hour."""

HIDDEN = "[key]"


class Redactor:
    """Hides secrets, those of the past included. Safe to share between threads."""

    def __init__(self) -> None:
        self._secrets: deque[str] = deque(maxlen=_REMEMBERED)
        self._forms: deque[_Forms] = deque(maxlen=_SEARCHED)

    def add(self, secret: str) -> None:
        """Hide a secret from now on."""
        if secret not in self._secrets:
            self._secrets.append(secret)
            if len(secret) >= MIN_LENGTH:
                self._forms.append(_Forms(secret))

    def text(self, text: str) -> str:
        """Return a text for a message without any secret, whatever its case and form."""
        for secret in tuple(self._secrets):
            edge = "" if len(secret) >= _SHORT else r"\b"
            text = re.sub(f"{edge}{re.escape(secret)}{edge}", HIDDEN, text, flags=re.IGNORECASE)
        return self.body(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def body(self, body: bytes) -> bytes:
        """Return the bytes of an answer without any secret. Costs little where there is none."""
        for forms in tuple(self._forms):
            body = forms.hide(body)
        return body


class _Forms:
    """The forms of one secret: as it is, in base64, as hexadecimal digits, escaped for URLs or JSON."""

    def __init__(self, secret: str) -> None:
        raw = secret.encode()
        self._literal: dict[bytes, bytes] = {raw: HIDDEN.encode()}
        for decode in (base64.b64encode, base64.urlsafe_b64encode):
            for offset in range(3):
                # What stands before and behind a secret decides the characters at the edges: they are left alone.
                # The replacement decodes to as many bytes, so that what is encoded can still be read.
                first, last = (0, 2, 3)[offset], 4 * ((offset + len(raw)) // 3)
                form, stars = (decode(b"-" * offset + text)[first:last] for text in (raw, b"*" * len(raw)))
                self._literal[form] = stars
        self._literal[raw.hex().encode()] = self._literal[raw.hex().upper().encode()] = b"2a" * len(raw)
        self._escapable = re.compile(b"|".join(map(_escapable, self._literal)), re.IGNORECASE)

    def hide(self, body: bytes) -> bytes:
        """Replace every form."""
        body = self._hide_literal(body)
        if not self._stands_in(plain := _unescaped(body)):
            return body
        body = self._escapable.sub(HIDDEN.encode(), body)
        # A form that is escaped twice: what is left may no longer be JSON, and is then an answer that cannot be read.
        return self._hide_literal(plain) if self._stands_in(_unescaped(body)) else body

    def _stands_in(self, body: bytes) -> bool:
        return any(form in body for form in self._literal)

    def _hide_literal(self, body: bytes) -> bytes:
        for form, replacement in self._literal.items():
            if form in body:
                body = body.replace(form, replacement)
        return body


_ESCAPES = {b"\\u00": re.compile(rb"\\u00([0-9A-Fa-f]{2})"), b"%": re.compile(rb"%([0-9A-Fa-f]{2})")}


def _unescaped(body: bytes) -> bytes:
    body = body.replace(b"\\/", b"/")
    for sign, escape in _ESCAPES.items():
        if sign in body:
            body = escape.sub(lambda found: bytes.fromhex(found[1].decode()), body)
    return body


def _escapable(form: bytes) -> bytes:
    """Return a regular expression of a form in which any character may be escaped."""
    return b"".join(
        rb"(?:%b|%%%02x|\\u00%02x%b)" % (re.escape(bytes((byte,))), byte, byte, rb"|\\/" if byte == b"/"[0] else b"")
        for byte in form
    )
