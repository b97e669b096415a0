"""Addresses: which hosts a credential may go to, and how ids become parts of a path."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from urllib.parse import parse_qsl, quote, urldefrag, urljoin, urlsplit, urlunsplit

from urllib3.util import parse_url

from openai_fine_tuning.errors import ConfigurationError

from .retry import AttemptError

JOBS_PATH = "/fine_tuning/jobs"
"""The listing of jobs, below the base URL, as all paths are."""

FILES_PATH = "/files"
"""The listing of files."""

MODELS_PATH = "/models"
"""The listing of the models that can be called."""

Origin = tuple[str, str, int]
"""Scheme, host and port. Two addresses with the same origin are on one host."""

_PORTS = {"http": 80, "https": 443}
_MAX_LOCATION = 4_000


def is_loopback(host: str) -> bool:
    """Return whether a host name is this machine: the only one that credentials go to without https by default."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_safe_id(value: str) -> bool:
    """Return whether an id can be put into a path: `.` and `..` mean folders, however they are quoted."""
    return value not in ("", ".", "..")


def quoted(value: str) -> str:
    """Return an id as one part of a path."""
    return quote(value.encode("utf-8", "surrogatepass"), safe="")


def job_path(job_id: str) -> str:
    """Return the path of a job."""
    return f"{JOBS_PATH}/{quoted(job_id)}"


def listing_path(job: str, resource: str) -> str:
    """Return the path of the `checkpoints` or `events` of a job; `job` is the job's path."""
    return f"{job}/{resource}"


def file_path(file_id: str) -> str:
    """Return the path of a file's record."""
    return f"{FILES_PATH}/{quoted(file_id)}"


def content_path(file_id: str) -> str:
    """Return the path of a file's content."""
    return f"{file_path(file_id)}/content"


def checked_url(base_url: str, *, allow_http: bool = False) -> tuple[str, dict[str, str]]:
    """Return a base URL without a slash at its end, and its query.

    Args:
        base_url: What the user set.
        allow_http: Whether plain http may go to another machine.

    Raises:
        ConfigurationError: The address cannot be right. What is not an address is not repeated: it may be the key.
    """
    base_url = base_url.strip()
    parts = host = None
    with suppress(ValueError):
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    is_plain = base_url.isprintable() and not re.search(r"[\s\"'`<>\\]", base_url)
    if parts is None or not host or parts.scheme not in _PORTS or not is_plain:
        is_azure = ".azure.com" in base_url.lower()
        form = "https://<resource>.openai.azure.com/openai/v1" if is_azure else "https://api.openai.com/v1"
        raise _wrong_url(f"is not an address: expected one such as {form}.")
    if parts.username is not None or parts.password is not None:
        raise _wrong_url("holds a user name or password: put the credential into the key instead.")
    if parts.scheme == "http" and not (allow_http or is_loopback(host)):
        raise _wrong_url(
            f"is plain http to {host}, which would show the key to anyone on the way: use https, or allow it in a "
            "network that you trust (openai_allow_http)."
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", "")), dict(parse_qsl(parts.query))


def _wrong_url(words: str) -> ConfigurationError:
    return ConfigurationError(f"The base URL {words}", setting="base_url")


def origin(url: str) -> Origin:
    """Return the origin that a connection to an address uses.

    Two parsers read the address: urllib3's, which decides where a request goes, and `urlsplit`, which resolves a
    `Location`. An address that they read differently has no origin.

    Raises:
        ValueError: It has none, or holds a user name.
    """
    parts, sent = urlsplit(url), parse_url(url)
    scheme, host = parts.scheme, parts.hostname or ""
    port = parts.port or _PORTS.get(scheme, 0)
    as_sent = (sent.scheme, (sent.host or "").strip("[]"), sent.port or _PORTS.get(sent.scheme or "", 0))
    if not host or not port or "@" in parts.netloc or sent.auth or (scheme, host, port) != as_sent:
        raise ValueError("the address is malformed")
    return scheme, host, port


def redirect_target(location: str, *, url: str, allowed: Origin) -> str:
    """Return the address that a `Location` header leads to.

    Args:
        location: The header, as the host sent it.
        url: The address that answered.
        allowed: The origin that the credential may go to.

    Raises:
        AttemptError: It leads elsewhere, or is written so that programs may read it differently.
    """
    target, found = "", None
    is_plain = len(location) <= _MAX_LOCATION and re.fullmatch(r"[\x21-\x5b\x5d-\x7e]+", location)
    if is_plain and not re.match(r"///|[A-Za-z][A-Za-z0-9+.-]*:(?!//[^/])", location):
        with suppress(ValueError):
            target, _ = urldefrag(urljoin(url, location))
            found = origin(target)
    if found is None:
        raise AttemptError("redirects to a malformed address, which is not followed", retries=0)
    if found != allowed:
        advice = ", and the key is not sent there. If that is your host, set it as base URL"
        raise AttemptError(f"redirects to {found[1]}", advice=advice, retries=0)
    return target
