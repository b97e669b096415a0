"""Find the accounts to work on: those that dlt's configuration names, or else the one that the environment describes.

An account of the configuration is a section `[sources.openai_fine_tuning.accounts.<label>]` in `.dlt/config.toml`, with
its key in the section of that name in `.dlt/secrets.toml`; or variables such as
`SOURCES__OPENAI_FINE_TUNING__ACCOUNTS__<LABEL>__OPENAI_API_KEY`. Nothing is added to it from the plain `OPENAI_*` and
`AZURE_*` variables, nor from the section above, so that no key goes to the host of another account.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping, Sequence

from fine_tuning_warehouse.errors import MissingKeyError, UsageError

from .account import Account, build_account, did_you_mean
from .environment import find_account
from .labels import checked_label, label_in_names
from .lookup import FIELDS, SOURCE, file_providers, find_settings, section_name, shown_provider, variable

logger = logging.getLogger(__name__)

_ACCOUNTS = "accounts"
NAMES = tuple(f"openai_{name}" for name in FIELDS)
"""The settings of an account."""
_KEY_FILE = "openai_api_key_file"
"""The setting that only the environment can have."""
_EXAMPLE = section_name(*SOURCE, _ACCOUNTS, "production")
PLAIN = (
    *(name.upper() for name in NAMES),
    *("OPENAI_API_KEY_FILE", "OPENAI_API_VERSION"),
    *("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_API_KEY_FILE", "AZURE_OPENAI_ENDPOINT"),
)
"""The variables of a single account, which no configured one takes anything from."""


def find_accounts(labels: Sequence[str] = (), base_url: str | None = None) -> list[Account]:
    """Return the accounts to work on: at least one.

    Args:
        labels: Every `--account`; none for all that are configured.
        base_url: `--base-url`, for an account that is not configured.

    Raises:
        UsageError: A label or a setting is invalid, or every account lacks its key. An account that lacks its key
            beside others that have theirs is returned with its `problem`.
    """
    labels = list(dict.fromkeys(checked_label(label) for label in labels))
    configured = configured_labels()
    if not configured:
        if len(labels) > 1:
            raise UsageError(
                "Several accounts need a configuration that names their hosts and keys: "
                f"{section_name(*SOURCE, _ACCOUNTS, labels[0])} in .dlt/config.toml and .dlt/secrets.toml. "
                "There is none here."
            )
        return [find_account(labels[0] if labels else None, base_url)]
    for label in labels:
        if label not in configured:
            raise UsageError(
                f"There is no account {label!r}{did_you_mean(label, configured)}. "
                f"Configured are {', '.join(configured)}."
            )
    if base_url is not None:
        raise UsageError(
            f"Accounts are configured ({', '.join(configured)}), each with a host that its key may go to: "
            "set openai_base_url in the account's section, and leave --base-url out."
        )
    if unused := [name for name in PLAIN if variable(name) is not None]:
        verb = "is" if len(unused) == 1 else "are"
        logger.warning("%s %s not used: accounts are configured (%s).", ", ".join(unused), verb, ", ".join(configured))
    accounts = [_configured_account(label, configured[label]) for label in labels or configured]
    if all(account.problem for account in accounts):
        raise MissingKeyError(accounts[0].problem)
    _check_distinct([account for account in accounts if not account.problem])
    return accounts


def configured_labels() -> dict[str, str]:
    """Return the label of every configured account, in the order of the files, and how the files spell it."""
    spelled: dict[str, str] = {}
    names: dict[str, str] = {}
    for provider in file_providers():
        source, _ = provider.get_value(SOURCE[-1], dict, None, *SOURCE[:-1])
        if not isinstance(source, Mapping):
            continue
        file = shown_provider(provider)
        _check_spelling(source, file)
        accounts = source.get(_ACCOUNTS, {})
        if not isinstance(accounts, Mapping):
            raise UsageError(f"Invalid {_ACCOUNTS} in {file}: expected a section for each account, such as {_EXAMPLE}.")
        for key, settings in accounts.items():
            label = checked_label(key)
            if not isinstance(settings, Mapping):
                raise UsageError(f"Invalid account {key!r} in {file}: expected a section such as {_EXAMPLE}.")
            name = label_in_names(label)
            if spelled.setdefault(label, key) != key or names.setdefault(name, label) != label:
                raise UsageError(f"The accounts {names.get(name, label)!r} and {key!r} have the same name: rename one.")
            for setting in settings:
                if setting not in NAMES:
                    raise UsageError(
                        f"Unknown setting {setting!r} in {section_name(*SOURCE, _ACCOUNTS, label)} in {file}"
                        f"{did_you_mean(setting, NAMES)}. Expected one of {', '.join(NAMES)}."
                    )
    _add_labels_of_environment(spelled)
    return spelled


def _add_labels_of_environment(spelled: dict[str, str]) -> None:
    """Add the accounts that only the environment has: their label is the part of the variable in lower case."""
    prefix = "__".join((*SOURCE, _ACCOUNTS, "")).upper()
    names = [name.upper() for name in (*NAMES, _KEY_FILE)]
    known = {label.upper() for label in spelled.values()}
    for variable_name in sorted(os.environ):
        if not variable_name.startswith(prefix) or variable(variable_name) is None:
            continue
        part, _, setting = variable_name.removeprefix(prefix).rpartition("__")
        if setting not in names or not part:
            raise UsageError(
                f"Unknown setting {variable_name}{did_you_mean(setting, names)}. Expected such as "
                f"{prefix}PRODUCTION__{names[0]}."
            )
        if part not in known:
            known.add(part)
            spelled[checked_label(part.lower())] = part.lower()


def _check_spelling(source: Mapping[str, object], file: str) -> None:
    for name, value in source.items():
        close = difflib.get_close_matches(name, [_ACCOUNTS], cutoff=0.8)
        if isinstance(value, Mapping) and name != _ACCOUNTS and close:
            raise UsageError(
                f"Unknown section {section_name(*SOURCE, name)} in {file}: an account is "
                f"{section_name(*SOURCE, _ACCOUNTS, '<label>')}."
            )


def _configured_account(label: str, spelled: str) -> Account:
    section = (*SOURCE, _ACCOUNTS, spelled)
    try:
        return build_account(label, find_settings(*section), section=section)
    except UsageError as error:
        raise UsageError(f"The account {label}: {error}") from None


def _check_distinct(accounts: Sequence[Account]) -> None:
    """Raise `UsageError` if two accounts would load one history under two labels."""
    labels: dict[object, str] = {}
    for account in accounts:
        headers = frozenset(account.extra_headers.items())
        history = account.base_url.strip().rstrip("/"), account.api_key, account.org_id, account.project_id, headers
        other = labels.setdefault(history, account.label)
        if other != account.label:
            raise UsageError(
                f"The accounts {other} and {account.label} have the same host and key, and would load one history "
                f"twice: set a different openai_project_id for each, or remove one."
            )
