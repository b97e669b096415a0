"""Azure OpenAI: the base URL from whatever address people have at hand, and tokens of Microsoft Entra ID."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from fine_tuning_warehouse.errors import UsageError
from openai_fine_tuning import HostError

_UNDATED_VERSIONS = frozenset({"preview", "latest", "v1"})
"""Versions that belong to the v1 API; the classic one has dates."""


def azure_base_url(endpoint: str, api_version: str | None = None) -> str:
    """Return the base URL of an Azure OpenAI resource or Foundry project.

    Args:
        endpoint: The bare endpoint, one with `/openai`, `/openai/v1` or `/v1`, a project's, or the address of a call.
        api_version: A dated version (`2024-10-21`) asks for the classic API, if the endpoint does not name one.

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
    version = dict(query).get("api-version")
    is_v1 = (after or "").startswith("v1") or version in _UNDATED_VERSIONS
    if api_version and api_version not in _UNDATED_VERSIONS and not (is_v1 or is_project or version):
        version = api_version
        query.append(("api-version", version))
    path = f"{before}/openai" if version and not (is_v1 or is_project) else f"{before}/openai/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, urlencode(query), ""))


def shown_url(base_url: str) -> str:
    """Return an address without the values in its query, which may be keys; Azure's version stays."""
    parts = urlsplit(base_url)
    query = "&".join(f"{name}={value if name == 'api-version' else '...'}" for name, value in parse_qsl(parts.query))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def host_of(address: str) -> str:
    """Return the host name of an address; nothing if it is invalid."""
    try:
        return urlsplit(address.strip()).hostname or ""
    except ValueError:
        return ""


class EntraTokens:
    """Return the token to send next; azure-identity keeps it until shortly before it expires.

    Args:
        scope: What the tokens are for.

    Raises:
        UsageError: azure-identity is not installed.
    """

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self.forget()

    def __call__(self) -> str:
        """Return the token. Raises `HostError` if Entra gives none."""
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - an extra

        try:
            return self._provider()
        except AzureError as error:
            # azure-identity writes a page about each way that it tried: one line says what Entra answered.
            lines = [line.strip() for line in str(error).splitlines()]
            answers = [line for line in lines if "AADSTS" in line or "Authentication failed" in line]
            raise HostError(
                f"Entra gives no token ({answers[0][:300] if answers else 'nothing here is signed in to Azure'}). "
                "Run `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or use a managed "
                "identity; or set AZURE_OPENAI_API_KEY."
            ) from None

    def forget(self) -> None:
        """Ask Entra again, past every cache: the host has refused the token."""
        try:
            from azure.identity import DefaultAzureCredential, get_bearer_token_provider  # noqa: PLC0415 - an extra
        except ImportError:
            raise UsageError(
                "Without a key (AZURE_OPENAI_API_KEY) Azure takes tokens of Entra, which need azure-identity: "
                "pip install 'fine-tuning-warehouse[azure]'."
            ) from None
        self._provider: Callable[[], str] = get_bearer_token_provider(DefaultAzureCredential(), self._scope)


@functools.cache
def _tokens(scope: str) -> EntraTokens:
    return EntraTokens(scope)  # one for the whole process: a sync in several parts does not sign in again for each


def entra_tokens(base_url: str) -> EntraTokens:
    """Return what gives the tokens for a host. Raises as `EntraTokens` does."""
    country = host_of(base_url).rpartition(".")[2]
    country = country if country in ("us", "cn") else "com"
    return _tokens(f"https://cognitiveservices.azure.{country}/.default")


def _split(path: str) -> tuple[str, str | None]:
    """Return what comes before `/openai`, and what comes after it; None after the path of another API."""
    found = re.search(r"/openai(?:/(.*))?$", path, flags=re.IGNORECASE)
    if found is not None:
        return path[: found.start()], found[1] or ""
    if (models := re.search(r"/models(?:/.*)?$", path)) is not None:
        return path[: models.start()], None
    return (path.removesuffix("/v1"), "v1") if path.endswith("/v1") else (path, "")
