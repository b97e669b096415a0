"""A secret that a host repeats is hidden before it is stored or shown, in whatever form it comes."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dlt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command import KEY, Command
from fine_tuning_simulator import ScriptedWorld, Simulator
from harness import DAY, NOW
from openai_fine_tuning import ConfigurationError, RequestError, openai_fine_tuning, settings
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.redaction import HIDDEN, Redactor
from raw_host import RawHost, answer_with

SLASHED = "sk/with+signs/and=more-0123456789"


def redactor(*secrets: str) -> Redactor:
    made = Redactor()
    for secret in secrets:
        made.add(secret)
    return made


def escaped(text: str, pattern: str, every: int = 1) -> str:
    return "".join(pattern % ord(sign) if at % every == 0 else sign for at, sign in enumerate(text))


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda key: key,
    "bearer": lambda key: f"Bearer {key}",
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 of a header": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
    "base64 of basic": lambda key: base64.b64encode(f":{key}".encode()).decode(),
    "base64 of a document": lambda key: base64.urlsafe_b64encode(f'{{"key": "{key}"}}'.encode()).decode(),
    "base64 without padding": lambda key: base64.b64encode(f"xx{key}".encode()).decode().rstrip("="),
    "hexadecimal": lambda key: key.encode().hex(),
    "HEXADECIMAL": lambda key: key.encode().hex().upper(),
    "percent where needed": lambda key: quote(key, safe=""),
    "percent": lambda key: escaped(key, "%%%02x"),
    "PERCENT": lambda key: escaped(key, "%%%02X"),
    "percent now and then": lambda key: escaped(key, "%%%02x", 3),
    "JSON": lambda key: escaped(key, "\\u%04x"),
    "JSON now and then": lambda key: escaped(key, "\\u%04X", 5),
    "JSON with escaped slashes": lambda key: key.replace("/", "\\/"),
    "base64 with escaped slashes": lambda key: base64.b64encode(key.encode()).decode().replace("/", "\\/"),
    "percent in JSON": lambda key: escaped(key, "\\u0025%02x"),
    "percent twice": lambda key: escaped(key, "%%25%02x"),
    "percent three times": lambda key: escaped(key, "%%2525%02X"),
    "JSON in JSON": lambda key: escaped(key, "\\\\u%04x", 2),
    "Python's bytes in JSON": lambda key: escaped(key, "\\\\x%02x"),
    "HTML": lambda key: escaped(key, "&#%d;"),
    "HTML with zeros": lambda key: escaped(key, "&#%04d;", 3),
    "HTML in hexadecimal": lambda key: escaped(key, "&#x%x;"),
    "HTML where needed": lambda key: "".join(one if one.isalnum() else f"&#X{ord(one):04X};" for one in key),
    "HTML in URLs": lambda key: quote(escaped(key, "&#%d;"), safe=""),
}


@pytest.mark.parametrize("key", [KEY, SLASHED, "12345678"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_secret_is_hidden_in_an_answer(form: str, key: str) -> None:
    body = f'{{"id": "job-1", "note": "before {FORMS[form](key)} behind", "n": 1}}'.encode()
    hidden = redactor(key).body(body)
    assert FORMS[form](key).encode() not in hidden
    found = json.loads(hidden)
    assert (found["id"], found["n"]) == ("job-1", 1)
    assert found["note"].startswith("before ")
    assert found["note"].endswith(" behind")
    assert key not in found["note"]
    assert key not in redactor(key).text(body.decode())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_secret_in_wide_characters_is_hidden(encoding: str) -> None:
    body = f'{{"id": "job-1", "note": "{KEY}"}}'
    assert json.loads(redactor(KEY).body(body.encode(encoding))) == {"id": "job-1", "note": HIDDEN}
    assert redactor("another-key").body(body.encode(encoding)) == body.encode(encoding)


@pytest.mark.parametrize("sign", ["\\", "%", "%25", "&#", "&#0", "\\u00", "&amp;", "\0"])
def test_looking_for_escapes_takes_time_in_proportion(sign: str) -> None:
    body = (KEY + sign * (300_000 // len(sign))).encode()
    assert HIDDEN.encode() in redactor(KEY).body(body)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "\\u0041\\u00e9", "b": "%41%25", "c": "&#65;&amp;&lt;p&gt;", "d": "C:\\\\x41\\\\u0041"}',
        '{"metric": "100%", "suffix": "a\\/b", "note": "&#321;&#x1F;"}',
    ],
)
def test_escapes_of_other_words_stay_as_they_are(text: str) -> None:
    assert redactor(KEY).body(text.encode()) == text.encode()
    assert redactor(KEY).text(text) == text


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_secret_inside_of_base64_is_hidden_and_what_is_around_it_stays(before: bytes, behind: bytes) -> None:
    encoded = base64.b64encode(before + KEY.encode() + behind)
    hidden = base64.b64decode(redactor(KEY).body(encoded), validate=True)
    assert KEY.encode() not in hidden
    assert len(hidden) == len(before + KEY.encode() + behind)
    assert hidden[: max(0, len(before) - 2)] == before[: max(0, len(before) - 2)]


@given(st.binary(max_size=300))
def test_an_answer_without_a_secret_stays_as_it_is(body: bytes) -> None:
    assert redactor("a-key-that-nobody-sends").body(body) == body


def test_tokens_that_change_do_not_make_the_other_secrets_forgotten() -> None:
    made = redactor(KEY, "a-secret-of-a-gateway")
    for number in range(300):
        made.add(f"token-{number}-of-an-hour", lasts=False)
    body = f"{KEY} a-secret-of-a-gateway token-299-of-an-hour token-298-of-an-hour".encode()
    assert made.body(body) == f"{HIDDEN} {HIDDEN} {HIDDEN} {HIDDEN}".encode()
    assert made.text("token-210-of-an-hour") == HIDDEN


def test_a_short_secret_is_hidden_in_messages_as_a_word_and_left_in_answers() -> None:
    made = redactor("key")
    assert made.text("the key monkey") == f"the {HIDDEN} monkey"
    assert made.body(b'{"key": "monkey"}') == b'{"key": "monkey"}'


@pytest.mark.thorough
def test_what_the_host_repeats_of_the_key_is_in_no_table(tmp_path: Path, world: ScriptedWorld, host: Simulator) -> None:
    echoes = {name: form(KEY) for name, form in FORMS.items()}
    world.add_job(id="ftjob-a", created_at=NOW - DAY, finished_at=NOW - DAY + 60, metadata=echoes)
    world.add_event("ftjob-a", id="event-a", message=f"Called with {KEY}", data={"header": f"Bearer {KEY}"})
    world.add_checkpoint("ftjob-a", id="ckpt-a", **{f"x{at}": echo for at, echo in enumerate(echoes.values())})
    table = f"step,note\n1,{KEY}\n".encode()
    world.add_file("file-a", base64.b64encode(table))
    world.update_job("ftjob-a", result_files=["file-a"])
    ftw = Command(tmp_path, host.base_url)
    ended = ftw("sync")
    assert ended.code == 0, ended.err
    content = json.dumps(ftw.content(), default=str)
    assert "ckpt-a" in content
    assert "event-a" in content
    for form in FORMS.values():
        assert form(KEY) not in content
    assert ftw.rows("SELECT step FROM result_metrics") == [(1,)]
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


# extra headers -------------------------------------------------------------------------------------------------------

SECRET = "pc-gateway-0123456789"


def test_extra_headers_are_sent_and_stand_in_no_error_nor_repr() -> None:
    body = json.dumps({"error": {"message": f"Wrong x-portkey-config {SECRET}.", "code": SECRET}}).encode()
    with (
        RawHost(lambda *_: [answer_with(body, status="400 Bad Request")]) as host,
        FineTuningApi(host.base_url, KEY, extra_headers={"X-Portkey-Config": SECRET, "x-team": "us"}) as api,
        pytest.raises(RequestError) as raised,
    ):
        api.get_page("/fine_tuning/jobs")
    assert f"x-portkey-config: {SECRET}" in host.requests[0]
    assert "x-team: us" in host.requests[0]
    assert SECRET not in f"{raised.value!s} {raised.value!r} {vars(raised.value)} {vars(api)!r}"


def test_extra_headers_count_for_the_identity_only_where_there_are_some() -> None:
    def identity(headers: dict[str, str] | None) -> str:
        return FineTuningApi("https://a.example.com/v1", KEY, extra_headers=headers).identity

    assert identity(None) == identity({})
    assert len({identity(None), identity({"x-a": "1"}), identity({"x-a": "2"}), identity({"x-b": "1"})}) == 4
    assert identity({"x-a": "1", "x-b": "2"}) == identity({"x-b": "2", "X-A": " 1 "})


def test_the_source_takes_extra_headers_from_the_environment_as_a_secret(
    host: Simulator, world: ScriptedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add_job()
    monkeypatch.setenv("OPENAI_EXTRA_HEADERS", json.dumps({"x-portkey-config": SECRET}))
    monkeypatch.setenv("OPENAI_ALLOW_HTTP", "true")
    pipeline = dlt.pipeline("headers", destination=dlt.destinations.duckdb("headers.duckdb"))
    pipeline.run(openai_fine_tuning(KEY, host.base_url).with_resources("jobs"))
    assert {request.headers["x-portkey-config"] for request in host.requests} == {SECRET}
    assert pipeline.last_trace is not None
    resolved = pipeline.last_trace.resolved_config_values
    assert "openai_extra_headers" in {value.key for value in resolved}
    assert SECRET not in repr(resolved)
    assert SECRET not in repr(pipeline.last_trace)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": SECRET},
        {"API-Key": SECRET},
        {"Host": SECRET},
        {"OpenAI-Project": SECRET},
        {"cookie": SECRET},
        {"content-length": "5"},
        {"x config": SECRET},
        {f"x: {SECRET}": "1"},
        {"": SECRET},
        {"x-config": ""},
        {"x-config": f"{SECRET}\r\nx: 1"},
        {"x-config": f"{SECRET}\x00"},
        {"x-config": f"{SECRET}é"},
        {"x-config": 5},
        {5: SECRET},
    ],
    ids=repr,
)
def test_extra_headers_that_cannot_be_are_refused_without_their_value(headers: dict[Any, Any]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        FineTuningApi("https://a.example.com/v1", KEY, extra_headers=headers)
    assert raised.value.setting == "extra_headers"
    assert SECRET not in str(raised.value)


# plain http ----------------------------------------------------------------------------------------------------------


def test_plain_http_to_another_machine_is_refused_by_default_and_named_each_time_it_is_used(
    host: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = host.base_url.replace("127.0.0.1", "litellm")
    with pytest.raises(ConfigurationError, match="openai_allow_http") as raised:
        FineTuningApi(url, KEY)
    assert raised.value.setting == "base_url"
    found = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, *more, **named: found("127.0.0.1", *more, **named))
    for _ in range(2):
        caplog.clear()
        with FineTuningApi(url, KEY, allow_http=True, policy=settings.RequestPolicy(max_attempts=1)) as api:
            assert not caplog.messages, "nothing was sent yet"
            api.get_page("/fine_tuning/jobs")
            api.get_page("/fine_tuning/jobs")
        (message,) = caplog.messages
        assert "openai_allow_http" in message
        assert KEY not in message
    caplog.clear()
    with FineTuningApi(host.base_url, KEY, allow_http=True) as api:
        api.get_page("/fine_tuning/jobs")
    assert not caplog.messages, "this machine"
