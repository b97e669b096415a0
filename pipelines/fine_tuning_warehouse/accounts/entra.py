"""Tokens of Microsoft Entra ID, by azure-identity: from the environment, a managed identity, or `az login`."""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fine_tuning_warehouse.errors import UsageError
from openai_fine_tuning import HostError

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

_SCOPE = "https://cognitiveservices.azure.{country}/.default"
"""What a token must be for, so that Azure OpenAI takes it."""

_EARLY_SECONDS = 300.0
"""So long before its end a token is replaced."""

_SHOWN = 300


class EntraTokens:
    """Gives the token to send next: the same one until shortly before its end. Safe to share between threads.

    Args:
        scope: What the token is to be for.

    Raises:
        UsageError: azure-identity is not installed.
    """

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._asking = threading.Lock()
        self._token: AccessToken | None = None
        self.forget()

    def __call__(self) -> str:
        """The token.

        Raises:
            HostError: None of the ways to get one has worked.
        """
        with self._asking:
            if self._token is None or self._token.expires_on - time.time() < _EARLY_SECONDS:
                self._token = self._get()
            return str(self._token.token)

    def forget(self) -> None:
        """The host has refused the token: ask Entra again, past every cache."""
        try:
            from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - an extra
        except ImportError:
            raise UsageError(
                "Without a key (AZURE_OPENAI_API_KEY) Azure takes tokens of Entra, which need azure-identity: "
                "pip install 'fine-tuning-warehouse[azure]'."
            ) from None
        with self._asking:
            self._credential = DefaultAzureCredential()
            self._token = None

    def _get(self) -> AccessToken:
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - an extra

        try:
            return self._credential.get_token(self._scope)
        except AzureError as error:
            raise HostError(
                f"Entra gives no token ({_short(error)}). Run `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and "
                "AZURE_CLIENT_SECRET, or use a managed identity; or set AZURE_OPENAI_API_KEY."
            ) from None


@functools.cache
def _tokens(scope: str) -> EntraTokens:
    # One for the whole process: a sync in several parts does not sign in again for each.
    return EntraTokens(scope)


def entra_tokens(base_url: str) -> EntraTokens:
    """What gives the tokens for a host. Raises as `EntraTokens` does."""
    country = (urlsplit(base_url).hostname or "").rpartition(".")[2]
    return _tokens(_SCOPE.format(country=country if country in ("us", "cn") else "com"))


def _short(error: Exception) -> str:
    """What Entra said, or that nothing here is signed in: azure-identity tells a page about each way that it tried."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = next((line for line in lines if "AADSTS" in line or "Authentication failed" in line), None)
    return told[:_SHOWN] if told else "nothing here is signed in to Azure"
