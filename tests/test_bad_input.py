"""What cannot work is told in a line or two that say what to do, with the exit code of the contract."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from command import HOUR, KEY, NOW, Command, is_told_well
from fine_tuning_simulator import Clock, Fault, GeneratedWorld, ScriptedWorld, Simulator


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator) -> Command:
    """The command, with a key for the host."""
    return Command(tmp_path, host.base_url)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("--nonsense", "--nonsense"),
        ("surplus", "surplus"),
        ("--resources jobs,nonsense", "nonsense"),
        ("--resources ,", "checkpoints"),
        ("--since yesterday", "yesterday"),
        ("--since 2026-13-45", "2026-13-45"),
        ("--since 0001-01-01T00:00+14:00", "0001-01-01"),
        ("--every soon", "15m"),
        ("--every 15", "15m"),
        ("--every 0m", "0m"),
        ("--every -5m", "-5m"),
        ("--concurrency 0", "concurrency"),
        ("--output yaml", "json"),
        ("--base-url http://api.example.com/v1", "https"),
        ("--base-url http://127.0.0.1.example.com/v1", "https"),
        ("--base-url api.example.com/v1", "https://"),
        ("--base-url https://me:secret@api.example.com/v1", "password"),
        ("--database fine_tuning.duckdb", "fine_tuning"),
        ("--dataset fine_tuning_warehouse", "fine_tuning_warehouse"),
        ("--dataset FINE_TUNING_warehouse", "FINE_TUNING_warehouse"),
        ("--dataset not.a-name", "not.a-name"),
        ("--destination nonsense", "nonsense"),
        ("--table-format iceberg", "filesystem"),
        ("--destination filesystem", "--table-format"),
        ("--account \t", "label"),
        ("--demo --base-url https://api.example.com/v1", "--base-url"),
        ("--demo --account one --account two", "one account"),
        ("--destination postgres --database x.duckdb", "--database"),
        ("--full-refresh --job ftjob-1", "--full-refresh"),
        ("--full-refresh --since 2026-01-01", "--full-refresh"),
    ],
)
def test_wrong_usage_is_exit_2_and_does_nothing(host: Simulator, ftw: Command, arguments: str, word: str) -> None:
    ended = ftw("sync", *arguments.split(" "))
    assert ended.code == 2, ended
    assert is_told_well(ended, word)
    assert "secret" not in ended.err
    assert host.requests == []
    assert list(ftw.folder.glob("*.duckdb")) == []


def test_an_unknown_command_is_exit_2(ftw: Command) -> None:
    ended = ftw("snyc")
    assert ended.code == 2
    assert is_told_well(ended, "snyc", "--help")
    bare = ftw()
    assert (bare.code, bare.err) == (2, "")
    assert "\n  sync " in bare.out


def test_a_missing_key_is_exit_2_and_says_which(host: Simulator, ftw: Command) -> None:
    for nothing in (None, "", "  "):
        ended = ftw("sync", env={"OPENAI_API_KEY": nothing})
        assert ended.code == 2
        assert is_told_well(ended, "OPENAI_API_KEY")
    odd = ftw("sync", env={"OPENAI_API_KEY": f"{KEY} \n{KEY}"})
    assert odd.code == 2
    assert is_told_well(odd, "key")
    assert host.requests == []
    assert list(ftw.folder.glob("*.duckdb")) == []


@pytest.mark.thorough
def test_a_wrong_key_is_exit_1_with_one_request(tmp_path: Path, world: ScriptedWorld) -> None:
    world.add_job()
    with Simulator(world, api_keys={"another": frozenset()}) as host:
        ftw = Command(tmp_path, host.base_url)
        assert ftw("sync", env={"OPENAI_API_KEY": "another"}).code == 0
        before = ftw.content()
        host.requests.clear()
        ended = ftw("sync")
        assert ended.code == 1
        assert ftw.rows("SELECT status FROM syncs ORDER BY started_at") == [("done",), ("failed",)]
        assert is_told_well(ended, "401", "key")
        assert len(host.requests) == 1
        after = ftw.content()
        assert {name for name in after if after[name] != before[name]} == {"syncs", "_dlt_loads"}


@pytest.mark.thorough
def test_keys_of_two_hosts_are_exit_2_and_one_alone_works(tmp_path: Path, clock: Clock) -> None:
    world = GeneratedWorld(seed=1, jobs=3, profile="azure", clock=clock)
    with Simulator(world) as azure:
        ftw = Command(tmp_path)
        endpoint = azure.base_url.removesuffix("/openai/v1")
        pair = {"AZURE_OPENAI_API_KEY": "a-resource-key", "AZURE_OPENAI_ENDPOINT": endpoint}
        both = ftw("sync", env=pair)
        assert both.code == 2
        assert is_told_well(both, "OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "unset")
        assert azure.requests == []
        keyless = ftw("sync", env={"OPENAI_API_KEY": None, "AZURE_OPENAI_ENDPOINT": endpoint, "OPENAI_AUTH": "api-key"})
        assert keyless.code == 2
        assert is_told_well(keyless, "set AZURE_OPENAI_API_KEY")

        half = ftw("sync", env={"OPENAI_API_KEY": None, "AZURE_OPENAI_API_KEY": "a-resource-key"})
        assert half.code == 2
        assert is_told_well(half, "AZURE_OPENAI_ENDPOINT")

        alone = {**pair, "OPENAI_API_KEY": None, "OPENAI_ORG_ID": "org-of-someone", "OPENAI_PROJECT_ID": "proj_someone"}
        synced = ftw("sync", "--strict", env=alone)
        assert synced.code == 0, synced.err
        assert {request.key for request in azure.requests} == {"a-resource-key"}
        assert {request.headers.get("openai-organization") for request in azure.requests} == {None}
        assert {request.headers.get("openai-project") for request in azure.requests} == {None}
        expected = sorted((job["id"],) for job in world.jobs())
        assert ftw.rows("SELECT id FROM jobs ORDER BY id") == expected
        azure.requests.clear()
        assert (
            ftw("sync", "--database", "slash.duckdb", env={**alone, "AZURE_OPENAI_ENDPOINT": f"{endpoint}/"}).code == 0
        )
        assert {request.status for request in azure.requests} == {200}


@pytest.mark.nightly
def test_organisation_and_project_go_with_the_key(host: Simulator, ftw: Command) -> None:
    ended = ftw("sync", env={"OPENAI_ORG_ID": "org-mine", "OPENAI_PROJECT_ID": "proj_mine"})
    assert ended.code == 0
    sent = {(r.key, r.headers.get("openai-organization"), r.headers.get("openai-project")) for r in host.requests}
    assert sent == {(KEY, "org-mine", "proj_mine")}


@pytest.mark.thorough
def test_the_key_may_stand_in_secrets_and_the_environment_wins(host: Simulator, ftw: Command) -> None:
    (ftw.folder / ".dlt").mkdir()
    (ftw.folder / ".dlt" / "secrets.toml").write_text('[sources.openai_fine_tuning]\nopenai_api_key = "from-secrets"\n')
    assert ftw("sync", env={"OPENAI_API_KEY": None}).code == 0
    assert {request.key for request in host.requests} == {"from-secrets"}
    host.requests.clear()
    assert ftw("sync").code == 0
    assert {request.key for request in host.requests} == {KEY}


def test_a_database_that_cannot_be_is_exit_1_before_any_request(host: Simulator, ftw: Command) -> None:
    (ftw.folder / "folder").mkdir()
    (ftw.folder / "folder" / "kept").write_text("kept")
    notes, short = ftw.folder / "notes.duckdb", ftw.folder / "short.duckdb"
    notes.write_text("These are my notes, and no database. " * 10)
    (ftw.folder / "held.duckdb.lock").mkdir()
    short.write_text("notes")
    wrong = ("missing/folder/x.duckdb", "folder", str(notes), str(short), f"{notes}/x.duckdb", "held.duckdb")
    for path in (*wrong, f"{'x' * 300}.duckdb", "~nobody-of-this-name/x.duckdb"):
        ended = ftw("sync", "--database", path)
        assert ended.code == 1, (path, ended)
        assert is_told_well(ended, Path(path).name)
    assert host.requests == []
    assert notes.read_text() == "These are my notes, and no database. " * 10
    assert short.read_text() == "notes"
    assert {path.name for path in ftw.folder.iterdir()} == {
        *("folder", "notes.duckdb", "short.duckdb", "held.duckdb.lock")
    }
    assert {path.name for path in (ftw.folder / "folder").iterdir()} == {"kept"}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write to")
def test_a_read_only_folder_is_exit_1(host: Simulator, ftw: Command) -> None:
    ended = ftw("sync", "--database", "/proc/x.duckdb")
    assert ended.code == 1
    assert is_told_well(ended, "/proc/x.duckdb", "written")
    assert host.requests == []


@pytest.mark.nightly
def test_a_host_that_lists_no_jobs_is_exit_1_and_the_database_stays_as_it_was(
    world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    world.add_job(id="ftjob-1", created_at=NOW - 50 * HOUR)
    world.add_checkpoint("ftjob-1")
    assert ftw("sync", "--quiet").code == 0
    before = ftw.content()
    faults = {
        "403": Fault("status", status=403, message="Your project may not do that."),
        "404": Fault("status", status=404, body={"error": {"message": "Invalid URL (GET /v1/fine_tuning/jobs)"}}),
        "quota": Fault("status", status=429, code="insufficient_quota"),
        "redirect": Fault("redirect", location="https://elsewhere.example.com/v1/fine_tuning/jobs"),
        "data": Fault("status", status=200, body={"object": "list", "data": "nothing"}, times=None),
        "never ends": Fault("empty_more", times=None),
    }
    words = {"404": "base url", "403": "Your project may not do that.", "redirect": "elsewhere.example.com"}
    for name, fault in faults.items():
        host.faults[:] = [fault]
        ended = ftw("sync")
        assert ended.code == 1, (name, ended)
        assert is_told_well(ended, host.base_url, words.get(name, "jobs")), name
        assert fault.hits == 1 or fault.times is None, name
    after = ftw.content()
    assert {name for name in after if after[name] != before[name]} == {"syncs", "_dlt_loads"}
    assert ftw.rows("SELECT status, count(*) FROM syncs GROUP BY 1 ORDER BY 1") == [
        ("done", 1),
        ("failed", len(faults)),
    ]
    host.faults.clear()
    assert ftw("sync", "--strict").code == 0


@pytest.mark.nightly
def test_a_host_that_is_down_or_answers_with_garbage_is_exit_1_within_half_a_minute(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    kinds = {
        "html": Fault("html", times=None),
        "gateway": Fault("html", times=None, status=502),
        "garbage": Fault("status", times=None, status=200, body=b"\x00\xff garbage"),
        "reset": Fault("reset", times=None),
    }
    with ExitStack() as stack:
        running = {"down": stack.enter_context(Command(tmp_path, f"http://127.0.0.1:{port}/v1").start("sync"))}
        for name, fault in kinds.items():
            host = stack.enter_context(Simulator(ScriptedWorld()))
            host.faults.append(fault)
            command = Command(tmp_path, host.base_url)
            running[name] = stack.enter_context(command.start("sync", "--database", f"{name}.duckdb"))
        ended = {name: command.end() for name, command in running.items()}
    for name, one in ended.items():
        assert one.code == 1, (name, one)
        assert one.seconds < 30, name
    assert is_told_well(ended["down"], "host up", f"http://127.0.0.1:{port}/v1")
    assert is_told_well(ended["html"], "a web page", "127.0.0.1")
    assert is_told_well(ended["gateway"], "502", "127.0.0.1")
    assert is_told_well(ended["garbage"], "not JSON")
    assert is_told_well(ended["reset"], "127.0.0.1")


@pytest.mark.nightly
def test_odd_records_never_fail_a_sync_nor_a_later_one(world: ScriptedWorld, host: Simulator, ftw: Command) -> None:
    world.add_job(id="ftjob-1", created_at=NOW - 30 * HOUR, status="running")
    odd: list[Any] = [
        None,
        7,
        "text",
        [],
        {},
        {"id": None},
        {"id": "a", "created_at": 1e400},
        {"id": "b", "metrics": {"Loss": 1, "loss": 2, "LOSS": "three"}},
        {"id": "c\x00\ud800", "metrics": {"": 1, "a b": 1, "x" * 300: 1}},
        {"id": "d", "step_number": 10**30, "metrics": [1, 2]},
        {"id": "e", "account": "stranger", "_dlt_load_id": "stranger", "metrics": {"train_loss": "high"}},
        {"id": {"nested": True}, "created_at": -(10**18)},
    ]
    for record in odd:
        world.add_raw_job(record)
        world.add_raw_checkpoint("ftjob-1", record)
        world.add_raw_event("ftjob-1", record)
    for attempt in range(2):
        ended = ftw("sync", "--output", "json", "--account", "mine")
        assert ended.code == 0, ended.err
        assert ended.json["rejected"] > 0, attempt
    assert "ftjob-1" in {name for (name,) in ftw.rows("SELECT id FROM jobs")}
    for table in ("jobs", "checkpoints", "events", "rejected_records"):
        assert {name for (name,) in ftw.rows(f"SELECT DISTINCT account FROM {table}")} == {"mine"}
    loads = {load for (load,) in ftw.rows("SELECT load_id FROM _dlt_loads WHERE status = 0")}
    assert {load for (load,) in ftw.rows("SELECT DISTINCT _dlt_load_id FROM checkpoints")} <= loads


def test_a_first_sync_that_fails_leaves_no_file_that_would_be_taken_for_a_warehouse(
    host: Simulator, ftw: Command
) -> None:
    ended = ftw("sync", "--base-url", f"{host.base_url}/astray")
    assert ended.code == 1
    assert not ftw.database.exists()
    ended = ftw("sync", env={"OPENAI_API_KEY": "<configure me>"})
    assert ended.code == 2
    assert is_told_well(ended, "configure me")
