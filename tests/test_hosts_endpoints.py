"""Which host, key and header the environment mean: Azure's addresses in every form, and settings of two hosts."""

from __future__ import annotations

import re

import pytest

from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.accounts.azure import azure_base_url
from fine_tuning_warehouse.accounts.environment import find_account
from fine_tuning_warehouse.errors import UsageError

RESOURCE = "https://mine.openai.azure.com"
PROJECT = "https://mine.services.ai.azure.com/api/projects/tuning"
V1 = f"{RESOURCE}/openai/v1"
CLASSIC = f"{RESOURCE}/openai?api-version=2024-10-21"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (RESOURCE, V1),
        (f" {RESOURCE}/ ", V1),
        (f"{RESOURCE}/openai", V1),
        (f"{RESOURCE}/openai/", V1),
        (V1, V1),
        (f"{V1}/", V1),
        (f"{V1}/fine_tuning/jobs", V1),
        (f"{V1}?api-version=preview", f"{V1}?api-version=preview"),
        (f"{RESOURCE}?api-version=2024-10-21", CLASSIC),
        (f"{RESOURCE}/?api-version=2024-10-21", CLASSIC),
        (f"{RESOURCE}/openai/?api-version=2024-10-21", CLASSIC),
        (f"{RESOURCE}/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", CLASSIC),
        (PROJECT, f"{PROJECT}/openai/v1"),
        (f"{PROJECT}/", f"{PROJECT}/openai/v1"),
        (f"{PROJECT}/openai/v1/", f"{PROJECT}/openai/v1"),
        ("https://mine.services.ai.azure.com", "https://mine.services.ai.azure.com/openai/v1"),
        ("https://mine.services.ai.azure.com/models", "https://mine.services.ai.azure.com/openai/v1"),
        ("https://mine.cognitiveservices.azure.com/", "https://mine.cognitiveservices.azure.com/openai/v1"),
        (f"{RESOURCE}/v1", V1),
        (f"{RESOURCE}/OpenAI/v1/", V1),
        (f"{RESOURCE}/models/chat/completions?api-version=2024-05-01-preview", V1),
        (f"{PROJECT}/openai/responses?api-version=2025-11-15-preview", f"{PROJECT}/openai/v1"),
        ("https://apim.example.com/tuning", "https://apim.example.com/tuning/openai/v1"),
        ("https://[broken", "https://[broken"),
    ],
)
def test_an_azure_endpoint_is_understood_in_every_form(given: str, meant: str) -> None:
    assert azure_base_url(given) == meant
    assert azure_base_url(meant) == meant


def test_a_dated_version_asks_for_the_classic_api_where_the_endpoint_leaves_it_open() -> None:
    assert azure_base_url(RESOURCE, "2024-10-21") == CLASSIC
    assert azure_base_url(f"{RESOURCE}/openai", "2024-10-21") == CLASSIC
    assert azure_base_url(f"{RESOURCE}?api-version=2025-01-01", "2024-10-21").endswith("=2025-01-01")
    for said in (V1, f"{PROJECT}/openai/v1"):
        assert azure_base_url(said, "2024-10-21") == said
    assert azure_base_url(PROJECT, "2024-10-21") == f"{PROJECT}/openai/v1"
    assert azure_base_url(RESOURCE, "preview") == V1


def test_what_may_be_a_key_in_an_address_is_not_shown() -> None:
    address = f"{RESOURCE}/openai?api-version=2024-10-21&subscription-key=a-key"
    assert Account("default", "key", address).host == f"{CLASSIC}&subscription-key=..."
    assert Account("default", "key", V1).host == V1


OPENAI = {"OPENAI_API_KEY": "sk-openai", "OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj_1"}
AZURE = {"AZURE_OPENAI_API_KEY": "azure-key", "AZURE_OPENAI_ENDPOINT": RESOURCE}


def found(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], base_url: str | None = None) -> Account:
    """The account that this environment describes."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return find_account(None, base_url)


@pytest.mark.parametrize(
    ("env", "base_url", "meant"),
    [
        (OPENAI, None, ("https://api.openai.com/v1", "sk-openai", None, "org-1")),
        (OPENAI, "https://gateway.example.com/v1", ("https://gateway.example.com/v1", "sk-openai", None, "org-1")),
        (AZURE, None, (V1, "azure-key", "api-key", None)),
        ({**AZURE, "OPENAI_ORG_ID": "org-1"}, None, (V1, "azure-key", "api-key", None)),
        ({**AZURE, "OPENAI_API_VERSION": "2024-10-21"}, None, (CLASSIC, "azure-key", "api-key", None)),
        (
            {**AZURE, "AZURE_OPENAI_ENDPOINT": "https://apim.example.com/x"},
            "https://apim.example.com/y",
            ("https://apim.example.com/y/openai/v1", "azure-key", "api-key", None),
        ),
        # both, and the option says which
        ({**OPENAI, **AZURE}, "https://api.openai.com/v1", ("https://api.openai.com/v1", "sk-openai", None, "org-1")),
        ({**OPENAI, **AZURE}, RESOURCE, (V1, "azure-key", "api-key", None)),
        ({**OPENAI, **AZURE}, f"{V1}/", (V1, "azure-key", "api-key", None)),
        # as Azure's own pages show it for the openai client
        ({"OPENAI_API_KEY": "azure-key", "OPENAI_BASE_URL": f"{V1}/"}, None, (V1, "azure-key", "api-key", None)),
        ({"AZURE_OPENAI_API_KEY": "azure-key", "OPENAI_BASE_URL": V1}, None, (V1, "azure-key", "api-key", None)),
        ({**AZURE, "OPENAI_AUTH": "bearer"}, None, (V1, "azure-key", "bearer", None)),
        ({**OPENAI, "OPENAI_AUTH": "api-key"}, None, ("https://api.openai.com/v1", "sk-openai", "api-key", "org-1")),
    ],
)
def test_the_environment_names_one_account(
    monkeypatch: pytest.MonkeyPatch,
    env: dict[str, str],
    base_url: str | None,
    meant: tuple[str, str, str | None, str | None],
) -> None:
    account = found(monkeypatch, env, base_url)
    assert (account.base_url, account.api_key, account.auth, account.org_id) == meant
    assert (account.project_id is None) == (account.org_id is None)
    assert account.api_key is not None
    assert account.api_key not in repr(account)


@pytest.mark.parametrize(
    "env",
    [
        {**OPENAI, **AZURE},
        {**OPENAI, "AZURE_OPENAI_API_KEY": "azure-key"},
        {**OPENAI, "AZURE_OPENAI_ENDPOINT": RESOURCE},
        {**AZURE, "OPENAI_BASE_URL": "https://gateway.example.com/v1"},
    ],
)
def test_the_settings_of_two_hosts_are_an_error_that_says_how_to_choose(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> None:
    with pytest.raises(UsageError) as raised:
        found(monkeypatch, env)
    one, other = re.findall("[A-Z_]{8,}", str(raised.value))
    assert one in env
    assert one.startswith("OPENAI_")
    assert other in env
    assert other.startswith("AZURE_OPENAI_")
    for word in ("--base-url", "Unset"):
        assert word in str(raised.value)


def test_the_same_host_under_both_names_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, {**AZURE, "OPENAI_BASE_URL": f"{V1}/"}).base_url == V1


SECRET = "sk-very-secret-1234567890"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OPENAI_API_KEY", f'"{SECRET}"', "quotes"),
        ("OPENAI_API_KEY", f"\u2018{SECRET}\u2019", "quotes"),
        ("OPENAI_API_KEY", f"Bearer {SECRET}", "Bearer"),
        ("OPENAI_API_KEY", f"{SECRET}\n{SECRET}", "line breaks"),
        ("OPENAI_API_KEY", "https://api.openai.com/v1", "is an address"),
        ("OPENAI_BASE_URL", SECRET, "not an address"),
        ("OPENAI_BASE_URL", f'"https://{SECRET}.com/v1"', "not an address"),
        ("OPENAI_BASE_URL", f"https://gateway.example.com/\n{SECRET}", "not an address"),
        ("OPENAI_BASE_URL", f"https://[{SECRET}", "not an address"),
        ("OPENAI_BASE_URL", f"https://{SECRET}@gateway.example.com/v1", "password"),
        ("OPENAI_BASE_URL", f"http://gateway.example.com/{SECRET}", "use https"),
        ("OPENAI_AUTH", SECRET, "bearer, api-key, entra"),
        ("OPENAI_ORG_ID", f"org\n{SECRET}", "organisation"),
        ("OPENAI_ORG_ID", f"{SECRET}\u2026", "organisation"),
        ("OPENAI_PROJECT_ID", f"'{SECRET}'", "project"),
        ("AZURE_OPENAI_ENDPOINT", SECRET, "https://<resource>.openai.azure.com"),
        ("AZURE_OPENAI_API_KEY", f"'{SECRET}'", "quotes"),
    ],
)
def test_a_setting_that_cannot_be_right_is_named_and_its_value_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    with pytest.raises(UsageError) as raised:
        found(monkeypatch, {**(AZURE if name in AZURE else OPENAI), name: value})
    message = str(raised.value)
    assert name in message
    assert words in message
    assert SECRET not in message
    assert "\n" not in message


def test_a_version_that_was_used_is_told_from_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    beside = {**AZURE, "OPENAI_API_VERSION": "2024-10-21"}
    assert found(monkeypatch, beside).setting_location("api_version") == "OPENAI_API_VERSION"
    for within in (V1, CLASSIC):
        account = found(monkeypatch, {**beside, "AZURE_OPENAI_ENDPOINT": within})
        assert account.setting_location("api_version") == "AZURE_OPENAI_ENDPOINT"


def test_each_setting_knows_where_it_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, AZURE, RESOURCE).locations == {
        "api_key": "AZURE_OPENAI_API_KEY",
        "base_url": "--base-url",
    }
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT")
    locations = found(monkeypatch, {**OPENAI, "OPENAI_BASE_URL": "https://gateway.example.com/v1"}).locations
    assert locations == {
        "api_key": "OPENAI_API_KEY",
        "base_url": "OPENAI_BASE_URL",
        "org_id": "OPENAI_ORG_ID",
        "project_id": "OPENAI_PROJECT_ID",
    }


def test_a_setting_for_tokens_in_the_environment_reaches_no_account_that_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_AUTH", "entra")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-someone")
    Account("demo", "demo", "http://127.0.0.1/v1").source(["jobs"])


GATEWAY = "https://gateway.example.com/v1"


@pytest.mark.parametrize(
    ("env", "theirs", "ours"),
    [
        *(
            ({**OPENAI, name: GATEWAY}, name, "OPENAI_BASE_URL")
            for name in ("OPENAI_API_BASE", "OPENAI_API_BASE_URL", "OPENAI_API_HOST", "OPENAI_ENDPOINT")
        ),
        ({**OPENAI, "OPENAI_API_BASE": "gateway.example.com"}, "OPENAI_API_BASE", "OPENAI_BASE_URL"),
        (
            {**OPENAI, "OPENAI_API_BASE": GATEWAY, "OPENAI_BASE_URL": "https://api.openai.com/v1"},
            "OPENAI_API_BASE",
            "OPENAI_BASE_URL",
        ),
        ({**AZURE, "OPENAI_API_BASE": GATEWAY}, "OPENAI_API_BASE", "AZURE_OPENAI_ENDPOINT"),
        ({**OPENAI, "OPENAI_ORGANIZATION": "org-2"}, "OPENAI_ORGANIZATION", "OPENAI_ORG_ID"),
        ({"OPENAI_API_KEY": "sk-1", "OPENAI_ORGANIZATION": "org-2"}, "OPENAI_ORGANIZATION", "OPENAI_ORG_ID"),
        ({"OPENAI_API_KEY": "sk-1", "OPENAI_PROJECT": "proj_2"}, "OPENAI_PROJECT", "OPENAI_PROJECT_ID"),
        ({"OPENAI_API_KEY": "key", "OPENAI_API_TYPE": "azure"}, "OPENAI_API_TYPE", "AZURE_OPENAI_ENDPOINT"),
        (
            {"AZURE_OPENAI_API_KEY": "key", "AZURE_OPENAI_API_BASE": RESOURCE},
            "AZURE_OPENAI_API_BASE",
            "AZURE_OPENAI_ENDPOINT",
        ),
        ({"AZURE_OPENAI_ENDPOINT": RESOURCE, "AZURE_OPENAI_KEY": "key"}, "AZURE_OPENAI_KEY", "AZURE_OPENAI_API_KEY"),
    ],
)
def test_a_variable_of_another_client_that_says_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], theirs: str, ours: str
) -> None:
    with pytest.raises(UsageError) as raised:
        found(monkeypatch, env)
    assert theirs in str(raised.value)
    assert ours in str(raised.value)
    assert "gateway.example.com" not in str(raised.value)


@pytest.mark.parametrize(
    ("env", "base_url"),
    [
        ({**OPENAI, "OPENAI_API_BASE": "https://api.openai.com/v1/"}, None),
        ({**OPENAI, "OPENAI_API_HOST": "api.openai.com"}, None),
        ({**OPENAI, "OPENAI_API_BASE": GATEWAY, "OPENAI_BASE_URL": f"{GATEWAY}/"}, None),
        ({**OPENAI, "OPENAI_API_BASE": GATEWAY}, GATEWAY),
        ({**OPENAI, "OPENAI_API_BASE": GATEWAY}, "https://api.openai.com/v1"),
        ({**OPENAI, "OPENAI_ORGANIZATION": "org-1", "OPENAI_PROJECT": "proj_1"}, None),
        ({**OPENAI, "OPENAI_API_TYPE": "open_ai"}, None),
        ({**AZURE, "OPENAI_API_BASE": f"{RESOURCE}/", "OPENAI_API_TYPE": "azure", "OPENAI_ORGANIZATION": "o"}, None),
        ({**OPENAI, "AZURE_API_BASE": RESOURCE, "AZURE_API_KEY": "key"}, None),  # LiteLLM has one of each
    ],
)
def test_a_variable_of_another_client_that_says_the_same_is_fine(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], base_url: str | None
) -> None:
    found(monkeypatch, env, base_url)


@pytest.mark.parametrize(
    ("address", "right"),
    [
        ("https://api.openai.com", "https://api.openai.com/v1"),
        ("https://us.api.openai.com/", "https://us.api.openai.com/v1"),
        (f"{GATEWAY}/fine_tuning/jobs", GATEWAY),
        (f"{GATEWAY}/fine_tuning/jobs/ftjob-1/checkpoints", GATEWAY),
        (f"{GATEWAY}/chat/completions/", GATEWAY),
        (f"{GATEWAY}/files", GATEWAY),
        (f"{GATEWAY}/responses?a-key=secret", GATEWAY),
    ],
)
def test_a_base_url_with_a_path_that_is_certainly_wrong_is_refused_with_the_right_one(
    monkeypatch: pytest.MonkeyPatch, address: str, right: str
) -> None:
    with pytest.raises(UsageError) as raised:
        found(monkeypatch, {**OPENAI, "OPENAI_BASE_URL": address})
    words = str(raised.value)
    assert "OPENAI_BASE_URL" in words
    assert words.endswith(f"Set it to {right}.")
    assert "secret" not in words


@pytest.mark.parametrize("address", [GATEWAY, "https://gateway.example.com", "https://gateway.example.com/models"])
def test_a_base_url_whose_path_may_be_right_is_left_to_the_host(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert found(monkeypatch, {**OPENAI, "OPENAI_BASE_URL": address}).base_url == address


def test_an_azure_endpoint_without_a_scheme_is_shown_the_form_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"AZURE_OPENAI_ENDPOINT.*https://<resource>\.openai\."):
        found(monkeypatch, {**AZURE, "AZURE_OPENAI_ENDPOINT": "mine.openai.azure.com"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_EXTRA_HEADERS", SECRET),
        ("OPENAI_EXTRA_HEADERS", f'["{SECRET}"]'),
        ("OPENAI_EXTRA_HEADERS", f'{{"x-portkey-config": ["{SECRET}"]}}'),
        ("OPENAI_ALLOW_HTTP", SECRET),
    ],
)
def test_headers_or_a_permission_that_are_invalid_are_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(UsageError) as raised:
        found(monkeypatch, {**OPENAI, name: value})
    assert name in str(raised.value)
    assert SECRET not in str(raised.value)
