"""Which accounts are meant: what dlt's configuration may say of them, and the messages where it is invalid."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

from command import KEY
from fine_tuning_warehouse.accounts.config_files import find_accounts
from fine_tuning_warehouse.errors import UsageError

Configure = Callable[..., None]
SECTION = "sources.openai_fine_tuning.accounts"
TWO = f"""
[{SECTION}.research]
openai_base_url = "https://research.example.com/v1"
openai_org_id = "org-1"
openai_project_id = "proj-1"

[{SECTION}.production]
openai_base_url = "https://ours.openai.azure.com"
openai_auth = "api-key"
"""
KEYS = f"""
[{SECTION}.research]
openai_api_key = "{KEY}"
[{SECTION}.production]
openai_api_key = "azure-{KEY}"
"""


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Writes dlt's files, which it otherwise reads but once."""
    monkeypatch.chdir(tmp_path)
    context = Container()[PluggableRunContext]

    def write(config: str = TWO, secrets: str = KEYS) -> None:
        (tmp_path / ".dlt").mkdir(exist_ok=True)
        (tmp_path / ".dlt/config.toml").write_text(config)
        (tmp_path / ".dlt/secrets.toml").write_text(secrets)
        context.reload_providers()

    yield write
    for file in (tmp_path / ".dlt").glob("*.toml"):
        file.unlink()
    context.reload_providers()


def refused(*labels: str, base_url: str | None = None) -> str:
    """The words that a configuration is refused with: in one line, and without the key."""
    with pytest.raises(UsageError) as raised:
        find_accounts(labels, base_url)
    message = str(raised.value)
    assert KEY not in message
    assert "\n" not in message
    return message


def test_all_are_read_unless_some_are_named(configure: Configure) -> None:
    configure()
    research, production = find_accounts()
    assert (research.label, research.api_key, research.base_url) == (
        "research",
        KEY,
        "https://research.example.com/v1",
    )
    assert (research.org_id, research.project_id, research.auth) == ("org-1", "proj-1", None)
    assert (production.label, production.api_key, production.auth) == ("production", f"azure-{KEY}", "api-key")
    assert production.base_url == "https://ours.openai.azure.com/openai/v1"
    assert (production.org_id, production.project_id) == (None, None)
    assert "secrets.toml" in research.locations["api_key"]
    assert "config.toml" in research.locations["base_url"]
    assert KEY not in repr(research)

    assert [one.label for one in find_accounts(["production"])] == ["production"]
    assert [one.label for one in find_accounts(["production", "research", "production"])] == ["production", "research"]


def test_a_label_that_is_not_configured_is_refused(configure: Configure) -> None:
    configure()
    message = refused("reserch")
    assert "did you mean 'research'" in message
    assert "research, production" in message
    assert "did you mean" not in refused("research", "default")


def test_without_a_configuration_a_label_is_free(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    configure("[runtime]\ndlthub_telemetry = false\n", "")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (account,) = find_accounts(["anything"], "https://host.example.com/v1")
    assert (account.label, account.base_url, account.api_key) == ("anything", "https://host.example.com/v1", KEY)
    assert [one.label for one in find_accounts()] == ["default"]
    assert f"[{SECTION}.one]" in refused("one", "two")
    configure(f"[{SECTION}]\n", "")
    assert [one.label for one in find_accounts()] == ["default"]


def test_the_environment_of_a_single_account_gives_nothing_to_a_configured_one(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configure(
        f'[sources.openai_fine_tuning]\nopenai_org_id = "org-above"\n[{SECTION}.bare]\n',
        f'[sources.openai_fine_tuning]\nopenai_api_key = "above"\n[{SECTION}.bare]\nopenai_api_key = "{KEY}"\n',
    )
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.setenv(name, "https://elsewhere.example.com/v1")
    with caplog.at_level(logging.WARNING, "fine_tuning_warehouse"):
        (account,) = find_accounts()
    assert (account.label, account.api_key, account.base_url) == ("bare", KEY, "https://api.openai.com/v1")
    assert (account.org_id, account.project_id, account.auth) == (None, None, None)
    assert "OPENAI_API_KEY" in caplog.text
    assert "not used" in caplog.text
    assert "elsewhere" not in caplog.text
    assert "--base-url" in refused(base_url="https://elsewhere.example.com/v1")


def test_the_environment_goes_before_the_files_by_dlts_names(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(secrets="")
    prefix = "SOURCES__OPENAI_FINE_TUNING__ACCOUNTS__"
    monkeypatch.setenv(f"{prefix}RESEARCH__OPENAI_API_KEY", "from-the-environment")
    assert f"{prefix}RESEARCH__OPENAI_BASE_URL" in refused("research"), "the file alone does not say where it goes"
    monkeypatch.setenv(f"{prefix}RESEARCH__OPENAI_BASE_URL", "https://research.example.com/v1")
    monkeypatch.setenv(f"{prefix}RESEARCH__OPENAI_PROJECT_ID", "proj-environment")
    (account,) = find_accounts(["research"])
    assert (account.api_key, account.project_id, account.org_id) == (
        "from-the-environment",
        "proj-environment",
        "org-1",
    )
    assert account.locations["api_key"] == f"{prefix}RESEARCH__OPENAI_API_KEY"
    research, production = find_accounts()
    assert research.problem == ""
    message = production.problem
    assert message == refused("production")
    assert "The account production has no key" in message
    assert f"[{SECTION}.production] in .dlt/secrets.toml" in message
    assert f"{prefix}PRODUCTION__OPENAI_API_KEY" in message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (f'[{SECTION}.research]\nopenai_project = "{KEY}"', ["'openai_project'", "did you mean 'openai_project_id'"]),
        (f'[{SECTION}.research]\nopenai_api_key = "{KEY}"', ["openai_api_key", "move it", ".dlt/secrets.toml"]),
        (f"[{SECTION}.research]\nopenai_org_id = 3", ["openai_org_id", "config.toml: expected text", "quotes"]),
        (f'[{SECTION}.research.deeper]\nopenai_org_id = "x"', ["Unknown setting 'deeper'"]),
        (f'[{SECTION}]\nresearch = "{KEY}"', ["Invalid account 'research' in .dlt/config.toml"]),
        ('[sources.openai_fine_tuning]\naccounts = "research"', ["Invalid accounts in .dlt/config.toml"]),
        (f'[{SECTION[:-1]}.research]\nopenai_org_id = "x"', [f"[{SECTION[:-1]}]", f"[{SECTION}.<label>]"]),
        (f'[{SECTION}.research]\nopenai_auth = "api_key"', ["openai_auth", "did you mean 'api-key'", "bearer"]),
        (f'[{SECTION}.research]\nopenai_base_url = "http://example.com/v1"', ["The account research", "https"]),
        (f'[{SECTION}.research]\nopenai_base_url = "example"', ["The account research"]),
        (f'[{SECTION}.research]\n[{SECTION}." research "]\n', ["' research '", "rename one"]),
        (f'[{SECTION}.""]\n', ["label"]),
        (f'[{SECTION}."a\\nb"]\n', ["label"]),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_read(
    configure: Configure, config: str, words: list[str]
) -> None:
    configure(config, f'[{SECTION}.research]\nopenai_api_key = "{KEY}"\n')
    message = refused()
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "secrets",
    [
        f"[{SECTION}.research]\nopenai_api_key = ['{KEY}']",
        f"[{SECTION}.research]\nopenai_api_key = {{ value = '{KEY}' }}",
        f"[{SECTION}]\nresearch = '{KEY}'",
        f"[{SECTION}.research]\nopenai_key = '{KEY}'",
        f"[{SECTION}.research]\nopenai_api_key = '{KEY}\\n'\nopenai_base_url = 'http://{KEY}@example.com'",
        f"[{SECTION}.research]\nopenai_api_key = '{KEY} {KEY}é'",
        f"[{SECTION}.research]\nopenai_api_key = ''",
        f"[{SECTION}.research]\nopenai_api_key = 7",
    ],
)
def test_a_key_that_cannot_be_one_is_not_said(configure: Configure, secrets: str) -> None:
    configure("", secrets)
    assert "research" in refused()


def test_two_accounts_of_one_history_are_refused(configure: Configure) -> None:
    section = f'[{SECTION}.{{}}]\nopenai_api_key = "{KEY}"\nopenai_project_id = "{{}}"\n'
    configure("", section.format("one", "p") + section.format("two", "p"))
    message = refused()
    for word in ("one", "two", "same host and key", "openai_project_id"):
        assert word in message
    assert [one.label for one in find_accounts(["two"])] == ["two"]
    configure("", section.format("one", "p") + section.format("two", "q"))
    assert [one.label for one in find_accounts()] == ["one", "two"]


def test_a_variable_that_no_shell_can_set_is_not_proposed(configure: Configure) -> None:
    configure(f'[{SECTION}.my-team]\nopenai_org_id = "o"\n', "")
    message = refused()
    assert f"[{SECTION}.my-team] in .dlt/secrets.toml" in message
    assert "SOURCES__" not in message


def test_an_account_by_token_needs_no_key(configure: Configure) -> None:
    pytest.importorskip("azure.identity")
    configure(f'[{SECTION}.ours]\nopenai_auth = "entra"\nopenai_base_url = "https://ours.openai.azure.com"\n', "")
    (account,) = find_accounts()
    assert (account.api_key, account.auth) == (None, "entra")
