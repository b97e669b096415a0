"""Look up the settings of an account in the environment and in every place that dlt takes configuration from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration.providers import EnvironProvider
from dlt.common.configuration.providers.provider import ConfigProvider
from dlt.common.typing import TSecretStrValue
from typing_extensions import Self

from fine_tuning_warehouse.errors import UsageError

SOURCE = ("sources", "openai_fine_tuning")
"""The section of dlt's configuration that holds the settings of a single account."""

FIELDS = ("api_key", "base_url", "auth", "org_id", "project_id", "extra_headers", "allow_http")
"""The fields of an account that can be set, as `openai_<field>`, or `OPENAI_<FIELD>` in the environment."""

_SECRETS = ("api_key", "extra_headers")
"""The fields that belong into `secrets.toml`."""

COMMAND_LINE, ENVIRONMENT, PROGRAM = "the command line", "the environment", "this program"
"""Sources that the user of the command controls, as opposed to files that may come with a folder."""

MIXED = "several folders"
"""The source of a table that several folders hold parts of."""


@dataclass(frozen=True)
class Setting:
    """A setting and where it was found.

    Attributes:
        value: What it is set to; it may be a secret.
        location: What a user changes to change it, such as `OPENAI_BASE_URL`, or
            `openai_base_url under [sources.openai_fine_tuning] in .dlt/config.toml`.
        source: Who set it: `COMMAND_LINE`, `ENVIRONMENT`, `PROGRAM`, `MIXED`, or else the folder or vault that has it.
    """

    value: Any = field(repr=False)
    location: str
    source: str = ENVIRONMENT


def variable(name: str) -> Setting | None:
    """Return an environment variable as a setting; None if it is not set, or blank."""
    value = os.environ.get(name, "").strip()
    return Setting(value, name) if value else None


def find_settings(*section: str, plain: bool = False) -> dict[str, Setting]:
    """Look up all settings of an account; the first place that has one wins.

    Args:
        section: The section of dlt's configuration.
        plain: Look in variables such as `OPENAI_API_KEY` first.

    Returns:
        The settings that are set, by the names of the account's fields.

    Raises:
        UsageError: A value has the wrong type, or a secret is in a file that is made to be shared. The message
            does not hold the value.
    """
    found = {}
    for name in FIELDS:
        in_environment = variable_name(name, () if plain else section)
        setting = key_variable(in_environment) if name == "api_key" and in_environment else None
        setting = setting or (variable(f"OPENAI_{name.upper()}") if plain else None) or _look_up(name, section)
        if setting is not None:
            value = setting.value if isinstance(setting.value, KeyFromFile) else _parse(name, setting)
            found[name] = Setting(value, setting.location, setting.source)
    return found


class KeyFromFile(str):
    """A key from a file, such as a secret of Kubernetes; the file is read again if the host refuses the key."""

    __slots__ = ("_file",)
    _file: Path

    def __new__(cls, file: Path) -> Self:
        """Read the key. Raises `OSError` or `UnicodeDecodeError`."""
        key = super().__new__(cls, file.read_text(encoding="utf-8").strip())
        key._file = file
        return key

    def read_again(self) -> str:
        """Return the key that is in the file now. Raises `OSError` or `UnicodeDecodeError`."""
        return self._file.read_text(encoding="utf-8").strip()


def key_variable(name: str) -> Setting | None:
    """Return a key from a variable such as `OPENAI_API_KEY`, or from the file that `OPENAI_API_KEY_FILE` names.

    Only the environment can name the file: a file of a folder could send the content of any file to its own host.

    Raises:
        UsageError: Both are set, or the file cannot be read or holds nothing.
    """
    key, file = variable(name), variable(f"{name}_FILE")
    if file is None:
        return key
    if key is not None:
        raise UsageError(f"Both {key.location} and {file.location} are set: unset the one that is not meant.")
    try:
        found = KeyFromFile(Path(file.value).expanduser())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"The file {file.value} that {file.location} names cannot be read: {reason}.") from None
    if not found:
        raise UsageError(f"The file {file.value} that {file.location} names is empty: expected a key.")
    return Setting(found, file.location)


def section_name(*section: str) -> str:
    """Return a section as a TOML file names it, such as `[sources.openai_fine_tuning]`."""
    bare = [part.replace("_", "").replace("-", "").isalnum() or part.startswith("<") for part in section]
    return f"[{'.'.join(p if is_bare else json.dumps(p) for p, is_bare in zip(section, bare, strict=True))}]"


def usual_location(name: str, section: Sequence[str]) -> str:
    """Return where a field of an account can be set: in its section, or in a variable such as `OPENAI_BASE_URL`."""
    return f"openai_{name} under {section_name(*section)}" if section else f"OPENAI_{name.upper()}"


def variable_name(name: str, section: Sequence[str]) -> str | None:
    """Return the environment variable for a field of an account in a section; None if no shell can set it.

    Args:
        name: The field, such as `api_key`.
        section: The section of a configured account; empty for the plain settings.
    """
    variable = "__".join((*section, f"openai_{name}")).upper()
    return variable if variable.replace("_", "").isalnum() and variable.isascii() else None


def file_providers() -> list[ConfigProvider]:
    """Return dlt's files and vaults, in the order in which dlt asks them."""
    return [provider for provider in dlt.config.config_providers if not isinstance(provider, EnvironProvider)]


def shown_provider(provider: ConfigProvider) -> str:
    """Return the name of a provider in messages, such as `.dlt/secrets.toml`."""
    return f".dlt/{provider.name}" if provider.name.endswith(".toml") else provider.name


def _look_up(field: str, section: tuple[str, ...]) -> Setting | None:
    name, is_secret = f"openai_{field}", field in _SECRETS
    hint: Any = TSecretStrValue if is_secret else str
    first: Setting | None = None
    for provider in dlt.config.config_providers:
        value, key = provider.get_value(name, hint, None, *section)
        if value is None or value == {} or not str(value).strip():
            continue
        location, source = key, ENVIRONMENT
        if not isinstance(provider, EnvironProvider):
            file, source = _place(provider, value, name, section)
            location = f"{name} under {section_name(*section)} in {file}"
        if is_secret and not provider.supports_secrets:
            raise UsageError(
                f"{location} is a secret in a file that is made to be shared: move it to the same section in "
                ".dlt/secrets.toml."
            )
        first = first or Setting(value, location, source)
    return first


def _place(provider: ConfigProvider, value: Any, name: str, section: tuple[str, ...]) -> tuple[str, str]:
    """Return the file that holds a value, as it is shown, and the folder that this file really lies in."""
    if not provider.name.endswith(".toml"):
        return provider.name, provider.name
    leaves = [(part, (*section, name)) for part in value] if isinstance(value, Mapping) else [(name, section)]
    origins = {provider.get_value_location(key, None, *above) for key, above in leaves}
    if len(origins) > 1:
        return f"{shown_provider(provider)} of several folders", MIXED
    origin = origins.pop()
    # dlt lists the paths of the project first, those of the user's own folder last, and marks the latter `global:`.
    paths = [Path(path) for path in provider.locations if Path(path).name == origin.removeprefix("global:")]
    if not paths:
        return origin or PROGRAM, origin or PROGRAM
    if origin.startswith("global:") and (path := paths[-1]) != paths[0]:
        return str(path).replace(str(Path.home()), "~", 1), str(path.resolve().parent)
    return shown_provider(provider), str(paths[0].resolve().parent)


def _parse(name: str, setting: Setting) -> Any:
    """Return the value of a setting as its type. Raises `UsageError`, which does not hold the value."""
    value = setting.value
    if name == "allow_http":
        known = {"true": True, "1": True, "false": False, "0": False}
        if (text := str(value).strip().lower()) in known:
            return known[text]
        expected = "true or false"
    elif name == "extra_headers":
        try:
            headers = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            headers = None
        if isinstance(headers, Mapping) and all(isinstance(one, str) for one in headers.values()):
            return dict(headers)
        expected = 'a table of texts, or JSON such as {"x-portkey-provider": "@my-provider"}'
    else:
        if isinstance(value, str):
            return value.strip()
        expected = f'text in quotes, such as openai_{name} = "..."'
    raise UsageError(f"Invalid {setting.location}: expected {expected}.")
