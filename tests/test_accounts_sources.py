"""A credential goes only where its owner sends it: a folder, such as a cloned repository, cannot name its host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

from command import KEY, Command, is_told_well
from fine_tuning_simulator import Simulator
from fine_tuning_warehouse.accounts.account import build_account
from fine_tuning_warehouse.accounts.config_files import find_accounts
from fine_tuning_warehouse.accounts.lookup import COMMAND_LINE, ENVIRONMENT, MIXED, PROGRAM, Setting
from fine_tuning_warehouse.errors import UsageError

EVIL = "https://evil.example.com/v1"
PLAIN = "[sources.openai_fine_tuning]\n"
MINE = "[sources.openai_fine_tuning.accounts.mine]\n"
KEY_LINE = f'openai_api_key = "{KEY}"\n'
ENTRA_LINE = 'openai_auth = "entra"\n'


def names(address: str) -> str:
    """The line that names a host."""
    return f"openai_base_url = '{address}'\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's own settings; dlt takes another one for root."""
    monkeypatch.setattr("dlt.common.runtime.run_context.global_dir", lambda: str(tmp_path / "home/.dlt"))
    return tmp_path / "home/.dlt"


def write(folder: Path, config: str = "", secrets: str = "") -> None:
    """Write dlt's files, and let dlt read them again."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("config.toml", config), ("secrets.toml", secrets)):
        if text:
            (folder / name).write_text(text)
    Container()[PluggableRunContext].reload_providers()


@pytest.fixture(autouse=True)
def _forget(tmp_path: Path) -> Iterator[None]:
    Container()[PluggableRunContext].reload_providers()
    yield
    for file in tmp_path.rglob(".dlt/*.toml"):
        file.unlink()
    Container()[PluggableRunContext].reload_providers()


def refused(base_url: str | None = None) -> str:
    """The words that the accounts are refused with; they hold no secret."""
    with pytest.raises(UsageError) as raised:
        find_accounts([], base_url)
    words = str(raised.value)
    assert KEY not in words
    return words


@pytest.mark.parametrize(
    "address",
    [
        EVIL,
        "http://127.0.0.1:9/v1",
        "https://api.openai.com.evil.example.com/v1",
        "https://evil-api.openai.com.example.com/v1",
        "https://evilapi.openai.com/v1",
        "https://user@api.openai.com/v1",
        "https://evil.example.com\\.api.openai.com/v1",
        "https://evil.example.com\\@api.openai.com/v1",
        "https://evil.example.com#.api.openai.com/v1",
        "https://evil.example.com?.api.openai.com/v1",
        "https://api.openai.com:8443/v1",
        "http://api.openai.com/v1",
        "https://mine.openai.azure.com/openai/v1",  # the key begins with sk-: it is one of OpenAI
        "https://mine.openai.azure.com.evil.example.com/v1",
    ],
)
def test_a_folder_cannot_name_the_host_of_a_key_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write(Path(".dlt"), PLAIN + names(address))
    words = refused()
    for word in ("openai_base_url", ".dlt/config.toml", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        assert word in words


@pytest.mark.parametrize(
    "address",
    ["https://api.openai.com/v1", "https://us.api.openai.com/v1", "https://API.OpenAI.com:443/v1/"],
)
def test_a_folder_may_name_a_host_of_openai(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write(Path(".dlt"), PLAIN + names(address))
    (account,) = find_accounts()
    assert account.base_url == address


def test_a_host_that_the_user_names_gets_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write(Path(".dlt"), PLAIN + names(EVIL))
    assert find_accounts([], "https://mine.example.com/v1")[0].base_url == "https://mine.example.com/v1"
    for name in ("OPENAI_BASE_URL", "SOURCES__OPENAI_FINE_TUNING__OPENAI_BASE_URL"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "https://mine.example.com/v1")
            assert find_accounts()[0].base_url == "https://mine.example.com/v1"
    monkeypatch.delenv("OPENAI_API_KEY")
    write(Path(".dlt"), secrets=PLAIN + KEY_LINE)
    assert find_accounts()[0].base_url == EVIL, "key and host stand in one folder"


@pytest.mark.parametrize("section", [PLAIN, MINE])
def test_a_folder_cannot_name_the_host_of_a_key_in_the_users_own_files(home: Path, section: str) -> None:
    write(home, secrets=section + KEY_LINE)
    write(Path(".dlt"), section + names(EVIL))
    assert "~/.dlt/secrets.toml" in refused()
    write(home, section + names("https://mine.example.com/v1"))
    assert "~/.dlt/secrets.toml" in refused(), "the folder's host wins over the user's"
    Path(".dlt/config.toml").unlink()
    write(home)
    assert find_accounts()[0].base_url == "https://mine.example.com/v1"


def test_a_host_in_the_folders_secrets_is_as_foreign_as_one_in_its_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write(Path(".dlt"), secrets=PLAIN + names(EVIL))
    assert ".dlt/secrets.toml" in refused()


@pytest.mark.parametrize("section", [PLAIN, MINE])
def test_a_link_to_the_users_secrets_does_not_make_them_the_folders(home: Path, section: str) -> None:
    write(home, secrets=section + KEY_LINE)
    write(Path(".dlt"), section + names(EVIL))
    Path(".dlt/secrets.toml").symlink_to(home / "secrets.toml")
    Container()[PluggableRunContext].reload_providers()
    assert "decides where the key" in refused()


def test_a_key_of_a_configured_account_in_the_environment_goes_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefix = "SOURCES__OPENAI_FINE_TUNING__ACCOUNTS__MINE__OPENAI"
    monkeypatch.setenv(f"{prefix}_API_KEY", KEY)
    write(Path(".dlt"), MINE + names(EVIL))
    assert f"{prefix}_BASE_URL" in refused()
    monkeypatch.setenv(f"{prefix}_BASE_URL", "https://mine.example.com/v1")
    assert find_accounts()[0].base_url == "https://mine.example.com/v1"


@pytest.mark.parametrize("section", [PLAIN, MINE])
def test_tokens_of_entra_go_to_azure_or_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, home: Path, section: str
) -> None:
    pytest.importorskip("azure.identity")
    write(Path(".dlt"), section + ENTRA_LINE + names(EVIL), section + KEY_LINE)
    assert "Entra" in refused()
    write(Path(".dlt"), section + ENTRA_LINE)
    assert "Entra" in refused(), "the host of OpenAI is not one of Azure"
    write(Path(".dlt"), section + ENTRA_LINE + names("https://mine.openai.azure.com"))
    assert find_accounts()[0].base_url == "https://mine.openai.azure.com/openai/v1"
    below = "" if section == PLAIN else "ACCOUNTS__MINE__"
    monkeypatch.setenv(f"SOURCES__OPENAI_FINE_TUNING__{below}OPENAI_BASE_URL", "https://apim.example.com/v1")
    assert find_accounts()[0].base_url == "https://apim.example.com/v1"


def test_an_azure_key_goes_to_no_host_but_azures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    for address in (EVIL, "https://api.openai.com/v1", "https://mine.openai.azure.com.evil.example.com"):
        words = refused(address)
        assert "AZURE_OPENAI_API_KEY is not sent" in words
        assert "AZURE_OPENAI_ENDPOINT" in words
    mine = "https://mine.openai.azure.com"
    assert find_accounts([], mine)[0].api_key == KEY
    write(Path(".dlt"), PLAIN + names(mine))
    assert find_accounts()[0].api_key == KEY
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", mine)
    assert "AZURE_OPENAI_API_KEY is not sent" in refused(EVIL)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://apim.example.com")
    assert find_accounts([], "https://apim.example.com/tuning")[0].api_key == KEY


@pytest.mark.parametrize(
    ("name", "line", "file"),
    [
        ("openai_extra_headers", "openai_extra_headers = { x-custom-host = 'https://evil.example.com' }", "secrets"),
        ("openai_extra_headers", 'openai_extra_headers = \'{"x-custom-host": "https://evil.example.com"}\'', "secrets"),
        ("openai_allow_http", "openai_allow_http = true", "config"),
    ],
)
def test_a_folder_can_neither_add_headers_to_a_key_nor_take_its_encryption(
    monkeypatch: pytest.MonkeyPatch, name: str, line: str, file: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example.com/v1")
    write(Path(".dlt"), **{file: PLAIN + line})
    words = refused()
    assert name in words
    assert f".dlt/{file}.toml" in words
    assert "evil" not in words


def test_a_folder_cannot_add_to_the_headers_in_the_users_own_files(home: Path) -> None:
    headers = "openai_extra_headers = {{ {} = 'x' }}\n"
    write(home, PLAIN + names("https://gateway.example.com/v1"), PLAIN + KEY_LINE + headers.format("x-mine"))
    write(Path(".dlt"), secrets=PLAIN + headers.format("x-custom-host"))
    assert "openai_extra_headers" in refused()


SOURCES = [COMMAND_LINE, ENVIRONMENT, PROGRAM, "/a/.dlt", "/b/.dlt", "Google Secrets", MIXED]


@pytest.mark.parametrize("steers", ["base_url", "extra_headers", "allow_http"])
@pytest.mark.parametrize("holds_key", SOURCES)
@pytest.mark.parametrize("says_where", SOURCES)
def test_only_the_user_or_the_place_of_the_key_says_where_it_goes(steers: str, holds_key: str, says_where: str) -> None:
    values = {"base_url": EVIL, "extra_headers": {"x-custom-host": "evil.example.com"}, "allow_http": True}
    settings = {
        "api_key": Setting(KEY, "MY_KEY", holds_key),
        "base_url": Setting("https://mine.example.com/v1", "MY_URL", ENVIRONMENT),
        steers: Setting(values[steers], "THE_SETTING", says_where),
    }
    is_trusted = says_where in (COMMAND_LINE, ENVIRONMENT, PROGRAM) or says_where == holds_key != MIXED
    if is_trusted:
        assert getattr(build_account("mine", settings), steers) == values[steers]
    else:
        with pytest.raises(UsageError, match="THE_SETTING decides where the key in MY_KEY goes"):
            build_account("mine", settings)


def test_a_configured_account_that_lost_its_host_does_not_become_one_of_openai() -> None:
    """The key of another host went to OpenAI where `openai_base_url` was removed."""
    write(Path(".dlt"), MINE, MINE + 'openai_api_key = "key-of-a-gateway"\n')
    words = refused()
    for word in ("openai_base_url", "openai_api_key", "is not OpenAI's", ".accounts.mine]"):
        assert word in words
    write(Path(".dlt"), secrets=MINE + KEY_LINE)
    assert find_accounts()[0].base_url == "https://api.openai.com/v1"


def test_the_command_asks_nothing_of_a_host_that_a_folder_named(tmp_path: Path, host: Simulator) -> None:
    ftw = Command(tmp_path)
    (ftw.folder / ".dlt").mkdir()
    (ftw.folder / ".dlt/config.toml").write_text(f"{PLAIN}openai_base_url = '{host.base_url}'\n")
    for command in ("sync", "check", "verify"):
        ended = ftw(command)
        assert ended.code == 2
        assert is_told_well(ended, ".dlt/config.toml", "OPENAI_API_KEY", "OPENAI_BASE_URL")
    assert host.requests == []
    assert ftw("check", env={"OPENAI_BASE_URL": host.base_url}).code == 0
