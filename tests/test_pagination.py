"""Listings end, whatever their pages say: units of `pages`, without a host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_fine_tuning import EndlessListingError, RequestError, settings
from openai_fine_tuning.api.client import Answer
from openai_fine_tuning.api.pagination import MAX_RESTARTS, Page, pages


class Listing:
    """Stands for a client: gives prepared pages, one a request, and keeps what was asked for."""

    def __init__(self, *answers: Mapping[str, Any] | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[str | None] = []

    def url(self, path: str) -> str:
        return f"https://host{path}"

    def get_page(self, path: str, params: Mapping[str, Any], *, attempts: int | None) -> Answer:
        assert (params["limit"], attempts) == (settings.PAGE_LIMIT, None)
        self.asked.append(params.get("after"))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer, 1000.0)


def walked(*answers: Mapping[str, Any] | Exception) -> tuple[list[Page], list[str | None]]:
    """The pages, and the cursors that were asked for."""
    listing: Any = Listing(*answers)
    return list(pages(listing, "/jobs")), listing.asked


def page(*ids: Any, more: Any = False, **fields: Any) -> dict[str, Any]:
    return {"data": [{"id": one} for one in ids], "has_more": more, **fields}


def test_each_page_begins_behind_the_last_record_of_the_page_before() -> None:
    found, asked = walked(page("a", "b", more=True), page("c", more=True), page("d"))
    assert [[record["id"] for record in one.records] for one in found] == [["a", "b"], ["c"], ["d"]]
    assert asked == [None, "b", "c"]
    assert [one.cursor for one in found] == ["b", "c", None]
    assert found[0].host_time == 1000.0


@pytest.mark.parametrize("more", [False, 0, "", {}, []])
def test_a_page_that_says_no_more_is_the_last(more: Any) -> None:
    assert walked(page("a", more=more))[1] == [None]


def test_without_has_more_the_listing_ends_where_nothing_new_comes() -> None:
    for last in (page(more=None), page("a", more=None)):
        found, asked = walked(page("a", more=None), last)
        assert [record["id"] for one in found for record in one.records] == ["a"]
        assert asked == [None, "a"]


@pytest.mark.parametrize(
    ("records", "last_id", "after"),
    [
        (["a", None], None, "a"),
        (["a", 7], None, "7"),
        ([True], "z", "z"),
        ([""], "z", "z"),
        ([{}], 9, "9"),
    ],
)
def test_the_next_page_is_behind_the_last_record_with_an_id_else_behind_last_id(
    records: list[Any], last_id: Any, after: str
) -> None:
    assert walked(page(*records, more=True, last_id=last_id), page())[1] == [None, after]


@pytest.mark.parametrize("last_id", [None, "", [], {}, False])
def test_more_behind_a_page_without_any_id_is_an_error(last_id: Any) -> None:
    with pytest.raises(EndlessListingError, match="https://host/jobs has more pages, but no record"):
        walked(page(None, more=True, last_id=last_id))


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([page("a", more=True)], "again"),
        ([page("a", more=True), page("b", more=True), page("a", "b", more=True)], "again"),
        ([page(more=True)], "without data"),
    ],
)
def test_a_listing_without_an_end_is_an_error(answers: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(EndlessListingError, match=f"https://host/jobs .*{words}"):
        walked(*answers)


def test_a_cursor_that_the_host_forgot_starts_the_listing_again_a_few_times() -> None:
    gone = RequestError("gone", url="https://host/jobs", status=404)
    found, asked = walked(page("a", more=True), gone, page("b", "a", more=True), page("c"))
    assert [[record["id"] for record in one.records] for one in found] == [["a"], ["b"], ["c"]]
    assert asked == [None, "a", None, "a"]
    with pytest.raises(RequestError):
        walked(*[answer for _ in range(MAX_RESTARTS + 1) for answer in (page("a", more=True), gone)])
    with pytest.raises(RequestError):
        walked(gone)


RECORDS = st.lists(
    st.one_of(st.none(), st.integers(), st.text(max_size=3), st.fixed_dictionaries({"id": st.integers(0, 3)})),
    max_size=4,
)


@given(
    st.lists(st.fixed_dictionaries({"data": RECORDS, "has_more": st.none() | st.booleans()}), min_size=1, max_size=6)
)
def test_any_pages_end_and_no_id_comes_twice(answers: list[dict[str, Any]]) -> None:
    listing: Any = Listing(*answers)
    ids: list[Any] = []
    try:
        for one in pages(listing, "/jobs"):
            assert len(one.times) == len(one.records)
            ids += [record["id"] for record in one.records if isinstance(record, dict)]
    except EndlessListingError:
        pass
    assert len(ids) == len(set(ids))
    assert len(listing.asked) <= len(answers) + 5
