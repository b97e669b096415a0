"""The one account that options, the usual environment variables and dlt's plain settings mean."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from fine_tuning_warehouse.errors import MissingKeyError, UsageError

from .account import ENTRA, Account, Setting, made_account
from .labels import DEFAULT_LABEL, checked_label

_SECTION = "sources.openai_fine_tuning"


def find_account(label: str | None, base_url: str | None) -> Account:
    """The account that the options and the surroundings name.

    Args:
        label: `--account`.
        base_url: `--base-url`, which wins over every other host.

    Raises:
        UsageError: No key is set, the settings of two hosts are, or one cannot be right.
    """
    label = checked_label(DEFAULT_LABEL if label is None else label)
    key, host = _setting("openai_api_key", secret=True), _setting("openai_base_url")
    azure_key, endpoint = _environment("AZURE_OPENAI_API_KEY"), _environment("AZURE_OPENAI_ENDPOINT")
    if base_url is None:
        _check_one_host(key, host, azure_key, endpoint)
    address = endpoint or host if base_url is None else Setting(base_url, "--base-url")
    auth = _setting("openai_auth")
    if address is not None and (address is endpoint or _is_azure(address.value, endpoint)):
        return _azure_account(label, address, azure_key or key, auth)
    is_token = auth is not None and auth.value == ENTRA
    if key is None and azure_key is not None and not is_token:
        if base_url is None:
            raise UsageError(
                "AZURE_OPENAI_API_KEY is set, but not AZURE_OPENAI_ENDPOINT (https://<resource>.openai.azure.com)."
            )
        # A gateway in front of Azure, which takes what Azure takes.
        return made_account(label, {"base_url": address, "api_key": azure_key, "auth": auth or Setting("api-key", "")})
    if key is None and not is_token:
        raise MissingKeyError(
            "There is no API key: set OPENAI_API_KEY, or openai_api_key under [sources.openai_fine_tuning] in "
            ".dlt/secrets.toml."
        )
    found = {
        "base_url": address,
        "api_key": key,
        "auth": auth,
        "org_id": _setting("openai_org_id"),
        "project_id": _setting("openai_project_id"),
    }
    return made_account(label, found)


def _check_one_host(
    key: Setting | None, host: Setting | None, azure_key: Setting | None, endpoint: Setting | None
) -> None:
    """Raise `UsageError` where two keys are set, or two hosts."""
    ours, azure = key, azure_key or endpoint
    if ours is None and endpoint is not None and host is not None and not _is_azure(host.value, endpoint):
        ours, azure = host, endpoint
    if ours is not None and azure is not None:
        raise UsageError(
            f"Both {ours.origin} and {azure.origin} are set. "
            "Unset the one that is not meant, or say which host to read with --base-url."
        )


def _azure_account(label: str, address: Setting, key: Setting | None, auth: Setting | None) -> Account:
    """An account on Azure: with a key, else with tokens of Entra."""
    auth = auth or Setting("api-key" if key else ENTRA, "")
    if key is None and auth.value != ENTRA:
        raise MissingKeyError("There is no key for Azure: set AZURE_OPENAI_API_KEY.")
    found = {"base_url": address, "api_key": key, "auth": auth}
    return made_account(label, found, on_azure=True, api_version=_environment("OPENAI_API_VERSION"))


def _is_azure(address: str, endpoint: Setting | None) -> bool:
    """Whether an address is on one of Azure's hosts, or on that of the endpoint."""
    from openai_fine_tuning.api.auth import is_azure  # noqa: PLC0415 - see _setting

    try:
        there = urlsplit(address.strip())
        return is_azure(there.hostname or "") or (
            endpoint is not None and there.netloc.lower() == urlsplit(endpoint.value).netloc.lower() != ""
        )
    except ValueError:
        return False


def _setting(name: str, *, secret: bool = False) -> Setting | None:
    """A setting from the environment under the name that everybody uses, else from dlt's configuration."""
    if (found := _environment(name.upper())) is not None:
        return found
    import dlt  # noqa: PLC0415 - importing dlt costs half a second, which `--help` need not pay

    store = dlt.secrets if secret else dlt.config
    value = str(store.get(f"{_SECTION}.{name}") or "").strip()
    return Setting(value, f"{name} in .dlt") if value else None


def _environment(name: str) -> Setting | None:
    value = os.environ.get(name, "").strip()
    return Setting(value, name) if value else None
