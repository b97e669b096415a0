"""A file of any size comes whole: over breaks, with and without ranges, and never as something else."""

from __future__ import annotations

import gzip
import io
import random
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from harness import QUICK
from openai_fine_tuning import RequestError, settings
from openai_fine_tuning.api.client import FineTuningApi

CONTENT = random.Random(0).randbytes(3_000_000)
PATH = "/files/file-1/content"


@pytest.fixture(autouse=True)
def _file(world: ScriptedWorld) -> None:
    world.add_file("file-1", CONTENT)


@pytest.fixture
def api(host: Simulator) -> Iterator[FineTuningApi]:
    made = FineTuningApi(host.base_url, "key", policy=QUICK)
    yield made
    made.close()


def downloaded(api: FineTuningApi, **arguments: Any) -> bytes:
    file = io.BytesIO()
    size = api.download(PATH, file, **arguments)
    assert size == len(file.getvalue())
    return file.getvalue()


def ranges(host: Simulator) -> list[str | None]:
    return [request.headers.get("range") for request in host.requests]


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_file_comes_whole_and_is_counted(api: FineTuningApi, host: Simulator, size: int | None) -> None:
    pieces: list[int] = []
    assert downloaded(api, size=size, watch=pieces.append) == CONTENT
    assert sum(pieces) == len(CONTENT)
    assert len(pieces) > 1, "it came piece by piece"
    assert host.requests[0].headers["accept-encoding"] == "identity"


def test_after_a_break_it_goes_on_where_it_broke_off(api: FineTuningApi, host: Simulator) -> None:
    host.faults.append(Fault("reset_body", path="content$", times=3))
    pieces: list[int] = []
    assert downloaded(api, size=len(CONTENT), watch=pieces.append) == CONTENT
    assert sum(pieces) == len(CONTENT)
    first, *others = ranges(host)
    assert first is None
    starts = [int(str(asked).removeprefix("bytes=").removesuffix("-")) for asked in others]
    assert len(starts) == 3
    assert starts == sorted(set(starts))
    assert starts[0] > 0


def test_many_breaks_are_got_over_as_long_as_it_gets_further(
    api: FineTuningApi, host: Simulator, world: ScriptedWorld
) -> None:
    content = bytes(50_000_000)  # each break halves what is left
    world.remove_file("file-1")
    world.add_file("file-1", content)
    host.faults.append(Fault("reset_body", path="content$", times=settings.MAX_ATTEMPTS + 1))
    assert downloaded(api, size=len(content)) == content


def test_a_host_that_ignores_ranges_is_read_from_the_start_again(api: FineTuningApi, host: Simulator) -> None:
    host.faults.append(Fault("no_ranges", path="content$", times=None))
    host.faults.append(Fault("reset_body", path="content$", times=2))
    assert downloaded(api, size=len(CONTENT)) == CONTENT
    assert len(host.requests) == 3


def test_what_ends_too_early_without_a_break_is_gone_on_with(api: FineTuningApi, host: Simulator) -> None:
    host.faults.append(Fault("truncate", path="content$"))
    assert downloaded(api, size=len(CONTENT)) == CONTENT


@pytest.mark.parametrize("said", [len(CONTENT) + 1, len(CONTENT) - 1, 0])
def test_another_size_than_the_host_says_is_an_error_that_names_both(
    api: FineTuningApi, host: Simulator, said: int
) -> None:
    with pytest.raises(RequestError, match=f"of a file that has {said:,}"):
        downloaded(api, size=said)


def test_an_empty_file_is_a_file(api: FineTuningApi, world: ScriptedWorld) -> None:
    world.remove_file("file-1")
    world.add_file("file-1", b"")
    assert downloaded(api, size=0) == b""


def test_a_page_of_a_proxy_is_not_taken_for_the_file(api: FineTuningApi, host: Simulator) -> None:
    host.faults.append(Fault("html", path="content$"))
    assert downloaded(api) == CONTENT
    host.faults.append(Fault("html", path="content$", times=None))
    with pytest.raises(RequestError, match="a web page"):
        downloaded(api, size=len(CONTENT))


class Answers:
    """A host that gives prepared answers to one request after another: status, headers, body from where it is asked."""

    def __init__(self, *answers: Callable[[int], tuple[int, dict[str, str], bytes]]) -> None:
        self.asked: list[dict[str, str]] = []
        asked, coming = self.asked, iter(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append({name.lower(): value for name, value in self.headers.items()})
                start = re.findall(r"\d+", self.headers.get("range", "bytes=0-"))[0]
                status, headers, body = next(coming)(int(start))
                self.send_response(status)
                for name, value in {"content-length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Answers:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


HALF = len(CONTENT) // 2
WHOLE = {"content-length": str(len(CONTENT))}


def test_a_rest_is_asked_for_of_the_same_version_and_is_not_taken_from_another_byte() -> None:
    with Answers(
        lambda _: (200, {**WHOLE, "etag": '"one"'}, CONTENT[:HALF]),
        lambda at: (206, {"content-range": f"bytes {at + 1}-9/9", "etag": '"one"'}, CONTENT[at + 1 :]),
        lambda _: (200, {**WHOLE, "etag": 'W/"weak"'}, CONTENT[:HALF]),
        lambda at: (206, {"content-range": f"bytes {at}-{len(CONTENT) - 1}/{len(CONTENT)}"}, CONTENT[at:]),
    ) as host:
        api = FineTuningApi(host.base_url, "key", policy=QUICK)
        assert downloaded(api, size=len(CONTENT)) == CONTENT
        api.close()
    assert ["range" in asked for asked in host.asked] == [False, True, False, True]
    assert [asked.get("if-range") for asked in host.asked] == [None, '"one"', None, None]


def test_what_came_compressed_is_asked_for_from_the_start_again() -> None:
    packed = gzip.compress(CONTENT[:100_000])
    encoded = {"content-encoding": "gzip", "content-length": str(len(packed))}
    with Answers(lambda _: (200, encoded, packed[:-5000]), lambda _: (200, encoded, packed)) as host:
        api = FineTuningApi(host.base_url, "key", policy=QUICK)
        assert downloaded(api) == CONTENT[:100_000]
        api.close()
    assert [asked.get("range") for asked in host.asked] == [None, None]


def test_a_file_that_is_gone_is_told_in_the_hosts_words(api: FineTuningApi, world: ScriptedWorld) -> None:
    world.remove_file("file-1")
    with pytest.raises(RequestError) as told:
        downloaded(api)
    assert (told.value.status, told.value.detail) == (404, "No such File object: file-1")


def test_a_redirect_elsewhere_is_not_followed(api: FineTuningApi, host: Simulator) -> None:
    with Simulator(ScriptedWorld()) as stranger:
        host.faults.append(Fault("redirect", path="content$", location=f"{stranger.base_url}{PATH}"))
        with pytest.raises(RequestError, match="the key is not sent there"):
            downloaded(api)
        assert stranger.requests == []


def test_a_host_that_keeps_breaking_at_one_point_is_given_up(api: FineTuningApi, host: Simulator) -> None:
    host.faults.append(Fault("no_ranges", path="content$", times=None))
    host.faults.append(Fault("reset_body", path="content$", times=None))
    with pytest.raises(RequestError, match="gave no whole answer"):
        downloaded(api, size=len(CONTENT))
    assert len(host.requests) <= settings.MAX_ATTEMPTS + 2
