"""Find the one account that options, the usual environment variables and dlt's plain settings describe."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from fine_tuning_warehouse.errors import MissingKeyError, UsageError
from openai_fine_tuning.api.auth import is_azure

from .account import ENTRA, Account, build_account
from .azure import host_of
from .labels import DEFAULT_LABEL, checked_label
from .lookup import COMMAND_LINE, SOURCE, Setting, find_settings, variable

_OTHER_NAMES = {
    "OPENAI_BASE_URL": (
        *("OPENAI_API_BASE", "OPENAI_API_BASE_URL", "OPENAI_API_ENDPOINT", "OPENAI_API_HOST", "OPENAI_API_URL"),
        *("OPENAI_BASE", "OPENAI_ENDPOINT", "OPENAI_PROXY_URL", "OPENAI_URL"),
    ),
    "OPENAI_ORG_ID": ("OPENAI_ORGANIZATION", "OPENAI_ORGANIZATION_ID", "OPENAI_ORG"),
    "OPENAI_PROJECT_ID": ("OPENAI_PROJECT",),
    "AZURE_OPENAI_ENDPOINT": (
        *("AZURE_OPENAI_API_BASE", "AZURE_OPENAI_API_ENDPOINT", "AZURE_OPENAI_BASE", "AZURE_OPENAI_BASE_URL"),
        "AZURE_API_BASE",
    ),
    "AZURE_OPENAI_API_KEY": ("AZURE_OPENAI_KEY", "AZURE_API_KEY"),
}
"""Variables of other clients that say what a variable of ours says."""


def find_account(label: str | None, base_url: str | None) -> Account:
    """Return the account that the options and the environment describe.

    Args:
        label: `--account`.
        base_url: `--base-url`, which wins over every other host.

    Raises:
        UsageError: There is no key, the settings belong to two hosts, one is invalid, or the key would go to a host
            that it was not meant for.
    """
    label = checked_label(DEFAULT_LABEL if label is None else label)
    found = find_settings(*SOURCE, plain=True)
    azure_key, endpoint = variable("AZURE_OPENAI_API_KEY"), variable("AZURE_OPENAI_ENDPOINT")
    if base_url is None:
        _check_one_host(found, azure_key, endpoint)
        address = endpoint or found.get("base_url")
    else:
        address = Setting(base_url, "--base-url", COMMAND_LINE)
    if address is not None:
        found["base_url"] = address
    is_entra = "auth" in found and found["auth"].value == ENTRA
    on_azure = address is not None and (address is endpoint or _is_azure(address.value, endpoint))
    if on_azure:
        account = _azure_account(label, found, azure_key or found.get("api_key"))
    elif "api_key" in found or is_entra:
        account = build_account(label, found)
    elif azure_key is not None:
        raise UsageError(_no_azure_host(base_url))
    else:
        raise MissingKeyError(
            "There is no API key: set OPENAI_API_KEY, or openai_api_key under [sources.openai_fine_tuning] in "
            ".dlt/secrets.toml."
        )
    _check_other_names(account, on_azure=on_azure)
    return account


def _check_one_host(found: Mapping[str, Setting], azure_key: Setting | None, endpoint: Setting | None) -> None:
    """Raise `UsageError` where two keys are set, or two hosts."""
    ours, azure, host = found.get("api_key"), azure_key or endpoint, found.get("base_url")
    if ours is None and endpoint is not None and host is not None and not _is_azure(host.value, endpoint):
        ours, azure = host, endpoint
    if ours is not None and azure is not None:
        raise UsageError(
            f"Both {ours.location} and {azure.location} are set. "
            "Unset the one that is not meant, or say which host to read with --base-url."
        )


def _azure_account(label: str, found: Mapping[str, Setting], key: Setting | None) -> Account:
    """Return an account on Azure: with a key, else with tokens of Entra."""
    settings = {name: setting for name, setting in found.items() if name not in ("api_key", "org_id", "project_id")}
    auth = settings.setdefault("auth", Setting("api-key" if key else ENTRA, ""))
    other = _other_variable("AZURE_OPENAI_API_KEY")
    if key is None and (auth.value != ENTRA or other is not None):
        instead = "" if other is None else f" to the value of {other.location}, a name that this program does not read"
        raise MissingKeyError(f"There is no key for Azure: set AZURE_OPENAI_API_KEY{instead}.")
    if key is not None:
        settings["api_key"] = key
    return build_account(label, settings, on_azure=True, api_version=variable("OPENAI_API_VERSION"))


def _no_azure_host(base_url: str | None) -> str:
    if base_url is not None:
        return (
            "AZURE_OPENAI_API_KEY is not sent to the host of --base-url, which is not one of Azure's. For a gateway in "
            "front of Azure set AZURE_OPENAI_ENDPOINT to its address; for another host set OPENAI_API_KEY."
        )
    other = _other_variable("AZURE_OPENAI_ENDPOINT")
    instead = "" if other is None else f"; {other.location} is a name that this program does not read"
    return f"AZURE_OPENAI_API_KEY is set, but not AZURE_OPENAI_ENDPOINT (https://<resource>.openai.azure.com){instead}."


def _check_other_names(account: Account, *, on_azure: bool) -> None:
    """Raise `UsageError` where a variable of another client says something else than what would be used."""
    if account.locations.get("base_url") == "--base-url":
        hosts: list[Setting] = []
    else:
        names = _OTHER_NAMES["OPENAI_BASE_URL"]
        hosts = [one for one in map(variable, names) if one is not None and _netloc(one.value) != _netloc(account.host)]
        kind = variable("OPENAI_API_TYPE")
        if kind is not None and kind.value.lower().startswith("azure") and not on_azure:
            raise UsageError(
                "OPENAI_API_TYPE says that the key is one of Azure, but the host is not: set AZURE_OPENAI_ENDPOINT and "
                "AZURE_OPENAI_API_KEY, or unset OPENAI_API_TYPE."
            )
    if hosts:
        ours = "AZURE_OPENAI_ENDPOINT" if on_azure else "OPENAI_BASE_URL"
        raise UsageError(
            f"{hosts[0].location} names another host than the one that the key would go to, and this program does not "
            f"read it: set {ours} to its value, or unset {hosts[0].location}."
        )
    for ours in () if on_azure else ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        value = getattr(account, ours.removeprefix("OPENAI_").lower())
        for other in filter(None, map(variable, _OTHER_NAMES[ours])):
            if other.value != value:
                raise UsageError(
                    f"{other.location} is set, and this program reads {ours} instead: set {ours} to the same value, or "
                    f"unset {other.location}."
                )


def _other_variable(ours: str) -> Setting | None:
    return next(filter(None, map(variable, _OTHER_NAMES[ours])), None)


def _is_azure(address: str, endpoint: Setting | None) -> bool:
    """Whether an address is on one of Azure's hosts, or on that of the endpoint."""
    there = _netloc(address)
    return is_azure(host_of(address)) or (endpoint is not None and there == _netloc(endpoint.value) != "")


def _netloc(address: str) -> str:
    """Return the host and port of an address, with or without its scheme; nothing where it is invalid."""
    address = address.strip()
    try:
        return urlsplit(address if "://" in address else f"https://{address}").netloc.lower()
    except ValueError:
        return ""
