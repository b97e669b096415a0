"""Odd records are loaded where they can be typed, else kept with the reason; none makes any sync fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.sync.run import AccountResult
from harness import DAY, HOUR, NOW, Database
from openai_fine_tuning import settings
from openai_fine_tuning.convert.table_builder import Batches
from openai_fine_tuning.schema import SYNCED_AT, TABLES, arrow_types, schema

ODD_IDS = ("../../x", "a/b", "'; drop table jobs; --", 'quo"te', "50% & ?after=1#x", "белый 白 🦊", "nul\x00id")
MEGABYTE = "x" * 1_000_000


class Odd:
    """A database after two syncs of a world full of odd records."""

    def __init__(self, database: Database, first: AccountResult, second: AccountResult) -> None:
        self.database, self.first, self.second = database, first, second

    def checkpoint(self, checkpoint_id: str, *columns: str) -> Any:
        """Columns of a checkpoint."""
        (row,) = self.database.rows(f"SELECT {', '.join(columns)} FROM checkpoints WHERE id = '{checkpoint_id}'")
        return row

    def rejected(self, job_id: str) -> list[tuple[str, Any]]:
        """What was rejected of a job: reason and record."""
        rows = self.database.rows(
            f"SELECT reason, record FROM rejected_records WHERE fine_tuning_job_id = '{job_id}' ORDER BY record"
        )
        return [(reason, json.loads(record)) for reason, record in rows]


def write(world: ScriptedWorld) -> None:
    """The odd records, each kind in a job of its own; the jobs are open."""

    def job(job_id: str, **fields: Any) -> None:
        world.add_job(id=job_id, created_at=NOW - HOUR, **{"status": "running", "finished_at": None, **fields})

    def checkpoints(job_id: str, **metrics: Any) -> None:
        job(job_id)
        for checkpoint_id, value in metrics.items():
            world.add_checkpoint(job_id, id=f"{job_id}-{checkpoint_id}", metrics=value)

    checkpoints(
        "unknown", a={"step": 1, "completion_tokens_mean": 5, "note": "fine", "is_best": True, "graders": [{"x": [1]}]}
    )
    job("fields", future_number=2.5, future_text="t", future_flag=True, future_object={"a": [1, {"b": None}]})
    checkpoints("metrics", null=None, empty={}, nan={"train_loss": float("nan"), "valid_loss": float("inf")})
    job("absent")
    absent = world.add_checkpoint("absent", id="absent-a")
    del absent["metrics"]
    world.update_checkpoint("metrics-null", metrics=None)
    checkpoints("bad", a={"train_loss": "abc"}, b={"train_loss": 0.5}, c={"train_loss": "0.25"})
    checkpoints("list", a=[1, 2], b="text", c={"train_loss": 1})
    checkpoints("same", a={"A b": 1, "a_b": "two"})
    checkpoints("nul", a={"te\x00xt": "a\x00b", "\ud800key": "c\ud83dd", "note": "\x00"})
    checkpoints("huge", a={"train_loss": 10**400}, b={"train_loss": 2**70}, c={"train_loss": 1})
    world.add_checkpoint("huge", id="huge-step", step_number=2**70)
    checkpoints("keys", a={"": 1, " ": 2, "损失": 3, "потеря": 4, "k" * 300: 5, "_dlt_load_id": "metric", "$": 6})
    checkpoints("types", a={"train_loss": True}, b={"train_loss": {"mean": 1}}, c={"train_loss": 1})
    checkpoints("text", a={"essay": MEGABYTE})
    job("shapes")
    for record in ("text", 7, None, [1, 2], {}, {"id": None}, {"id": ""}, {"id": {"a": 1}}, {"id": ["b"]}):
        world.add_raw_checkpoint("shapes", record)
        world.add_raw_event("shapes", record)
    world.add_checkpoint("shapes", id="shapes-fine")
    world.add_raw_checkpoint("shapes", {"id": 12345})
    job("own", account="stranger", _dlt_load_id="x", _dlt_id="y", checkpoints_listed_at=1, rejected=2)
    world.add_checkpoint("own", id="own-a", account="stranger", last_listed_at=5, _dlt_load_id=7)
    job("null-error", error=None)
    job("empty-error", error={})
    job("full-error", error={"code": "c", "message": "m", "param": "p", "more": [1]}, status="failed")
    job("text-error", error="broken")
    job("auto", hyperparameters={"n_epochs": "auto", "batch_size": "auto", "new_one": 0.5})
    job("big", metadata={"big": 2**70 + 1, "text": "ü"}, trained_tokens=2**63 - 1)
    for odd_id in ODD_IDS:
        job(odd_id)
    job("ids")
    for odd_id in ODD_IDS:
        world.add_checkpoint("ids", id=odd_id)
    world.add_event("ids", id="event-list", data=[1, 2])
    world.add_event("ids", id="event-text", data="text")
    world.add_event("ids", id="event-null", data=None)
    world.add_event("ids", id="event-odd", data={"train_loss": "abc", "step": 1, "new": 2, "nested": {"a": 1}})
    for raw in ("text", 7, None, [1], {}, {"id": {"a": 1}, "created_at": NOW}):
        world.add_raw_job(raw)
    world.add_raw_job({"id": "bare"})
    world.add_raw_job({"id": "wrong", "created_at": "yesterday", "status": 7, "seed": "x", "result_files": {"a": 1}})


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Odd]:
    """Two syncs of the odd world."""
    folder = tmp_path_factory.mktemp("odd")
    world, clock = ScriptedWorld(), Clock(start=NOW, speed=0)
    write(world)
    with pytest.MonkeyPatch.context() as patch, Simulator(world, clock=clock) as host:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        patch.chdir(folder)
        database = Database(folder / "odd.duckdb", host)
        first = database.sync()
        clock.advance(60)
        world.update_job("auto", hyperparameters={"n_epochs": 3, "batch_size": 16, "new_one": "auto"})
        yield Odd(database, first, database.sync())


@pytest.mark.thorough
def test_a_world_of_odd_records_loads_twice_and_what_is_rejected_does_not_pile_up(odd: Odd) -> None:
    assert odd.first.status == odd.second.status == "done"
    assert odd.first.rejected == odd.second.rejected > 0
    # This host takes a quoted slash for a slash, so that it has no children of these jobs.
    for summary in (odd.first, odd.second):
        assert {skip["job"] for skip in summary.skipped} <= {"../../x", "a/b"}
    assert odd.database.rows("SELECT count(*), count(DISTINCT (resource, record_hash)) FROM rejected_records") == [
        (odd.first.rejected, odd.first.rejected)
    ]


def test_unknown_metrics_become_columns_of_their_own_type(odd: Odd) -> None:
    columns = [f"metrics__{name}" for name in ("completion_tokens_mean", "note", "is_best", "graders")]
    assert odd.checkpoint("unknown-a", *columns) == (5.0, "fine", True, '[{"x": [1]}]')


def test_unknown_fields_of_a_job_become_columns(odd: Odd) -> None:
    assert odd.database.rows(
        "SELECT future_number, future_text, future_flag, future_object FROM jobs WHERE id = 'fields'"
    ) == [(2.5, "t", True, '{"a": [1, {"b": null}]}')]


@pytest.mark.parametrize("checkpoint_id", ["metrics-null", "metrics-empty", "absent-a"])
def test_metrics_that_are_null_empty_or_absent_are_nulls(odd: Odd, checkpoint_id: str) -> None:
    assert odd.checkpoint(checkpoint_id, "metrics__step", "metrics__train_loss") == (None, None)


def test_nan_and_infinity_are_numbers(odd: Odd) -> None:
    row = odd.checkpoint("metrics-nan", "isnan(metrics__train_loss)", "metrics__valid_loss")
    assert row == (True, float("inf"))


def test_a_metric_that_is_not_a_number_costs_that_metric_and_the_record_is_rejected(odd: Odd) -> None:
    assert odd.checkpoint("bad-a", "metrics__train_loss") == (None,)
    assert odd.checkpoint("bad-b", "metrics__train_loss") == (0.5,)
    assert odd.checkpoint("bad-c", "metrics__train_loss") == (0.25,)
    ((reason, record),) = odd.rejected("bad")
    assert "train_loss" in reason
    assert "abc" in reason
    assert record["id"] == "bad-a"
    assert record["metrics"] == {"train_loss": "abc"}


@pytest.mark.parametrize("job_id", ["list", "types"])
def test_metrics_of_another_shape_are_null_and_rejected(odd: Odd, job_id: str) -> None:
    assert [record["id"] for _, record in odd.rejected(job_id)] == [f"{job_id}-a", f"{job_id}-b"]
    values = [odd.checkpoint(f"{job_id}-{name}", "metrics__train_loss")[0] for name in "abc"]
    assert values == [None, None, 1.0]


def test_of_two_names_that_are_alike_the_unusual_one_stands_in_the_json_column(odd: Odd) -> None:
    value, others = odd.checkpoint("same-a", "metrics__a_b", "other_fields")
    assert (value, json.loads(others)) == ("two", {"metrics": {"A b": 1}})


def test_nul_and_lone_surrogates_are_escaped(odd: Odd) -> None:
    note, others = odd.checkpoint("nul-a", "metrics__note", "other_fields")
    assert note == "\\u0000"
    assert json.loads(others) == {"metrics": {"te\x00xt": "a\x00b", "\ud800key": "c\ud83dd"}}


def test_numbers_too_large_for_their_column_are_null_and_rejected(odd: Odd) -> None:
    rejected = [record["id"] for _, record in odd.rejected("huge")]
    assert rejected == ["huge-a", "huge-step"]
    assert odd.checkpoint("huge-a", "metrics__train_loss") == (None,)
    assert odd.checkpoint("huge-step", "step_number") == (None,)
    assert odd.checkpoint("huge-b", "metrics__train_loss") == (float(2**70),)
    assert odd.checkpoint("huge-c", "metrics__train_loss") == (1.0,)


def test_large_integers_keep_every_digit(odd: Odd) -> None:
    ((metadata, tokens),) = odd.database.rows("SELECT metadata, trained_tokens FROM jobs WHERE id = 'big'")
    assert tokens == 2**63 - 1
    assert json.loads(metadata) == {"big": 2**70 + 1, "text": "ü"}


def test_empty_foreign_and_very_long_keys_stand_in_the_json_column(odd: Odd) -> None:
    (others,) = odd.checkpoint("keys-a", "other_fields")
    expected = {"": 1, " ": 2, "损失": 3, "потеря": 4, "k" * 300: 5, "_dlt_load_id": "metric", "$": 6}
    assert json.loads(others) == {"metrics": expected}


def test_a_text_of_a_megabyte_is_loaded_whole(odd: Odd) -> None:
    assert odd.checkpoint("text-a", "metrics__essay") == (MEGABYTE,)


def test_records_without_a_usable_id_are_rejected_and_the_others_loaded(odd: Odd) -> None:
    assert odd.checkpoint("shapes-fine", "fine_tuning_job_id") == ("shapes",)
    assert odd.checkpoint("12345", "fine_tuning_job_id") == ("shapes",)
    assert len(odd.rejected("shapes")) == 2 * 9
    assert odd.database.rows(
        "SELECT count(*) FROM rejected_records WHERE resource = 'jobs' AND fine_tuning_job_id IS NULL"
    ) == [(7,)]


def test_fields_named_like_the_columns_of_the_source_do_not_replace_them(odd: Odd) -> None:
    (job,) = odd.database.rows(
        "SELECT account, year(checkpoints_listed_at) > 2000, length(_dlt_load_id) > 5 FROM jobs WHERE id = 'own'"
    )
    assert job == ("default", True, True)
    assert odd.checkpoint("own-a", "account", "year(last_listed_at) > 2000") == ("default", True)
    ((others,),) = odd.database.rows("SELECT other_fields FROM jobs WHERE id = 'own'")
    assert json.loads(others) == {
        "account": "stranger",
        "_dlt_load_id": "x",
        "_dlt_id": "y",
        "checkpoints_listed_at": 1,
    }


@pytest.mark.thorough
def test_an_error_is_null_empty_filled_or_a_text(odd: Odd) -> None:
    columns = "error__code, error__message, error__param"
    rows = odd.database.rows(f"SELECT id, {columns} FROM jobs WHERE id LIKE '%-error' ORDER BY id")
    assert rows == [
        ("empty-error", None, None, None),
        ("full-error", "c", "m", "p"),
        ("null-error", None, None, None),
        ("text-error", None, None, None),
    ]
    assert odd.database.rows("SELECT error__more FROM jobs WHERE id = 'full-error'") == [("[1]",)]
    assert odd.database.rows("SELECT error FROM jobs WHERE id = 'text-error'") == [("broken",)]


def test_a_hyperparameter_that_is_auto_and_later_a_number_is_text(odd: Odd) -> None:
    columns = ", ".join(f"hyperparameters__{name}" for name in ("n_epochs", "batch_size", "new_one"))
    assert odd.database.rows(f"SELECT {columns} FROM jobs WHERE id = 'auto'") == [("3", "16", "auto")]


@pytest.mark.thorough
def test_ids_with_quotes_separators_and_foreign_letters_are_data(odd: Odd) -> None:
    expected = sorted(odd_id.replace("\x00", "\\u0000") for odd_id in ODD_IDS)
    jobs = {row[0] for row in odd.database.rows("SELECT id FROM jobs")}
    assert jobs >= set(expected)
    found = odd.database.rows("SELECT id FROM checkpoints WHERE fine_tuning_job_id = 'ids' ORDER BY id")
    assert sorted(row[0] for row in found) == expected


def test_the_data_of_an_event_is_kept_whatever_it_is(odd: Odd) -> None:
    rows = odd.database.rows(
        "SELECT id, data, data__step, data__train_loss FROM events WHERE fine_tuning_job_id = 'ids' ORDER BY id"
    )
    assert rows == [
        ("event-list", "[1, 2]", None, None),
        ("event-null", None, None, None),
        ("event-odd", '{"train_loss": "abc", "step": 1, "new": 2, "nested": {"a": 1}}', 1.0, None),
        ("event-text", '"text"', None, None),
    ]
    assert odd.database.rows("SELECT data__new FROM events WHERE id = 'event-odd'") == [(2.0,)]


def test_a_job_with_hardly_a_field_is_a_row(odd: Odd) -> None:
    assert odd.database.rows("SELECT id, created_at, status FROM jobs WHERE id = 'bare'") == [("bare", None, None)]


# a column's type, once stored, holds for later syncs -----------------------------------------------------------------


@pytest.mark.thorough
def test_a_text_where_an_earlier_sync_stored_numbers_is_null_and_rejected_and_the_next_sync_fine(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="running", finished_at=None)
    world.add_checkpoint("ftjob-a", id="ckpt-1", metrics={"custom": 1})
    database.sync()
    world.add_checkpoint("ftjob-a", id="ckpt-2", metrics={"custom": "high"})
    clock.advance(60)
    assert database.sync().rejected == 1
    world.add_checkpoint("ftjob-a", id="ckpt-3", metrics={"custom": 3})
    clock.advance(60)
    assert database.sync().status == "done"
    assert database.rows("SELECT id, metrics__custom FROM checkpoints ORDER BY id") == [
        ("ckpt-1", 1.0),
        ("ckpt-2", None),
        ("ckpt-3", 3.0),
    ]
    ((reason, record),) = database.rows("SELECT reason, record FROM rejected_records")
    assert "custom" in reason
    assert json.loads(record)["metrics"] == {"custom": "high"}


@pytest.mark.first_only
@pytest.mark.parametrize("status", [{"state": "done"}, ["succeeded"]], ids=["object", "list"])
def test_a_status_that_is_no_text_fails_no_sync(status: Any, world: ScriptedWorld, database: Database) -> None:
    world.add_job(id="ftjob-odd", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
    world.update_job("ftjob-odd", status=status)
    world.add_job(id="ftjob-fine", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
    assert database.sync().status == "done"
    assert database.rows("SELECT id, status FROM jobs ORDER BY id") == [
        ("ftjob-fine", "succeeded"),
        ("ftjob-odd", json.dumps(status)),
    ]


def test_a_time_beyond_all_numbers_fails_no_sync(world: ScriptedWorld, database: Database) -> None:
    world.add_job(id="ftjob-odd", created_at=10**400, finished_at=NOW - DAY)
    world.add_job(id="ftjob-fine", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
    world.add_checkpoint("ftjob-fine", id="ckpt-odd", created_at=10**400)
    world.add_checkpoint("ftjob-fine", id="ckpt-fine")
    assert database.sync().status == "done"
    assert database.rows("SELECT id, created_at IS NULL FROM jobs ORDER BY id") == [
        ("ftjob-fine", False),
        ("ftjob-odd", True),
    ]
    assert database.ids("checkpoints") == ["ckpt-fine", "ckpt-odd"]
    assert database.rows("SELECT count(*) FROM rejected_records") == [(2,)]


@pytest.mark.nightly
def test_an_open_job_whose_id_holds_a_lone_surrogate_fails_no_sync(world: ScriptedWorld, database: Database) -> None:
    world.add_job(id="ftjob-\ud800", created_at=NOW - HOUR, status="running", finished_at=None, result_files=["\udc00"])
    world.add_job(id="ftjob-fine", created_at=NOW - HOUR, status="running", finished_at=None)
    world.add_checkpoint("ftjob-fine", id="ckpt-a")
    database.sync()
    assert database.sync().status == "done"
    assert database.ids("jobs") == ["ftjob-\\ud800", "ftjob-fine"]
    assert database.ids("checkpoints") == ["ckpt-a"]


def nested(depth: int) -> str:
    """A JSON text nested so deeply."""
    return "[" * depth + "]" * depth


@pytest.mark.first_only
@pytest.mark.parametrize("depth", [400, 5_000])
def test_a_deeply_nested_field_fails_no_sync(
    depth: int, world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    world.add_job(id="ftjob-deep", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
    world.add_job(id="ftjob-fine", created_at=NOW - DAY, finished_at=NOW - DAY + 60)
    world.add_checkpoint("ftjob-fine", id="ckpt-a")
    records = [json.dumps(record) for record in world.jobs()]
    deep = [text[:-1] + f', "deep": {nested(depth)}}}' if "ftjob-deep" in text else text for text in records]
    body = f'{{"object": "list", "data": [{", ".join(deep)}], "has_more": false}}'
    host.faults.append(Fault("status", path=r"/fine_tuning/jobs$", times=None, status=200, body=body))
    summary = database.sync()
    assert summary.status == "done"
    assert database.ids("checkpoints") == ["ckpt-a"]
    found = {row[0] for row in database.rows("SELECT id FROM jobs")}
    rejected = database.rows("SELECT record FROM rejected_records WHERE record LIKE '%ftjob-deep%'")
    assert "ftjob-fine" in found
    assert "ftjob-deep" in found or len(rejected) == 1


# a value that does not fit costs that value ---------------------------------------------------------------------------


def test_a_record_with_several_unfit_values_is_a_row_and_is_rejected_once_with_all_their_names() -> None:
    batches = Batches("default", schema())
    record = {
        "id": "ckpt-a",
        "created_at": "yesterday",
        "step_number": "last",
        "metrics": {"train_loss": "high", "valid_loss": 0.5, "custom": 10**400},
    }
    assert batches.add("checkpoints", record, job_id="ftjob-a")
    taken = batches.take()
    (row,) = taken["checkpoints"].to_pylist()
    unfit = ("created_at", "step_number", "metrics__train_loss", "metrics__custom")
    assert {name: row[name] for name in (*unfit, "metrics__valid_loss")} == {
        **dict.fromkeys(unfit),
        "metrics__valid_loss": 0.5,
    }
    (rejected,) = taken["rejected_records"].to_pylist()
    assert all(name in rejected["reason"] for name in unfit)
    assert json.loads(rejected["record"]) == record


def test_a_record_with_very_many_unfit_values_has_a_reason_that_one_can_read() -> None:
    batches = Batches("default", schema())
    names = [f"m{number}" for number in range(50)]
    batches.add("checkpoints", {"id": "a", "metrics": dict.fromkeys(names, 1)}, job_id="ftjob-a")
    batches.add("checkpoints", {"id": "b", "metrics": dict.fromkeys(names, "x")}, job_id="ftjob-a")
    (reason,) = batches.take()["rejected_records"].column("reason").to_pylist()
    assert "metrics__m0 " in reason
    assert reason.endswith("and 40 more fields")


@pytest.mark.parametrize(
    ("table", "record"),
    [
        ("jobs", {"id": None}),
        ("jobs", {"id": True}),
        ("checkpoints", {"id": ""}),
        ("events", {"id": ["a"]}),
        ("files", {"id": {"a": 1}}),
        ("result_metrics", {"step": "last"}),
        ("result_metrics", {"step": 2**63}),
        ("result_metrics", {"train_loss": 1}),
    ],
)
def test_a_key_that_does_not_fit_rejects_the_row_and_its_fields_make_no_column(table: str, record: Any) -> None:
    batches = Batches("default", schema())
    own = {"file_id": "file-a"} if table == "result_metrics" else {}
    assert not batches.add(table, {**record, "brand_new": 1}, job_id="ftjob-a", own=own)
    taken = batches.take(at_least=0)
    assert taken[table].num_rows == 0
    assert "brand_new" not in taken[table].column_names
    assert taken["rejected_records"].num_rows == 1


def test_a_time_of_0_is_null_in_every_table_without_a_word() -> None:
    batches = Batches("default", schema())
    for table in ("jobs", "checkpoints", "events", "files"):
        times = [column.name for column in TABLES[table].columns if column.type == "timestamp" and column != SYNCED_AT]
        batches.add_all(
            table,
            [{"id": "a", **dict.fromkeys(times, 0)}, {"id": "b", **dict.fromkeys(times, "1969-07-20T20:17:40Z")}],
            job_id="ftjob-a",
            own={},
            defaults={},
        )
        for row in batches.take()[table].to_pylist():
            assert [row[name] for name in times] == [None] * len(times)
    assert batches.rejected == 0


# fields that have no column -------------------------------------------------------------------------------------------


def test_a_table_grows_to_100_columns_and_further_fields_stand_in_its_json_column() -> None:
    batches = Batches("default", schema())
    fields = {f"field_{number}": number for number in range(200)}
    batches.add("files", {"id": "file-a", **fields}, job_id="ftjob-a")
    table = batches.take()["files"]
    (row,) = table.to_pylist()
    assert table.num_columns == settings.MAX_COLUMNS == 100
    others = json.loads(row["other_fields"])
    assert len(others) > 100
    assert {**others, **{name: row[name] for name in fields if name not in others}} == fields


def test_a_name_that_postgresql_would_cut_off_stands_in_the_json_column() -> None:
    batches = Batches("default", schema())
    metrics = {"m" * 54: 1, "m" * 55: 2}
    batches.add("checkpoints", {"id": "a", "metrics": metrics}, job_id="ftjob-a")
    (row,) = batches.take()["checkpoints"].to_pylist()
    assert row[f"metrics__{'m' * 54}"] == 1
    assert json.loads(row["other_fields"]) == {"metrics": {"m" * 55: 2}}


def test_a_field_named_like_the_json_column_stands_in_it() -> None:
    batches = Batches("default", schema())
    batches.add("events", {"id": "a", "other_fields": "mine"}, job_id="ftjob-a")
    (row,) = batches.take()["events"].to_pylist()
    assert json.loads(row["other_fields"]) == {"other_fields": "mine"}


@pytest.mark.thorough
def test_a_warehouse_of_an_earlier_release_keeps_its_columns_and_gets_the_new_ones(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-a", created_at=NOW - HOUR, status="running", finished_at=None)
    world.add_checkpoint("ftjob-a", id="ckpt-1", metrics={"a_b": 1, "plain": 5})
    script = (
        f"import sys; sys.argv = {['ftw', 'sync', '--quiet', '--database', str(database.path)]}\n{_EARLIER_RELEASE}"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OPENAI_API_KEY": "key", "OPENAI_BASE_URL": database.host.base_url},
        check=True,
    )
    for table in ("checkpoints", "syncs"):
        assert {"other_fields", "synced_at"}.isdisjoint(row[0] for row in database.rows(f"DESCRIBE {table}"))
    described = "SELECT column_name FROM (DESCRIBE {}) WHERE column_name LIKE 'other%' OR column_name LIKE '%beta'"
    world.add_checkpoint("ftjob-a", id="ckpt-2", metrics={"A b": 2, "Odd": 3, "plain": 6})
    world.update_job("ftjob-a", hyperparameters=None, method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1}}})
    clock.advance(60)
    assert database.sync().status == "done"
    assert database.rows(described.format("jobs")) == [("hyperparameters__beta",), ("other_fields",)]
    assert database.rows(described.format("checkpoints")) == [("other_fields",)]
    assert database.rows("SELECT hyperparameters__beta FROM jobs") == [("0.1",)]
    assert database.rows("SELECT id, metrics__a_b, metrics__plain, other_fields FROM checkpoints ORDER BY id") == [
        ("ckpt-1", 1.0, 5.0, None),
        ("ckpt-2", 2.0, 6.0, '{"metrics": {"Odd": 3}}'),
    ]
    for table in ("checkpoints", "syncs"):
        counted = database.rows(f"SELECT count(*), count(synced_at) FROM {table}")
        assert counted == [(2, 1)], "a row that did not change has no time"
    assert {
        row[0] for row in database.rows("SELECT table_name FROM duckdb_columns() WHERE column_name = 'synced_at'")
    } >= {*TABLES}


_EARLIER_RELEASE = """
import importlib.util
from pathlib import Path

folder = Path(importlib.util.find_spec("openai_fine_tuning").origin).parent
spec = importlib.util.spec_from_file_location("openai_fine_tuning.schema", folder / "schema.py")
schema = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(schema)

from fine_tuning_warehouse.schema import TABLES

new = ("other_fields", "other_metrics", "hyperparameters__beta", "synced_at")
for table in TABLES.values():
    object.__setattr__(table, "columns", tuple(column for column in table.columns if column.name not in new))

from fine_tuning_warehouse.cli import main
from openai_fine_tuning.convert.table_builder import Batches

Batches._own = lambda self: {"account": self._account}
sys.exit(main())
"""
"""Run `ftw` with the tables as releases before the JSON columns declared them."""


# what hosts put elsewhere ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_top", [None, {}, {"n_epochs": None, "beta": None}])
def test_hyperparameters_are_taken_from_the_method_where_they_are_missing(at_top: Any) -> None:
    batches = Batches("default", schema())
    nested = {
        "n_epochs": 2,
        "beta": 0.1,
        "reasoning_effort": "high",
        "compute_multiplier": "auto",
        "eval_interval": 5,
        "eval_samples": 10,
    }
    method = {"type": "reinforcement", "reinforcement": {"grader": {"type": "x"}, "hyperparameters": nested}}
    job = {"id": "ftjob-a", "hyperparameters": at_top, "method": method}
    batches.add("jobs", job, job_id=None)
    (row,) = batches.take()["jobs"].to_pylist()
    assert {name: row[f"hyperparameters__{name}"] for name in nested} == {
        name: value if isinstance(value, str) else str(value) for name, value in nested.items()
    }
    assert json.loads(row["method"]) == method
    assert batches.rejected == 0


def test_a_hyperparameter_at_the_top_counts_before_that_of_the_method() -> None:
    batches = Batches("default", schema())
    method = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2, "beta": 0.1}}}
    batches.add("jobs", {"id": "a", "hyperparameters": {"n_epochs": 3}, "method": method}, job_id=None)
    methods: tuple[Any, ...] = (
        None,
        [],
        "dpo",
        {"type": ["dpo"]},
        {"type": "dpo", "dpo": [1]},
        {"dpo": {"hyperparameters": 7}},
    )
    for odd_method in methods:
        batches.add("jobs", {"id": repr(odd_method), "hyperparameters": None, "method": odd_method}, job_id=None)
    rows = batches.take()["jobs"].to_pylist()
    assert (rows[0]["hyperparameters__n_epochs"], rows[0]["hyperparameters__beta"]) == ("3", "0.1")
    assert {row["hyperparameters__beta"] for row in rows[1:]} == {None}


@pytest.mark.thorough
def test_files_that_a_job_names_by_objects_are_read_by_their_ids(world: ScriptedWorld, database: Database) -> None:
    world.add_file("file-r", b"step,train_loss\n1,0.5\n")
    world.add_file("file-t", b"")
    world.add_job(
        id="ftjob-a",
        created_at=NOW - DAY,
        finished_at=NOW - DAY + 60,
        training_file={"id": "file-t", "bytes": 7},
        validation_file=[{"id": "file-v"}],
        result_files=[{"id": "file-r"}],
    )
    summary = database.sync()
    assert summary.rejected == 0
    ((training, validation, results, others),) = database.rows(
        "SELECT training_file, validation_file, result_files, other_fields FROM jobs"
    )
    assert (training, validation) == ("file-t", "file-v")
    assert json.loads(results) == [{"id": "file-r"}]
    assert json.loads(others)["training_file"] == {"id": "file-t", "bytes": 7}
    assert database.rows("SELECT file_id, train_loss FROM result_metrics") == [("file-r", 0.5)]
    assert "file-t" in database.ids("files")


# any JSON at all ------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec=None), max_size=6)
NUMBERS = st.one_of(st.integers(), st.integers(-(10**330), 10**330), st.floats())
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
KEYS = st.one_of(
    TEXTS,
    st.sampled_from(
        [
            "id",
            "account",
            "metrics",
            "data",
            "error",
            "method",
            "created_at",
            "step_number",
            "A-B",
            "a_b",
            "_dlt_id",
            "metrics__step",
            "last_listed_at",
            "fine_tuning_job_id",
            "hyperparameters",
            "train_loss",
            "seed",
            "status",
        ]
    ),
)
RECORDS = st.one_of(
    JSON, st.dictionaries(KEYS, JSON, max_size=6), st.fixed_dictionaries({"id": TEXTS, "metrics": JSON, "data": JSON})
)


@pytest.mark.thorough
@pytest.mark.parametrize("table", ["jobs", "checkpoints", "events", "result_metrics"])
@hypothesis.settings(deadline=None)
@given(records=st.lists(RECORDS, max_size=6))
def test_any_json_is_a_row_or_rejected_and_never_an_error(table: str, records: list[Any]) -> None:
    batches = Batches("default", schema())
    own = {"file_id": "file-a"} if table == "result_metrics" else {}
    defaults = {} if table == "jobs" else {"fine_tuning_job_id": "job"}
    became_rows = [batches.add(table, record, job_id="job", own=own, defaults=defaults) for record in records]
    tables = batches.take(at_least=0)
    assert batches.rejected >= len(records) - sum(became_rows)
    for name, many in ((table, sum(became_rows)), ("rejected_records", batches.rejected)):
        found = [tuple(row[key] for key in TABLES[name].keys) for row in tables[name].to_pylist()]
        assert len(set(found)) == len(found) <= many, "each once"
        assert bool(found) == bool(many)
    for name, built in tables.items():
        built.validate(full=True)
        assert len(set(built.column_names)) == len(built.column_names)
        assert len(built.column_names) <= settings.MAX_COLUMNS
        for column in TABLES[name].columns:
            assert built.schema.field(column.name).type == arrow_types()[column.type]
        for row in built.to_pylist():
            assert row["account"] == "default"
            for value in row.values():
                if isinstance(value, str):
                    value.encode()
                    assert "\x00" not in value
            if TABLES[name].catch_all and row[TABLES[name].catch_all] is not None:
                assert isinstance(json.loads(row[TABLES[name].catch_all]), dict)


@hypothesis.settings(deadline=None)
@given(record=st.dictionaries(KEYS, JSON, max_size=8))
def test_what_was_typed_once_is_typed_alike_the_next_time(record: dict[str, Any]) -> None:
    batches = Batches("default", schema())
    first = batches.add("checkpoints", {**record, "id": "a"}, job_id="job")
    before = batches.take(at_least=0)["checkpoints"]
    assert batches.add("checkpoints", {**record, "id": "b"}, job_id="job") == first
    after = batches.take(at_least=0)["checkpoints"]
    assert before.num_rows == after.num_rows == first
    assert repr(before.drop_columns(["id", "synced_at"]).to_pylist()) == repr(
        after.drop_columns(["id", "synced_at"]).to_pylist()
    )
