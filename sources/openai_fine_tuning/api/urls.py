"""Addresses: which host a credential may go to, and how ids become parts of a path."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from openai_fine_tuning.errors import ConfigurationError

JOBS_PATH = "/fine_tuning/jobs"
"""The listing of jobs, below the base URL, as all paths are."""

FILES_PATH = "/files"
"""The listing of files."""


def is_loopback(host: str) -> bool:
    """Whether a host name is this machine: the only one that credentials go to without https."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_safe_id(value: str) -> bool:
    """Whether an id can be put into a path: `.` and `..` would be taken for folders, whatever their quoting."""
    return value not in ("", ".", "..")


def quoted(value: str) -> str:
    """An id as one part of a path."""
    return quote(value.encode("utf-8", "surrogatepass"), safe="")


def job_path(job_id: str) -> str:
    """A job."""
    return f"{JOBS_PATH}/{quoted(job_id)}"


def listing_path(job: str, resource: str) -> str:
    """The `checkpoints` or `events` of a job; `job` is its path."""
    return f"{job}/{resource}"


def file_path(file_id: str) -> str:
    """What the host tells of a file."""
    return f"{FILES_PATH}/{quoted(file_id)}"


def content_path(file_id: str) -> str:
    """What a file holds."""
    return f"{file_path(file_id)}/content"


def checked_url(base_url: str) -> tuple[str, dict[str, str]]:
    """A base URL without a slash at its end, and its query. Raises `ConfigurationError` where it cannot be right."""
    # What is no address is not repeated: it may be the key, in the wrong place.
    base_url = base_url.strip()
    parts = host = None
    with suppress(ValueError):
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    if parts is None or not host or parts.scheme not in ("http", "https") or re.search(r"[\s\"'`<>]", base_url):
        raise _wrong_url("is no address: it looks like https://api.openai.com/v1.")
    if parts.username or parts.password:
        raise _wrong_url("holds a user name or password: put the credential into the key instead.")
    if parts.scheme == "http" and not is_loopback(host):
        raise _wrong_url(f"is plain http to {host}, which would show the key to anyone on the way: use https.")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", "")), dict(parse_qsl(parts.query))


def _wrong_url(words: str) -> ConfigurationError:
    return ConfigurationError(f"The base URL {words}", setting="base_url")


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: two addresses with the same are of one host."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default
