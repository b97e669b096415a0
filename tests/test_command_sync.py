"""`ftw sync`: what it prints, what it ends with, and what is in the database then."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from command import HOUR, KEY, NOW, SUMMARY_KEYS, Command, Ended, is_told_well, wait_until
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.schema import TABLES

RESULTS = b"step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,0.9,0.5,,\n2,0.8,0.6,1.0,0.4\n"


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator) -> Command:
    """The command, with a key for the host."""
    return Command(tmp_path, host.base_url)


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    """A job that ended yesterday, with everything, and one that runs."""
    world.add_file("file-results", RESULTS)
    world.add_job(id="ftjob-ended", created_at=NOW - 24 * HOUR, result_files=["file-results"])
    for step in (10, 20, 30):
        world.add_checkpoint("ftjob-ended", id=f"ftckpt-{step}", step_number=step)
    world.add_event("ftjob-ended", id="ftevent-1")
    world.add_event("ftjob-ended", id="ftevent-2")
    world.add_job(id="ftjob-runs", created_at=NOW - HOUR, status="running")


def test_json_is_the_one_thing_on_stdout_and_says_what_was_done(host: Simulator, ftw: Command) -> None:
    first = ftw("sync", "--output", "json")
    assert first.code == 0, first.err
    assert len(first.out.strip().splitlines()) == 1
    told = first.json
    assert set(told) == SUMMARY_KEYS
    assert (told["status"], told["error"], told["account"]) == ("done", None, "default")
    tables = {"jobs": 2, "checkpoints": 3, "events": 2, "result_metrics": 2, "files": 2, "models": 5}
    assert {name: told["rows"][name] for name in tables} == tables
    assert {
        name: count for name, count in told["rows"].items() if name not in tables and name != "syncs" and count
    } == {}
    assert told["requests"] == len(host.requests)
    assert (told["retries"], told["rejected"], told["skipped"]) == (0, 0, [])
    assert told["jobs"] == {"seen": 2, "open": 1}
    assert 0 < told["seconds"] <= first.seconds
    assert "{" not in first.err
    assert {name: len(ftw.rows(f"FROM {name}")) for name in tables} == tables
    assert ftw.rows("SELECT load_id FROM _dlt_loads WHERE status = 0") == [(name,) for name in told["load_ids"]]

    host.requests.clear()
    second = ftw("sync", "--output", "json").json
    assert second["requests"] == len(host.requests) <= 4
    assert second["rows"]["checkpoints"] == 0
    assert second["jobs"]["open"] == 1
    assert not set(second["load_ids"]) & set(told["load_ids"])


def test_text_is_a_line_a_table_without_control_codes(ftw: Command) -> None:
    ended = ftw("sync")
    assert ended.code == 0
    lines = ended.all.splitlines()
    for table, count in {"jobs": 2, "checkpoints": 3, "events": 2, "result_metrics": 2, "files": 2}.items():
        (line,) = [line for line in lines if line.split()[:1] == [table]]
        assert re.search(rf"\b{count}\b", line)
    assert all(character.isprintable() or character == "\n" for character in ended.all)
    assert KEY not in ended.all
    assert list(ftw.folder.glob("*.duckdb")) == [ftw.database]


@pytest.mark.thorough
def test_quiet_prints_nothing_and_verbose_logs_but_never_the_key(host: Simulator, ftw: Command) -> None:
    quiet = ftw("sync", "--quiet")
    assert (quiet.code, quiet.all) == (0, "")
    verbose = ftw("sync", "--verbose", "--full-refresh")
    assert verbose.code == 0
    assert len(verbose.err.splitlines()) > 5
    assert KEY not in verbose.all
    host.faults.append(Fault("status", status=500, message=f"what is {KEY}", times=2))
    host.faults.append(Fault("status", status=401, message=f"{KEY} is wrong", times=None))
    failed = ftw("sync", "--verbose")
    assert failed.code == 1
    assert KEY not in failed.all


@pytest.mark.thorough
def test_every_sync_leaves_a_row_and_every_row_tells_account_and_load(host: Simulator, ftw: Command) -> None:
    label = "Équipe 1 – blue"
    for _ in range(2):
        assert ftw("sync", "--account", label, "--output", "json").json["account"] == label
    assert ftw.tables() == set(TABLES)
    syncs = ftw.rows("SELECT id, started_at, finished_at, requests, jobs_seen, jobs_open, skipped, version FROM syncs")
    assert len({row[0] for row in syncs}) == 2
    for _, started, finished, requests, seen, still_open, skipped, version in syncs:
        assert started <= finished
        assert (seen, still_open, skipped) == (2, 1, "[]")
        assert requests > 0
        assert version
    loads = {load for (load,) in ftw.rows("SELECT load_id FROM _dlt_loads WHERE status = 0")}
    assert {load for (load,) in ftw.rows("SELECT _dlt_load_id FROM syncs")} == loads
    assert len(loads) == 2
    for table in TABLES:
        rows = ftw.rows(f"SELECT account, _dlt_load_id FROM {table}")
        assert {account for account, _ in rows} <= {label}
        assert {load for _, load in rows} <= loads
        assert rows or table == "rejected_records"

    comments = dict(ftw.rows("SELECT table_name, comment FROM duckdb_tables() WHERE schema_name = 'fine_tuning'"))
    of_columns = {
        (table, column): comment
        for table, column, comment in ftw.rows(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE schema_name = 'fine_tuning'"
        )
    }
    for name, described in TABLES.items():
        assert comments[name] == described.description
        for column in described.columns:
            assert of_columns[name, column.name] == column.description
    assert ftw.left_behind == []


@pytest.mark.thorough
def test_strict_is_exit_3_where_something_was_rejected_or_skipped(
    world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    world.add_raw_checkpoint("ftjob-ended", {"id": "ftckpt-odd", "created_at": "no time", "step_number": []})
    rejected = ftw("sync", "--strict", "--output", "json", "--database", "rejected.duckdb")
    assert rejected.code == 3
    assert rejected.json["status"] == "done"
    assert rejected.json["rejected"] == 1
    assert rejected.json["rows"]["rejected_records"] == 1
    assert "rejected_records" in rejected.err
    ((resource, job, record, reason),) = ftw.rows(
        "SELECT resource, fine_tuning_job_id, record, reason FROM rejected_records", ftw.folder / "rejected.duckdb"
    )
    assert (resource, job) == ("checkpoints", "ftjob-ended")
    assert "ftckpt-odd" in record
    assert reason
    tolerant = ftw("sync", "--output", "json", "--database", "tolerant.duckdb")
    assert (tolerant.code, tolerant.json["rejected"]) == (0, 1)


@pytest.mark.thorough
def test_a_skipped_job_is_reported_stays_open_and_is_exit_3_only_if_strict(
    world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    world.add_checkpoint("ftjob-runs", id="ftckpt-runs")
    host.faults.append(Fault("status", path="ftjob-ended/checkpoints$", times=None, status=403, message="Not yours."))
    skipped = ftw("sync", "--output", "json")
    assert skipped.code == 0
    (told,) = skipped.json["skipped"]
    assert set(told) == {"account", "job", "resource", "reason"}
    assert (told["account"], told["job"], told["resource"]) == ("default", "ftjob-ended", "checkpoints")
    assert "403" in told["reason"]
    assert "Not yours." in told["reason"]
    assert "ftjob-ended" in skipped.err
    assert ftw.rows("SELECT id FROM checkpoints") == [("ftckpt-runs",)]
    assert skipped.json["jobs"]["open"] == 2

    strict = ftw("sync", "--strict")
    assert strict.code == 3
    assert "ftjob-ended" in strict.all
    host.faults.clear()
    assert ftw("sync", "--strict").code == 0
    assert len(ftw.rows("FROM checkpoints")) == 4


@pytest.mark.thorough
def test_one_resource_alone_and_the_others_later(host: Simulator, ftw: Command) -> None:
    ended = ftw("sync", "--resources", "checkpoints", "--output", "json")
    assert ended.code == 0
    assert ended.json["rows"]["checkpoints"] == 3
    assert set(ended.json["rows"]) <= {"checkpoints", "rejected_records", "syncs"}
    assert ended.json["requests"] == 3  # the jobs, and the checkpoints of each
    assert ftw.tables() == {"checkpoints", "rejected_records", "syncs"}
    later = ftw("sync", "--resources", " events , jobs ", "--output", "json")
    assert later.code == 0, later.err
    assert (later.json["rows"]["jobs"], later.json["rows"]["events"]) == (2, 2)
    assert ftw.tables() == {"checkpoints", "events", "jobs", "rejected_records", "syncs"}


@pytest.mark.thorough
def test_job_and_since_are_bounded_and_hide_nothing_from_a_later_sync(world: ScriptedWorld, ftw: Command) -> None:
    world.add_job(id="ftjob-old", created_at=NOW - 400 * HOUR)
    world.add_checkpoint("ftjob-old", id="ftckpt-old")
    asked_for = ("--job", "ftjob-ended", "--job", "ftjob-mistyped", "--job", "ftjob-runs")
    one = ftw("sync", *asked_for, "--output", "json", "--strict")
    assert one.code == 3
    assert one.json["jobs"]["seen"] == 2
    (skip,) = one.json["skipped"]
    assert (skip["job"], skip["resource"]) == ("ftjob-mistyped", "jobs")
    assert skip["reason"].startswith("the host has no job ftjob-mistyped: is the id right? (")
    assert skip["reason"] in one.err
    assert ftw.rows("SELECT id FROM jobs ORDER BY id") == [("ftjob-ended",), ("ftjob-runs",)]

    since = ftw("sync", "--since", "2026-05-28", "--database", "since.duckdb")  # the job that runs is of this day
    assert since.code == 0
    assert ftw.rows("SELECT id FROM jobs", ftw.folder / "since.duckdb") == [("ftjob-runs",)]

    assert ftw("sync").code == 0
    assert ftw.rows("SELECT id FROM jobs ORDER BY id") == [("ftjob-ended",), ("ftjob-old",), ("ftjob-runs",)]
    assert len(ftw.rows("FROM checkpoints")) == 4


@pytest.mark.thorough
def test_jobs_that_are_all_unknown_are_a_failure_and_so_is_a_host_of_no_jobs(host: Simulator, ftw: Command) -> None:
    host.faults.append(Fault("status", path="ftjob-ended$", status=200, body={"id": "ftjob-other", "object": "x"}))
    other = ftw("sync", "--job", "ftjob-ended", "--strict")
    assert other.code == 3
    assert "ftjob-ended answered with another job or none" in other.err

    none = ftw("sync", "--job", "ftjob-none", "--job", "ftjob-neither", "--output", "json")
    assert none.code == 1
    assert none.json["status"] == "failed"
    assert "none of the jobs that were asked for (ftjob-none, ftjob-neither)" in none.json["error"]
    assert is_told_well(Ended(1, "", none.err, 0), "ftjob-none", "the ids, the key and the project")

    astray = ftw("sync", "--job", "ftjob-ended", "--base-url", host.base_url.removesuffix("/v1"))
    assert astray.code == 1
    assert is_told_well(astray, "the path of the base URL is wrong", "check --base-url", "`ftw check` tries")


@pytest.mark.thorough
def test_a_full_refresh_reads_everything_again_into_the_same_rows(host: Simulator, ftw: Command) -> None:
    first = ftw("sync", "--output", "json").json
    queries = [
        f"SELECT * EXCLUDE (_dlt_load_id, synced_at) FROM {name} ORDER BY ALL" for name in ("events", "result_metrics")
    ]
    before = [ftw.rows(sql) for sql in queries]
    again = ftw("sync", "--full-refresh", "--output", "json").json
    assert again["requests"] == first["requests"]
    assert again["rows"] == first["rows"]
    assert [ftw.rows(sql) for sql in queries] == before
    assert ftw.rows("SELECT count(*), count(DISTINCT id) FROM checkpoints") == [(3, 3)]
    assert ftw("sync", "--output", "json").json["requests"] <= 4


def test_a_failure_is_json_too(tmp_path: Path, world: ScriptedWorld) -> None:
    with Simulator(world, api_keys={"another": frozenset()}) as host:
        ftw = Command(tmp_path, host.base_url)
        failed = ftw("sync", "--output", "json", "--account", "mine")
        assert len(host.requests) == 1
    assert failed.code == 1
    assert set(failed.json) == SUMMARY_KEYS
    assert (failed.json["status"], failed.json["account"], failed.json["load_ids"]) == ("failed", "mine", [])
    assert "401" in failed.json["error"]
    assert failed.json["error"].endswith(
        "The key was refused: check OPENAI_API_KEY, and that it belongs to this host (OPENAI_BASE_URL)."
    )
    assert set(failed.json["rows"].values()) <= {0}
    assert KEY not in failed.all
    assert 1 <= len(failed.err.strip().splitlines()) <= 2

    unset = ftw("sync", "--output", "json", env={"OPENAI_API_KEY": None})
    assert unset.code == 2
    assert (unset.json["status"], set(unset.json)) == ("failed", SUMMARY_KEYS)
    assert unset.json["error"].endswith("`ftw sync --demo` needs none.")

    for wrong in (["--resources", "nonsense"], ["--since", "yesterday"], ["--every", "soon"]):
        usage = ftw("sync", "--output", "json", *wrong)
        assert usage.code == 2
        assert (usage.json["status"], set(usage.json)) == ("failed", SUMMARY_KEYS)


@pytest.mark.thorough
def test_a_second_sync_of_a_database_is_exit_75_at_once(host: Simulator, ftw: Command) -> None:
    host.latency = 2
    with ftw.start("sync", "--quiet") as first:
        wait_until(lambda: host.requests)
        second = ftw("sync", within=6)
        assert first.process.poll() is None
        assert second.code == 75
        assert second.seconds < 5
        assert is_told_well(second, "another sync", "fine_tuning_warehouse.duckdb")
        host.latency = 0
        assert first.end().code == 0
    assert len(ftw.rows("FROM syncs")) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sync_ends_soon_and_the_next_goes_on(host: Simulator, ftw: Command, number: int) -> None:
    host.faults.append(Fault("silent", path="/events$", times=None))
    with ftw.start("sync") as running:
        wait_until(lambda: any(request.path.endswith("/events") for request in host.requests))
        began = time.monotonic()
        running.signal(number)
        ended = running.end(20)
    assert time.monotonic() - began < 3
    assert ended.code not in (0, 3)
    assert "Traceback" not in ended.err
    assert len(ended.err.strip().splitlines()) <= 2
    host.faults.clear()
    assert ftw("sync", "--strict").code == 0
    assert ftw.left_behind == []
    assert ftw.rows("SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM checkpoints)") == [(2, 3)]


@pytest.mark.thorough
def test_every_stays_syncs_again_and_survives_a_failure(host: Simulator, ftw: Command) -> None:
    def listings() -> int:
        return sum(request.path.endswith("/jobs") for request in host.requests)

    host.faults.append(Fault("status", path="/jobs$", times=1, status=403))
    with ftw.start("sync", "--every", "0.3s", "--output", "json") as running:
        wait_until(lambda: listings() >= 3)
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        ended = running.end()
    assert time.monotonic() - began < 3
    assert "Traceback" not in ended.err
    assert [line.split('"')[3] for line in ended.out.splitlines()][:2] == ["failed", "done"]
    assert len(ftw.rows("FROM checkpoints")) == 3


def test_help_and_version_answer_at_once(ftw: Command) -> None:
    helped = ftw("--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert helped.code == 0
    assert re.search(r"\| +click$", helped.err, re.MULTILINE)
    for slow in ("dlt", "duckdb", "pyarrow", "sqlglot", "requests", "rich"):
        assert not re.search(rf"\| +{slow}$", helped.err, re.MULTILINE), f"{slow} is imported for --help"
    for command in ("sync", "check", "query", "simulate"):
        assert re.search(rf"^  {command} ", helped.out, re.MULTILINE)
    version = ftw("--version")
    assert version.code == 0
    assert re.fullmatch(r"ftw \d+\.\d+\.\d+ \(dlt 1\.\S+, DuckDB 1\.\S+, Python 3\.\S+\)\n", version.out)
    shown = ftw("sync", "--help").out
    for option in (
        *("--demo", "--database", "--destination", "--dataset", "--table-format", "--account", "--base-url", "--job"),
        *("--resources", "--since", "--full-refresh", "--concurrency", "--every", "--output", "--strict", "--quiet"),
        "--verbose",
    ):
        assert option in shown
