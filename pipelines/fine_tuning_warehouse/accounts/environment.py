"""Find the one account that options, the usual environment variables and dlt's plain settings describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from fine_tuning_warehouse.errors import MissingKeyError, UsageError
from openai_fine_tuning.api.auth import is_azure

from .account import ENTRA, Account, build_account
from .azure import host_of
from .labels import DEFAULT_LABEL, checked_label
from .lookup import COMMAND_LINE, SOURCE, Setting, find_settings, key_variable, variable

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
"""Our variables, each with the names that other clients have for it."""


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
    azure_key, endpoint = key_variable("AZURE_OPENAI_API_KEY"), variable("AZURE_OPENAI_ENDPOINT")
    if base_url is not None:
        found["base_url"] = Setting(base_url, "--base-url", COMMAND_LINE)
    else:
        _check_one_host(found, azure_key, endpoint)
        if endpoint is not None:
            found["base_url"] = endpoint
    host = found.get("base_url")
    on_azure = host is not None and (host is endpoint or _is_azure(host.value, endpoint))
    if on_azure:
        _complete_azure(found, azure_key)
    account = build_account(label, found, on_azure=on_azure)
    if account.problem:
        raise MissingKeyError(account.problem) if azure_key is None else UsageError(_no_azure_host(base_url))
    _check_other_names(account, on_azure=on_azure)
    return account


def _check_one_host(found: Mapping[str, Setting], azure_key: Setting | None, endpoint: Setting | None) -> None:
    """Raise `UsageError` if two keys are set, or two hosts."""
    ours, azure, host = found.get("api_key"), azure_key or endpoint, found.get("base_url")
    if ours is None and endpoint is not None and host is not None and not _is_azure(host.value, endpoint):
        ours, azure = host, endpoint
    if ours is not None and azure is not None:
        raise UsageError(
            f"Both {ours.location} and {azure.location} are set. "
            "Unset the one that is not meant, or say which host to read with --base-url."
        )


def _complete_azure(found: dict[str, Setting], azure_key: Setting | None) -> None:
    """Make the settings those of an account on Azure: with a key, else with tokens of Entra."""
    found.pop("org_id", None)
    found.pop("project_id", None)
    if azure_key is not None:
        found["api_key"] = azure_key
    auth = found.setdefault("auth", Setting("api-key" if "api_key" in found else ENTRA, ""))
    other = _other_variable("AZURE_OPENAI_API_KEY")
    if "api_key" not in found and (auth.value != ENTRA or other):
        raise MissingKeyError(f"There is no key for Azure: set AZURE_OPENAI_API_KEY{other}.")
    if (version := variable("OPENAI_API_VERSION")) is not None:
        found["api_version"] = version


def _no_azure_host(base_url: str | None) -> str:
    if base_url is not None:
        return (
            "AZURE_OPENAI_API_KEY is not sent to the host of --base-url, which is not one of Azure's. For a gateway in "
            "front of Azure set AZURE_OPENAI_ENDPOINT to its address; for another host set OPENAI_API_KEY."
        )
    other = _other_variable("AZURE_OPENAI_ENDPOINT")
    return f"AZURE_OPENAI_API_KEY is set, but not AZURE_OPENAI_ENDPOINT (https://<resource>.openai.azure.com){other}."


def _check_other_names(account: Account, *, on_azure: bool) -> None:
    """Raise `UsageError` if a variable of another client contradicts what would be used."""
    checks: dict[str, tuple[Sequence[str], Callable[[str], bool]]] = {}
    if not on_azure:
        checks["OPENAI_ORG_ID"] = _OTHER_NAMES["OPENAI_ORG_ID"], lambda value: value == account.org_id
        checks["OPENAI_PROJECT_ID"] = _OTHER_NAMES["OPENAI_PROJECT_ID"], lambda value: value == account.project_id
        checks["AZURE_OPENAI_ENDPOINT"] = ("OPENAI_API_TYPE",), lambda value: "azure" not in value.lower()
    checks["AZURE_OPENAI_ENDPOINT" if on_azure else "OPENAI_BASE_URL"] = (
        _OTHER_NAMES["OPENAI_BASE_URL"],
        lambda value: _netloc(value) == _netloc(account.host),
    )
    if account.locations.get("base_url") == "--base-url":
        checks = {ours: check for ours, check in checks.items() if ours in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")}
    for ours, (names, is_same) in checks.items():
        for theirs in filter(None, map(variable, names)):
            if not is_same(theirs.value):
                raise UsageError(
                    f"{theirs.location} says something else than what would be used, and this program reads {ours} "
                    f"instead: set {ours}, or unset {theirs.location}."
                )


def _other_variable(ours: str) -> str:
    """Return a phrase about a variable of another client that is set in place of ours; empty if none is set."""
    other = next(filter(None, map(variable, _OTHER_NAMES[ours])), None)
    return f" instead of {other.location}, which this program does not read" if other else ""


def _is_azure(address: str, endpoint: Setting | None) -> bool:
    """Return whether an address is on one of Azure's hosts, or on that of the endpoint."""
    there = _netloc(address)
    return is_azure(host_of(address)) or (endpoint is not None and there == _netloc(endpoint.value) != "")


def _netloc(address: str) -> str:
    """Return the host and port of an address, with or without its scheme; nothing if it is invalid."""
    address = address.strip()
    try:
        return urlsplit(address if "://" in address else f"https://{address}").netloc.lower()
    except ValueError:
        return ""
