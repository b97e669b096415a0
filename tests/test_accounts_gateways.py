"""Gateways: headers that are secrets, and plain http where a user allows it, for each account."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import HOUR, KEY, NOW, Command, is_told_well
from fine_tuning_simulator import ScriptedWorld, Simulator

SECRET = "pc-secret-4Gh7Kl2Mn9Pq"
PLAIN = "[sources.openai_fine_tuning]\n"
MINE = "[sources.openai_fine_tuning.accounts.mine]\n"


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator, world: ScriptedWorld) -> Command:
    """The command, with a key for the host, which has a job."""
    world.add_job(id="ftjob-1", created_at=NOW - 30 * HOUR)
    world.add_checkpoint("ftjob-1")
    return Command(tmp_path, host.base_url)


def secret_is_nowhere(folder: Path) -> bool:
    """Whether no file but the one that is meant to holds the secret."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "secrets.toml"]
    return not [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.thorough
def test_headers_of_the_environment_go_with_every_request_and_are_not_shown(host: Simulator, ftw: Command) -> None:
    ftw.env["OPENAI_EXTRA_HEADERS"] = json.dumps({"x-portkey-provider": "@mine", "x-portkey-config": SECRET})
    checked = ftw("check")
    assert checked.code == 0, checked.all
    assert "headers x-portkey-provider, x-portkey-config from OPENAI_EXTRA_HEADERS" in checked.out
    synced = ftw("sync", "--verbose", "--output", "json")
    assert synced.code == 0
    verified = ftw("verify")
    assert verified.code == 0
    sent = {(request.key, request.headers.get("x-portkey-config")) for request in host.requests}
    assert sent == {(KEY, SECRET)}
    assert all(SECRET not in ended.all for ended in (checked, synced, verified))
    assert secret_is_nowhere(ftw.folder.parent)


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("section", [PLAIN, MINE])
@pytest.mark.parametrize(
    "line",
    [
        f'openai_extra_headers = {{ x-portkey-config = "{SECRET}" }}',
        f'openai_extra_headers = \'{{"x-portkey-config": "{SECRET}"}}\'',
    ],
)
def test_headers_may_stand_in_secrets_as_a_table_or_as_json(
    host: Simulator, ftw: Command, section: str, line: str
) -> None:
    (ftw.folder / ".dlt").mkdir()
    (ftw.folder / ".dlt/config.toml").write_text(f'{section}openai_base_url = "{host.base_url}"\n')
    (ftw.folder / ".dlt/secrets.toml").write_text(f'{section}openai_api_key = "{KEY}"\n{line}\n')
    synced = ftw("sync", "--resources", "jobs", env={"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None})
    assert synced.code == 0, synced.all
    assert {request.headers.get("x-portkey-config") for request in host.requests} == {SECRET}
    assert secret_is_nowhere(ftw.folder.parent)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-portkey-config": f"{SECRET}\r\nx-other: 1"},
        {"Authorization": f"Bearer {SECRET}"},
        {"api-key": SECRET},
        {"Host": SECRET},
        {f"x {SECRET}": "1"},
    ],
)
def test_headers_that_cannot_be_sent_are_exit_2_and_not_repeated(
    host: Simulator, ftw: Command, headers: dict[str, str]
) -> None:
    ended = ftw("sync", env={"OPENAI_EXTRA_HEADERS": json.dumps(headers)})
    assert ended.code == 2
    assert is_told_well(ended, "OPENAI_EXTRA_HEADERS")
    assert SECRET not in ended.all
    assert host.requests == []


@pytest.mark.thorough
def test_headers_belong_to_one_account(host: Simulator, ftw: Command) -> None:
    """Those of the environment, or of the section above, do not go with the requests of a configured account."""
    (ftw.folder / ".dlt").mkdir()
    (ftw.folder / ".dlt/config.toml").write_text(f'{MINE}openai_base_url = "{host.base_url}"\n')
    above = f'{PLAIN}openai_extra_headers = {{ x-above = "{SECRET}" }}\n'
    (ftw.folder / ".dlt/secrets.toml").write_text(f'{above}{MINE}openai_api_key = "{KEY}"\n')
    synced = ftw("sync", "--resources", "jobs", env={"OPENAI_EXTRA_HEADERS": f'{{"x-stray": "{SECRET}"}}'})
    assert synced.code == 0, synced.all
    assert "OPENAI_EXTRA_HEADERS" in synced.err, "which is not used"
    assert not [name for request in host.requests for name in request.headers if name in ("x-above", "x-stray")]


def test_a_config_file_is_no_place_for_headers(ftw: Command) -> None:
    (ftw.folder / ".dlt").mkdir()
    (ftw.folder / ".dlt/config.toml").write_text(f'{PLAIN}openai_extra_headers = {{ x-key = "{SECRET}" }}\n')
    ended = ftw("sync")
    assert ended.code == 2
    assert is_told_well(ended, "openai_extra_headers", ".dlt/config.toml", ".dlt/secrets.toml")
    assert SECRET not in ended.all


@pytest.mark.parametrize("section", ["", MINE])
def test_plain_http_to_another_machine_is_refused_with_the_setting_that_allows_it(ftw: Command, section: str) -> None:
    address = "http://litellm.invalid:4000/v1"
    ftw.env["OPENAI_BASE_URL"] = address
    setting = "openai_allow_http" if section else "OPENAI_ALLOW_HTTP"
    (ftw.folder / ".dlt").mkdir()
    if section:
        (ftw.folder / ".dlt/config.toml").write_text(f'{section}openai_base_url = "{address}"\n')
        (ftw.folder / ".dlt/secrets.toml").write_text(f'{section}openai_api_key = "{KEY}"\n')
    refused = ftw("sync", "--quiet")
    assert refused.code == 2
    assert setting in refused.err
    if section:
        with (ftw.folder / ".dlt/config.toml").open("a") as file:
            file.write("openai_allow_http = true\n")
    else:
        ftw.env["OPENAI_ALLOW_HTTP"] = "true"
    checked = ftw("check")
    assert checked.code == 1, "the host does not exist"
    assert setting in checked.out
    assert "no host litellm.invalid" in checked.out
    assert "plain http" in checked.err, "a warning each time"
