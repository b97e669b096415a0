"""Whose history is read: label, key and host, from options, the environment, or dlt's configuration."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .endpoints import azure_base_url
from .errors import UsageError

if TYPE_CHECKING:
    from dlt.extract import DltSource

    from openai_fine_tuning.api import FineTuningApi
    from openai_fine_tuning.credentials import TokenProvider

DEFAULT_LABEL = "default"
ENTRA = "entra"
"""The `auth` of tokens of Microsoft Entra ID."""
_SECTION = "sources.openai_fine_tuning"


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
        origins: Where each of these was found, by its name: an environment variable, an option.
    """

    label: str
    api_key: str | None = field(repr=False)
    base_url: str
    org_id: str | None = None
    project_id: str | None = None
    auth: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def pipeline_name(self) -> str:
        """dlt's pipeline name: state is kept under it, so every label has its own."""
        slug = re.sub(r"[^a-z0-9]+", "_", self.label.lower()).strip("_")
        if slug != self.label:
            slug = f"{slug[:40]}_{hashlib.sha256(self.label.encode()).hexdigest()[:8]}"
        return f"fine_tuning_{slug}"

    @property
    def identity(self) -> str:
        """The fingerprint of host and key that the state is kept under.

        Raises:
            UsageError: The host or the key cannot be right.
        """
        return self.api().identity

    def api(self, concurrency: int | None = None) -> FineTuningApi:
        """The host, for requests outside a sync.

        Args:
            concurrency: The highest number of requests in flight; None for the source's default.

        Raises:
            UsageError: The host or the key cannot be right.
        """
        from openai_fine_tuning import ConfigurationError  # noqa: PLC0415 - see _setting
        from openai_fine_tuning.api import FineTuningApi  # noqa: PLC0415
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
            raise UsageError(str(error)) from None

    def source(self, resources: Sequence[str], **arguments: Any) -> DltSource:
        """The dlt source that reads these resources of it; `arguments` are those of `openai_fine_tuning`."""
        from openai_fine_tuning import openai_fine_tuning  # noqa: PLC0415 - see _setting

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


def find_account(label: str | None, base_url: str | None) -> Account:
    """The account that the options and the surroundings name.

    Args:
        label: `--account`.
        base_url: `--base-url`, which wins over every other host.

    Raises:
        UsageError: No key is set, or two are.
    """
    label = checked_label(DEFAULT_LABEL if label is None else label)
    key, host = _setting("openai_api_key", secret=True), _setting("openai_base_url")
    azure_key, endpoint = _environment("AZURE_OPENAI_API_KEY"), _environment("AZURE_OPENAI_ENDPOINT")
    if base_url is None and key and (azure_key or endpoint):
        raise UsageError(
            f"Both {key.origin} and {(azure_key or endpoint or key).origin} are set. "
            "Unset the one that is not meant, or say which host to read with --base-url."
        )
    address = endpoint or host if base_url is None else _Setting(base_url, "--base-url")
    if address is not None and (address is endpoint or _is_azure(address.value, endpoint)):
        return _azure_account(label, address, azure_key or key)
    auth = _setting("openai_auth")
    is_token = auth is not None and auth.value == ENTRA
    if key is None and azure_key is not None and not is_token:
        if base_url is None:
            raise UsageError(
                "AZURE_OPENAI_API_KEY is set, but not AZURE_OPENAI_ENDPOINT (https://<resource>.openai.azure.com)."
            )
        # A gateway in front of Azure, which takes what Azure takes.
        return _made(label, base_url=address, api_key=azure_key, auth=auth or _Setting("api-key", ""))
    if key is None and not is_token:
        raise UsageError(
            "There is no API key: set OPENAI_API_KEY, or openai_api_key under [sources.openai_fine_tuning] in "
            ".dlt/secrets.toml. `ftw sync --demo` needs none."
        )
    return _made(
        label,
        base_url=address or _Setting("https://api.openai.com/v1", ""),
        api_key=key,
        auth=auth,
        org_id=_setting("openai_org_id"),
        project_id=_setting("openai_project_id"),
    )


def _azure_account(label: str, address: _Setting, key: _Setting | None) -> Account:
    """An account on Azure: with a key, else with tokens of Entra."""
    auth = _setting("openai_auth") or _Setting("api-key" if key else ENTRA, "")
    if key is None and auth.value != ENTRA:
        raise UsageError("There is no key for Azure: set AZURE_OPENAI_API_KEY.")
    version = _environment("OPENAI_API_VERSION")
    base_url = azure_base_url(address.value, version.value if version else None)
    account = _made(label, base_url=_Setting(base_url, address.origin), api_key=key, auth=auth)
    account.api().close()  # that azure-identity is missing shows before anything begins
    return account


def _made(label: str, **found: _Setting | None) -> Account:
    """An account of what was found, by the names of its fields."""
    auth = found.get("auth")
    if auth is not None and auth.value == ENTRA:
        found["api_key"] = None
    values: dict[str, Any] = {name: one.value if one else None for name, one in found.items()}
    origins = {name: one.origin for name, one in found.items() if one is not None and one.origin}
    return Account(label, **values, origins=origins)


def checked_label(label: str) -> str:
    """A label that can stand in a column and in a message. Raises `UsageError` where it cannot."""
    if not label.strip() or not label.isprintable() or len(label) > 100:
        raise UsageError("An account label is 1 to 100 printable characters, such as `production`.")
    return label.strip()


def _is_azure(address: str, endpoint: _Setting | None) -> bool:
    """Whether an address is on one of Azure's hosts, or on that of the endpoint."""
    from openai_fine_tuning.credentials import is_azure  # noqa: PLC0415 - see _setting

    try:
        there = urlsplit(address.strip())
        return is_azure(there.hostname or "") or (
            endpoint is not None and there.netloc.lower() == urlsplit(endpoint.value).netloc.lower() != ""
        )
    except ValueError:
        return False


@dataclass(frozen=True)
class _Setting:
    """A setting, and where it was found."""

    value: str = field(repr=False)
    origin: str


def _setting(name: str, *, secret: bool = False) -> _Setting | None:
    """A setting from the environment under the name that everybody uses, else from dlt's configuration."""
    if (found := _environment(name.upper())) is not None:
        return found
    import dlt  # noqa: PLC0415 - importing dlt costs half a second, which `--help` need not pay

    store = dlt.secrets if secret else dlt.config
    value = str(store.get(f"{_SECTION}.{name}") or "").strip()
    return _Setting(value, f"{name} in .dlt") if value else None


def _environment(name: str) -> _Setting | None:
    value = os.environ.get(name, "").strip()
    return _Setting(value, name) if value else None
