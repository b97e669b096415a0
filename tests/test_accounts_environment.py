"""Accounts that stand in the environment alone, and keys that stand in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import Command
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.config_files import find_accounts
from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from histories import add_history

PREFIX = "SOURCES__OPENAI_FINE_TUNING__ACCOUNTS__"


@pytest.mark.thorough
def test_accounts_of_the_environment_alone_are_synced(tmp_path: Path, host: Simulator, world: ScriptedWorld) -> None:
    add_history(world, range(1))
    ftw = Command(tmp_path, host.base_url)
    env: dict[str, str | None] = {"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None}
    for label in ("RESEARCH", "TEAM_B"):
        env[f"{PREFIX}{label}__OPENAI_API_KEY"] = f"key-of-{label}"
        env[f"{PREFIX}{label}__OPENAI_BASE_URL"] = host.base_url
    assert ftw("sync", "--quiet", env=env).code == 0
    assert ftw.rows("SELECT DISTINCT account FROM jobs ORDER BY 1") == [("research",), ("team_b",)]
    unknown = ftw("sync", "--account", "team", env=env)
    assert unknown.code == 2
    assert "team_b" in unknown.err


@pytest.mark.parametrize("name", ["RESEARCH__API_KEY", "RESEARCH__OPENAI_API_KEYS", "OPENAI_API_KEY"])
def test_a_variable_of_an_account_that_is_no_setting_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + name, "key")
    with pytest.raises(UsageError, match=PREFIX + name):
        find_accounts()


@pytest.mark.thorough
def test_a_file_names_its_account_as_it_likes_and_the_environment_completes_it(tmp_path: Path, host: Simulator) -> None:
    ftw = Command(tmp_path)
    (ftw.folder / ".dlt").mkdir()
    section = f'[sources.openai_fine_tuning.accounts.Research]\nopenai_base_url = "{host.base_url}"\n'
    (ftw.folder / ".dlt/config.toml").write_text(section)
    env = {f"{PREFIX}RESEARCH__OPENAI_API_KEY": "key-1", f"{PREFIX}RESEARCH__OPENAI_BASE_URL": host.base_url}
    assert ftw("sync", "--output", "json", env={**env, "OPENAI_API_KEY": None}).json["account"] == "Research"


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("variable", ["OPENAI_API_KEY_FILE", f"{PREFIX}RESEARCH__OPENAI_API_KEY_FILE"])
@pytest.mark.parametrize("profile", ["openai", "azure"])
def test_a_key_in_a_file_is_read_again_after_it_was_refused(
    variable: str, profile: str, tmp_path: Path, world: ScriptedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_history(world, range(3))
    file, warehouse = tmp_path / "key", DuckDb(tmp_path / "warehouse.duckdb")
    file.write_text("key-of-yesterday\n")
    with Simulator(world, api_keys={"key-of-today": frozenset()}, profile=profile) as host:
        section = PREFIX + "RESEARCH__" if variable.startswith(PREFIX) else ""
        monkeypatch.setenv(variable, str(file))
        monkeypatch.setenv(f"{section}OPENAI_BASE_URL", host.base_url)
        monkeypatch.setenv(f"{section}OPENAI_AUTH", "api-key" if profile == "azure" else "bearer")
        [account] = find_accounts()
        with pytest.raises(CommandError, match="401") as refused:
            run_sync(account, warehouse, SyncOptions())
        assert variable in str(refused.value)
        assert "key-of" not in str(refused.value)
        file.write_text("key-of-today\n")
        assert run_sync(account, warehouse, SyncOptions()).rows["jobs"] == 3
        host.requests.clear()
        assert run_sync(account, warehouse, SyncOptions()).rows["jobs"] == 0
        assert len(host.requests) == 2  # the listing, refused and asked for again
        [later] = find_accounts()
        assert run_sync(later, warehouse, SyncOptions()).rows["jobs"] == 0  # the key that is new shows the same jobs


@pytest.mark.parametrize("content", [None, "", "  \n", b"\xff\xfe"])
def test_a_file_without_a_key_is_named(
    content: str | bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(file))
    with pytest.raises(UsageError, match="OPENAI_API_KEY_FILE"):
        find_accounts()


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"])
def test_a_key_and_a_file_of_one_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("key-of-the-file")
    monkeypatch.setenv(name, "key-of-the-variable")
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "key"))
    with pytest.raises(UsageError, match=f"Both {name} and {name}_FILE"):
        find_accounts()


def test_a_key_of_azure_in_a_file_goes_to_azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com")
    [account] = find_accounts()
    assert account.host == "https://mine.openai.azure.com/openai/v1"
    assert account.setting_location("api_key") == "AZURE_OPENAI_API_KEY_FILE"


def test_a_file_of_a_folder_cannot_name_the_file_of_a_key(tmp_path: Path, host: Simulator) -> None:
    ftw = Command(tmp_path)
    (ftw.folder / "secret").write_text("content-of-any-file")
    (ftw.folder / ".dlt").mkdir()
    (ftw.folder / ".dlt/secrets.toml").write_text(
        "[sources.openai_fine_tuning.accounts.a]\n"
        f'openai_base_url = "{host.base_url}"\nopenai_api_key_file = "secret"\n'
    )
    ended = ftw("sync", env={"OPENAI_API_KEY": None})
    assert ended.code == 2
    assert "openai_api_key_file" in ended.err
    assert host.requests == []
