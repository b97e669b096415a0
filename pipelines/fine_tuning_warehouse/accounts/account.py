"""Whose history is read: an account, and how one is made of settings, wherever those were found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fine_tuning_warehouse.errors import UsageError

from .azure import azure_base_url, shown_url

if TYPE_CHECKING:
    from dlt.extract import DltSource

    from openai_fine_tuning.api.auth import TokenProvider
    from openai_fine_tuning.api.client import FineTuningApi

ENTRA = "entra"
"""The `auth` of tokens of Microsoft Entra ID."""
AUTHS = ("bearer", "api-key", ENTRA)
"""How a credential may be sent."""

_USUAL = {
    "base_url": "OPENAI_BASE_URL",
    "api_key": "OPENAI_API_KEY",
    "org_id": "OPENAI_ORG_ID",
    "project_id": "OPENAI_PROJECT_ID",
    "auth": "OPENAI_AUTH",
}


@dataclass(frozen=True)
class Setting:
    """A setting, and where it was found."""

    value: str = field(repr=False)
    origin: str


@dataclass(frozen=True)
class Account:
    """One account of one host.

    Attributes:
        label: What stands in the column `account` of every row.
        api_key: The key; never shown. None where there is none (`auth` "entra").
        base_url: The host with its version path.
        org_id: For a key of several organisations.
        project_id: For a key of several projects.
        auth: How the credential is sent: "bearer", "api-key", or "entra" for tokens of Microsoft Entra ID. None for
            what the host takes.
        origins: Where each of these was found, by its name: an environment variable, an option. `api_version` is
            there where the base URL has its version from somewhere else.
    """

    label: str
    api_key: str | None = field(repr=False)
    base_url: str
    org_id: str | None = None
    project_id: str | None = None
    auth: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def host(self) -> str:
        """The base URL, as it can be shown."""
        return shown_url(self.base_url)

    def place_of(self, name: str) -> str:
        """What a user changes to change a field: where it was found, or where it would stand."""
        if name in self.origins:
            return self.origins[name]
        if name == "api_version":
            return self.place_of("base_url")
        # A configured account takes nothing from the environment of a single one.
        section = next((there for origin in self.origins.values() if (there := origin.partition(" under ")[2])), None)
        return _USUAL[name] if section is None else f"{_USUAL[name].lower()} under {section}"

    def api(self, concurrency: int | None = None) -> FineTuningApi:
        """The host, for requests outside a sync.

        Args:
            concurrency: The highest number of requests in flight; None for the source's default.

        Raises:
            UsageError: The host or the key cannot be right.
        """
        from openai_fine_tuning import ConfigurationError  # noqa: PLC0415 - importing dlt costs half a second, which `--help` need not pay
        from openai_fine_tuning.api.client import FineTuningApi  # noqa: PLC0415
        from openai_fine_tuning.settings import CONCURRENCY  # noqa: PLC0415

        try:
            return FineTuningApi(
                self.base_url,
                self._secret,
                auth=self._scheme,
                org_id=self.org_id,
                project_id=self.project_id,
                concurrency=CONCURRENCY if concurrency is None else concurrency,
            )
        except ConfigurationError as error:
            where = f" See {self.place_of(error.setting)}." if error.setting and self.origins else ""
            raise UsageError(f"{error}{where}") from None

    def source(self, resources: Sequence[str], **arguments: Any) -> DltSource:
        """The dlt source that reads these resources of it; `arguments` are those of `openai_fine_tuning`."""
        from openai_fine_tuning import openai_fine_tuning  # noqa: PLC0415 - see api

        return openai_fine_tuning(
            openai_api_key=self._secret,
            openai_base_url=self.base_url,
            openai_org_id=self.org_id,
            openai_project_id=self.project_id,
            openai_auth=self._scheme,
            account_label=self.label,
            **arguments,
        ).with_resources(*resources)

    @property
    def _secret(self) -> str | TokenProvider:
        """The key, or what gives the tokens. Raises `UsageError` where there can be none."""
        if self.auth != ENTRA:
            return self.api_key or ""
        from .entra import entra_tokens  # noqa: PLC0415 - an extra

        return entra_tokens(self.base_url)

    @property
    def _scheme(self) -> str | None:
        return "bearer" if self.auth == ENTRA else self.auth


def made_account(
    label: str,
    found: Mapping[str, Setting | None],
    *,
    on_azure: bool = False,
    api_version: Setting | None = None,
) -> Account:
    """An account of the settings that were found.

    Args:
        label: Its label.
        found: The settings by the names of the account's fields; None for one that is not there.
        on_azure: The base URL is that of a resource on Azure, in any form, whatever the name of the host.
        api_version: For one on Azure whose base URL does not say.

    Raises:
        UsageError: One cannot be right; it says which, and where it was found.
    """
    from openai_fine_tuning.api.auth import is_azure  # noqa: PLC0415 - see Account.api
    from openai_fine_tuning.settings import DEFAULT_BASE_URL  # noqa: PLC0415

    settings = {name: setting for name, setting in found.items() if setting is not None}
    auth = settings.get("auth")
    if auth is not None and auth.value not in AUTHS:
        raise UsageError(
            f"{auth.origin} is none of {', '.join(AUTHS)}{did_you_mean(auth.value, AUTHS)}: it says how a key is sent."
        )
    if auth is not None and auth.value == ENTRA:
        settings.pop("api_key", None)
    values: dict[str, Any] = {"api_key": None, "base_url": DEFAULT_BASE_URL}
    values.update((name, setting.value) for name, setting in settings.items())
    origins = {name: setting.origin for name, setting in settings.items() if setting.origin}
    if on_azure or is_azure(_host_of(values["base_url"])):
        given = values["base_url"]
        values["base_url"] = azure_base_url(given, api_version.value if api_version else None)
        if api_version is not None and values["base_url"] != azure_base_url(given):
            origins["api_version"] = api_version.origin
    account = Account(label, **values, origins=origins)
    account.api().close()  # what cannot be right shows before anything begins
    return account


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name that is most like another, in brackets; nothing where none is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _host_of(address: str) -> str:
    try:
        return urlsplit(address.strip()).hostname or ""
    except ValueError:
        return ""
