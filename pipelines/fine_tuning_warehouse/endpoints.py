"""The base URL of an Azure resource, from whatever form of its address people have at hand."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_UNDATED_VERSIONS = frozenset({"preview", "latest", "v1"})
"""Versions that belong to the v1 API; the classic one has dates."""


def azure_base_url(endpoint: str, api_version: str | None = None) -> str:
    """The base URL of an Azure OpenAI resource or Foundry project.

    Args:
        endpoint: The bare endpoint, one with `/openai` or `/openai/v1`, a project's, or an address of some call.
        api_version: A dated version (`2024-10-21`) asks for the classic API, where the endpoint does not say which.

    Returns:
        `https://.../openai/v1`, or the classic `https://.../openai?api-version=...`.
    """
    try:
        parts = urlsplit(endpoint.strip())
    except ValueError:
        return endpoint
    query = parse_qsl(parts.query)
    told = dict(query).get("api-version")
    before, after = _split(parts.path.rstrip("/"))
    is_v1 = after.startswith("v1") or told in _UNDATED_VERSIONS
    is_project = "/api/projects/" in before
    if api_version and api_version not in _UNDATED_VERSIONS and not (is_v1 or is_project or told):
        told = api_version
        query.append(("api-version", told))
    path = f"{before}/openai" if told and not (is_v1 or is_project) else f"{before}/openai/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, urlencode(query), ""))


def _split(path: str) -> tuple[str, str]:
    """What stands before `/openai`, and what comes after it."""
    found = re.search(r"/openai(?:/(.*))?$", path)
    if found is not None:
        return path[: found.start()], found[1] or ""
    # The address of Foundry's models is another API of the same resource.
    return re.sub(r"/models$", "", path), ""
