"""Addresses of hosts: the base URL of an Azure resource from whatever people have at hand, and what can be shown."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_UNDATED_VERSIONS = frozenset({"preview", "latest", "v1"})
"""Versions that belong to the v1 API; the classic one has dates."""


def azure_base_url(endpoint: str, api_version: str | None = None) -> str:
    """The base URL of an Azure OpenAI resource or Foundry project.

    Args:
        endpoint: The bare endpoint, one with `/openai`, `/openai/v1` or `/v1`, a project's, or an address of some call.
        api_version: A dated version (`2024-10-21`) asks for the classic API, where the endpoint does not say which.

    Returns:
        `https://.../openai/v1`, or the classic `https://.../openai?api-version=...`.
    """
    try:
        parts = urlsplit(endpoint.strip())
    except ValueError:
        return endpoint
    query = parse_qsl(parts.query)
    before, after = _split(parts.path.rstrip("/"))
    is_project = "/api/projects/" in before
    if after is None or (is_project and not after.startswith("v1")):
        # The version is that of another API: of Foundry's models, or of a project's.
        query = [(name, value) for name, value in query if name != "api-version" or value in _UNDATED_VERSIONS]
    told = dict(query).get("api-version")
    is_v1 = (after or "").startswith("v1") or told in _UNDATED_VERSIONS
    if api_version and api_version not in _UNDATED_VERSIONS and not (is_v1 or is_project or told):
        told = api_version
        query.append(("api-version", told))
    path = f"{before}/openai" if told and not (is_v1 or is_project) else f"{before}/openai/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, urlencode(query), ""))


def shown_url(base_url: str) -> str:
    """An address without the values in its query, which may be keys; Azure's version stays."""
    parts = urlsplit(base_url)
    query = "&".join(f"{name}={value if name == 'api-version' else '...'}" for name, value in parse_qsl(parts.query))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _split(path: str) -> tuple[str, str | None]:
    """What stands before `/openai`, and what comes after it; None after the path of another API of the resource."""
    found = re.search(r"/openai(?:/(.*))?$", path, flags=re.IGNORECASE)
    if found is not None:
        return path[: found.start()], found[1] or ""
    if (models := re.search(r"/models(?:/.*)?$", path)) is not None:
        return path[: models.start()], None
    return (path.removesuffix("/v1"), "v1") if path.endswith("/v1") else (path, "")
