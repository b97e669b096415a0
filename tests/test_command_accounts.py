"""Several accounts in one run of the installed command: all are read, and one that fails does not stop the others."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command import KEY, NOW, SUMMARY_KEYS, Command, is_told_well, wait_until
from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from histories import add_history

ROOT = Path(__file__).parent.parent
KEYS = {"research": f"{KEY}-research", "production": f"{KEY}-production"}
SECTION = "sources.openai_fine_tuning.accounts"


class Team:
    """Two accounts on two hosts, OpenAI's way and Azure's, in the configuration of one folder."""

    def __init__(self, ftw: Command, hosts: dict[str, Simulator]) -> None:
        self.ftw = ftw
        self.hosts = hosts

    def configure(self) -> None:
        """Write dlt's files."""
        folder = self.ftw.folder / ".dlt"
        folder.mkdir(exist_ok=True)
        config = [
            f'[{SECTION}.{label}]\nopenai_base_url = "{host.base_url}"\n'
            + ('openai_auth = "api-key"\n' if host.profile.name == "azure" else "")
            for label, host in self.hosts.items()
        ]
        (folder / "config.toml").write_text("\n".join(config))
        secrets = [f'[{SECTION}.{label}]\nopenai_api_key = "{KEYS[label]}"\n' for label in self.hosts]
        (folder / "secrets.toml").write_text("\n".join(secrets))

    def keys_stand_in(self) -> list[Path]:
        """Files that hold a key, but for the one that is meant to."""
        files = [file for file in self.ftw.folder.parent.rglob("*") if file.is_file() and file.name != "secrets.toml"]
        return [file for file in files if KEY.encode() in file.read_bytes()]


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    """The two, with two and three jobs."""
    research, production = ScriptedWorld(), ScriptedWorld()
    add_history(research, range(2))
    add_history(production, range(10, 13))
    clock = Clock(start=NOW, speed=0)
    with (
        Simulator(research, clock=clock, api_keys={KEYS["research"]: frozenset()}) as one,
        Simulator(production, profile="azure", clock=clock, api_keys={KEYS["production"]: frozenset()}) as other,
    ):
        ftw = Command(tmp_path)
        ftw.env.pop("OPENAI_API_KEY")
        made = Team(ftw, {"research": one, "production": other})
        made.configure()
        yield made


def counts(ftw: Command, table: str = "jobs") -> dict[str, int]:
    """Rows by account."""
    return dict(ftw.rows(f"SELECT account, count(*) FROM {table} GROUP BY account"))


@pytest.mark.thorough
def test_all_are_read_each_from_its_host_with_its_key(team: Team) -> None:
    ended = team.ftw("sync", "--output", "json", env={"OPENAI_API_KEY": f"{KEY}-stray", "OPENAI_ORG_ID": "org-stray"})
    assert ended.code == 0, ended.err
    printed = ended.json
    assert set(printed) == SUMMARY_KEYS
    assert (printed["status"], printed["error"], printed["account"]) == ("done", None, None)
    assert [one["account"] for one in printed["accounts"]] == ["research", "production"]
    for one in printed["accounts"]:
        assert set(one) == SUMMARY_KEYS - {"accounts"}
        assert one["requests"] == len(team.hosts[one["account"]].requests)
    assert counts(team.ftw) == {"research": 2, "production": 3}
    for name in ("requests", "rejected", "retries"):
        assert printed[name] == sum(one[name] for one in printed["accounts"])
    assert printed["rows"]["jobs"] == 5
    assert printed["jobs"] == {"seen": 5, "open": 0}
    assert printed["load_ids"] == [load_id for one in printed["accounts"] for load_id in one["load_ids"]]
    assert printed["seconds"] >= sum(one["seconds"] for one in printed["accounts"]) > 0
    for label, host in team.hosts.items():
        assert {request.key for request in host.requests} == {KEYS[label]}
        assert not any("openai-organization" in request.headers for request in host.requests)
    assert "OPENAI_API_KEY, OPENAI_ORG_ID are not used" in ended.err
    assert KEY not in ended.all
    assert team.keys_stand_in() == []

    slip = team.ftw("sync", "--account", "reserch")
    assert slip.code == 2
    assert is_told_well(slip, "reserch", "did you mean 'research'")
    assert counts(team.ftw) == {"research": 2, "production": 3}

    alone = team.ftw("sync", "--account", "production", "--strict", "--output", "json").json
    assert alone["account"] == "production"
    assert alone["accounts"] == [
        {name: value for name, value in alone.items() if name != "accounts"}
        | {name: alone["accounts"][0][name] for name in ("seconds", "started_at", "finished_at")}
    ]

    assert counts(team.ftw, "best_checkpoints") == {"research": 2, "production": 3}
    best = team.ftw("best", "--output", "json", "--account", "research", "--account", "production")
    assert len(best.json) == 5

    unclear = team.ftw("sync", "--job", "ftjob-011")
    assert unclear.code == 2
    assert is_told_well(unclear, "--account")


@pytest.mark.thorough
def test_one_that_fails_does_not_stop_the_others(team: Team) -> None:
    refusal = Fault("status", times=None, status=401, code="invalid_api_key", message=f"No: {KEYS['research']}")
    team.hosts["research"].faults.append(refusal)
    ended = team.ftw("sync", "--verbose")
    assert ended.code == 1
    assert counts(team.ftw) == {"production": 3}
    assert "Account research failed: " in ended.err
    assert "401" in ended.err
    assert ended.err.splitlines()[-1] == "Error: 1 of 2 accounts failed: research."
    assert re.search(r"^Synced account production from .*/openai/v1 into ", ended.out, re.MULTILINE)
    assert re.search(r"^Synced 1 of 2 accounts: \d+ rows", ended.out, re.MULTILINE)
    assert KEY not in ended.all
    assert "Traceback" not in ended.all

    asked = len(team.hosts["research"].requests)
    ended = team.ftw("sync", "--output", "json", "--strict")
    assert ended.code == 1
    printed = ended.json
    assert printed["status"] == "failed"
    assert printed["error"].startswith("Account research: ")
    assert [one["status"] for one in printed["accounts"]] == ["failed", "done"]
    assert printed["accounts"][0]["error"] in printed["error"]
    assert printed["accounts"][1]["error"] is None
    assert printed["accounts"][0]["requests"] == len(team.hosts["research"].requests) - asked > 0
    assert KEY not in ended.all
    assert team.keys_stand_in() == []


@pytest.mark.thorough
def test_one_that_lacks_its_key_fails_alone(team: Team) -> None:
    secrets = team.ftw.folder / ".dlt/secrets.toml"
    secrets.write_text(secrets.read_text().split("\n\n")[0])
    ended = team.ftw("sync", "--resources", "jobs", "--output", "json")
    assert ended.code == 1
    assert [one["status"] for one in ended.json["accounts"]] == ["done", "failed"]
    for word in ("account production has no key", f"[{SECTION}.production]", "PRODUCTION__OPENAI_API_KEY"):
        assert word in ended.json["error"]
    assert counts(team.ftw) == {"research": 2}
    checked = team.ftw("check")
    assert checked.code == 1
    (failed,) = [line for line in checked.out.splitlines() if "FAILED" in line]
    assert f"[{SECTION}.production]" in failed
    assert team.ftw("sync", "--account", "production").code == 2
    assert team.hosts["production"].requests == []


def test_what_cannot_be_right_ends_it_before_any_account_is_read(team: Team) -> None:
    secrets = team.ftw.folder / ".dlt/secrets.toml"
    whole = secrets.read_text()
    secrets.write_text("")
    ended = team.ftw("sync")
    assert ended.code == 2
    assert is_told_well(ended, "account research has no key", f"[{SECTION}.research]", "RESEARCH")
    secrets.write_text(f"{whole}\nopenai_base_url = {KEY}")
    ended = team.ftw("sync", "--output", "json")
    assert ended.code == 2
    assert (ended.json["status"], ended.json["accounts"]) == ("failed", [])
    assert ended.json["error"] == ".dlt/secrets.toml is not valid TOML at line 7 col 18."
    assert KEY not in ended.all
    for command in (["check"], ["archive", "kept"], ["views"]):
        ended = team.ftw(*command)
        assert ended.code == 2
        assert is_told_well(ended, ".dlt/secrets.toml is not valid TOML")
    assert [host.requests for host in team.hosts.values()] == [[], []]
    assert [path.name for path in team.ftw.folder.iterdir()] == [".dlt"]


@pytest.mark.thorough
def test_skips_say_of_which_account(team: Team) -> None:
    team.hosts["production"].faults.append(Fault("status", path="011/checkpoints$", times=None, status=403))
    ended = team.ftw("sync", "--strict", "--resources", "jobs,checkpoints")
    assert ended.code == 3
    assert "Account production: Skipped checkpoints of ftjob-011: " in ended.err


@pytest.mark.nightly
def test_another_sync_on_the_database_is_exit_75_and_told_of_each(team: Team) -> None:
    for host in team.hosts.values():
        host.latency = 0.5
    with team.ftw.start("sync", "--quiet") as first:
        while not any(host.requests for host in team.hosts.values()):
            assert first.process.poll() is None
        second = team.ftw("sync", "--output", "json")
        assert first.process.poll() is None
        for host in team.hosts.values():
            host.latency = 0
        assert first.end().code == 0
    assert second.code == 75
    assert [(one["account"], one["status"]) for one in second.json["accounts"]] == [
        ("research", "failed"),
        ("production", "failed"),
    ]
    assert counts(team.ftw) == {"research": 2, "production": 3}


@pytest.mark.nightly
def test_check_verify_and_archive_take_all_of_them(team: Team) -> None:
    ended = team.ftw("check")
    assert ended.code == 0, ended.all
    lines = ended.out.splitlines()
    assert [line for line in lines if line.startswith("account")] == ["account research", "account production"]
    assert sum("destination" in line for line in lines) == 1

    assert team.ftw("sync", "--quiet").all == ""
    verified = team.ftw("verify", "--output", "json")
    assert verified.code == 0, verified.err
    printed = verified.json
    assert (printed["status"], printed["account"], printed["equal"]["jobs"]) == ("equal", None, 5)
    assert [(one["account"], one["equal"]["jobs"]) for one in printed["accounts"]] == [
        ("research", 2),
        ("production", 3),
    ]

    change = "UPDATE fine_tuning.jobs SET model = 'another' WHERE id = 'ftjob-011'"
    _write(team.ftw, change)
    differs = team.ftw("verify", "--output", "json")
    assert differs.code == 4
    assert [one["status"] for one in differs.json["accounts"]] == ["equal", "differs"]
    (finding,) = differs.json["findings"]
    assert (finding["account"], finding["key"], finding["columns"]) == ("production", "ftjob-011", ["model"])
    assert team.ftw("verify", "--account", "research").code == 0

    refusal = Fault("status", path="jobs$", times=None, status=401, code="invalid_api_key", message="No.")
    team.hosts["research"].faults.append(refusal)
    archived = team.ftw("archive", "kept", "--output", "json")
    assert archived.code == 1
    assert archived.json["error"].startswith("1 of 2 accounts failed. Account research: ")
    assert [one["status"] for one in archived.json["sync"]["accounts"]] == ["failed", "done"]
    manifest = _manifest(team.ftw)
    assert (manifest["account"], manifest["host"], manifest["tables"]["jobs"]) == (None, None, 5)
    assert manifest["accounts"] == {
        "production": {"host": team.hosts["production"].base_url},
        "research": {"host": None},
    }
    assert {one["account"] for one in manifest["missing"]} == {"research"}
    assert "the account research could not be read: " in manifest["missing"][0]["reason"]

    team.hosts["research"].faults.clear()
    whole = team.ftw("archive", "kept", "--strict")
    assert whole.code == 0, whole.err
    assert whole.out.startswith("Archived accounts research, production to ")
    manifest = _manifest(team.ftw)
    assert {entry["account"] for entry in manifest["files"].values() if entry["kind"] == "result_file"} == set(KEYS)
    assert manifest["accounts"]["research"] == {"host": team.hosts["research"].base_url}
    assert manifest["missing"] == []
    assert team.ftw("archive", "kept", "--check").code == 0
    assert team.keys_stand_in() == []


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_of_them(team: Team, number: int) -> None:
    silent = Fault("silent", path="/events$", times=None)
    team.hosts["research"].faults.append(silent)
    with team.ftw.start("sync") as running:
        wait_until(lambda: silent.hits)
        running.signal(number)
        assert running.end(20).code == 128 + number
    assert team.hosts["production"].requests == []
    team.hosts["research"].faults.clear()
    assert team.ftw("sync", "--quiet").code == 0
    assert counts(team.ftw, "events") == {"research": 6, "production": 9}


@pytest.mark.nightly
def test_one_that_failed_is_tried_again_in_the_next_round(team: Team) -> None:
    team.hosts["research"].faults.append(Fault("status", path="/jobs$", times=1, status=403, message="Not now."))
    with team.ftw.start("sync", "--every", "0.3s", "--output", "json") as running:
        wait_until(lambda: sum(request.path.endswith("/jobs") for request in team.hosts["production"].requests) >= 3)
        running.signal(signal.SIGTERM)
        ended = running.end()
    rounds = [[one["status"] for one in json.loads(line)["accounts"]] for line in ended.out.splitlines()]
    assert rounds[:2] == [["failed", "done"], ["done", "done"]]
    assert counts(team.ftw) == {"research": 2, "production": 3}


def test_the_demo_leaves_the_configured_accounts_alone(team: Team) -> None:
    ended = team.ftw("sync", "--demo", "--resources", "jobs", "--output", "json")
    assert ended.code == 0, ended.err
    assert [one["account"] for one in ended.json["accounts"]] == ["demo"]
    assert [host.requests for host in team.hosts.values()] == [[], []]


def _manifest(ftw: Command) -> Any:
    return json.loads((ftw.folder / "kept/manifest.json").read_text())


def _write(ftw: Command, sql: str) -> None:
    import duckdb

    with duckdb.connect(str(ftw.database)) as connection:
        connection.execute(sql)
