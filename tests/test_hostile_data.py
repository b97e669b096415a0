"""Whatever stands in ids, names and messages goes through as data, and steers neither terminal, path nor statement."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

import dlt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command import HOUR, NOW, Command
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.cli.terminal.logs import SafeRecord
from fine_tuning_warehouse.schema import TABLES, schema
from openai_fine_tuning.convert.table_builder import Batches
from openai_fine_tuning.convert.values import escaped

SQL = "x'); DROP TABLE jobs; --"
QUOTES = "\"'`$$\\ %s {0} :name ?"
STEERING = "\x1b[2J\x1b]0;owned\x07\x1b[31mred\x1b[0m\r\x9b1A\u202egnp.exe\u200b\x08\x7f"
PATHS = "../../../etc/passwd"
NUL = "before\x00after"
SURROGATES = "lone \ud800 and \udfff"
EMOJI = "日本語 🦆 é"
MARKUP = "[bold red]no[/] [link=http://example.com]x[/link]"
HOSTILE = [SQL, QUOTES, STEERING, PATHS, NUL, SURROGATES, EMOJI, MARKUP, "", " ", "\n\n\t", "=1+1", "NULL", "%2e%2e%2f"]


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator) -> Command:
    """The command, with a key for the host."""
    return Command(tmp_path, host.base_url)


def steers(text: str) -> list[str]:
    """Characters that do more than show."""
    return sorted({repr(character) for character in text if not character.isprintable() and character != "\n"})


@pytest.mark.thorough
def test_hostile_texts_go_through_as_data(world: ScriptedWorld, host: Simulator, ftw: Command) -> None:
    large = "A" * 1_000_000 + STEERING
    texts = [*HOSTILE, large]
    world.add_job(
        id="ftjob-a", created_at=NOW - 24 * HOUR, user_provided_suffix=SQL, metadata={SQL: STEERING, NUL: NUL}
    )
    for number, text in enumerate(texts):
        world.add_event("ftjob-a", id=f"ftevent-{number:02}", message=text, level=text, data={text or "empty": text})
        name = text or "empty"
        world.add_checkpoint(
            "ftjob-a", id=f"{number:02}{name[:100]}", fine_tuned_model_checkpoint=text, metrics={name[:60]: number}
        )
        world.add_job(id=f"{number:02}-{name[:100]}", created_at=NOW - 48 * HOUR - number, model=text)
    ended = ftw("sync", "--output", "json")
    assert ended.code == 0, ended.err
    assert steers(ended.all) == []
    assert ended.json["rejected"] == 0
    expected = [escaped(text) for text in texts]
    assert [m for (m,) in ftw.rows("SELECT message FROM events ORDER BY id")] == expected
    assert [m for (m,) in ftw.rows("SELECT level FROM events ORDER BY id")] == expected
    stored = ftw.rows("SELECT id, fine_tuned_model_checkpoint FROM checkpoints ORDER BY left(id, 2)")
    ids = [escaped(f"{number:02}{(text or 'empty')[:100]}") for number, text in enumerate(texts)]
    assert stored == list(zip(ids, expected, strict=True))
    assert ftw.rows("SELECT user_provided_suffix FROM jobs WHERE id = 'ftjob-a'") == [(SQL,)]
    assert ftw.tables() >= set(TABLES)
    names = ftw.rows("SELECT column_name FROM duckdb_columns() WHERE schema_name = 'fine_tuning'")
    assert all(name.isidentifier() for (name,) in names)
    assert sorted(path.name for path in ftw.folder.iterdir()) == [ftw.database.name, ftw.database.name + ".lock"]
    again = ftw("sync", "--full-refresh", "--verbose")
    assert again.code == 0
    assert steers(again.all) == []
    assert ftw.rows("SELECT count(*), count(DISTINCT id) FROM checkpoints") == [(len(texts), len(texts))]

    shown = ftw("query", "SELECT id, message, level FROM events WHERE length(message) < 1000 ORDER BY id")
    assert shown.code == 0
    assert steers(shown.all) == []
    assert "no" in shown.out
    assert len(shown.out.strip().splitlines()) == len(HOSTILE) + 2  # no text breaks the table's lines
    named = ftw("query", f"SELECT 1 AS \"{STEERING}\", '{STEERING}' AS b")
    assert named.code == 0
    assert steers(named.all) == []
    assert ftw("query", "SELECT id, message FROM events").code == 0
    as_json = ftw("query", "SELECT message FROM events ORDER BY id", "--output", "json")
    assert steers(as_json.out) == []
    assert [row["message"] for row in as_json.json] == expected
    as_csv = ftw("query", "SELECT message FROM events ORDER BY id LIMIT 14", "--output", "csv")
    assert [row[0] if row else "" for row in csv.reader(io.StringIO(as_csv.out, newline=""))][1:3] == expected[:2]
    wrong = ftw("query", f"SELECT {STEERING}")
    assert wrong.code == 1
    assert steers(wrong.all) == []


@pytest.mark.parametrize(
    "job_id",
    [
        "../files",
        "..",
        ".",
        "a/b",
        "a?limit=1",
        "a#b",
        "%2e%2e",
        "a b",
        "é/🦆",
        STEERING,
        SQL,
        NUL,
        SURROGATES,
        "x" * 3000,
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_the_id_of_a_job_cannot_leave_its_place_in_an_address(
    world: ScriptedWorld, host: Simulator, tmp_path: Path, job_id: str
) -> None:
    from openai_fine_tuning import RequestError
    from openai_fine_tuning.api.client import FineTuningApi
    from openai_fine_tuning.api.urls import is_safe_id, quoted

    if not is_safe_id(job_id):
        return
    api = FineTuningApi(host.base_url, "key")
    try:
        with pytest.raises(RequestError):
            api.get_page(f"/fine_tuning/jobs/{quoted(job_id)}/checkpoints")
    finally:
        api.close()
    (request,) = host.requests
    decoded = job_id.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert request.path == f"/v1/fine_tuning/jobs/{decoded}/checkpoints"
    assert request.query == {}


@pytest.mark.thorough
def test_one_job_with_a_hostile_id_does_not_keep_the_others_from_being_read(
    world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    for number in range(3):
        world.add_job(id=f"ftjob-{number}", created_at=NOW - 48 * HOUR + number)
        world.add_checkpoint(f"ftjob-{number}", id=f"ftckpt-{number}")
        world.add_event(f"ftjob-{number}", id=f"ftevent-{number}")
    for number, job_id in enumerate(("..", "a/../../files", "?", STEERING)):
        world.add_job(id=job_id, created_at=NOW - 24 * HOUR + number)
    ended = ftw("sync")
    assert ended.code == 0
    assert steers(ended.all) == []
    assert len(ftw.rows("FROM checkpoints")) == 3
    assert len(ftw.rows("FROM events")) == 3


def test_a_traceback_in_the_log_does_not_steer_the_terminal() -> None:
    try:
        raise ValueError("\x1b[2Jcleared")
    except ValueError:
        record = SafeRecord("dlt", logging.ERROR, __file__, 1, "It failed: %s", ("\x1b[31mred",), sys.exc_info())
    told = logging.Formatter().format(record)
    assert "\x1b" not in told
    assert told.splitlines()[1] == "Traceback (most recent call last):"
    assert "cleared" in told.splitlines()[-1]


@pytest.mark.thorough
def test_hostile_words_of_the_host_do_not_steer_the_terminal(
    world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    world.add_job(id=STEERING, created_at=NOW - 24 * HOUR)
    world.add_job(id="ftjob-a", created_at=NOW - 25 * HOUR)
    world.add_checkpoint("ftjob-a")
    host.faults.append(Fault("status", path="/events$", times=None, status=403, message=STEERING + MARKUP + "\n" * 50))
    for arguments in (["sync"], ["sync", "--verbose"], ["sync", "--output", "json"]):
        skipped = ftw(*arguments)
        assert skipped.code == 0
        assert steers(skipped.all) == [], arguments
    host.faults[:] = [Fault("status", times=None, status=403, message=STEERING * 100, code=STEERING)]
    for arguments in (["sync"], ["sync", "--verbose"], ["sync", "--output", "json"]):
        failed = ftw(*arguments)
        assert failed.code == 1
        assert steers(failed.all) == [], arguments
    told = ftw("sync").err
    assert "403" in told
    assert len(told.splitlines()) == 1


# ftw query -----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_query_can_do_nothing_but_read_its_database(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    from fine_tuning_warehouse.errors import CommandError
    from fine_tuning_warehouse.query import query

    world.add_job(id="ftjob-a", created_at=NOW - 24 * HOUR)
    assert ftw("sync").code == 0
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    other = tmp_path / "other.duckdb"
    before = ftw.database.read_bytes()
    # Files: for some of these, some releases of DuckDB make an empty folder for extensions in the home.
    there = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for sql in (
        "INSERT INTO jobs (account, id) VALUES ('a', 'b')",
        "DELETE FROM jobs",
        "UPDATE jobs SET status = 'x'",
        "DROP TABLE jobs",
        "CREATE TABLE made AS SELECT 1",
        "CREATE VIEW made AS SELECT 1",
        "ALTER TABLE jobs ADD COLUMN made INT",
        f"ATTACH '{other}'",
        f"ATTACH '{other}' (READ_ONLY)",
        f"COPY jobs TO '{tmp_path / 'stolen.csv'}'",
        f"COPY jobs FROM '{secret}'",
        f"EXPORT DATABASE '{tmp_path / 'exported'}'",
        f"FROM '{secret}'",
        f"SELECT * FROM read_csv('{secret}')",
        f"SELECT * FROM read_text('{secret}')",
        f"SELECT * FROM read_blob('{secret}')",
        f"SELECT * FROM glob('{tmp_path}/*')",
        "SELECT * FROM read_parquet('https://example.com/x.parquet')",
        "INSTALL httpfs",
        "LOAD httpfs",
        f"LOAD '{tmp_path / 'evil.duckdb_extension'}'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "RESET lock_configuration",
        "SET memory_limit = '1GB'",
        f"PRAGMA profiling_output = '{tmp_path / 'profile.json'}'",
        "SELECT 1; DROP TABLE jobs",
        f"SELECT 1; COPY jobs TO '{tmp_path / 'stolen.csv'}'",
        "CREATE SECRET made (TYPE s3)",
        f"SET temp_directory = '{tmp_path}'",
        "CHECKPOINT; DELETE FROM jobs",
    ):
        with pytest.raises(CommandError):
            query(ftw.database, sql, "fine_tuning")
    assert ftw.database.read_bytes() == before
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == there
    assert query(ftw.database, "SELECT count(*) AS n FROM jobs", "fine_tuning") == (["n"], [(1,)])
    told = ftw("query", f"FROM '{secret}'")
    assert told.code == 1
    assert "1,2" not in told.all


# any JSON ------------------------------------------------------------------------------------------------------------

TEXTS = st.one_of(st.text(max_size=20), st.sampled_from(HOSTILE), st.text(st.characters(), max_size=5))
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([2**63, -(2**63), 10**400, 1e308, math.inf, math.nan, 1_780_000_000])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
KNOWN = sorted({name for table in TABLES.values() for name in [*table.types, *table.flattened]})
RECORDS = st.one_of(
    VALUES,
    st.dictionaries(st.one_of(st.sampled_from(KNOWN), TEXTS), VALUES, max_size=8),
    st.builds(
        lambda record, id_: {**record, "id": id_, "step": 1},
        st.dictionaries(st.one_of(st.sampled_from(KNOWN), TEXTS), VALUES, max_size=8),
        st.one_of(TEXTS, st.integers()),
    ),
)


PAGES_OF_A_TABLE = given(
    st.sampled_from(["jobs", "checkpoints", "events", "result_metrics"]), st.lists(RECORDS, max_size=6)
)


@settings(max_examples=40, deadline=None)
@PAGES_OF_A_TABLE
def test_any_json_is_either_a_row_or_rejected_with_the_reason(table: str, records: list[Any]) -> None:
    check_any_json(table, records)


@pytest.mark.nightly
@pytest.mark.timeout(300)
@settings(max_examples=300, deadline=None)
@PAGES_OF_A_TABLE
def test_more_of_any_json_is_either_a_row_or_rejected_with_the_reason(table: str, records: list[Any]) -> None:
    check_any_json(table, records)


def check_any_json(table: str, records: list[Any]) -> tuple[int, int]:
    """Convert records and assert that none is lost; returns how many became rows, and how many were rejected."""
    batches = Batches("mine", dlt_schema())
    own = {"file_id": "file-a"} if table == "result_metrics" else {}
    loaded = sum(batches.add(table, record, job_id="ftjob-a", own=own) for record in records)
    tables = batches.take(at_least=0)
    assert batches.rejected >= len(records) - loaded
    for name, many in ((table, loaded), ("rejected_records", batches.rejected)):
        found = {tuple(row[key] for key in TABLES[name].keys) for row in tables[name].to_pylist()}
        assert len(found) == tables[name].num_rows <= many, "a row stands there once"
        assert bool(found) == bool(many)
    for rejected in tables["rejected_records"].to_pylist():
        assert rejected["reason"]
        assert rejected["record"].isascii()
        json.loads(rejected["record"])
    for made in tables.values():
        made.validate(full=True)
        assert len({name.lower() for name in made.schema.names}) == len(made.schema.names)
        for column in made.schema:
            assert column.name.isidentifier(), column.name
            if str(column.type) == "string":
                for value in made.column(column.name).to_pylist():
                    assert value is None or (b"\0" not in value.encode() and value is not None)
    return loaded, len(records) - loaded


def dlt_schema() -> dlt.Schema:
    """The schema of a destination that has nothing yet."""
    return schema()


@pytest.mark.thorough
def test_a_record_that_is_rejected_again_and_again_is_kept_once(
    world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="running")
    world.add_raw_checkpoint("ftjob-a", {"id": "ftckpt-odd", "created_at": [NUL, SURROGATES]})
    world.add_raw_event("ftjob-a", ["no object", NUL])
    for _ in range(2):
        ended = ftw("sync", "--output", "json")
        assert (ended.code, ended.json["rejected"]) == (0, 2)
    assert ftw.rows("SELECT resource, count(*) FROM rejected_records GROUP BY ALL ORDER BY 1") == [
        ("checkpoints", 1),
        ("events", 1),
    ]


@pytest.mark.nightly
def test_the_name_of_a_folder_does_not_steer_the_terminal(
    tmp_path: Path, world: ScriptedWorld, host: Simulator
) -> None:
    ftw = Command(tmp_path, host.base_url)
    name = "\x1b]0;title\x07\u202efolder"
    for arguments in (
        ("sync", "--database", f"{name}.duckdb"),
        ("archive", name, "--database", f"{name}.duckdb"),
        ("archive", "--check", name),
        ("copy", "--database", f"{name}.duckdb", "--to-database", f"{name}-2.duckdb"),
        ("maintain", "--database", f"{name}.duckdb"),
        ("verify", "--database", f"{name}.duckdb"),
    ):
        ended = ftw(*arguments)
        assert ended.code == 0, ended.err
        assert "folder" in ended.out
        assert all(line.isprintable() for line in ended.all.splitlines()), ended.all
