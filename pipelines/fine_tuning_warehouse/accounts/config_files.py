"""Which accounts are meant: those that dlt's configuration names, or else the one from the surroundings.

An account of the configuration is a section `[sources.openai_fine_tuning.accounts.<label>]` in `.dlt/config.toml`, with
its key in the section of that name in `.dlt/secrets.toml`. Each stands for itself: nothing is taken from the plain
`OPENAI_*` and `AZURE_*` variables, nor from the section above, so that no key goes to the host of another.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fine_tuning_warehouse.errors import MissingKeyError, UsageError

from .account import (
    ENTRA,
    Account,
    Setting,
    did_you_mean,
    made_account,
)
from .environment import find_account
from .labels import checked_label, label_in_names

logger = logging.getLogger(__name__)

SOURCE = ("sources", "openai_fine_tuning")
ACCOUNTS = "accounts"
KEY = "openai_api_key"
FIELDS = {
    KEY: "api_key",
    "openai_base_url": "base_url",
    "openai_auth": "auth",
    "openai_org_id": "org_id",
    "openai_project_id": "project_id",
}
"""What an account's section may hold, and what that is of an `Account`."""

PLAIN = (
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
    "OPENAI_AUTH",
    "OPENAI_API_VERSION",
    "AZURE_OPENAI_API_KEY",
    "AZURE_OPENAI_ENDPOINT",
)
"""The variables of a single account, which no configured one takes anything from."""


@dataclass(frozen=True)
class Place:
    """A place that dlt takes configuration from.

    Attributes:
        name: What people call it.
        is_secret: Whether it may hold keys.
        source: What it says below `[sources.openai_fine_tuning]`.
    """

    name: str
    is_secret: bool
    source: Mapping[str, Any] = field(repr=False)


def find_accounts(labels: Sequence[str] = (), base_url: str | None = None) -> list[Account]:
    """The accounts to work on: at least one.

    Args:
        labels: Every `--account`; none for all that are configured.
        base_url: `--base-url`, for an account that is not configured.

    Raises:
        UsageError: A label or a setting cannot be right, or a key is missing.
    """
    labels = list(dict.fromkeys(checked_label(label) for label in labels))
    sections = _sections(_places())
    if not sections:
        if len(labels) > 1:
            raise UsageError(
                f"Several accounts take a configuration that says their hosts and keys: {_section_of(labels[0])} in "
                ".dlt/config.toml and .dlt/secrets.toml. There is none here."
            )
        return [find_account(labels[0] if labels else None, base_url)]
    for label in labels:
        if label not in sections:
            raise UsageError(
                f"There is no account {label!r}{did_you_mean(label, sections)}. Configured are {', '.join(sections)}."
            )
    if base_url is not None:
        raise UsageError(
            f"Accounts are configured ({', '.join(sections)}), each with a host that its key may go to: "
            "say openai_base_url in the account's section, and leave --base-url out."
        )
    if unused := [name for name in PLAIN if os.environ.get(name, "").strip()]:
        verb = "is" if len(unused) == 1 else "are"
        logger.warning("%s %s not used: accounts are configured (%s).", ", ".join(unused), verb, ", ".join(sections))
    accounts = [_account(label, sections[label]) for label in labels or sections]
    _check_distinct(accounts)
    return accounts


def _sections(places: Sequence[Place]) -> dict[str, dict[str, Setting]]:
    """The settings of every configured account by its label, in the order of the files."""
    sections: dict[str, dict[str, Setting]] = {}
    written: dict[str, str] = {}  # the label as it stands in the file
    names: dict[str, str] = {}
    for place in places:
        _check_spelling(place)
        accounts = place.source.get(ACCOUNTS, {})
        if not isinstance(accounts, Mapping):
            raise UsageError(f"{ACCOUNTS} in {place.name} is no section: an account is {_section_of('production')}.")
        for key, section in accounts.items():
            label = checked_label(key)
            if not isinstance(section, Mapping):
                raise UsageError(
                    f"{key!r} in {place.name} is no account: an account is a section, such as "
                    f"{_section_of('production')}, and its settings stand below it."
                )
            name = label_in_names(label)
            if written.setdefault(label, key) != key or names.setdefault(name, label) != label:
                raise UsageError(f"The accounts {written[label]!r} and {key!r} have the same name: rename one.")
            merged = sections.setdefault(label, {})
            for setting, value in _checked(label, section, place).items():
                merged.setdefault(setting, value)  # dlt's first place wins
    for label, settings in sections.items():
        settings.update(_of_environment(written[label]))
    return sections


def _check_spelling(place: Place) -> None:
    for name, value in place.source.items():
        if isinstance(value, Mapping) and name != ACCOUNTS and difflib.get_close_matches(name, [ACCOUNTS], cutoff=0.8):
            raise UsageError(
                f"[{'.'.join((*SOURCE, name))}] in {place.name} means nothing: accounts are {_section_of('<label>')}."
            )


def _checked(label: str, section: Mapping[str, Any], place: Place) -> dict[str, Setting]:
    """The settings that one place has for an account. Raises `UsageError`, which never says a value."""
    where = f"{_section_of(label)} in {place.name}"
    settings = {}
    for name, value in section.items():
        if name not in FIELDS:
            raise UsageError(
                f"{where} holds {name!r}, which is no setting{did_you_mean(name, FIELDS)}. "
                f"There are {', '.join(FIELDS)}."
            )
        if name == KEY and not place.is_secret:
            raise UsageError(
                f"{where} holds {KEY}, in a file that is made to be shared: move it into the section of that name in "
                ".dlt/secrets.toml."
            )
        if not isinstance(value, str):
            raise UsageError(f'{name} of {where} is no text: write it in quotes, as {name} = "...".')
        if value.strip():
            settings[name] = Setting(value.strip(), f"{name} under {where}")
    return settings


def _account(label: str, settings: Mapping[str, Setting]) -> Account:
    auth = settings.get("openai_auth")
    if KEY not in settings and (auth is None or auth.value != ENTRA):
        in_environment = f", or {_variable(label, KEY)}" if _can_be_exported(label) else ""
        raise MissingKeyError(
            f"The account {label} has no key: set {KEY} under {_section_of(label)} in .dlt/secrets.toml"
            f"{in_environment}."
        )
    try:
        return made_account(label, {FIELDS[name]: setting for name, setting in settings.items()})
    except UsageError as error:
        raise UsageError(f"The account {label}: {error}") from None


def _check_distinct(accounts: Sequence[Account]) -> None:
    """Raise `UsageError` where two accounts would load one history under two labels."""
    labels: dict[tuple[str | None, ...], str] = {}
    for account in accounts:
        whose = (account.base_url.strip().rstrip("/"), account.api_key, account.org_id, account.project_id)
        other = labels.setdefault(whose, account.label)
        if other != account.label:
            raise UsageError(
                f"The accounts {other} and {account.label} have the same host and key, and would load one history "
                f"twice: tell them apart by openai_project_id, or remove one."
            )


def _section_of(label: str) -> str:
    quoted = label if label.replace("_", "").replace("-", "").isalnum() or label.startswith("<") else f'"{label}"'
    return f"[{'.'.join((*SOURCE, ACCOUNTS, quoted))}]"


def _variable(label: str, setting: str) -> str:
    return "__".join((*SOURCE, ACCOUNTS, label, setting)).upper()


def _can_be_exported(label: str) -> bool:
    """Whether a shell can set a variable of this name."""
    return re.fullmatch(r"[A-Za-z0-9_]+", label) is not None


# what dlt knows -------------------------------------------------------------------------------------------------------


def _places() -> list[Place]:
    """The files (and vaults) of dlt's configuration, in the order in which it asks them."""
    import dlt  # noqa: PLC0415 - importing dlt costs half a second, which `--help` need not pay

    places = []
    for provider in dlt.config.config_providers:
        found, _ = provider.get_value(SOURCE[-1], dict, None, *SOURCE[:-1])
        if isinstance(found, Mapping):
            name = f".dlt/{provider.name}" if provider.name.endswith(".toml") else provider.name
            places.append(Place(name, provider.supports_secrets, found))
    return places


def _of_environment(label: str) -> dict[str, Setting]:
    """What the environment says of an account under dlt's names; it goes before every file."""
    import dlt  # noqa: PLC0415 - see _places
    from dlt.common.typing import TSecretStrValue  # noqa: PLC0415

    environment = dlt.config.config_providers[0]
    found = {}
    for name in FIELDS:
        hint: Any = TSecretStrValue if name == KEY else str
        value, _ = environment.get_value(name, hint, None, *SOURCE, ACCOUNTS, label)
        if isinstance(value, str) and value.strip():
            found[name] = Setting(value.strip(), _variable(label, name))
    return found
