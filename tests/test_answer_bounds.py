"""No answer is endless, huge or in the wrong form without a line that says so, and which setting lifts the bound."""

from __future__ import annotations

import gzip
import io
import json
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from command import Command
from openai_fine_tuning import FineTuningSourceError, HostError, RequestError, settings
from openai_fine_tuning.api import decoding, retry
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.retry import ODD_RETRIES
from raw_host import EMPTY_PAGE, RawHost, answer_with

JOBS = "/fine_tuning/jobs"
CONTENT = "/files/file-1/content"
MEGABYTE = 1_000_000


def asked(host: RawHost, path: str = JOBS, *, policy: settings.RequestPolicy | None = None, **bounds: Any) -> Any:
    """What came of asking once: the content, or the error."""
    policy = settings.RequestPolicy(**{"read_timeout": 5, "backoff": 0.001, **bounds})
    with FineTuningApi(host.base_url, "key", policy=policy) as api:
        try:
            return (api.get_bytes(path) if path == CONTENT else api.get_page(path)).content
        except FineTuningSourceError as error:
            return error


@cache
def bomb(name: str) -> bytes:
    """Zeros, packed once for each of the encodings that a name says."""
    if name == "gzip of many members":
        return gzip.compress(bytes(MEGABYTE)) * 30
    body = bytes(30 * MEGABYTE)
    for encoding in name.split(", "):
        body = gzip.compress(body) if encoding == "gzip" else zlib.compress(body) if encoding == "deflate" else body
    return body


BOMBS = ["gzip", "deflate", "gzip, gzip", "deflate, gzip", "gzip of many members", "identity"]


@pytest.mark.parametrize("path", [JOBS, CONTENT], ids=["page", "result file"])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_no_more_memory_than_the_bound_and_is_told_with_its_setting(name: str, path: str) -> None:
    packed = bomb(name)
    with RawHost(lambda *_: [answer_with(packed, f"content-encoding: {name.split(' of ', maxsplit=1)[0]}")]) as host:
        tracemalloc.start()
        error = asked(host, path, max_answer_megabytes=5)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert isinstance(error, RequestError)
    assert "more than 5 MB" in str(error)
    assert "fine_tuning_max_answer_megabytes" in str(error)
    assert error.setting == "fine_tuning_max_answer_megabytes"
    assert len(host.requests) == 1, "it stays as large"
    assert peak < 12 * MEGABYTE + len(packed)


def test_an_answer_of_just_the_bound_is_read() -> None:
    body = bytes(2 * MEGABYTE)
    with RawHost(lambda *_: [answer_with(gzip.compress(body), "content-encoding: gzip")]) as host:
        assert asked(host, CONTENT, max_answer_megabytes=2) == body


def test_a_page_has_no_more_records_than_a_page_of_its_size_could_hold() -> None:
    def page(count: int) -> bytes:
        return answer_with(b'{"object": "list", "data": [' + b",".join([b"{}"] * count) + b'], "has_more": false}')

    with RawHost(lambda *_: [page(2001)]) as host:
        error = asked(host, max_answer_megabytes=1)
    assert "more than 2,000 records" in str(error)
    assert "fine_tuning_max_answer_megabytes" in str(error)
    assert len(host.requests) == 1
    with RawHost(lambda *_: [page(2000)]) as host:
        assert len(asked(host, max_answer_megabytes=1)["data"]) == 2000


PAGE = b'{"object": "list", "data": [{"id": "ftjob-\xc3\xa9"}], "has_more": false}'
ENCODED: dict[str, Callable[[], bytes]] = {
    "identity": lambda: PAGE,
    "": lambda: PAGE,
    "gzip": lambda: gzip.compress(PAGE),
    "x-gzip": lambda: gzip.compress(PAGE),
    "GZIP": lambda: gzip.compress(PAGE) + bytes(20),
    " gzip ": lambda: gzip.compress(PAGE[:20]) + gzip.compress(PAGE[20:]),
    "deflate": lambda: zlib.compress(PAGE),
    "Deflate": lambda: zlib.compress(PAGE)[2:-4],
    "deflate, gzip": lambda: gzip.compress(zlib.compress(PAGE)),
    "identity, gzip": lambda: gzip.compress(PAGE),
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_an_encoding_that_was_asked_for_is_decoded(encoding: str) -> None:
    with RawHost(lambda *_: [answer_with(ENCODED[encoding](), f"content-encoding: {encoding}")]) as host:
        assert asked(host)["data"] == [{"id": "ftjob-é"}]
    assert "Accept-Encoding: gzip, deflate" in host.requests[0]


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "br", "zstd", "compress", "gzip, br", "nonsense"])
def test_a_body_that_is_not_encoded_as_it_says_is_asked_for_once_more_without_encoding(encoding: str) -> None:
    def answer(request: str, _: int) -> Iterator[bytes]:
        plain = "Accept-Encoding: identity" in request
        yield answer_with(PAGE) if plain else answer_with(PAGE, f"content-encoding: {encoding}")

    with RawHost(answer) as host:
        assert asked(host)["data"] == [{"id": "ftjob-é"}]
    assert len(host.requests) == 2

    headers = (f"content-encoding: {encoding}", "content-type: application/json")
    with RawHost(lambda *_: [answer_with(PAGE, *headers)]) as host:
        error = asked(host)
    assert isinstance(error, RequestError)
    assert host.base_url in str(error)
    assert encoding.rsplit(", ", maxsplit=1)[-1] in str(error)
    assert "application/json" in str(error)
    assert len(host.requests) == 2


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (PAGE[:30], ["content-length: 500"]),
        (PAGE[:30], []),
        (gzip.compress(PAGE)[:-12], ["content-encoding: gzip"]),
        (gzip.compress(PAGE * 9)[:40] + b"\xff" * 40, ["content-encoding: gzip"]),
        (b'5\r\n{"dat\r\n', ["transfer-encoding: chunked"]),
        (b"nonsense\r\n", ["transfer-encoding: chunked"]),
    ],
    ids=["too short", "cut JSON", "cut gzip", "damaged gzip", "cut chunks", "no chunks"],
)
def test_a_body_that_is_cut_off_is_tried_again(body: bytes, headers: list[str]) -> None:
    def answer(_: str, number: int) -> Iterator[bytes]:
        yield answer_with(body, *headers) if number < 3 else answer_with(EMPTY_PAGE)

    with RawHost(answer) as host:
        assert asked(host)["data"] == []
    assert len(host.requests) == 4


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", PAGE),
        ("text/html; charset=utf-8", PAGE),
        ("application/json; charset=iso-8859-1", PAGE.decode().encode("latin-1")),
        ("application/json; charset=utf-16", PAGE.decode().encode("utf-16")),
        ("application/json; charset=nonsense", PAGE),
        ("application/json; charset=base64", PAGE),
        ("application/json", b"\xef\xbb\xbf" + PAGE),
        ("application/json", PAGE.decode().encode("utf-32")),
    ],
)
def test_json_is_taken_whatever_its_headers_say(kind: str, body: bytes) -> None:
    with RawHost(lambda *_: [answer_with(body, f"content-type: {kind}")]) as host:
        assert asked(host)["data"] == [{"id": "ftjob-é"}]


def test_an_event_stream_is_told_at_once_and_not_read_to_its_end() -> None:
    def answer(*_: Any) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        for _step in range(1000):
            yield b'12\r\ndata: {"id": "x"}\n\r\n'
            host.wait(0.05)

    with RawHost(answer) as host:
        error = asked(host)
    assert isinstance(error, RequestError)
    assert error.about == "page"
    assert "text/event-stream" in str(error)
    assert "data: {" in str(error)
    assert host.base_url in str(error)
    assert len(host.requests) == 1


@pytest.mark.parametrize("path", [JOBS, CONTENT])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\r\n "], ids=["plain", "BOM", "blank line"])
def test_a_web_page_is_told_after_few_attempts(path: str, before: bytes) -> None:
    page = answer_with(before + b"<html>Please log in</html>", "content-type: text/html")
    with RawHost(lambda *_: [page]) as host:
        error = asked(host, path)
    assert isinstance(error, RequestError)
    assert error.about == "page"
    assert "text/html" in str(error)
    assert "Please log in" in str(error)
    assert len(host.requests) == 1 + ODD_RETRIES


@pytest.mark.parametrize(
    "answer", [{"error": {"message": "Storage is down.", "code": None}}, {"message": "Storage is down."}]
)
def test_an_error_in_place_of_a_result_file_is_not_taken_for_it(answer: Any) -> None:
    body = json.dumps(answer).encode()
    with RawHost(lambda *_: [answer_with(body)]) as host:
        error = asked(host, CONTENT, max_attempts=3)
    assert "Storage is down." in str(error)
    assert len(host.requests) == 3


@pytest.mark.parametrize("body", [b"upstream connect error", b'data: {"object": "list", "data": []}\n\n', b"\x89PNG"])
def test_text_that_does_not_begin_as_json_is_told_after_few_attempts(body: bytes) -> None:
    with RawHost(lambda *_: [answer_with(body, "content-type: text/plain")]) as host:
        error = asked(host)
    assert isinstance(error, RequestError)
    assert "text/plain that is not JSON" in str(error)
    assert len(host.requests) == 1 + ODD_RETRIES


def test_json_that_is_cut_off_is_asked_for_as_often_as_any_failure() -> None:
    with RawHost(lambda *_: [answer_with(PAGE[:-2])]) as host:
        asked(host, max_attempts=5)
    assert len(host.requests) == 5


@pytest.mark.parametrize(
    "beside",
    [
        {"error": "down"},
        {"Error": {"Message": "down"}},
        {"errors": [{"message": "down"}]},
        {"fault": {"faultstring": "down"}},
        {"exception": "down"},
        {"status": "error", "message": "down"},
        {"status": "FAILED", "message": "down"},
        {"status": 503, "detail": "down"},
        {"code": 500, "msg": "down"},
        {"code": "500", "message": "down"},
        {"code": -1, "message": "down"},
        {"code": 1001, "message": "the query was unsuccessful: down"},
        {"code": "Throttling", "message": "down"},
        {"status": "failed", "error": None, "detail": "down"},
        {"statusCode": 502, "message": "down"},
        {"ok": False, "message": "down"},
        {"success": False, "message": "down"},
        {"object": "error", "message": "down"},
    ],
    ids=str,
)
@pytest.mark.parametrize("data", [[], None])
def test_a_listing_that_says_it_is_an_error_is_a_failure(beside: dict[str, Any], data: Any) -> None:
    body = json.dumps({"object": "list", "data": data, "has_more": False, **beside}).encode()
    with RawHost(lambda *_: [answer_with(body)]) as host:
        error = asked(host, max_attempts=2)
    assert isinstance(error, RequestError)
    assert "down" in str(error)
    assert len(host.requests) == 2


def test_a_status_of_failure_without_words_is_a_failure_where_there_are_no_records() -> None:
    for beside in ({"status": "error"}, {"status": "failed"}, {"ok": False}, {"code": 500}):
        body = json.dumps({"object": "list", "data": [], "has_more": False, **beside}).encode()
        with RawHost(lambda *_, body=body: [answer_with(body)]) as host:
            assert isinstance(asked(host, max_attempts=1), RequestError)


@pytest.mark.parametrize(
    "beside",
    [
        {"status": "failed"},
        {"state": "error", "message": None},
        {"code": 1000},
        {"code": 4001, "message": "page 1"},
        {"type": "failed"},
    ],
    ids=str,
)
def test_records_beside_the_status_of_a_job_or_a_code_of_a_service_are_taken(beside: dict[str, Any]) -> None:
    body = json.dumps({"data": [{"id": "ftjob-1", "status": "failed"}], "has_more": False, **beside}).encode()
    with RawHost(lambda *_: [answer_with(body)]) as host:
        assert asked(host)["data"] == [{"id": "ftjob-1", "status": "failed"}]


def test_a_job_that_failed_is_a_record_not_an_error() -> None:
    job = {"id": "ftjob-1", "status": "failed", "error": {"code": "500", "message": "bad file"}, "type": "error"}
    with (
        RawHost(lambda *_: [answer_with(json.dumps(job).encode())]) as host,
        FineTuningApi(host.base_url, "key") as api,
    ):
        assert api.get_json("/fine_tuning/jobs/ftjob-1").content == job


@pytest.mark.parametrize(
    "beside",
    [
        {"code": 1000},
        {"code": 20000, "msg": "success"},
        {"code": 10000, "message": "Request successful"},
        {"code": "Success", "message": "nothing found"},
        {"code": 0, "message": "no checkpoints yet"},
        {"message": "no checkpoints yet"},
        {"status": "succeeded", "state": "running", "type": "failed"},
    ],
    ids=str,
)
def test_an_empty_listing_that_says_it_is_well_is_taken(beside: dict[str, Any]) -> None:
    body = json.dumps({"data": [], "has_more": False, **beside}).encode()
    with RawHost(lambda *_: [answer_with(body)]) as host:
        assert asked(host)["data"] == []


@pytest.mark.parametrize(
    "beside",
    [
        {"error": None, "errors": [], "fault": {}},
        {"error": {"message": None}},
        {"status": "success", "code": 200, "message": "ok"},
        {"status": 200, "code": "0", "success": True, "ok": True},
        {"code": None, "status": None, "statusCode": "200"},
    ],
    ids=str,
)
def test_a_listing_that_says_it_is_well_is_taken(beside: dict[str, Any]) -> None:
    body = json.dumps({"data": [{"id": "ftjob-é"}], "has_more": False, **beside}).encode()
    with RawHost(lambda *_: [answer_with(body)]) as host:
        assert asked(host)["data"] == [{"id": "ftjob-é"}]


# time ----------------------------------------------------------------------------------------------------------------


def dripping(host: list[RawHost], head: bytes, *, seconds: float) -> Any:
    """Answers with a head, and then with a byte now and then."""

    def answer(*_: Any) -> Iterator[bytes]:
        yield head
        for _step in range(2000):
            host[0].wait(seconds)
            yield b"1"

    return answer


HEADS = {
    "status": b"HTTP/1.1 200",
    "headers": b"HTTP/1.1 200 OK\r\nx-header: ",
    "body": b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n",
    "chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffff\r\n",
    "chunk size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0000000",
    "error": b"HTTP/1.1 500 Oops\r\ncontent-length: 100000\r\n\r\n",
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in HEADS if name != "error"])
def test_an_answer_that_drips_ends_at_its_deadline(name: str) -> None:
    hosts: list[RawHost] = []
    with RawHost(dripping(hosts, HEADS[name], seconds=0.05)) as host:
        hosts.append(host)
        error = asked(host, answer_seconds=0.3)
    assert isinstance(error, RequestError)
    assert "longer than 0.3 s" in str(error)
    assert "fine_tuning_answer_seconds" in str(error)
    assert len(host.requests) == 1 + ODD_RETRIES


def test_an_error_that_drips_is_told_by_its_status() -> None:
    hosts: list[RawHost] = []
    with RawHost(dripping(hosts, HEADS["error"], seconds=0.05)) as host:
        hosts.append(host)
        error = asked(host, answer_seconds=0.3, max_attempts=2)
    assert isinstance(error, RequestError)
    assert error.status == 500
    assert len(host.requests) == 2


@pytest.mark.thorough
@pytest.mark.parametrize("downloads", [False, True])
def test_an_answer_that_drips_ends_by_its_rate(downloads: bool) -> None:
    hosts: list[RawHost] = []
    policy = settings.RequestPolicy(read_timeout=0.4, rate_window=0.4, min_bytes_per_second=100, backoff=0.001)
    with RawHost(dripping(hosts, HEADS["body"], seconds=0.05)) as host:
        hosts.append(host)
        with FineTuningApi(host.base_url, "key", policy=policy) as api:
            ask = (
                partial(api.download, CONTENT, io.BytesIO(), size=100_000)
                if downloads
                else partial(api.get_bytes, CONTENT)
            )
            with pytest.raises(RequestError, match=r"fewer than 100 bytes a second.*fine_tuning_timeout_seconds"):
                ask()
    assert len(host.requests) == 1 + ODD_RETRIES, "though each attempt of a download gets a little further"


def test_a_slow_host_that_goes_on_sending_is_waited_for() -> None:
    def answer(*_: Any) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 40000\r\n\r\n"
        for _step in range(10):
            host.wait(0.1)
            yield b"x" * 4000

    with RawHost(answer) as host:
        assert asked(host, CONTENT, read_timeout=0.5, rate_window=0.3) == b"x" * 40_000


def test_a_download_may_take_longer_than_a_page() -> None:
    def answer(*_: Any) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 40000\r\n\r\n"
        for _step in range(10):
            host.wait(0.05)
            yield b"x" * 4000

    policy = settings.RequestPolicy(answer_seconds=0.2, max_answer_megabytes=0.01)
    with RawHost(answer) as host, FineTuningApi(host.base_url, "key", policy=policy) as api:
        assert api.download(CONTENT, io.BytesIO(), size=40_000) == 40_000


def endless(head: bytes, part: bytes) -> Any:
    """Answers with a head, and then with the same again and again, as fast as it is taken."""

    def answer(*_: Any) -> Iterator[bytes]:
        yield head
        while True:
            yield part * 1000

    return answer


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("size", [None, 10**12])
@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"x-trailer: 1\r\n"),
        (CHUNKED + b"1\r\nx\r\n0\r\nx: ", b"x" * 1000),
    ],
    ids=["100 Continue", "trailers", "long trailer"],
)
def test_what_stands_around_an_answer_has_an_end(head: bytes, part: bytes, size: int | None) -> None:
    with (
        RawHost(endless(head, part)) as host,
        FineTuningApi(host.base_url, "key") as api,
        pytest.raises(RequestError, match="its headers are more than 100"),
    ):
        api.download(CONTENT, io.BytesIO(), size=size)
    assert len(host.requests) == 1


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_download_of_unknown_size_is_no_larger_than_the_bound(encoding: str) -> None:
    file = io.BytesIO()
    policy = settings.RequestPolicy(max_answer_megabytes=2)
    with (
        RawHost(lambda *_: [answer_with(bomb(encoding), f"content-encoding: {encoding}")]) as host,
        FineTuningApi(host.base_url, "key", policy=policy) as api,
        pytest.raises(RequestError, match=r"more than 2 MB.*fine_tuning_max_answer_megabytes"),
    ):
        api.download(CONTENT, file)
    assert len(host.requests) == 1
    assert len(file.getvalue()) < 3 * MEGABYTE


def test_a_download_of_unknown_size_ends_at_its_deadline() -> None:
    hosts: list[RawHost] = []
    policy = settings.RequestPolicy(answer_seconds=0.3, backoff=0.001)
    with RawHost(dripping(hosts, HEADS["body"], seconds=0.02)) as host:
        hosts.append(host)
        with (
            FineTuningApi(host.base_url, "key", policy=policy) as api,
            pytest.raises(RequestError, match=r"longer than 0.3 s.*fine_tuning_answer_seconds"),
        ):
            api.download(CONTENT, io.BytesIO())
    assert len(host.requests) == 1 + ODD_RETRIES


def test_a_download_that_gets_a_byte_further_each_time_ends() -> None:
    def answer(_: str, number: int) -> Iterator[bytes]:
        head = f"HTTP/1.1 206 Partial\r\ncontent-range: bytes {number}-99999/100000\r\ncontent-length: 9\r\n\r\n"
        yield (head.encode() if number else b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n") + b"x"

    policy = settings.RequestPolicy(max_attempts=4, backoff=0.001)
    with (
        RawHost(answer) as host,
        FineTuningApi(host.base_url, "key", policy=policy) as api,
        pytest.raises(RequestError, match="ended too early"),
    ):
        api.download(CONTENT, io.BytesIO(), size=100_000)
    assert len(host.requests) <= 5


# headers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers", [[f"x-{number}: 1" for number in range(200)], ["x: " + "1" * 70_000]], ids=["many", "long"]
)
def test_more_headers_than_are_read_are_told_at_once(headers: list[str]) -> None:
    with RawHost(lambda *_: [answer_with(EMPTY_PAGE, *headers)]) as host:
        error = asked(host)
    assert isinstance(error, RequestError)
    assert "headers are more than 100" in str(error)
    assert len(host.requests) == 1


def test_long_headers_cost_no_time_nor_an_error() -> None:
    digits = "1" * 60_000
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": digits,
        "retry-after": digits,
        "retry-after-ms": digits,
        "date": f"Mon, {digits} May 2026",
    }
    began = time.process_time()
    assert retry.exhausted_for(headers) is None
    assert retry.retry_after(headers) is None
    assert retry.http_date(headers["date"]) is None
    assert time.process_time() - began < 5, "once it took minutes"


def test_a_range_of_very_many_digits_is_an_error_in_a_line() -> None:
    def answer(_: str, number: int) -> Iterator[bytes]:
        if number == 0:
            yield answer_with(b"12345", "content-length: 10")
        else:
            yield answer_with(b"67890", "content-range: bytes " + "5" * 5000 + "-9/10", status="206 Partial")

    policy = settings.RequestPolicy(max_attempts=2, backoff=0.001)
    with (
        RawHost(answer) as host,
        FineTuningApi(host.base_url, "key", policy=policy) as api,
        pytest.raises(RequestError, match="another byte"),
    ):
        api.download(CONTENT, io.BytesIO(), size=10)


def test_cookies_are_not_kept() -> None:
    page = answer_with(EMPTY_PAGE, "set-cookie: a=b; path=/")
    with RawHost(lambda *_: [page]) as host, FineTuningApi(host.base_url, "key") as api:
        api.get_page(JOBS)
        api.get_page(JOBS)
    assert not any("cookie" in request.lower() for request in host.requests)


# depth ---------------------------------------------------------------------------------------------------------------


def depth_of(value: Any) -> int:
    """How deeply a value is nested."""
    depth = 0
    level = [value]
    while level := [
        child
        for one in level
        if isinstance(one, dict | list)
        for child in (one.values() if isinstance(one, dict) else one)
    ]:
        depth += 1
    return depth


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("[", "]"),
        ('{"a": ', "}"),
        ('[{"a": ', "}]"),
        ('["]", ', ', "["]'),
        ('["]\\"", ', ', "\\"["]'),
        ('["]\\\\", ', ', "\\\\["]'),
        ('["}", {"a": ', '}, "{"]'),
    ],
)
@pytest.mark.parametrize("depth", [90, 150, 300, 900, 1100, 20_000])
def test_json_is_never_nested_more_deeply_than_python_can_follow(opening: str, closing: str, depth: int) -> None:
    body = f'{{"data": {opening * depth}7{closing * depth}, "id": "x"}}'.encode()
    parsed = decoding.parse_json(body)
    assert parsed["id"] == "x"
    assert depth_of(parsed) <= decoding.MAX_DEPTH + 1
    assert depth > 90 or json.loads(body) == parsed
    json.dumps(parsed)


def test_brackets_in_texts_are_not_depth() -> None:
    value = {"a": ["[" * 500, "]" * 500, '"[\\' * 500], "b": [{"c": "{" * 300}]}
    assert decoding.parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("body", ['"' + '\\"' * 200_000, "[" * 200_000, '"' * 200_001, "1" * 400_000, "[\\" * 100_000])
def test_parsing_takes_time_in_proportion_to_the_length(body: str) -> None:
    began = time.process_time()
    for _ in range(3):
        try:
            decoding.parse_json(body.encode())
        except ValueError:
            continue
    assert time.process_time() - began < 10, "once it took minutes"


# the source ----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("command", ["sync", "check"])
@pytest.mark.parametrize("name", ["FINE_TUNING_MAX_ANSWER_MEGABYTES", "FINE_TUNING_ANSWER_SECONDS"])
def test_a_bound_is_lifted_by_the_variable_that_the_error_names(tmp_path: Path, name: str, command: str) -> None:
    def answer(*_: Any) -> Iterator[bytes]:
        page = b'{"object": "list", "data": [], "has_more": false, "padding": "%s"}' % (b"x" * 2000)
        whole = answer_with(page)
        yield whole[:-100]
        host.wait(0.3)
        yield whole[-100:]

    with RawHost(answer) as host:
        ftw = Command(tmp_path, host.base_url)
        ended = ftw(command, env={name: "0.001"})
        assert ended.code == 1
        assert name.lower() in ended.all
        assert "Traceback" not in ended.all
        ended = ftw(command, env={name: "5"})
        assert ended.code == 0, ended.all


def test_a_regional_host_is_named_instead_of_the_key() -> None:
    words = "Incorrect hostname: this project is served at us.api.openai.com, not at evil.example.com."
    body = json.dumps({"error": {"message": words, "code": "incorrect_hostname"}}).encode()
    with RawHost(lambda *_: [answer_with(body, status="401 Unauthorized")]) as host:
        error = asked(host)
    assert isinstance(error, RequestError)
    assert error.expected_host == "us.api.openai.com"
    ends = str(HostError.of(error, host.base_url))
    assert "https://us.api.openai.com/v1" in ends
    assert "OPENAI_BASE_URL" in ends
    assert "Check the key" not in ends
