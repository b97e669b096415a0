"""A redirect never carries a key, a token or a header to another host, however its address is written."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import pytest

from command import KEY
from openai_fine_tuning import FineTuningSourceError, HostError, RequestError, settings
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.urls import origin, redirect_target
from raw_host import EMPTY_PAGE, RawHost, answer_with

SECRET = "a-secret-of-a-gateway"
POLICY = settings.RequestPolicy(read_timeout=5, backoff=0.001, max_attempts=2)


@pytest.fixture(scope="module")
def stranger() -> Iterator[RawHost]:
    with RawHost(lambda *_: [answer_with(EMPTY_PAGE)]) as host:
        yield host


# {own}: host and port of the configured host; {other}: those of a stranger on another port
ELSEWHERE = [
    "http://{other}/v1/fine_tuning/jobs",
    "HTTP://{other}/v1/fine_tuning/jobs",
    "//{other}/v1/fine_tuning/jobs",
    "///{other}/v1/fine_tuning/jobs",
    "////{other}/v1/fine_tuning/jobs",
    "/\\{other}/v1/fine_tuning/jobs",
    "\\\\{other}/v1/fine_tuning/jobs",
    "\\/{other}/v1/fine_tuning/jobs",
    "http:\\\\{other}/v1/fine_tuning/jobs",
    "http:/\\{other}/v1/fine_tuning/jobs",
    "http:{other}/v1/fine_tuning/jobs",
    "http:/{other}/v1/fine_tuning/jobs",
    "http:///{other}/v1/fine_tuning/jobs",
    "http://{other}\\@{own}/v1/fine_tuning/jobs",
    "http://{own}\\@{other}/v1/fine_tuning/jobs",
    "http://{other}\\.{own}/v1/fine_tuning/jobs",
    "http://{own}@{other}/v1/fine_tuning/jobs",
    "http://{other}@{own}/v1/fine_tuning/jobs",
    "http://me:secret@{own}/v1/fine_tuning/jobs",
    "http://@{own}/v1/fine_tuning/jobs",
    "http://{own}%40{other}/v1/fine_tuning/jobs",
    "http://{other}%2f@{own}/v1/fine_tuning/jobs",
    "http://{other}#@{own}/v1/fine_tuning/jobs",
    "http://{other}?@{own}/v1/fine_tuning/jobs",
    "http://{other};@{own}/v1/fine_tuning/jobs",
    "http://127.0.0.1%3a{other_port}/v1/fine_tuning/jobs",
    "http://127.0.0.1 :{other_port}/v1/fine_tuning/jobs",
    "http://127.0.0.1\t:{other_port}/v1/fine_tuning/jobs",
    "http://\t{other}/v1/fine_tuning/jobs",
    "\thttp://{other}/v1/fine_tuning/jobs",
    "ht\ttp://{other}/v1/fine_tuning/jobs",
    "/\t/{other}/v1/fine_tuning/jobs",
    "http://{other}\x01/v1/fine_tuning/jobs",
    "http://{other}\x7f@{own}/v1/fine_tuning/jobs",
    "http://localhost:{other_port}/v1/fine_tuning/jobs",
    "http://localhost:{own_port}/v1/fine_tuning/jobs",
    "http://127.0.0.1.:{own_port}/v1/fine_tuning/jobs",
    "http://127.1:{own_port}/v1/fine_tuning/jobs",
    "http://2130706433:{own_port}/v1/fine_tuning/jobs",
    "http://0x7f000001:{own_port}/v1/fine_tuning/jobs",
    "http://[::1]:{own_port}/v1/fine_tuning/jobs",
    "http://[::ffff:127.0.0.1]:{own_port}/v1/fine_tuning/jobs",
    "http://[::1/v1/fine_tuning/jobs",
    "http://[v1.x]:{own_port}/v1/fine_tuning/jobs",
    "http://]{other}/v1/fine_tuning/jobs",
    "http://{own}0/v1/fine_tuning/jobs",
    "http://127.0.0.1:/v1/fine_tuning/jobs",
    "http://127.0.0.1:-1/v1/fine_tuning/jobs",
    "http://127.0.0.1:99999/v1/fine_tuning/jobs",
    "http://127.0.0.1:port/v1/fine_tuning/jobs",
    "http://127.0.0.1/v1/fine_tuning/jobs",
    "http:///v1/fine_tuning/jobs",
    "http://",
    "http:",
    "https://{own}/v1/fine_tuning/jobs",
    "ftp://{own}/v1/fine_tuning/jobs",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "http://\u00b9\u00b2\u00b7.0.0.1:{other_port}/v1/fine_tuning/jobs",
    "http://b\u00fccher.example/v1/fine_tuning/jobs",
    "http://xn--bcher-kva.example/v1/fine_tuning/jobs",
    "http://{other}/" + "x" * 5000,
    "",
    " ",
    "/v1/fine tuning/jobs",
    "/v1/\x0bjobs",
]

WITHIN = [
    "/v1/other",
    "other",
    "./other",
    "../../v1/other",
    "../../../../v1/other",
    "?after=ftjob-1",
    "//{own}/v1/other",
    "http://{own}/v1/other",
    "HTTP://{own}/v1/other?limit=1#part",
    "/v1//other",
    "/v1/@other",
    "/v1/%2e%2e/other",
    "/v1/other:80",
]


def filled(location: str, own: RawHost, other: RawHost) -> str:
    """A location with the hosts of a test."""
    ports = {"own_port": own.port, "other_port": other.port}
    return location.format(own=f"127.0.0.1:{own.port}", other=f"127.0.0.1:{other.port}", **ports)


def sent_to(location: str, stranger: RawHost, *, downloads: bool) -> tuple[list[str], Exception | None]:
    """The requests that a host got which redirects to a location once, and what came of it."""

    def answer(_: str, number: int) -> Iterator[bytes]:
        if number == 0:
            yield answer_with(b"", f"location: {filled(location, host, stranger)}", status="307 Temporary Redirect")
        else:
            yield answer_with(EMPTY_PAGE)

    with (
        RawHost(answer) as host,
        FineTuningApi(host.base_url, KEY, org_id="org-1", extra_headers={"x-gateway": SECRET}, policy=POLICY) as api,
    ):
        error: Exception | None = None
        try:
            if downloads:
                api.download("/files/file-1/content", io.BytesIO())
            else:
                api.get_page("/fine_tuning/jobs")
        except FineTuningSourceError as raised:
            error = raised
        return host.requests, error


@pytest.mark.parametrize("downloads", [False, True], ids=["page", "download"])
@pytest.mark.parametrize("location", ELSEWHERE, ids=lambda location: repr(location[:40]))
def test_a_redirect_elsewhere_or_to_a_malformed_address_is_an_error_in_a_line_and_nothing_is_sent(
    stranger: RawHost, location: str, downloads: bool
) -> None:
    before = stranger.connections
    requested, error = sent_to(location, stranger, downloads=downloads)
    assert stranger.connections == before
    assert isinstance(error, RequestError)
    assert error.status == 307
    assert "redirects to" in str(error) or "307" in str(error)
    assert str(error).isprintable()
    assert KEY not in str(error)
    assert len(requested) == 1


@pytest.mark.parametrize("downloads", [False, True], ids=["page", "download"])
@pytest.mark.parametrize("location", WITHIN)
def test_a_redirect_within_the_host_is_followed_with_the_key(stranger: RawHost, location: str, downloads: bool) -> None:
    requested, error = sent_to(location, stranger, downloads=downloads)
    assert error is None
    assert len(requested) == 2
    assert f"Authorization: Bearer {KEY}" in requested[1]
    assert f"x-gateway: {SECRET}" in requested[1]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{other_port}/v1",
        "http://localhost:{own_port}/v1",
        "https://127.0.0.1:{own_port}/v1",
        "http://127.0.0.1/v1",
        "http://me@127.0.0.1:{own_port}/v1",
        "http://127.0.0.1:{other_port}\\@127.0.0.1:{own_port}/v1",
        "http://127.0.0.1.:{own_port}/v1",
    ],
)
def test_the_credential_refuses_to_be_attached_to_a_request_of_another_origin(stranger: RawHost, url: str) -> None:
    with (
        RawHost(lambda *_: [answer_with(EMPTY_PAGE)]) as host,
        FineTuningApi(host.base_url, KEY, extra_headers={"x-gateway": SECRET}) as api,
    ):
        own = api._credential.headers_for(host.base_url)
        assert own == {"Authorization": f"Bearer {KEY}", "x-gateway": SECRET}
        with pytest.raises(HostError):
            api._credential.headers_for(filled(url, host, stranger))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://API.openai.com/v1", ("https", "api.openai.com", 443)),
        ("http://127.0.0.1:8080/v1", ("http", "127.0.0.1", 8080)),
        ("http://[::1]:80/", ("http", "::1", 80)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, expected: tuple[str, str, int]) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize("url", ["", "x", "http://", "http://a\\@b/", "http://me@b/", "http://a:b/", "ftp://a/"])
def test_what_two_parsers_read_differently_has_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        origin(url)


def test_a_redirect_target_keeps_its_query_and_loses_its_fragment() -> None:
    url, allowed = "https://a.example/v1/jobs", ("https", "a.example", 443)
    assert redirect_target("?after=b#c", url=f"{url}?after=a", allowed=allowed) == f"{url}?after=b"


def test_a_proxy_gets_its_own_password_and_over_https_never_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(head: str, _: int) -> list[bytes]:
        return [answer_with(EMPTY_PAGE) if head.startswith("GET") else answer_with(b"", status="403 Forbidden")]

    with RawHost(answer) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://me:word@127.0.0.1:{proxy.port}")
        with FineTuningApi("http://gateway.invalid/v1", KEY, allow_http=True) as api:
            assert api.get_page("/fine_tuning/jobs").content["data"] == []
        with FineTuningApi("https://gateway.invalid/v1", KEY) as api, pytest.raises(RequestError):
            api.get_page("/fine_tuning/jobs", attempts=1)
        plain, tunnel = proxy.requests
    password = f"Proxy-Authorization: Basic {base64.b64encode(b'me:word').decode()}".lower()
    assert plain.startswith("GET http://gateway.invalid/v1/fine_tuning/jobs HTTP/1.1\r\n")
    assert tunnel.startswith("CONNECT gateway.invalid:443 HTTP/1")
    assert password in plain.lower()
    assert password in tunnel.lower()
    assert KEY in plain
    assert KEY not in tunnel
