"""Credentials: a key, or tokens that change, the headers they are sent in, and the one host they are sent to."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from openai_fine_tuning.errors import ConfigurationError, FineTuningSourceError, HostError

from .redaction import MIN_LENGTH, Redactor
from .urls import Origin, origin

TokenProvider = Callable[[], str]
"""Returns the bearer token to send next. It is called for each request, by one thread at a time, and is expected to
keep a token as long as it is good. If it has a method `forget`, that is called after the host refused its token."""

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

_NOT_A_KEY = {
    r"^<.*>$": "is still a placeholder, such as <configure me>",
    r"^(?i:bearer)\s": "begins with the word Bearer: leave that out",
    "[\"'`\u2018-\u201f]": "holds quotes, which belong to a shell or a file: leave them out",
    r"://": "is an address",
}
"""What people paste in place of a key, and what to say of it."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = frozenset(
    {"authorization", "api-key", "openai-organization", "openai-project", "host", "accept", "accept-encoding", "range"}
    | {"if-range", "content-length", "content-type", "transfer-encoding", "connection", "te", "trailer", "upgrade"}
    | {"expect", "cookie", "proxy-authorization", "keep-alive"}
)
"""Headers that this client, or HTTP itself, sets."""


def is_azure(host: str) -> bool:
    """Return whether a host name is one of Azure's."""
    return host.lower().endswith(AZURE_DOMAINS)


def chosen_scheme(name: str | None, *, host: str, is_token: bool) -> Scheme:
    """Return how a credential is sent: as the user chose, else as the host takes it.

    Args:
        name: `bearer`, `api-key`, or None.
        host: The host's name.
        is_token: Whether the credential is a token, which is always sent as bearer.

    Raises:
        ConfigurationError: The name is unknown, or does not fit a token.
    """
    if name is not None and name not in get_args(Scheme):
        raise ConfigurationError(f"Invalid auth {name!r}: expected bearer or api-key.", setting="auth")
    if is_token and name == "api-key":
        raise ConfigurationError("A token goes as bearer, not in the header api-key.", setting="auth")
    if name == "api-key" or (name is None and not is_token and is_azure(host)):
        return "api-key"
    return "bearer"


class Credential:
    """A key or a provider of tokens, with the headers that go along, for requests to one origin.

    Args:
        secret: The key, or a function that returns the token to send. If the key has a method `read_again`, that is
            called after the host refused the key, and returns the key to send from then on.
        scheme: The header it goes in.
        allowed: The origin that it may go to.
        headers: More headers for that origin.
        redactor: Learns every key and token, to hide them.

    Raises:
        ConfigurationError: The key cannot be one.
    """

    def __init__(
        self,
        secret: str | TokenProvider,
        scheme: Scheme,
        *,
        allowed: Origin,
        headers: Mapping[str, str],
        redactor: Redactor,
    ) -> None:
        self._provider = None if isinstance(secret, str) or secret is None else secret
        self._scheme = scheme
        self._allowed = allowed
        self._headers = headers
        self._redactor = redactor
        self._asking = threading.Lock()
        self._current = ""
        self._read_again: Callable[[], str] | None = getattr(secret, "read_again", None)
        if self._provider is None:
            self._current = self._first = _checked_key(secret)
            redactor.add(self._current)

    @property
    def owner(self) -> str:
        """What stays the same as long as the same account asks: the key, or the tenant or subject of the tokens.

        The headers belong to it, one a line.

        Raises:
            HostError: No token can be had.
        """
        headers = "".join(f"\n{name}: {value}" for name, value in self._headers.items())
        if self._provider is None:
            return self._first + headers
        claims = _claims(self.secret())
        if tenant := claims.get("tid"):
            return f"tenant {tenant}{headers}"
        return " ".join(["token", *(str(claims[name]) for name in ("iss", "sub") if name in claims)]) + headers

    def secret(self) -> str:
        """Return the key or token to send now.

        Raises:
            HostError: No token can be had.
        """
        if self._provider is None:
            return self._current
        with self._asking:
            try:
                token = _checked_token(self._provider())
            except FineTuningSourceError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever the caller's function raises
                what = self._redactor.text(" ".join(str(error).split()))[:300]
                raise HostError(f"There is no token to send: {type(error).__name__}: {what}") from None
            self._redactor.add(token, lasts=False)
            self._current = token
            return token

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Return whether there is another token than the one in headers that the host has just refused."""
        if self._provider is None:
            return self._renew_key(refused)
        sent = refused.get("Authorization")
        with self._asking:
            forget = getattr(self._provider, "forget", None)
            # Of several requests refused at once, the first makes it forget; the others find another.
            if forget is not None and sent == f"Bearer {self._current}":
                self._current = ""
                forget()
        return f"Bearer {self.secret()}" != sent

    def _renew_key(self, refused: Mapping[str, str]) -> bool:
        """Read the key again where that is possible. Returns whether there is another one."""
        if self._read_again is None:
            return False
        sent = refused.get("api-key") or refused.get("Authorization", "").removeprefix("Bearer ")
        with self._asking:
            if sent == self._current:
                try:
                    self._current = _checked_key(self._read_again())
                except (OSError, ValueError, ConfigurationError):
                    return False  # the refusal says what is wrong with the key that there was
                self._redactor.add(self._current)
        return sent != self._current

    def headers_for(self, url: str) -> dict[str, str]:
        """Return the headers for a request. Ask for each one as it is sent, so that no log of a request holds a secret.

        Raises:
            HostError: The address has another origin, or no token can be had.
        """
        try:
            target = origin(url)
        except ValueError:
            target = None
        if target != self._allowed:
            raise HostError(f"The key belongs to {self._allowed[1]} and is not sent to another address.")
        if self._scheme == "api-key":
            return {**self._headers, "api-key": self.secret()}
        return {**self._headers, "Authorization": f"Bearer {self.secret()}"}


def checked_headers(headers: Mapping[str, str] | None, redactor: Redactor) -> dict[str, str]:
    """Return the extra headers of an account, and have their values hidden.

    Raises:
        ConfigurationError: A name or value cannot go in a header, or this client sets that header itself. No value is
            repeated, nor what is not a name.
    """
    checked: dict[str, str] = {}
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise _wrong_header("One of the extra headers has a name that cannot be one: expected letters and dashes.")
        if name.lower() in _OWN_HEADERS:
            raise _wrong_header(f"The extra header {name} is set by this program: leave it out.")
        if not isinstance(value, str) or not value.strip() or not (value.isascii() and value.isprintable()):
            raise _wrong_header(f"The value of the extra header {name} must be one line of ASCII characters.")
        checked[name.lower()] = value.strip()
        if len(value.strip()) >= MIN_LENGTH:
            redactor.add(value.strip())
    return dict(sorted(checked.items()))


def checked_id(value: str | None, setting: str, what: str) -> str:
    """Return the id of an organisation or project as it goes in a header; "" if there is none.

    Raises:
        ConfigurationError: It cannot go in one.
    """
    value = (value or "").strip()
    if not _fits_header(value) or re.search("[\"'`]", value):
        words = f"The id of the {what} holds spaces, quotes or line breaks: expected one such as org-abc123."
        raise ConfigurationError(words, setting=setting)
    return value


def _wrong_header(words: str) -> ConfigurationError:
    return ConfigurationError(words, setting="extra_headers")


def _checked_key(key: Any) -> str:
    key = (key or "").strip()
    if not key:
        raise ConfigurationError("The API key is empty: set OPENAI_API_KEY.", setting="api_key")
    wrong = next((words for pattern, words in _NOT_A_KEY.items() if re.search(pattern, key)), None)
    if wrong is not None or not _fits_header(key):
        wrong = wrong or "holds characters that no key has, such as spaces or line breaks"
        raise ConfigurationError(f"The API key {wrong}.", setting="api_key")
    return str(key)


def _checked_token(token: Any) -> str:
    token = token.strip() if isinstance(token, str) else ""
    if not token or not _fits_header(token):
        raise HostError("There is no token to send: the token provider returned none, or something else.")
    return str(token)


def _fits_header(text: str) -> bool:
    """Return whether a text without spaces can go in a header as it is."""
    return text.isascii() and text.isprintable() and " " not in text


def _claims(token: str) -> dict[str, Any]:
    """Return the claims of a JWT, unverified, since only its host has to trust it; none if it is not a JWT."""
    try:
        _, body, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}
