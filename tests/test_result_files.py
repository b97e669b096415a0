"""Result files become rows however they are encoded, and what is no row is kept with the reason."""

from __future__ import annotations

import base64
import codecs
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from harness import DAY, HOUR, NOW, Database
from openai_fine_tuning import settings
from openai_fine_tuning.convert import result_csv as result_files
from openai_fine_tuning.convert.table_builder import Batches
from openai_fine_tuning.convert.values import UnfitError, number_from_text
from openai_fine_tuning.schema import schema

PLAIN = b"step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,0.5,0.9,0.6,0.8\n2,0.25,,,\n"
ROWS = [
    {
        "step": "1",
        "train_loss": "0.5",
        "train_accuracy": "0.9",
        "valid_loss": "0.6",
        "valid_mean_token_accuracy": "0.8",
    },
    {"step": "2", "train_loss": "0.25"},
]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        base64.b64encode(PLAIN),
        base64.encodebytes(PLAIN),
        codecs.BOM_UTF8 + PLAIN,
        base64.b64encode(codecs.BOM_UTF8 + PLAIN),
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.rstrip(b"\n"),
        PLAIN.replace(b"\n", b"\n\n"),
        PLAIN.replace(b"step", b'"step"'),
        PLAIN + PLAIN.split(b"\n", 1)[1],
        b"\r\n \n" + PLAIN,
        PLAIN.replace(b"\n", b"\r"),
        PLAIN.replace(b",", b";"),
        PLAIN.replace(b",", b"\t"),
        PLAIN.replace(b",", b"|"),
        base64.b64encode(PLAIN.replace(b",", b";")),
        PLAIN.decode().encode("utf-16"),
        PLAIN.decode().encode("utf-16-le"),
        base64.urlsafe_b64encode(PLAIN).rstrip(b"="),
        b'"' + base64.b64encode(PLAIN) + b'"',
        b"data:text/csv;base64," + base64.b64encode(PLAIN),
    ],
    ids=[
        "plain",
        "base64",
        "base64 lines",
        "BOM",
        "base64 BOM",
        "CRLF",
        "no end",
        "blank lines",
        "quoted",
        "duplicates",
        "blank lines before",
        "CR",
        "semicolons",
        "tabs",
        "bars",
        "base64 semicolons",
        "UTF-16",
        "UTF-16 without BOM",
        "base64 of URLs",
        "base64 in quotes",
        "data URL",
    ],
)
def test_the_same_rows_come_out_of_every_encoding(content: bytes) -> None:
    assert list(result_files.rows(content)) == ROWS


@pytest.mark.parametrize("content", [b"", b"\n", b"step,train_loss\n", base64.b64encode(b"step,train_loss\n")])
def test_a_file_without_lines_has_no_rows(content: bytes) -> None:
    assert list(result_files.rows(content)) == []


def test_cells_beyond_the_header_do_not_replace_a_column_of_the_name_they_get() -> None:
    assert list(result_files.rows(b"step,unnamed\n1,5,7,8\n")) == [{"step": "1", "unnamed": "5", "column (3)": "7,8"}]


def test_a_file_of_more_rows_than_fit_into_memory_is_refused() -> None:
    lines = [f"{step},0.5\n" for step in (1, 2, 2, 3)]
    assert len(list(result_files.rows("".join(["step,train_loss\n", *lines]).encode(), max_rows=3))) == 3
    with pytest.raises(UnfitError, match="more than 3 rows"):
        list(result_files.rows("".join(["step,train_loss\n", *lines, "x,0.5\n"]).encode(), max_rows=3))


@pytest.mark.thorough
def test_a_file_of_many_batches_is_read_whole(world: ScriptedWorld, database: Database) -> None:
    steps = 2 * settings.BATCH_ROWS + 1
    world.add_file("file-many", b"step,train_loss\n" + b"".join(b"%d,0.5\n" % step for step in range(1, steps + 1)))
    world.add_job(id="ftjob-many", created_at=NOW - DAY, finished_at=NOW - DAY + HOUR, result_files=["file-many"])
    database.sync()
    assert database.rows("SELECT count(*), count(DISTINCT step), max(step) FROM result_metrics") == [
        (steps, steps, steps)
    ]


def test_lines_of_one_step_that_complete_each_other_are_one_row() -> None:
    content = b"step,train_loss,valid_loss\n1,0.5,\n1,,0.6\n2,0.4,\n"
    assert list(result_files.rows(content)) == [
        {"step": "1", "train_loss": "0.5", "valid_loss": "0.6"},
        {"step": "2", "train_loss": "0.4"},
    ]


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_are_refused(content: bytes) -> None:
    try:
        rows = list(result_files.rows(content))
    except UnfitError:
        return
    assert all(isinstance(row, dict) for row in rows)


def add_file(batches: Batches, content: bytes) -> None:
    """Make rows of a result file, as the reading does."""
    lines = list(result_files.rows(content))
    typed = [{name: number_from_text(cell) for name, cell in line.items()} for line in lines]
    batches.add_all("result_metrics", typed, job_id="ftjob-a", own={"file_id": "file-a"}, defaults={}, shown=lines)


def test_files_of_all_kinds_in_one_sync(world: ScriptedWorld, database: Database) -> None:
    contents = {
        "file-plain": PLAIN,
        "file-base64": base64.b64encode(PLAIN),
        "file-empty": b"",
        "file-garbage": b"\x89PNG\r\n\x1a\n\x00\xff",
        "file-no-step": b"step,train_loss\n,0.5\n3,0.4\n",
        "file-twice": b"step,train_loss\n1,0.5\n1,0.6\n2,0.4\n",
        "file-text": b"step,train_loss\n1,high\n2,0.4\n",
    }
    for file_id, content in contents.items():
        world.add_file(file_id, content)
        world.add_job(id=f"job-{file_id}", created_at=NOW - DAY, finished_at=NOW - DAY + 60, result_files=[file_id])
    summary = database.sync()
    assert summary.status == "done"
    assert summary.jobs["open"] == 0
    assert database.rows("SELECT file_id, step, train_loss FROM result_metrics ORDER BY 1, 2") == [
        ("file-base64", 1, 0.5),
        ("file-base64", 2, 0.25),
        ("file-no-step", 3, 0.4),
        ("file-plain", 1, 0.5),
        ("file-plain", 2, 0.25),
        ("file-text", 1, None),
        ("file-text", 2, 0.4),
        ("file-twice", 1, 0.6),
        ("file-twice", 2, 0.4),
    ]
    assert database.rows("SELECT DISTINCT fine_tuning_job_id FROM result_metrics WHERE file_id = 'file-plain'") == [
        ("job-file-plain",)
    ]
    rejected = database.rows("SELECT fine_tuning_job_id, reason FROM rejected_records ORDER BY 1")
    assert [job_id for job_id, _ in rejected] == [
        "job-file-garbage",
        "job-file-no-step",
        "job-file-text",
    ]
    assert all(reason for _, reason in rejected)


def test_other_columns_of_a_file_become_columns_numbers_as_numbers(world: ScriptedWorld, database: Database) -> None:
    world.add_file("file-a", b"step,train_mean_reward,grade,\n1,0.75,good,x,more,still more\n2,1,,\n")
    world.add_job(id="job-a", created_at=NOW - DAY, finished_at=NOW - DAY + 60, result_files=["file-a"])
    database.sync()
    rows = database.rows("SELECT step, train_mean_reward, grade, unnamed, other_metrics FROM result_metrics ORDER BY 1")
    assert rows == [(1, 0.75, "good", "more,still more", '{"column (4)": "x"}'), (2, 1.0, None, None, None)]


@pytest.mark.thorough
def test_a_file_that_no_csv_reader_takes_is_rejected_with_its_beginning(
    world: ScriptedWorld, database: Database
) -> None:
    world.add_file("file-a", b"step,note\n1," + b"x" * 200_000 + b"\n")
    world.add_job(id="job-a", created_at=NOW - DAY, finished_at=NOW - DAY + 60, result_files=["file-a"])
    assert database.sync().rejected == 1
    ((reason, record),) = database.rows("SELECT reason, record FROM rejected_records")
    assert reason.startswith("the file is not CSV: ")
    assert "step,note" in record


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(
    "content",
    [b"step,train_loss\n1,0.5\n1.0,0.6\n", b"Step,train_loss\n1,0.5\n1,0.6\n"],
    ids=["1 and 1.0", "Step with a capital"],
)
def test_of_a_step_that_stands_twice_with_different_values_the_last_counts(
    content: bytes, world: ScriptedWorld, database: Database
) -> None:
    world.add_file("file-a", content)
    world.add_job(id="job-a", created_at=NOW - DAY, finished_at=NOW - DAY + 60, result_files=["file-a"])
    summary = database.sync()
    assert database.rows("SELECT step, train_loss FROM result_metrics") == [(1, 0.6)]
    assert summary.rejected == 0
    assert summary.rows["result_metrics"] == 1


def test_a_value_of_an_earlier_line_does_not_outlive_a_restart() -> None:
    content = b"step,train_loss,valid_loss\n1,0.5,0.9\n2,0.4,\n1,0.6,\n1,,0.8\n"
    assert list(result_files.rows(content)) == [
        {"step": "1", "train_loss": "0.6", "valid_loss": "0.8"},
        {"step": "2", "train_loss": "0.4"},
    ]


def test_a_file_of_one_step_over_and_over_is_one_row() -> None:
    lines = "".join(f"1,{number}\n" for number in range(100_000))
    assert list(result_files.rows(b"step,train_loss\n" + lines.encode())) == [{"step": "1", "train_loss": "99999"}]


@pytest.mark.parametrize(
    "word", ["N/A", "NA", "nan", "NaN", "null", "NULL", "None", "-", "--", "n/a", "#N/A", " ", "<NA>"]
)
def test_a_placeholder_in_a_file_is_null_without_a_word(word: str) -> None:
    batches = Batches("default", schema())
    content = f"step,train_loss,valid_loss,note\n1,{word},-1,{word}\n2,inf,-inf,fine\n"
    add_file(batches, content.encode())
    assert batches.rejected == 0
    rows = batches.take()["result_metrics"].select(["step", "train_loss", "valid_loss", "note"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [(1, None, -1.0, None), (2, math.inf, -math.inf, "fine")]


def test_each_line_without_a_usable_step_is_a_rejected_record_of_its_own() -> None:
    batches = Batches("default", schema())
    add_file(batches, b"step,train_loss\n,0.5\nlast,0.5\n,0.5\n1.5,0.5\n3,0.4\n")
    taken = batches.take()
    assert taken["result_metrics"].column("step").to_pylist() == [3]
    rejected = [json.loads(record) for record in taken["rejected_records"].column("record").to_pylist()]
    assert [record["line"] for record in rejected] == ["2", "3", "4", "5"]


def test_two_columns_of_one_name_are_both_kept() -> None:
    batches = Batches("default", schema())
    add_file(batches, b"step,train_loss,train_loss\n1,0.5,0.6\n")
    (row,) = batches.take()["result_metrics"].to_pylist()
    assert row["train_loss"] == 0.5
    assert json.loads(row["other_metrics"]) == {"train_loss (3)": 0.6}


@pytest.mark.thorough
def test_the_metrics_of_graders_stand_in_one_column_complete_and_findable(
    world: ScriptedWorld, database: Database
) -> None:
    names = [f"scores/graders/score_model/grader {number}/train_reward_mean" for number in range(1_000)]
    header = ",".join(["step", *names, "x" * 63, "x" * 64, "Train Loss"])
    lines = [",".join([str(step), *(str(step + number) for number in range(1_003))]) for step in range(20)]
    world.add_file("file-a", "\n".join([header, *lines]).encode())
    world.add_job(id="job-a", created_at=NOW - DAY, finished_at=NOW - DAY + 60, result_files=["file-a"])
    for rows in (20, 0):
        summary = database.sync()
        assert (summary.rejected, summary.rows["result_metrics"]) == (0, rows)
    (found,) = database.rows("SELECT other_metrics FROM result_metrics WHERE step = 7")
    expected = {name: 7 + number for number, name in enumerate(names)}
    assert json.loads(found[0]) == {**expected, "x" * 64: 7 + 1_001, "Train Loss": 7 + 1_002}
    path = f'$."{names[3]}"'
    assert database.rows(f"SELECT {'x' * 63}, other_metrics ->> '{path}' FROM result_metrics WHERE step = 7") == [
        (1_007.0, "10")
    ]
    assert len(database.rows("DESCRIBE result_metrics")) < 15


@pytest.mark.thorough
def test_a_file_that_is_named_twice_is_read_once(world: ScriptedWorld, database: Database) -> None:
    world.add_file("file-a", PLAIN)
    world.add_job(id="job-a", created_at=NOW - DAY, finished_at=NOW - DAY + 60, result_files=["file-a", "file-a"])
    summary = database.sync()
    assert database.paths().count("/files/file-a/content") == 1
    assert summary.rows["result_metrics"] == 2


@pytest.mark.thorough
def test_a_file_that_is_gone_is_reported_once_and_its_job_closes(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_file("file-there", PLAIN)
    world.add_job(id="job-a", created_at=NOW - HOUR, finished_at=NOW - 60, result_files=["file-gone", "file-there"])
    (skip,) = database.sync().skipped
    assert (skip["job"], skip["resource"]) == ("job-a", "result_metrics")
    assert "file-gone" in (skip["reason"] or "")
    clock.advance(2 * HOUR)
    summary = database.sync()
    assert summary.skipped == []
    assert summary.jobs["open"] == 0
    assert database.rows("SELECT count(*) FROM result_metrics") == [(2,)]
    assert database.sync().requests == 1


@pytest.mark.thorough
def test_a_key_that_may_not_read_files_loads_the_rest_and_the_files_once_it_may(
    world: ScriptedWorld, clock: Clock, database: Database, host: Simulator
) -> None:
    for number in range(4):
        world.add_file(f"file-{number}", PLAIN)
        world.add_job(
            id=f"job-{number}",
            created_at=NOW - DAY + number,
            finished_at=NOW - DAY + 60,
            result_files=[f"file-{number}"],
        )
        world.add_checkpoint(f"job-{number}")
    scopes = {"limited": frozenset({"api.files.read"})}
    with Simulator(world, clock=clock, api_keys=scopes) as strict:
        limited = Database(database.path, strict)
        for _ in range(2):
            skips = limited.sync(key="limited").skipped
            assert [skip["job"] for skip in skips] == [None, None]
            assert {skip["resource"] for skip in skips} == {"result_metrics", "files"}
            assert all("api.files.read" in (skip["reason"] or "") for skip in skips)
            assert len([path for path in limited.paths() if path.startswith("/files")]) == 2
        assert database.rows("SELECT count(*) FROM checkpoints") == [(4,)]
        scopes["limited"] = frozenset()
        assert limited.sync(key="limited").rows["result_metrics"] == 8
        assert limited.sync(key="limited").requests == 1


def test_what_was_rejected_of_a_file_can_be_found_again(world: ScriptedWorld, database: Database) -> None:
    world.add_file("file-a", b"step,train_loss\n1,high\n")
    world.add_job(id="job-a", created_at=NOW - DAY, finished_at=NOW - DAY + 60, result_files=["file-a"])
    database.sync()
    ((job_id, resource, record),) = database.rows("SELECT fine_tuning_job_id, resource, record FROM rejected_records")
    assert (job_id, resource) == ("job-a", "result_metrics")
    assert json.loads(record) == {"step": "1", "train_loss": "high", "file_id": "file-a"}
