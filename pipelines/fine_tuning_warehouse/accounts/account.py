"""An account: one host, the credential for it, and the label that its rows carry."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from dlt.extract import DltSource

from fine_tuning_warehouse.errors import MissingKeyError, UsageError
from openai_fine_tuning import ConfigurationError, openai_fine_tuning, request_policy
from openai_fine_tuning.api.auth import TokenProvider, is_azure
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.urls import is_loopback
from openai_fine_tuning.settings import DEFAULT_BASE_URL, RequestPolicy

from .azure import azure_base_url, entra_tokens, host_of, shown_url
from .lookup import (
    COMMAND_LINE,
    ENVIRONMENT,
    MIXED,
    PROGRAM,
    SOURCE,
    Setting,
    section_name,
    usual_location,
    variable_name,
)

logger = logging.getLogger(__name__)

ENTRA = "entra"
"""The `auth` that sends tokens of Microsoft Entra ID."""
AUTHS = ("bearer", "api-key", ENTRA)
"""How a credential may be sent."""

_OF_REQUESTS = re.compile(
    r"(.*?)(/(?:fine_tuning|chat/completions)(?:/.*)?|(?<=/v1)/(?:files|models|responses)(?:/.*)?)"
)
"""A path that ends with that of some request: the base URL, and the rest."""


@dataclass(frozen=True)
class Account:
    """One account of one host.

    Attributes:
        label: The column `account` of every row.
        api_key: The key, which is never shown. None if there is none (`auth` "entra").
        base_url: The host with its version path.
        org_id: The organization, for a key that belongs to several.
        project_id: The project, for a key that belongs to several.
        auth: How the credential is sent: "bearer", "api-key", or "entra" for tokens of Microsoft Entra ID. None for
            what the host takes.
        extra_headers: Headers that go with every request, such as those of a gateway. Their values are never shown.
        allow_http: Whether the key may go over plain http to another machine.
        locations: Where each of these was found, by its name: an environment variable, an option, a file.
            `api_version` is there if the version in the base URL was found elsewhere.
        problem: Why this account cannot be read: it has no key. Empty if it can be read.
        section: The section of dlt's configuration that holds the account; empty if plain settings describe it.
        policy: How requests are sent again. Their timeout and bounds are those of dlt's configuration.
    """

    label: str
    api_key: str | None = field(repr=False)
    base_url: str
    org_id: str | None = None
    project_id: str | None = None
    auth: str | None = None
    extra_headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    allow_http: bool = False
    locations: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    problem: str = ""
    section: tuple[str, ...] = field(default=(), repr=False, compare=False)
    policy: RequestPolicy | None = field(default=None, repr=False, compare=False)

    @property
    def host(self) -> str:
        """The base URL, as it can be shown."""
        return shown_url(self.base_url)

    def setting_location(self, name: str) -> str:
        """Return the location of a setting: where it was found, or else where it can be set."""
        if name in self.locations:
            return self.locations[name]
        if name == "api_version":
            return self.setting_location("base_url")
        return usual_location(name, self.section)

    def api(self, concurrency: int | None = None) -> FineTuningApi:
        """Return the client of the host, for requests outside a sync.

        Args:
            concurrency: The highest number of requests in flight; None for the source's default.

        Raises:
            UsageError: A setting is invalid.
        """
        try:
            return FineTuningApi(
                self.base_url,
                self._secret,
                auth=self._scheme,
                org_id=self.org_id,
                project_id=self.project_id,
                extra_headers=self.extra_headers,
                allow_http=self.allow_http,
                concurrency=concurrency,
                policy=request_policy(fine_tuning_policy=self.policy),
            )
        except ConfigurationError as error:
            where = f" See {self.setting_location(error.setting)}." if error.setting and self.locations else ""
            if error.setting == "base_url" and self.base_url.lower().startswith("http:"):
                where += f" To allow it, set {self.setting_location('allow_http')} to true."
            raise UsageError(f"{error}{where}") from None

    def source(self, resources: Sequence[str], **arguments: Any) -> DltSource:
        """Return the dlt source that reads these resources; `arguments` are those of `openai_fine_tuning`."""
        return openai_fine_tuning(
            openai_api_key=self._secret,
            openai_base_url=self.base_url,
            openai_org_id=self.org_id,
            openai_project_id=self.project_id,
            openai_auth=self._scheme,
            openai_extra_headers=dict(self.extra_headers) or None,
            openai_allow_http=self.allow_http,
            account_label=self.label,
            fine_tuning_policy=self.policy,
            **arguments,
        ).with_resources(*resources)

    @property
    def _secret(self) -> str | TokenProvider:
        """The key, or what gives the tokens. Raises `UsageError` if there is none."""
        if self.problem:
            raise MissingKeyError(self.problem)
        return entra_tokens(self.base_url) if self.auth == ENTRA else self.api_key or ""

    @property
    def _scheme(self) -> str | None:
        return "bearer" if self.auth == ENTRA else self.auth


def build_account(
    label: str, found: Mapping[str, Setting], *, on_azure: bool = False, section: tuple[str, ...] = ()
) -> Account:
    """Build an account from the settings that were found, and check everything that can be checked without a request.

    Args:
        label: The account's label.
        found: The settings, by the names of the account's fields; `api_version` for a resource on Azure.
        on_azure: The base URL is that of a resource on Azure, in any form, whatever the name of its host.
        section: The section of a configured account.

    Returns:
        The account. If it has no key, its `problem` says so.

    Raises:
        UsageError: A setting is invalid, or would send the credential to a host that it was not meant for.
    """
    settings = dict(found)
    auth, api_version = settings.get("auth"), settings.pop("api_version", None)
    if auth is not None and auth.value not in AUTHS:
        raise UsageError(
            f"Invalid {auth.location}: expected one of {', '.join(AUTHS)}{did_you_mean(auth.value, AUTHS)}."
        )
    if auth is not None and auth.value == ENTRA:
        settings.pop("api_key", None)
        problem = ""
    else:
        problem = "" if "api_key" in settings else _missing_key(label, section)
    if not problem:
        _check_sources(settings, section)
    values: dict[str, Any] = {"api_key": None, "base_url": DEFAULT_BASE_URL}
    values.update((name, setting.value) for name, setting in settings.items())
    locations = {name: setting.location for name, setting in settings.items() if setting.location}
    given = values["base_url"]
    if on_azure or is_azure(host_of(given)):
        if "://" not in given:
            raise UsageError(
                f"Invalid {locations['base_url']}: expected an address such as https://<resource>.openai.azure.com."
            )
        values["base_url"] = azure_base_url(given, api_version.value if api_version else None)
        if api_version is not None and values["base_url"] != azure_base_url(given):
            locations["api_version"] = api_version.location
    else:
        _check_path(given, locations.get("base_url", ""))
    account = Account(label, **values, locations=locations, problem=problem, section=section)
    if not problem:
        account.api().close()  # what is invalid shows before anything begins
        if urlsplit(account.base_url).scheme == "http" and not is_loopback(host_of(account.base_url)):
            setting = account.setting_location("allow_http")
            logger.warning("%s is plain http: anyone on the way can read the key (%s).", account.host, setting)
    return account


def _missing_key(label: str, section: tuple[str, ...]) -> str:
    variable = variable_name("api_key", section)
    return (
        f"{f'The account {label} has no key' if section else 'There is no API key'}: "
        f"set {f'{variable}, or ' if variable else ''}openai_api_key under {section_name(*(section or SOURCE))} in "
        ".dlt/secrets.toml. (A gateway that wants no key takes any text, such as none.)"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most similar, whatever its case, as ` (did you mean 'x'?)`; empty if none is."""
    lowered = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f" (did you mean {lowered[close[0]]!r}?)" if close else ""


def _check_sources(settings: Mapping[str, Setting], section: tuple[str, ...]) -> None:
    """Raise `UsageError` if a file of the working directory decides where a credential from elsewhere goes.

    The address for a credential must come from the place that holds the credential, or from the user. Hosts of
    OpenAI and Azure need no such care: nobody else can read what goes there.
    """
    key = settings.get("api_key")
    if "base_url" not in settings and (key is None or (section and not key.value.startswith("sk-"))):
        what = "tokens of Entra do not go to OpenAI" if key is None else f"the key in {key.location} is not OpenAI's"
        raise UsageError(f"There is no host, and {what}: set {usual_location('base_url', section)}.")
    trusted = {COMMAND_LINE, ENVIRONMENT, PROGRAM, key.source if key else ENVIRONMENT} - {MIXED}
    for name in ("base_url", "extra_headers", "allow_http"):
        setting = settings.get(name)
        if setting is None or not setting.value or setting.source in trusted:
            continue
        if name == "base_url" and _is_home_of(key, setting.value):
            continue
        what = "the tokens of Entra" if key is None else f"the key in {key.location}"
        ways = [f"set {variable} in the environment"] if (variable := variable_name(name, section)) else []
        ways += ["put the key beside it"] if key is not None else []
        raise UsageError(
            f"{setting.location} decides where {what} goes, but comes from another place, and may not be yours. "
            f"If it is right, {' or '.join(ways)}."
        )


def _is_home_of(key: Setting | None, base_url: str) -> bool:
    """Return whether an address is on a host of the company that the key belongs to, whoever named it."""
    address = re.fullmatch(r"https://([a-z0-9.-]+)(?::443)?(?:[/?].*)?", base_url.strip(), flags=re.IGNORECASE)
    if address is None:
        return False
    is_of_azure = key is not None and key.location.startswith("AZURE_OPENAI_API_KEY")
    if is_azure(address[1]):
        return is_of_azure or key is None or not key.value.startswith("sk-")
    return key is not None and not is_of_azure and is_openai(address[1])


def is_openai(host: str) -> bool:
    """Return whether a host name is that of OpenAI, or one of its regional ones such as `us.api.openai.com`."""
    return f".{host.lower()}".endswith(".api.openai.com")


def _check_path(base_url: str, location: str) -> None:
    """Raise `UsageError` if the path of a base URL is certainly wrong."""
    parts = re.fullmatch(r"(https?://[^/?@\\\s]+)([^?#]*?)/*(?:[?#].*)?", base_url.strip())
    if parts is None:
        return
    if (request := _OF_REQUESTS.fullmatch(parts[2])) is not None:
        what, path = f"ends with the path of a request ({request[2]})", request[1]
    elif not parts[2] and is_openai(host_of(base_url)):
        what, path = "lacks the version", "/v1"
    else:
        return
    raise UsageError(f"Invalid {location}: it {what}. Set it to {parts[1]}{path}.")
