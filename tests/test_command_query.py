"""`ftw query`: SQL that reads the warehouse, and can do nothing else."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from command import FTW, NOW, Command, is_told_well
from fine_tuning_simulator import Clock, ScriptedWorld, Simulator

EVIL = "\x1b[31mred\x1b]0;title\x07\x9b1m\rover"


@pytest.fixture(scope="module")
def ftw(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command beside a database that holds two jobs, three checkpoints and an event of ill will."""
    world = ScriptedWorld()
    world.add_job(id="ftjob-1", created_at=NOW - 90_000, user_provided_suffix=EVIL)
    world.add_job(id="ftjob-2", created_at=NOW - 80_000, user_provided_suffix='comma, "quote"\nline – ü')
    for step, loss in ((1, 0.125), (2, 1 / 3), (3, float("nan"))):
        world.add_checkpoint("ftjob-1", id=f"ftckpt-{step}", step_number=step, metrics={"train_loss": loss})
    with Simulator(world, clock=Clock(start=NOW, speed=0)) as host:
        command = Command(tmp_path_factory.mktemp("query"), host.base_url)
        assert command("sync", "--strict").code == 0
    return command


def test_json_is_an_array_of_rows(ftw: Command) -> None:
    columns = "id, step_number, metrics__train_loss, created_at, metrics__valid_loss"
    ended = ftw("query", f"SELECT {columns} FROM checkpoints ORDER BY step_number", "--output", "json")
    assert (ended.code, ended.err) == (0, "")
    rows = ended.json
    assert [list(row) for row in rows] == [columns.split(", ")] * 3
    assert [row["metrics__train_loss"] for row in rows] == [0.125, 1 / 3, None]
    assert [row["step_number"] for row in rows] == [1, 2, 3]
    assert rows[0]["metrics__valid_loss"] is None
    moment = datetime.fromisoformat(rows[0]["created_at"])
    assert abs(moment.astimezone(timezone.utc).timestamp() - NOW) < 100_000
    assert ftw("query", "SELECT 1 AS one WHERE false", "--output", "json").json == []
    assert ftw("query", "SELECT user_provided_suffix AS s FROM jobs WHERE id = 'ftjob-1'", "--output", "json").json == [
        {"s": EVIL}
    ]


def test_csv_reads_back(ftw: Command) -> None:
    sql = "SELECT id, user_provided_suffix, 1/3 AS third, NULL AS none FROM jobs WHERE id = 'ftjob-2'"
    ended = ftw("query", sql, "--output", "csv")
    assert (ended.code, ended.err) == (0, "")
    header, row = csv.reader(io.StringIO(ended.out))
    assert header == ["id", "user_provided_suffix", "third", "none"]
    assert row[:2] == ["ftjob-2", 'comma, "quote"\nline – ü']
    assert float(row[2]) == 1 / 3
    assert row[3] == ""


def test_a_table_shows_every_row_and_cannot_steer_the_terminal(ftw: Command) -> None:
    ended = ftw("query", "SELECT id, user_provided_suffix AS suffix, finished_at FROM jobs ORDER BY id")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["id", "suffix", "finished_at"]
    assert [line.split()[0] for line in lines if "ftjob" in line] == ["ftjob-1", "ftjob-2"]
    assert all(character.isprintable() or character == "\n" for character in ended.out)
    assert "red" in ended.out
    named = ftw("query", 'SELECT 1 AS "\x1b[2Jcleared"')
    assert named.code == 0
    assert "\x1b" not in named.out
    wrong = ftw("query", "SELECT error('\x1b[2Jcleared')")
    assert wrong.code == 1
    assert "\x1b" not in wrong.err


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO jobs (account, id) VALUES ('a', 'b')",
        "DELETE FROM jobs",
        "DROP TABLE checkpoints",
        "CREATE TABLE mine AS SELECT 1",
        "SELECT 1; DROP TABLE checkpoints",
        "ATTACH 'other.duckdb' AS other",
        "COPY jobs TO 'stolen.csv'",
        "COPY (SELECT 1) TO 'stolen.parquet' (FORMAT parquet)",
        "EXPORT DATABASE 'stolen'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SET enable_external_access = true",
        "SET enable_external_access = true; SELECT * FROM read_text('/etc/passwd')",
        "RESET lock_configuration",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM read_text('https://example.com')",
        "CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'x', SECRET 'y')",
    ],
)
def test_it_only_reads(ftw: Command, sql: str) -> None:
    before = hashlib.sha256(ftw.database.read_bytes()).hexdigest()
    files = sorted(ftw.folder.iterdir())
    ended = ftw("query", sql)
    assert ended.code == 1, ended
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert "root:" not in ended.err
    assert sorted(ftw.folder.iterdir()) == files
    assert hashlib.sha256(ftw.database.read_bytes()).hexdigest() == before


@pytest.mark.parametrize("sql", ["SELECT", "SELECT nonsense FROM jobs", "SELECT * FROM nonsense", "SELECT 'x'::INT"])
def test_bad_sql_is_exit_1_and_told_in_a_line(ftw: Command, sql: str) -> None:
    ended = ftw("query", sql)
    assert ended.code == 1
    assert is_told_well(ended, "query")


def test_a_database_that_cannot_be_read_is_exit_1(ftw: Command) -> None:
    missing = ftw("query", "SELECT 1", "--database", "missing.duckdb")
    assert missing.code == 1
    assert is_told_well(missing, "missing.duckdb", "ftw sync")
    assert not (ftw.folder / "missing.duckdb").exists()
    notes = ftw.folder.parent / "notes.duckdb"
    notes.write_text("My notes. " * 100)
    ended = ftw("query", "SELECT 1", "--database", str(notes))
    assert ended.code == 1
    assert is_told_well(ended, "notes.duckdb")
    folder = ftw("query", "SELECT 1", "--database", str(ftw.folder))
    assert folder.code == 1
    assert is_told_well(folder, "here")
    corrupt = ftw.folder.parent / "corrupt.duckdb"
    content = ftw.database.read_bytes()
    corrupt.write_bytes(content[:4096] + b"\xaa" * 8192 + content[12288:])
    for command in (("query", "SELECT 1"), ("best",)):
        ended = ftw(*command, "--database", str(corrupt))
        assert ended.code == 1
        assert is_told_well(ended, "corrupt.duckdb cannot be opened", "checksum")
        assert ended.seconds < 8, "as if a sync held it"
    assert is_told_well(ftw("query", "SELECT 1", "--database", "x" * 300), "too long")


def test_wrong_usage_is_exit_2(ftw: Command) -> None:
    for arguments in ([], ["SELECT 1", "--output", "yaml"], ["SELECT 1", "--nonsense"]):
        ended = ftw("query", *arguments)
        assert ended.code == 2
        assert is_told_well(ended, "--help")
    empty = ftw("query", " ")
    assert empty.code == 2
    assert is_told_well(empty, "empty")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise there")
def test_a_reader_that_has_gone_is_no_error_of_its_own(ftw: Command) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [str(FTW), "query", "FROM range(20000)"]
    ran = subprocess.run(command, cwd=ftw.folder, env=ftw.env, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, b"")


def test_another_dataset_can_be_asked(ftw: Command, tmp_path: Path) -> None:
    by_name = ftw("query", "SELECT count(*) AS n FROM fine_tuning.jobs", "--output", "json", "--dataset", "main")
    assert by_name.json == [{"n": 2}]
    unknown = ftw("query", "SELECT count(*) FROM jobs", "--dataset", 'odd"name')
    assert unknown.code in (1, 2)
    assert "Traceback" not in unknown.err
