"""`ftw sync --demo`: no key, no network; the second one shows what incremental means."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from command import KEY, Command, is_told_well
from test_two_at_once import reader

IDS = {
    "jobs": "account, id",
    "checkpoints": "account, id",
    "events": "account, id",
    "result_metrics": "account, file_id, step",
}


@pytest.fixture
def ftw(tmp_path: Path) -> Command:
    """The command without a key, behind a proxy that does not exist, with a stranger's settings."""
    command = Command(tmp_path)
    del command.env["OPENAI_API_KEY"]
    return command


@pytest.mark.nightly
def test_a_second_demo_brings_only_what_is_new(ftw: Command) -> None:
    database = ftw.folder / "fine_tuning_demo.duckdb"
    first = ftw("sync", "--demo", "--strict", "--output", "json")
    assert first.code == 0, first.err
    assert first.json["account"] == "demo"
    assert list(ftw.folder.glob("*.duckdb")) == [database]
    counts = {name: len(ftw.rows(f"FROM {name}", database)) for name in IDS}
    assert {name: first.json["rows"][name] for name in IDS} == counts
    assert all(counts.values())
    ids = {name: set(ftw.rows(f"SELECT {columns} FROM {name}", database)) for name, columns in IDS.items()}

    second = ftw("sync", "--demo", "--output", "json", "--strict")
    assert second.code == 0, second.err
    assert second.json["requests"] < first.json["requests"] / 2
    for name, columns in IDS.items():
        rows = ftw.rows(f"SELECT {columns} FROM {name}", database)
        assert len(rows) == len(set(rows))
        assert ids[name] <= set(rows)
        assert 0 < len(rows) - counts[name] <= second.json["rows"][name] < first.json["rows"][name], name
    assert ftw.rows("SELECT DISTINCT account FROM jobs", database) == [("demo",)]
    assert ftw("query", "SELECT count(*) AS n FROM jobs", "--output", "json").json[0]["n"] > counts["jobs"]

    # Who holds the file is told, and what to do, whether that is another sync or any other program.
    with FileLock(f"{database}.lock"):
        busy = ftw("sync", "--demo")
    assert busy.code == 75
    assert is_told_well(busy, "Another sync is running on fine_tuning_demo.duckdb: wait for it to end")
    with reader(database) as other:
        held = ftw("sync", "--demo", "--lock-wait", "0.2")
    assert held.code == 1
    assert is_told_well(held, f"process {other.pid}) holds fine_tuning_demo.duckdb for longer than 0.2 s", "close it")
    assert ftw.rows("SELECT count(*) FROM syncs", database) == [(2,)]


def test_it_takes_no_heed_of_keys_hosts_and_proxies(ftw: Command) -> None:
    dead = "http://127.0.0.1:9"
    strangers = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": "https://api.example.com/v1",
        "AZURE_OPENAI_API_KEY": "another",
        "HTTP_PROXY": dead,
        "http_proxy": dead,
        "HTTPS_PROXY": dead,
        "ALL_PROXY": dead,
    }
    ended = ftw("sync", "--demo", "--database", "mine.duckdb", "--resources", "jobs", "--strict", env=strangers)
    assert ended.code == 0, ended.err
    assert KEY not in ended.all
    assert list(ftw.folder.glob("*.duckdb")) == [ftw.folder / "mine.duckdb"]
    assert ftw.rows("SELECT count(*) FROM jobs", ftw.folder / "mine.duckdb") == [(24,)]
