"""Records that are typed a column at a time become the very rows that they become one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openai_fine_tuning.convert.table_builder import Batches
from openai_fine_tuning.schema import schema

OWN = {"last_listed_at": 1_780_000_000_000_000}
DEFAULTS = {"fine_tuning_job_id": "ftjob-of-the-listing"}

numbers = st.one_of(st.integers(0, 3), st.floats(), st.sampled_from([2**53 + 1, 2**63, 10**400, -1, True]))
texts = st.sampled_from(["", "plain", "ünlich", "a\x00b", "\ud800", "2026-05-28T00:00:00Z", "7"])
anything: st.SearchStrategy[Any] = st.one_of(st.none(), numbers, texts, st.just([1, {"a": None}]), st.just({}))
times = st.one_of(
    st.integers(1_779_999_000, 1_780_000_000), st.sampled_from([1_780_000_000_123, "1780000000"]), anything
)
inner = st.dictionaries(st.sampled_from(["step", "train_loss", "Train Loss", "graders", "new"]), anything, max_size=4)


def records(nested: str) -> st.SearchStrategy[list[Any]]:
    """Pages on which most records are alike, and some are anything but."""
    usual = st.fixed_dictionaries(
        {
            "id": st.one_of(st.uuids().map(str), st.integers(0), st.sampled_from(["", None])),
            "created_at": times,
            nested: st.one_of(inner, st.just({"step": 1, "train_loss": 0.5}), anything),
        },
        optional={
            "step_number": numbers,
            "level": anything,
            "Level": anything,
            "account": texts,
            "last_listed_at": times,
            "fine_tuning_job_id": st.one_of(st.none(), texts),
            "brand_new": anything,
        },
    )
    return st.lists(st.one_of(usual, usual, usual, anything), max_size=12, unique_by=_id)


def _id(record: Any) -> Any:
    """Listings hold no id twice: `listing` sees to that."""
    return str(record["id"]) if isinstance(record, dict) and record.get("id") is not None else id(record)


def rows(batches: Batches, table: str) -> list[str]:
    """What became rows, and what was rejected, as texts in a fixed order."""
    taken = batches.take(at_least=0)
    rejected = [{**row, "rejected_at": None} for row in taken["rejected_records"].to_pylist()]
    kept = [{**row, "synced_at": None} for row in (*taken[table].to_pylist(), *rejected)]
    return sorted(repr(sorted(row.items())) for row in kept)


@pytest.mark.parametrize(("table", "nested"), [("checkpoints", "metrics"), ("events", "data")])
def test_a_page_becomes_the_rows_that_its_records_become_one_by_one(table: str, nested: str) -> None:
    own = OWN if table == "checkpoints" else {}

    @settings(max_examples=60, deadline=None)
    @given(st.lists(records(nested), min_size=1, max_size=3))
    def check(listing: list[list[Any]]) -> None:
        together, one_by_one = Batches("mine", schema()), Batches("mine", schema())
        for page in listing:
            together.add_all(table, page, job_id="ftjob-1", own=own, defaults=DEFAULTS)
            for record in page:
                one_by_one.add(table, record, job_id="ftjob-1", own=own, defaults=DEFAULTS)
        assert together.rejected == one_by_one.rejected
        assert rows(together, table) == rows(one_by_one, table)

    check()


def test_a_page_of_what_hosts_send_is_typed_a_column_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = Batches("mine", schema())
    page = [
        {
            "id": f"ftevent-{number}",
            "created_at": 1_780_000_000 + number,
            "message": "Schritt für Schritt",
            "data": {"step": number, "train_loss": 1 if number % 2 else 0.5, "note": "kept as JSON"},
        }
        for number in range(20)
    ]
    batches.add_all("events", page[:1], job_id="ftjob-1", own={}, defaults=DEFAULTS)  # its columns become known
    monkeypatch.setattr(Batches, "add", None)
    batches.add_all("events", page[1:], job_id="ftjob-1", own={}, defaults=DEFAULTS)
    taken = batches.take()["events"]
    assert taken.num_rows == 20
    assert set(taken.column("data__train_loss").to_pylist()) == {0.5, 1.0}
    assert "data__note" not in taken.column_names


def test_a_row_that_stands_in_two_listings_is_loaded_once() -> None:
    batches = Batches("mine", schema())
    page = [{"id": f"ftckpt-{number}", "step_number": number} for number in range(10)]
    for job_id in ("ftjob-1", "ftjob-2"):
        batches.add_all("checkpoints", page, job_id=job_id, own=OWN, defaults={"fine_tuning_job_id": job_id})
        batches.add_all("checkpoints", page[:5], job_id=job_id, own=OWN, defaults={"fine_tuning_job_id": job_id})
    batches.add("checkpoints", page[0], job_id="ftjob-3")
    assert batches.take()["checkpoints"].column("id").to_pylist() == [record["id"] for record in page]


@pytest.mark.parametrize("name", ["xmin", "ctid", "tableoid", "oid", "rowid"])
def test_a_field_that_has_the_name_of_a_database_s_own_column_stands_in_the_json_column(name: str) -> None:
    batches = Batches("default", schema())
    batches.add("jobs", {"id": "a", name: 1, "xmin_": 2}, job_id=None)
    batches.add("result_metrics", {"step": 1, name: 2.5}, job_id="a", own={"file_id": "file-a"})
    batches.add("events", {"id": "e", "data": {name: 3}}, job_id="a")
    tables = batches.take()
    assert not {name, f"x{name}"} & {*tables["jobs"].column_names, *tables["result_metrics"].column_names}
    assert tables["result_metrics"].to_pylist()[0]["other_metrics"] == f'{{"{name}": 2.5}}'
    assert tables["events"].to_pylist()[0][f"data__{name}"] == 3.0
