"""What proves to a host who asks: a key, or tokens that change; the header it goes in, and how it stays hidden."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

from requests import PreparedRequest
from requests.auth import AuthBase

from openai_fine_tuning.errors import ConfigurationError, FineTuningSourceError, HostError

TokenProvider = Callable[[], str]
"""Gives the bearer token to send next. It is called for each request, by one thread at a time, and is expected to keep
a token as long as it is good. Where it has a method `forget`, that is called once the host has refused its token."""

if TYPE_CHECKING:
    ApiKey = str | TokenProvider
else:
    ApiKey = str  # dlt reads the hint of an argument to know what to look up: a text
    # (a function that is handed over goes through as it is)

Scheme = Literal["bearer", "api-key"]
"""`Authorization: Bearer ...`, or `api-key: ...`."""

AZURE_DOMAINS = tuple(
    f".{service}.azure.{country}"
    for service in ("openai", "services.ai", "cognitiveservices")
    for country in ("com", "us", "cn")
)
"""Azure's hosts, in the public and the sovereign clouds: they take a resource key in the header `api-key`."""

_NO_KEY = {
    r"^<.*>$": "is still what stands there until a key does, such as <configure me>",
    r"^(?i:bearer)\s": "begins with the word Bearer: leave that out",
    "[\"'`\u2018-\u201f]": "holds quotes, which belong to a shell or a file: leave them out",
    r"://": "is an address",
}
"""What people paste in place of a key, and what to say of it."""

_REMEMBERED_SECRETS = 100
_SHORT = 12
"""A key as short as a word (of a gateway, of a test) is only hidden where it stands as one."""


def is_azure(host: str) -> bool:
    """Whether a host name is one of Azure's."""
    return host.lower().endswith(AZURE_DOMAINS)


def chosen_scheme(name: str | None, *, host: str, is_token: bool) -> Scheme:
    """How a credential is sent: as told, else as the host takes it.

    Args:
        name: `bearer`, `api-key`, or None.
        host: The host's name.
        is_token: Whether it is a token, which is always a bearer's.

    Raises:
        ConfigurationError: There is no such way.
    """
    if name is not None and name not in get_args(Scheme):
        raise ConfigurationError(f"{name!r} is no way to send a credential: it is bearer or api-key.", setting="auth")
    if is_token:
        if name == "api-key":
            raise ConfigurationError("A token goes as bearer, not in the header api-key.", setting="auth")
        return "bearer"
    if name is not None:
        return "api-key" if name == "api-key" else "bearer"
    return "api-key" if is_azure(host) else "bearer"


class Credential(AuthBase):
    """A key, or a provider of tokens. Puts itself on a request as it is sent, so that it stands in no log of one.

    Args:
        secret: The key, or a function that returns the token to send.
        scheme: The header it goes in.

    Raises:
        ConfigurationError: The key cannot be one.
    """

    def __init__(self, secret: str | TokenProvider, scheme: Scheme) -> None:
        self._provider = None if isinstance(secret, str) or secret is None else secret
        self.scheme = scheme
        self._asking = threading.Lock()
        self._sent: deque[str] = deque(maxlen=_REMEMBERED_SECRETS)
        if self._provider is None:
            self._sent.append(_checked_key(secret))

    @property
    def is_token(self) -> bool:
        """Whether it changes: a new one may be good where the last was refused."""
        return self._provider is not None

    @property
    def owner(self) -> str:
        """What stays the same as long as the same account asks: the key itself, or whom the token was made out to.

        Raises:
            HostError: There is no token to be had.
        """
        if not self.is_token:
            return self._sent[-1]
        claims = _claims(self.secret())
        if tenant := claims.get("tid"):
            return f"tenant {tenant}"
        return " ".join(["token", *(str(claims[name]) for name in ("iss", "sub") if name in claims)])

    def secret(self) -> str:
        """What is sent now.

        Raises:
            HostError: There is no token to be had.
        """
        if self._provider is None:
            return self._sent[-1]
        with self._asking:
            try:
                token = _checked_token(self._provider())
            except FineTuningSourceError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever the caller's function raises
                what = self.hidden(" ".join(str(error).split()))[:300]
                raise HostError(f"There is no token to be had: {type(error).__name__}: {what}") from None
            if token not in self._sent:
                self._sent.append(token)
            return token

    def renew(self, refused: PreparedRequest) -> bool:
        """Whether there is another token than the one that the host has just refused."""
        if self._provider is None:
            return False
        sent = refused.headers.get("Authorization")
        with self._asking:
            forget = getattr(self._provider, "forget", None)
            # Of several requests refused at once, the first makes it forget; the others find a newer token there.
            if forget is not None and sent == f"Bearer {self._sent[-1]}":
                forget()
        return f"Bearer {self.secret()}" != sent

    def hidden(self, text: str) -> str:
        """A text in which no key or token that was ever sent can be read."""
        for secret in tuple(self._sent):
            edge = "" if len(secret) >= _SHORT else r"\b"
            text = re.sub(f"{edge}{re.escape(secret)}{edge}", "[key]", text, flags=re.IGNORECASE)
        return text

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Put the credential into a request's header."""
        secret = self.secret()
        if self.scheme == "api-key":
            request.headers["api-key"] = secret
        else:
            request.headers["Authorization"] = f"Bearer {secret}"
        return request


def _checked_key(key: Any) -> str:
    key = (key or "").strip()
    if not key:
        raise ConfigurationError("The API key is empty: set OPENAI_API_KEY.", setting="api_key")
    wrong = next((words for pattern, words in _NO_KEY.items() if re.search(pattern, key)), None)
    if wrong is not None or not fits_header(key):
        wrong = wrong or "holds characters that no key has, such as spaces or line breaks"
        raise ConfigurationError(f"The API key {wrong}.", setting="api_key")
    return str(key)


def _checked_token(token: Any) -> str:
    token = token.strip() if isinstance(token, str) else ""
    if not token or not fits_header(token):
        raise HostError("There is no token to be had: its provider gave none, or something that is none.")
    return str(token)


def fits_header(text: str) -> bool:
    """Whether a text without spaces can go in a header as it is."""
    return text.isascii() and text.isprintable() and " " not in text


def _claims(token: str) -> dict[str, Any]:
    """What a token says of itself, where it is a JWT: unverified, since only its host has to trust it."""
    try:
        _, body, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}
