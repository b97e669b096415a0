"""Whose history is read: label, key and host, from options, the environment, or dlt's configuration."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    from dlt.extract import DltSource

DEFAULT_LABEL = "default"
_SECTION = "sources.openai_fine_tuning"


@dataclass(frozen=True)
class Account:
    """One account of one host.

    Attributes:
        label: What stands in the column `account` of every row.
        api_key: The key; never shown.
        base_url: The host with its version path.
        org_id: For a key of several organisations.
        project_id: For a key of several projects.
    """

    label: str
    api_key: str = field(repr=False)
    base_url: str
    org_id: str | None = None
    project_id: str | None = None

    @property
    def pipeline_name(self) -> str:
        """dlt's pipeline name: state is kept under it, so every label has its own."""
        slug = re.sub(r"[^a-z0-9]+", "_", self.label.lower()).strip("_")
        if slug != self.label:
            slug = f"{slug[:40]}_{hashlib.sha256(self.label.encode()).hexdigest()[:8]}"
        return f"fine_tuning_{slug}"

    def source(self, resources: Sequence[str], **arguments: Any) -> DltSource:
        """The dlt source that reads these resources of it; `arguments` are those of `openai_fine_tuning`."""
        from openai_fine_tuning import openai_fine_tuning  # noqa: PLC0415 - see _setting

        return openai_fine_tuning(
            openai_api_key=self.api_key,
            openai_base_url=self.base_url,
            openai_org_id=self.org_id,
            openai_project_id=self.project_id,
            account_label=self.label,
            **arguments,
        ).with_resources(*resources)


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
    if key and azure_key and base_url is None:
        raise UsageError(
            "Both OPENAI_API_KEY and AZURE_OPENAI_API_KEY are set. Unset the one that is not meant, "
            "or say which host to read with --base-url."
        )
    if azure_key and (not key or _is_azure(base_url)):
        if base_url is None and endpoint is None:
            raise UsageError(
                "AZURE_OPENAI_API_KEY is set, but not AZURE_OPENAI_ENDPOINT (https://<resource>.openai.azure.com)."
            )
        return Account(label, azure_key, base_url or azure_base_url(endpoint or ""))
    if not key:
        raise UsageError(
            "There is no API key: set OPENAI_API_KEY, or openai_api_key under [sources.openai_fine_tuning] in "
            ".dlt/secrets.toml. `ftw sync --demo` needs none."
        )
    return Account(
        label,
        key,
        base_url or host or "https://api.openai.com/v1",
        _setting("openai_org_id"),
        _setting("openai_project_id"),
    )


def azure_base_url(endpoint: str) -> str:
    """The base URL of an Azure OpenAI resource: its endpoint, with the path of the v1 API where it names none."""
    endpoint = endpoint.rstrip("/")
    return endpoint if "/openai" in endpoint else f"{endpoint}/openai/v1"


def checked_label(label: str) -> str:
    """A label that can stand in a column and in a message. Raises `UsageError` where it cannot."""
    if not label.strip() or not label.isprintable() or len(label) > 100:
        raise UsageError("An account label is 1 to 100 printable characters, such as `production`.")
    return label.strip()


def _is_azure(base_url: str | None) -> bool:
    return base_url is not None and ".azure.com" in base_url


def _setting(name: str, *, secret: bool = False) -> str | None:
    """A setting from the environment under the name that everybody uses, else from dlt's configuration."""
    if (value := _environment(name.upper())) is not None:
        return value
    import dlt  # noqa: PLC0415 - importing dlt costs half a second, which `--help` need not pay

    store = dlt.secrets if secret else dlt.config
    value = store.get(f"{_SECTION}.{name}")
    return str(value).strip() or None if value is not None else None


def _environment(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None
