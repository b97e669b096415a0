"""What a JSON value becomes in a column of each type."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_fine_tuning.convert import values
from openai_fine_tuning.convert.columnar import CONVERT, convert_column
from openai_fine_tuning.convert.values import UnfitError
from openai_fine_tuning.schema import Type

SECOND = 1_780_000_000
HUGE = 10**400

TEXTS = st.text(st.characters(codec=None), max_size=20)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.integers(-(10**400), 10**400), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "value",
    [
        SECOND,
        float(SECOND),
        SECOND * 1000,
        SECOND * 1_000_000,
        SECOND * 1_000_000_000,
        str(SECOND),
        f"{SECOND}000",
        "2026-05-28T20:26:40Z",
        "2026-05-28T20:26:40+00:00",
        "2026-05-28T22:26:40+02:00",
        "2026-05-28 20:26:40",
    ],
)
def test_a_time_is_understood_in_every_unit_and_form(value: Any) -> None:
    assert values.to_microseconds(value) == SECOND * 1_000_000


def test_a_time_keeps_its_fraction() -> None:
    assert values.to_microseconds(SECOND + 0.5) == SECOND * 1_000_000 + 500_000
    assert values.to_microseconds(SECOND * 1000 + 123) == SECOND * 1_000_000 + 123_000
    assert values.to_microseconds(SECOND * 1_000_000 + 123_456) == SECOND * 1_000_000 + 123_456


@pytest.mark.parametrize(
    "value",
    [True, None, "yesterday", "", [], {}, math.nan, math.inf, -math.inf, 1e300, HUGE],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_time_is_unfit_and_has_no_seconds(value: Any) -> None:
    with pytest.raises(UnfitError):
        values.to_microseconds(value)
    assert values.unix_seconds(value) is None


@given(st.integers(1, 99_999_999_999))
def test_whole_seconds_are_exact(seconds: int) -> None:
    assert values.to_microseconds(seconds) == seconds * 1_000_000


@pytest.mark.parametrize(
    "value",
    [0, 0.0, "0", -0.0, -1, -SECOND * 1000, -HUGE, "-5", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "1969-12-31"],
    ids=lambda value: repr(value)[:20],
)
def test_a_time_of_0_or_below_is_none(value: Any) -> None:
    assert values.to_microseconds(value) is None
    assert values.unix_seconds(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "9999-12-31T23:59:59-23:59",
        253_402_300_799,
        253_402_300_799_000,
        "9999-12-31T23:59:59.999999Z",
        "0001-01-01T00:00:00+14:00",
        10**20,
    ],
)
def test_a_time_that_not_every_zone_can_show_is_unfit(value: Any) -> None:
    with pytest.raises(UnfitError):
        values.to_microseconds(value)


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.timezones()))  # noqa: DTZ001
def test_an_iso_time_is_the_moment_that_it_names(moment: datetime) -> None:
    whole = moment.replace(microsecond=0)
    expected = (whole - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(seconds=1)
    assert values.to_microseconds(whole.isoformat()) == expected * 1_000_000


@given(st.one_of(st.integers(), st.floats(), st.datetimes(timezones=st.timezones()).map(datetime.isoformat)))
def test_every_zone_can_show_a_time_that_fits(value: Any) -> None:
    try:
        microseconds = values.to_microseconds(value)
    except UnfitError:
        return
    if microseconds is not None:
        for hours in (-24, 24):
            moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=microseconds)
            moment.astimezone(timezone(timedelta(hours=hours, minutes=1 if hours < 0 else -1)))


@pytest.mark.parametrize("fraction", ["1", "12", "123", "1234567", "123456789"])
def test_a_fraction_of_a_second_may_have_any_number_of_digits(fraction: str) -> None:
    expected = SECOND * 1_000_000 + int(fraction.ljust(6, "0")[:6])
    assert values.to_microseconds(f"2026-05-28T20:26:40.{fraction}Z") == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(1, 1.0), (0.5, 0.5), ("0.25", 0.25), ("7.6e-07", 7.6e-07), (" 1 ", 1.0), ("-3", -3.0)]
)
def test_a_double_is_a_number_or_the_text_of_one(value: Any, expected: float) -> None:
    assert values.to_double(value) == expected


def test_nan_and_infinity_are_doubles() -> None:
    assert math.isnan(values.to_double(math.nan))
    assert values.to_double(-math.inf) == -math.inf


@pytest.mark.parametrize(
    "value", [True, False, None, "abc", "", "1_000", "٣", [], {}, [1], HUGE], ids=lambda value: repr(value)[:20]
)
def test_what_is_no_number_is_no_double(value: Any) -> None:
    with pytest.raises(UnfitError):
        values.to_double(value)


@given(st.floats(allow_nan=False))
def test_a_double_comes_out_as_it_went_in(value: float) -> None:
    assert values.to_double(value) == value
    assert values.to_double(repr(value)) == value


@pytest.mark.parametrize(("value", "expected"), [(100, 100), (100.0, 100), ("100", 100), ("100.0", 100), (-1, -1)])
def test_a_bigint_is_a_whole_number(value: Any, expected: int) -> None:
    assert values.to_bigint(value) == expected


@pytest.mark.parametrize(
    "value", [True, None, 100.5, "100.5", "abc", 2**63, -(2**63) - 1, math.nan, math.inf, 1e300, []]
)
def test_what_is_no_whole_number_of_64_bits_is_no_bigint(value: Any) -> None:
    with pytest.raises(UnfitError):
        values.to_bigint(value)


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_integer_of_64_bits_is_kept_whole(value: int) -> None:
    assert values.to_bigint(value) == value
    assert values.to_bigint(str(value)) == value


@given(TEXTS)
def test_an_escaped_text_can_be_stored_anywhere_and_is_escaped_once(text: str) -> None:
    escaped = values.escaped(text)
    escaped.encode()
    assert "\x00" not in escaped
    assert values.escaped(escaped) == escaped


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00")))
def test_a_text_that_needs_no_escape_stays_as_it_is(text: str) -> None:
    assert values.to_text(text) == text


@given(JSON)
def test_json_text_can_be_stored_anywhere_and_read_again(value: Any) -> None:
    text = values.to_json(value)
    text.encode()
    assert "\x00" not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@given(JSON)
def test_the_text_of_a_record_is_ascii_and_holds_all_of_it(value: Any) -> None:
    text = values.to_json(value, ascii_only=True)
    assert text.isascii()
    assert "nan" in text.lower() or "inf" in text.lower() or json.loads(text) == value


@given(value=JSON, type_=st.sampled_from(sorted(CONVERT)))
def test_any_value_fits_a_column_or_is_unfit(value: Any, type_: Type) -> None:
    with contextlib.suppress(UnfitError):
        CONVERT[type_](value)


@pytest.mark.parametrize("depth", [900, 100_000])
def test_json_text_holds_any_depth_whatever_the_limit_of_recursion(depth: int) -> None:
    value: Any = [math.inf, {}, [], {"last": "é"}]
    for number in range(depth):
        value = {"in": value} if number % 2 else [number, value]
    limit = sys.getrecursionlimit()
    text = values.to_json(value)
    assert sys.getrecursionlimit() == limit
    assert text.count('"in": ') == depth // 2
    assert '["inf", {}, [], {"last": "é"}]' in text
    assert values.to_json(value, ascii_only=True).isascii()


@given(JSON)
def test_json_text_is_the_same_step_by_step(value: Any) -> None:
    text = values.to_json([value, math.nan])
    assert text == f'[{values.to_json(value)}, "nan"]'


@given(st.lists(JSON, max_size=6))
def test_a_column_of_json_has_the_text_of_each_value(column: list[Any]) -> None:
    texts = [None if value is None else values.to_json(value) for value in column]
    assert convert_column(column, "json") == (texts, {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, []),
        ("", []),
        ({}, []),
        ([], []),
        ("file-a", ["file-a"]),
        ({"id": "file-a", "bytes": 7}, ["file-a"]),
        (["file-a", {"id": "file-b"}, None], ["file-a", "file-b"]),
        ([{"name": "no id"}], [{"name": "no id"}]),
    ],
)
def test_a_file_is_named_by_its_id_or_by_an_object(value: Any, expected: list[Any]) -> None:
    assert values.file_ids(value) == expected


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (None, []),
        ("", []),
        ("file-a", ["file-a"]),
        ('["file-a", {"id": "file-b"}, 7, {}]', ["file-a", "file-b", "7"]),
        ('{"id": "file-a", "bytes": 1}', ["file-a"]),
        ('{"bytes": 1}', []),
        ("{not JSON", ["{not JSON"]),
    ],
)
def test_ids_of_files_are_found_in_what_a_column_holds(text: str | None, ids: list[str]) -> None:
    assert values.stored_file_ids(text) == ids
