"""Odd records are loaded where they can be typed, else kept with the reason; none makes any sync fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.sync.run import AccountResult
from harness import DAY, HOUR, NOW, Database
from openai_fine_tuning import settings
from openai_fine_tuning.convert.table_builder import Batches
from openai_fine_tuning.schema import TABLES, arrow_types, schema

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


def test_a_metric_that_is_no_number_is_rejected_and_the_rest_of_the_page_loaded(odd: Odd) -> None:
    assert odd.checkpoint("bad-b", "metrics__train_loss") == (0.5,)
    assert odd.checkpoint("bad-c", "metrics__train_loss") == (0.25,)
    ((reason, record),) = odd.rejected("bad")
    assert "train_loss" in reason
    assert "abc" in reason
    assert record["id"] == "bad-a"
    assert record["metrics"] == {"train_loss": "abc"}


@pytest.mark.parametrize(("job_id", "rejected"), [("list", ["a", "b"]), ("types", ["a", "b"])])
def test_metrics_of_another_shape_are_rejected(odd: Odd, job_id: str, rejected: list[str]) -> None:
    assert [record["id"] for _, record in odd.rejected(job_id)] == [f"{job_id}-{name}" for name in rejected]
    assert odd.checkpoint(f"{job_id}-c", "metrics__train_loss") == (1.0,)


def test_two_keys_that_normalise_to_one_name_are_told_apart(odd: Odd) -> None:
    described = odd.database.rows(
        "SELECT column_name FROM (DESCRIBE checkpoints) WHERE column_name LIKE '%a\\_b%' ESCAPE '\\'"
    )
    columns = [f'"{name}"' for (name,) in described]
    assert sorted(map(str, odd.checkpoint("same-a", *columns))) == ["1.0", "two"]


def test_nul_and_lone_surrogates_are_escaped(odd: Odd) -> None:
    described = odd.database.rows(
        "SELECT column_name FROM (DESCRIBE checkpoints) WHERE column_name LIKE 'metrics\\_\\_%' ESCAPE '\\'"
    )
    values = odd.checkpoint("nul-a", *(f'"{name}"' for (name,) in described))
    assert {value for value in values if isinstance(value, str)} == {"a\\u0000b", "c\\ud83dd", "\\u0000"}


def test_numbers_too_large_for_their_column_are_rejected(odd: Odd) -> None:
    rejected = [record["id"] for _, record in odd.rejected("huge")]
    assert rejected == ["huge-a", "huge-step"]
    assert odd.checkpoint("huge-b", "metrics__train_loss") == (float(2**70),)
    assert odd.checkpoint("huge-c", "metrics__train_loss") == (1.0,)


def test_large_integers_keep_every_digit(odd: Odd) -> None:
    ((metadata, tokens),) = odd.database.rows("SELECT metadata, trained_tokens FROM jobs WHERE id = 'big'")
    assert tokens == 2**63 - 1
    assert json.loads(metadata) == {"big": 2**70 + 1, "text": "ü"}


def test_empty_foreign_and_very_long_keys_become_columns(odd: Odd) -> None:
    described = odd.database.rows(
        "SELECT column_name FROM (DESCRIBE checkpoints) WHERE column_name LIKE 'metrics\\_\\_%' ESCAPE '\\'"
    )
    values = odd.checkpoint("keys-a", *(f'"{name}"' for (name,) in described))
    assert sorted(value for value in values if isinstance(value, float)) == [1, 2, 3, 4, 5, 6]
    assert [value for value in values if isinstance(value, str)] == ["metric"]


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
    assert "stranger" in [value for row in odd.database.rows("SELECT * FROM jobs WHERE id = 'own'") for value in row]


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


def test_a_text_where_an_earlier_sync_stored_numbers_is_rejected_and_the_next_sync_fine(
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
        ("ckpt-3", 3.0),
    ]
    ((reason, record),) = database.rows("SELECT reason, record FROM rejected_records")
    assert "custom" in reason
    assert json.loads(record)["metrics"] == {"custom": "high"}


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
    assert database.ids("jobs") == ["ftjob-fine"]
    assert database.ids("checkpoints") == ["ckpt-fine"]
    assert database.rows("SELECT count(*) FROM rejected_records") == [(2,)]


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


@pytest.mark.parametrize("depth", [400, 5_000])
def test_a_deeply_nested_field_fails_no_sync(
    depth: int, world: ScriptedWorld, host: Simulator, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(settings, "MAX_BACKOFF_SECONDS", 0.01)
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


@pytest.mark.parametrize("table", ["jobs", "checkpoints", "events", "result_metrics"])
@given(records=st.lists(RECORDS, max_size=6))
def test_any_json_is_a_row_or_rejected_and_never_an_error(table: str, records: list[Any]) -> None:
    batches = Batches("default", schema())
    own = {"file_id": "file-a"} if table == "result_metrics" else {}
    defaults = {} if table == "jobs" else {"fine_tuning_job_id": "job"}
    became_rows = [batches.add(table, record, job_id="job", own=own, defaults=defaults) for record in records]
    tables = batches.take(at_least=0)
    assert batches.rejected == len(records) - sum(became_rows)
    for name, many in ((table, sum(became_rows)), ("rejected_records", batches.rejected)):
        found = [tuple(row[key] for key in TABLES[name].keys) for row in tables[name].to_pylist()]
        assert len(set(found)) == len(found) <= many, "each once"
        assert bool(found) == bool(many)
    for name, built in tables.items():
        built.validate(full=True)
        assert len(set(built.column_names)) == len(built.column_names)
        for column in TABLES[name].columns:
            assert built.schema.field(column.name).type == arrow_types()[column.type]
        for row in built.to_pylist():
            assert row["account"] == "default"
            for value in row.values():
                if isinstance(value, str):
                    value.encode()
                    assert "\x00" not in value


@given(record=st.dictionaries(KEYS, JSON, max_size=8))
def test_what_was_typed_once_is_typed_alike_the_next_time(record: dict[str, Any]) -> None:
    batches = Batches("default", schema())
    first = batches.add("checkpoints", {**record, "id": "a"}, job_id="job")
    before = batches.take(at_least=0)["checkpoints"]
    assert batches.add("checkpoints", {**record, "id": "b"}, job_id="job") == first
    after = batches.take(at_least=0)["checkpoints"]
    assert before.num_rows == after.num_rows == first
    assert repr(before.drop_columns("id").to_pylist()) == repr(after.drop_columns("id").to_pylist())
