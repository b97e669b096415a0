"""`ftw verify` tells what the warehouse lacks, what differs, and what is none of its fault."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import duckdb
import pytest

from command import Command
from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.verify import Comparison, lines, verify
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from harness import DAY, HOUR, NOW, Database


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    for number in range(3):
        job_id, created_at = f"ftjob-{number}", NOW - (5 + number) * DAY
        world.add_file(f"file-{number}", b"step,train_loss\n1,0.5\n2,0.25\n")
        world.add_job(id=job_id, created_at=created_at, finished_at=created_at + HOUR, result_files=[f"file-{number}"])
        for step in (1, 2):
            world.add_checkpoint(
                job_id,
                id=f"ckpt-{number}-{step}",
                created_at=created_at + step,
                step_number=step,
                metrics={"step": step},
            )
            world.add_event(job_id, id=f"event-{number}-{step}", created_at=created_at + step)


def compared(database: Database) -> Comparison:
    return verify(Account("default", "key", database.host.base_url), DuckDb(database.path))


def verdicts(comparison: Comparison) -> list[tuple[str, str, str]]:
    """What was found of all tables but `models`, which is of the day (`test_models`)."""
    found = [finding for finding in comparison.findings if finding.table != "models"]
    return sorted((finding.verdict, finding.table, finding.key) for finding in found)


def change(database: Database, sql: str) -> None:
    with duckdb.connect(str(database.path)) as connection:
        connection.execute(sql)


def test_a_warehouse_that_holds_everything_is_equal_and_is_not_written_to(database: Database) -> None:
    database.sync()
    before = hashlib.sha256(database.path.read_bytes()).hexdigest()
    comparison = compared(database)
    assert comparison.findings == []
    assert not comparison.differs
    tables = {"jobs": 3, "checkpoints": 6, "events": 6, "result_metrics": 6, "files": 4, "rejected_records": 0}
    assert comparison.equal == {**tables, "models": 10}
    assert hashlib.sha256(database.path.read_bytes()).hexdigest() == before


@pytest.mark.first_only
@pytest.mark.parametrize(
    ("table", "where", "key"),
    [
        ("jobs", "id = 'ftjob-1'", "ftjob-1"),
        ("checkpoints", "id = 'ckpt-1-2'", "ckpt-1-2"),
        ("events", "id = 'event-2-1'", "event-2-1"),
        ("result_metrics", "file_id = 'file-0' AND step = 2", "file-0 2"),
    ],
)
def test_a_row_that_was_removed_is_missing(database: Database, table: str, where: str, key: str) -> None:
    database.begin()
    change(database, f"DELETE FROM fine_tuning.{table} WHERE {where}")
    comparison = compared(database)
    assert verdicts(comparison) == [("missing", table, key)]
    assert comparison.differs


def test_a_value_that_was_changed_is_told_with_its_column(database: Database) -> None:
    database.begin()
    change(database, "UPDATE fine_tuning.checkpoints SET metrics__step = 7 WHERE id = 'ckpt-0-1'")
    comparison = compared(database)
    assert verdicts(comparison) == [("different", "checkpoints", "ckpt-0-1")]
    assert comparison.findings[0].columns == ("metrics__step",)
    assert comparison.differs


DOUBLED = [("jobs", "ftjob-1"), ("events", "event-2-1"), ("result_metrics", "file-0 2"), ("files", "file-0")]


@pytest.mark.nightly
def test_a_row_that_stands_more_than_once_is_a_duplicate_and_a_full_refresh_keeps_one(database: Database) -> None:
    database.begin()
    for table, key in DOUBLED:
        for _ in range(2):  # the second time, two rows become four
            change(
                database,
                f"INSERT INTO fine_tuning.{table} FROM fine_tuning.{table} "
                f"WHERE concat_ws(' ', {'file_id, step' if table == 'result_metrics' else 'id'}) = '{key}'",
            )
    comparison = compared(database)
    assert verdicts(comparison) == sorted(("duplicate", table, key) for table, key in DOUBLED)
    assert comparison.differs
    assert comparison.equal["jobs"] == 3, "each key counts once"
    assert "--full-refresh" in list(lines(comparison))[-1]
    database.sync(full_refresh=True)
    assert compared(database).findings == []


@pytest.mark.thorough
def test_duplicates_that_differ_from_the_host_are_both(database: Database) -> None:
    database.begin()
    change(database, "UPDATE fine_tuning.jobs SET model = 'other' WHERE id = 'ftjob-1'")
    change(database, "INSERT INTO fine_tuning.jobs FROM fine_tuning.jobs WHERE id = 'ftjob-1'")
    change(database, "INSERT INTO fine_tuning.jobs SELECT * REPLACE ('other' AS account) FROM fine_tuning.jobs")
    assert verdicts(compared(database)) == [("different", "jobs", "ftjob-1"), ("duplicate", "jobs", "ftjob-1")]


@pytest.mark.thorough
def test_what_the_host_no_longer_lists_is_told_and_is_no_failure(world: ScriptedWorld, database: Database) -> None:
    database.begin()
    world.remove_checkpoint("ckpt-0-1")
    comparison = compared(database)
    assert verdicts(comparison) == [("unlisted", "checkpoints", "ckpt-0-1")]
    assert not comparison.differs


@pytest.mark.thorough
def test_what_cannot_be_read_now_is_told_and_is_no_failure(database: Database) -> None:
    database.begin()
    database.host.faults.append(Fault("status", path=r"ftjob-1/checkpoints", times=None, status=403))
    comparison = compared(database)
    assert verdicts(comparison) == [
        ("unreadable", "checkpoints", "ckpt-1-1"),
        ("unreadable", "checkpoints", "ckpt-1-2"),
    ]
    assert [(skip["job"], skip["resource"]) for skip in comparison.skipped] == [("ftjob-1", "checkpoints")]
    assert not comparison.differs


@pytest.mark.thorough
def test_what_happened_since_the_last_sync_is_not_synced_yet(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-open", created_at=NOW - HOUR, status="running", finished_at=None)
    world.add_event("ftjob-open", id="event-open-1", created_at=NOW - HOUR)
    database.begin()
    world.update_job("ftjob-open", status="succeeded", finished_at=NOW + 60)
    world.add_checkpoint("ftjob-open", id="ckpt-open", created_at=NOW)
    world.add_event("ftjob-open", id="event-open-2", created_at=NOW)
    clock.advance(120)
    world.add_job(id="ftjob-new", created_at=NOW + 100, status="queued", finished_at=None)
    comparison = compared(database)
    assert verdicts(comparison) == [
        ("pending", "checkpoints", "ckpt-open"),
        ("pending", "events", "event-open-2"),
        ("pending", "jobs", "ftjob-new"),
        ("pending", "jobs", "ftjob-open"),
    ]
    assert not comparison.differs


@pytest.mark.nightly
def test_a_rejected_record_counts_as_held(world: ScriptedWorld, database: Database) -> None:
    world.add_raw_checkpoint("ftjob-0", {"id": "ckpt-odd", "metrics": {"train_loss": "high"}})
    database.begin()
    comparison = compared(database)
    assert comparison.findings == []
    assert comparison.equal["rejected_records"] == 1


@pytest.mark.nightly
def test_only_the_account_in_question_is_compared(database: Database) -> None:
    database.sync(account="one")
    database.sync(account="two")
    change(database, "DELETE FROM fine_tuning.jobs WHERE account = 'two'")
    one = verify(Account("one", "key", database.host.base_url), DuckDb(database.path))
    assert one.findings == []


@pytest.mark.nightly
def test_resources_that_were_never_read_are_not_synced_yet_and_a_table_that_is_gone_is_missing(
    database: Database,
) -> None:
    database.sync(resources=("checkpoints", "events"))
    comparison = compared(database)
    assert (comparison.equal["checkpoints"], comparison.equal["events"]) == (6, 6)
    assert {(finding.verdict, finding.table) for finding in comparison.findings} == {
        ("pending", "jobs"),
        ("pending", "files"),
        ("pending", "result_metrics"),
        ("pending", "models"),
    }
    change(database, "DROP TABLE fine_tuning.events CASCADE")
    comparison = compared(database)
    assert {finding.table for finding in comparison.findings if finding.verdict == "missing"} == {"events"}
    assert comparison.count("events", "missing") == 6
    database.host.faults.append(Fault("status", path="/jobs$", times=None, status=401, message="Not yours."))
    with pytest.raises(CommandError, match=r"401.*: Not yours\. The key was refused: check OPENAI_API_KEY"):
        compared(database)


@pytest.mark.thorough
def test_the_command_tells_each_finding_the_failures_first(
    world: ScriptedWorld, database: Database, tmp_path: Path
) -> None:
    database.sync()
    world.remove_checkpoint("ckpt-0-1")
    for number in range(20):
        world.add_event("ftjob-2", id=f"event-late-{number:02}", created_at=NOW - 6 * DAY)
    database.host.faults.append(Fault("status", path=r"ftjob-1/checkpoints", times=None, status=403))
    ended = Command(tmp_path, database.host.base_url)("verify", "--database", str(database.path))
    assert ended.code == 4
    lines = ended.out.splitlines()
    assert lines[:20] == [f"missing     events  event-late-{number:02}" for number in range(20)]
    assert lines[20] == "... and 4 more (all of them: --output json)"
    assert "differs from" in lines[21]
    assert re.match(r"Skipped checkpoints of ftjob-1: .* answered 403: ", ended.err)


def test_without_a_warehouse_there_is_nothing_to_verify(tmp_path: Path, host: Simulator) -> None:
    with pytest.raises(CommandError, match="ftw sync"):
        verify(Account("default", "key", host.base_url), DuckDb(tmp_path / "none.duckdb"))
    assert not (tmp_path / "none.duckdb").exists()
