"""`ftw query`: SQL that reads the warehouse, and can do nothing else."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from command import FTW, NOW, Command, is_told_well, wait_until
from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.query import query

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["postgres"]

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
    assert ftw("query", "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a", "--output", "json").json == [
        {"a": 1, "a_1": 2, "a_1_1": 3, "a_2": 4}
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


PRIVATE = "what only its owner reads"


@dataclass(frozen=True)
class Place:
    """A home with a database, a private file, a stored secret, and a server that counts its visitors.

    Attributes:
        home: The home, which is the working directory too.
        database: The database.
        server: A listening socket, which nobody may connect to.
    """

    home: Path
    database: Path
    server: socket.socket

    def files(self) -> dict[str, str]:
        """Every file below the home, with its digest."""
        return {
            str(path.relative_to(self.home)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.home.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A home that SQL may try to read, write and leave."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("SECRET_IN_THE_ENVIRONMENT", PRIVATE)
    with furnished(tmp_path) as made:
        yield made


@contextmanager
def furnished(home: Path) -> Iterator[Place]:
    """A home with everything that SQL may be after; the working directory and the environment are the caller's."""
    for name in ("private.txt", "private.csv", "schema.sql"):
        (home / name).write_text(f"{PRIVATE}\n")
    (home / "private.json").write_text(json.dumps([{"a": PRIVATE}]))
    with duckdb.connect() as connection:
        connection.execute(f"SET secret_directory = '{(home / '.duckdb' / 'stored_secrets').as_posix()}'")
        connection.execute(f"CREATE PERSISTENT SECRET mine (TYPE http, BEARER_TOKEN '{PRIVATE}')")
    for name in ("warehouse", "other"):
        with duckdb.connect(str(home / f"{name}.duckdb")) as connection:
            connection.execute("CREATE SCHEMA fine_tuning")
            connection.execute(f"CREATE TABLE fine_tuning.jobs AS SELECT 'ftjob-1' AS id, '{PRIVATE}' AS owner")
            if name == "warehouse":
                connection.execute("UPDATE fine_tuning.jobs SET owner = 'nobody'")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        yield Place(home, home / "warehouse.duckdb", server)


def broken_out(place: Place) -> Iterator[str]:
    """The statements of `REFUSED` that are not refused, or whose message shows something private."""
    server = f"http://127.0.0.1:{place.server.getsockname()[1]}"
    for template in REFUSED:
        sql = template.format(server=server)
        try:
            query(place.database, sql, "fine_tuning")
        except CommandError as error:
            if PRIVATE not in str(error):
                continue
        yield sql


REFUSED = """
INSERT INTO jobs VALUES ('a', 'b')
INSERT INTO jobs VALUES ('a', 'b') RETURNING *
UPDATE jobs SET id = 'x'
DELETE FROM jobs
TRUNCATE jobs
MERGE INTO jobs USING jobs AS new ON true WHEN MATCHED THEN DELETE
DROP TABLE jobs
DROP SCHEMA fine_tuning CASCADE
ALTER TABLE jobs ADD COLUMN more INTEGER
COMMENT ON TABLE jobs IS 'mine'
CREATE TABLE mine AS SELECT 1
CREATE TEMP TABLE mine AS SELECT 1
CREATE VIEW mine AS SELECT 1
CREATE MACRO mine() AS 1
CREATE TYPE mine AS ENUM ('a')
CREATE SEQUENCE mine
CREATE INDEX mine ON jobs (id)
CREATE SCHEMA mine
SELECT 1; DROP TABLE jobs
SELECT 1; SELECT 2
/* SELECT 1 */ DROP TABLE jobs -- SELECT 1
BEGIN
COMMIT
ATTACH 'other.duckdb' AS other
ATTACH ':memory:' AS other
ATTACH IF NOT EXISTS 'warehouse.duckdb' AS again (READ_WRITE)
DETACH warehouse
USE memory
COPY jobs TO 'stolen.csv'
COPY (SELECT 1) TO 'stolen.parquet' (FORMAT parquet)
COPY jobs TO '/dev/stdout'
COPY jobs FROM 'private.csv'
COPY FROM DATABASE warehouse TO memory
EXPORT DATABASE 'stolen'
IMPORT DATABASE '.'
PRAGMA import_database('.')
PRAGMA copy_database('warehouse', 'other')
FROM read_csv('private.csv')
FROM read_csv_auto('private.csv', header = false)
FROM sniff_csv('private.csv')
FROM read_text('private.txt')
FROM read_blob('private.txt')
FROM read_json('private.json')
FROM read_json_objects('private.json')
FROM read_ndjson('private.json')
FROM read_parquet('private.parquet')
FROM parquet_metadata('private.parquet')
FROM read_duckdb('other.duckdb', table_name = 'jobs')
FROM 'private.csv'
FROM 'private.json'
FROM 'other.duckdb'
FROM glob('*')
FROM glob('/etc/*')
SELECT * FROM '/etc/passwd'
SELECT (SELECT content FROM read_text('private.txt'))
WITH stolen AS (FROM read_text('private.txt')) FROM stolen
FROM query('FROM read_text(''private.txt'')')
FROM "query" /* hidden */ ('FROM enable' || '_logging()')
FROM query_table('private.csv')
FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))
PRAGMA json_execute_serialized_sql('x')
EXPLAIN ANALYZE COPY jobs TO 'stolen.csv'
EXPLAIN ANALYZE SELECT content FROM read_text('private.txt')
EXPLAIN ANALYZE SET threads = 1
EXPLAIN ANALYZE SET VARIABLE mine = 1
EXPLAIN ANALYZE CREATE TEMP TABLE mine AS SELECT 1
EXPLAIN (ANALYZE, FORMAT json) CREATE TEMP VIEW mine AS SELECT 1
EXPLAIN\u3000ANALYZE\u3000CHECKPOINT
EXPLAIN VACUUM
EXPLAIN ANALYZE BEGIN
EXPLAIN ANALYZE PRAGMA enable_profiling
EXPLAIN ANALYZE CALL enable_profiling()
EXPLAIN DROP TABLE jobs
EXPLAIN EXPLAIN ANALYZE DROP TABLE jobs
SET enable_external_access = true
SET enable_external_access = true; FROM read_text('private.txt')
SET GLOBAL allow_persistent_secrets = true
SET temp_directory = 'stolen'
SET home_directory = '/'
SET secret_directory = '.'
SET allowed_directories = ['/']
SET log_query_path = 'stolen.log'
SET profiling_output = 'stolen.json'
SET custom_extension_repository = '{server}'
SET VARIABLE mine = 1
RESET lock_configuration
RESET enable_external_access
PRAGMA enable_profiling
PRAGMA enable_profiling = 'json'
PRAGMA profiling_output = 'stolen.json'
PRAGMA enable_checkpoint_on_shutdown
PRAGMA add_parquet_key('a', '0123456789112345')
PRAGMA threads = 1
INSTALL httpfs
INSTALL httpfs FROM '{server}'
FORCE INSTALL httpfs
LOAD httpfs
LOAD './private.txt'
UPDATE EXTENSIONS
FROM read_text('{server}/private.txt')
FROM read_csv('s3://bucket/private.csv')
FROM 'https://localhost/private.parquet'
ATTACH '{server}/other.duckdb' AS other
COPY jobs TO '{server}/stolen.csv'
FROM sqlite_scan('other.db', 'jobs')
FROM postgres_scan('host=127.0.0.1', 'public', 'jobs')
CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')
CREATE OR REPLACE PERSISTENT SECRET mine (TYPE http, BEARER_TOKEN 'x')
CREATE SECRET s (TYPE http, BEARER_TOKEN 'x')
DROP PERSISTENT SECRET mine
DROP SECRET IF EXISTS mine
SELECT getenv('SECRET_IN_THE_ENVIRONMENT')
CALL enable_logging()
CALL enable_logging(storage = 'file', storage_config = {{'path': 'stolen'}})
CALL enable_logging(storage = 'stdout')
FROM enable_logging(storage = 'file', storage_path = 'stolen')
FROM "ENABLE_LOGGING"(storage = 'file', storage_path = 'stolen')
FROM enable_logging(storage = 'file', storage_path = 'stolen'), jobs
EXPLAIN ANALYZE CALL enable_logging(storage = 'file', storage_path = 'stolen')
CALL disable_logging()
CALL truncate_duckdb_logs()
FROM pandas_scan(NULL)
FROM arrow_scan(NULL, NULL, NULL)
FROM arrow_scan_dumb(NULL, NULL, NULL)
FROM python_map_function(NULL)
FROM sql
FROM CONFIG
CHECKPOINT
FORCE CHECKPOINT
VACUUM
ANALYZE
PREPARE stolen AS FROM read_text('private.txt')
EXECUTE stolen
DEALLOCATE stolen
SELECT $1
SELECT ?
""".strip().splitlines()
REFUSED += [
    f"FROM jobs AS é, {name}('SELECT 1')"
    for name in (
        "QUERY\u200b",
        '"query"\u2060\ufeff',
        "query--\r",
        "main.query /* /* nested */ */ -- line\n",
        '"Query"',
    )
]
REFUSED += [
    "EXPLAIN /* ' */ ANALYZE -- line\nCREATE TEMP MACRO mine() AS 1",
    "SELECT 1\0; DROP TABLE jobs",
    "FROM jobs WHERE owner = '\0'",
]

HARMLESS = (
    "FROM duckdb_secrets()",
    "FROM which_secret('http://localhost', 'http')",
    "FROM duckdb_settings()",
    "FROM duckdb_logs",
    "FROM duckdb_temporary_files()",
    "FROM duckdb_variables()",
    "PRAGMA table_info('jobs')",
    "SELECT current_setting('temp_directory')",
    "SELECT 'CALL enable_profiling()' AS query",
    "SELECT 'query(1)' AS query, (query.id) AS id FROM jobs AS query",
    "SELECT ';' AS semicolon; -- SELECT 2",
    "FROM range(3000000) AS r(i) ORDER BY hash(i)",
    "PIVOT jobs ON owner USING count(*)",
    "EXPLAIN ANALYZE FROM jobs",
    "EXPLAIN (ANALYZE, FORMAT json) SELECT * FROM jobs",
    "explain -- ;\n (SELECT 'é')",
    "EXPLAIN\u3000ANALYZE VALUES (1)",
    "EXPLAIN ANALYZE SUMMARIZE jobs",
)


def is_untouched(place: Place, before: dict[str, str]) -> bool:
    """Assert that no file of a place has changed, and that nobody has connected to its server."""
    assert place.files() == before
    with pytest.raises(BlockingIOError):
        place.server.accept()
    return True


def test_no_statement_writes_or_reads_another_file_or_reaches_the_network(place: Place) -> None:
    before = place.files()
    assert any("stored_secrets" in name for name in before)
    assert len(REFUSED) > 120
    assert list(broken_out(place)) == []
    assert is_untouched(place, before)


@pytest.mark.thorough
def test_what_only_looks_dangerous_shows_nothing_private(place: Place) -> None:
    before = place.files()
    for sql in HARMLESS:
        names, rows = query(place.database, sql, "fine_tuning")
        assert names, sql
        assert PRIVATE not in str(rows), sql
    assert query(place.database, "FROM duckdb_secrets()", "fine_tuning")[1] == []
    assert is_untouched(place, before)


def test_the_user_keeps_stored_secrets_that_other_programs_read(place: Place) -> None:
    for sql in ("DROP PERSISTENT SECRET mine", "DROP SECRET mine", "FROM duckdb_secrets(redact = false)"):
        with suppress(CommandError):
            assert PRIVATE not in str(query(place.database, sql, "fine_tuning"))
    with duckdb.connect() as connection:
        connection.execute(f"SET secret_directory = '{(place.home / '.duckdb' / 'stored_secrets').as_posix()}'")
        assert connection.execute("SELECT name FROM duckdb_secrets()").fetchall() == [("mine",)]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE checkpoints",
        "SELECT 1; DROP TABLE checkpoints",
        "FROM read_text('/etc/passwd')",
        "CALL enable_logging(storage = 'file', storage_config = {'path': 'logs'}); FROM duckdb_logs",
        "FROM enable_logging(storage = 'file', storage_path = 'logs'); SELECT 1",
        "FROM pandas_scan(NULL)",
    ],
)
def test_the_command_refuses_in_a_line_and_does_not_crash(ftw: Command, sql: str) -> None:
    before, files = ftw.database.read_bytes(), sorted(ftw.folder.iterdir())
    ended = ftw("query", sql)
    assert ended.code == 1
    assert (ended.out, "root:" in ended.err, "Traceback" in ended.err) == ("", False, False)
    assert ended.err.startswith("Error: ")
    assert sorted(ftw.folder.iterdir()) == files
    assert ftw.database.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_query_that_crashes_duckdb_is_an_error_in_a_line(ftw: Command) -> None:
    ended = ftw("query", "SELECT json_structure(repeat('[', 100000) || repeat(']', 100000))")
    assert ended.code == 1
    assert is_told_well(ended, "Error: The query was ended by SIGSEGV")


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_query_ends_with_its_command(ftw: Command, number: signal.Signals) -> None:
    endless = "SELECT max(a.range * b.range) FROM range(10000000) a, range(10000000) b"
    with ftw.start("query", endless) as running:
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
        if not children.parent.is_dir():
            pytest.skip("needs Linux")
        wait_until(lambda: children.read_text().split())
        (child,) = children.read_text().split()
        running.signal(number)
        ended = running.end(within=20)
        assert ended.code == (130 if number == signal.SIGINT else -number)
        wait_until(lambda: not Path(f"/proc/{child}/stat").exists())


@pytest.mark.parametrize("sql", ["SELECT", "SELECT nonsense FROM jobs", "SELECT * FROM nonsense", "SELECT 'x'::INT"])
def test_bad_sql_is_exit_1_and_keeps_the_lines_that_show_where(ftw: Command, sql: str) -> None:
    ended = ftw("query", sql)
    assert (ended.code, ended.out) == (1, "")
    first, *more = ended.err.splitlines()
    assert first.startswith("Error: The query failed: ")
    assert "\\n" not in ended.err
    if more:
        assert more[-2:] == [f"LINE 1: {sql}", more[-1]]
        assert more[-1].strip() == "^"


def test_a_query_comes_from_a_file_or_from_standard_input(ftw: Command, tmp_path: Path) -> None:
    sql = tmp_path / "query.sql"
    sql.write_bytes("\ufeff-- jobs\nSELECT 'ü' AS u,\n  count(*) AS n FROM jobs;\n".encode())
    told = [{"u": "ü", "n": 2}]
    for option in ("-f", "--file"):
        assert ftw("query", option, str(sql), "--output", "json").json == told
    for arguments in (["-"], ["-f", "-"]):
        command = [str(FTW), "query", *arguments, "--output", "json"]
        ran = subprocess.run(
            command, input=sql.read_bytes(), cwd=ftw.folder, env=ftw.env, capture_output=True, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, b"")
        assert json.loads(ran.stdout) == told
    assert is_told_well(ftw("query", "SELECT 1", "-f", str(sql)), "once", "--help")
    assert is_told_well(ftw("query", "-f", str(tmp_path / "none.sql")), "none.sql cannot be read")
    sql.write_bytes(b"SELECT '\xff'")
    assert is_told_well(ftw("query", "-f", str(sql)), "query.sql is not UTF-8")
    sql.write_text("-- nothing to run\n")
    empty = ftw("query", "-f", str(sql))
    assert empty.code == 2
    assert is_told_well(empty, "empty")


def test_it_does_not_wait_for_pandas_to_be_imported(ftw: Command, tmp_path: Path) -> None:
    (tmp_path / "pandas.py").write_text("from pathlib import Path\nPath(__file__ + '.imported').touch()\n")
    env = {"PYTHONPATH": str(tmp_path)}
    assert ftw("query", "SELECT id, created_at FROM jobs", env=env).code == 0
    assert not (tmp_path / "pandas.py.imported").exists()


def test_numbers_are_numbers_in_json(ftw: Command) -> None:
    sql = (
        "SELECT 1.10::DECIMAL(4, 2) AS a, 12345678901234567890.123456789::DECIMAL(38, 9) AS b, "
        "170141183460469231731687303715884105727::HUGEINT AS c, [0.5::DECIMAL(2, 1)] AS d, 1e-7 AS e, 'inf'::FLOAT AS f"
    )
    ended = ftw("query", sql, "--output", "json")
    assert ended.out == (
        '[{"a": 1.10, "b": 12345678901234567890.123456789, "c": 170141183460469231731687303715884105727, '
        '"d": [0.5], "e": 1e-07, "f": null}]\n'
    )
    assert ended.json[0]["a"] == 1.1


FORMULAS = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "-"]


def csv_rows(ftw: Command, sql: str, *options: str) -> list[list[str]]:
    """What `ftw query` writes into a pipe as CSV, byte for byte."""
    command = [str(FTW), "query", sql, "--output", "csv", *options]
    ran = subprocess.run(command, cwd=ftw.folder, env=ftw.env, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    return list(csv.reader(io.StringIO(ran.stdout.decode(), newline="")))


def test_csv_in_a_pipe_is_the_data_and_no_spreadsheet_runs_it_where_that_is_asked(ftw: Command) -> None:
    texts = [EVIL, *FORMULAS, "a=1", " =1"]
    values = ", ".join(f"({' || '.join(f'chr({ord(sign)})' for sign in text)})" for text in texts)
    sql = f"SELECT v, -1 AS n, -0.5 AS x FROM (VALUES {values}) AS t(v)"
    assert [row[0] for row in csv_rows(ftw, sql)] == ["v", *texts]
    safe = csv_rows(ftw, sql, "--spreadsheet-safe")
    assert [row[0] for row in safe] == ["v", EVIL, *(f"'{text}" for text in FORMULAS), "a=1", " =1"]
    assert {tuple(row[1:]) for row in safe[1:]} == {("-1", "-0.5")}, "numbers stay numbers"
    assert csv_rows(ftw, 'SELECT 1 AS "=1+1"', "--spreadsheet-safe")[0] == ["'=1+1"]


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


@pytest.mark.nightly
@pytest.mark.engine
def test_any_warehouse_can_be_asked_and_explored(tmp_path: Path, postgres: Postgres) -> None:
    world = ScriptedWorld()
    world.add_job(id="ftjob-1", created_at=NOW - 90_000)
    world.add_checkpoint("ftjob-1", id="ftckpt-1", step_number=1, metrics={"valid_loss": 0.5})
    with Simulator(world, clock=Clock(start=NOW, speed=0)) as host:
        ftw = Command(tmp_path, host.base_url)
        ftw.env["DESTINATION__POSTGRES__CREDENTIALS"] = postgres.credentials
        assert ftw("sync", "--destination", "postgres").code == 0
    there = ("--destination", "postgres")
    asked = ftw(
        "query",
        "SELECT id, account FROM fine_tuning.Jobs JOIN job_overview USING (account)",
        *there,
        "--output",
        "json",
    )
    assert asked.json == [{"id": "ftjob-1", "account": "default"}]
    best = ftw("query", "SELECT checkpoint_id FROM best_checkpoints", *there, "--output", "csv")
    assert best.out == "checkpoint_id\nftckpt-1\n"
    for sql in ("DELETE FROM jobs", "FROM read_text('/etc/passwd')", "FROM no_such_table"):
        refused = ftw("query", sql, *there)
        assert (refused.code, refused.out) == (1, "")
    assert list(ftw.temporary.glob("**/*.duckdb")) == []
    assert is_told_well(ftw("explore", "--edit", *there), "ftw copy")
    with ftw.start("explore", "--headless", *there) as running:
        assert running.process.stderr is not None
        assert "Serving http" in running.process.stderr.readline()
        running.signal(2)
        assert running.end().err == ""
