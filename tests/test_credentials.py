"""Keys and tokens: the header they go in, a fresh token where one is refused, and none of them in any text."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import dlt
import pytest

from command import KEY
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from harness import QUICK
from openai_fine_tuning import (
    ConfigurationError,
    HostError,
    RequestError,
    openai_fine_tuning,
)
from openai_fine_tuning.api.auth import Credential, chosen_scheme
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.api.redaction import Redactor
from openai_fine_tuning.api.urls import JOBS_PATH


def token(number: int = 0, **claims: str) -> str:
    """A token that looks like those of an identity provider."""
    body = base64.urlsafe_b64encode(json.dumps({"jti": number, **claims}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{body}.signature{number}"


class Tokens:
    """A provider whose tokens are good until it is told to forget them."""

    def __init__(self) -> None:
        self.number = 0
        self.asked_at_once = 0
        self._asking = threading.Lock()

    def __call__(self) -> str:
        if not self._asking.acquire(blocking=False):
            self.asked_at_once += 1
            return token(self.number)
        time.sleep(0.001)
        self._asking.release()
        return token(self.number)

    def forget(self) -> None:
        self.number += 1


def jobs(host: Simulator, key: str | Callable[[], str], auth: str | None = None) -> FineTuningApi:
    """Asks for the jobs once; returns what asked."""
    api = FineTuningApi(host.base_url, key, auth=auth, policy=QUICK)
    try:
        api.get_page(JOBS_PATH)
    finally:
        api.close()
    return api


@pytest.mark.parametrize(
    ("host", "scheme"),
    [
        ("api.openai.com", "bearer"),
        ("api.tokenfactory.nebius.com", "bearer"),
        ("gateway.example.com", "bearer"),
        ("mine.openai.azure.com", "api-key"),
        ("MINE.OpenAI.Azure.com", "api-key"),
        ("mine.services.ai.azure.com", "api-key"),
        ("mine.cognitiveservices.azure.com", "api-key"),
        ("mine.openai.azure.us", "api-key"),
        ("mine.openai.azure.cn", "api-key"),
        ("mine.openai.azure.com.example.com", "bearer"),
        ("openai.azure.com.evil", "bearer"),
    ],
)
def test_a_key_goes_as_the_host_takes_it_and_a_token_always_as_bearer(host: str, scheme: str) -> None:
    assert chosen_scheme(None, host=host, is_token=False) == scheme
    assert chosen_scheme(None, host=host, is_token=True) == "bearer"
    for told in ("bearer", "api-key"):
        assert chosen_scheme(told, host=host, is_token=False) == told


def test_a_way_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="basic"):
        FineTuningApi("https://api.openai.com/v1", "key", auth="basic")
    with pytest.raises(ConfigurationError, match="bearer"):
        FineTuningApi("https://api.openai.com/v1", lambda: "token", auth="api-key")


def test_the_key_goes_in_the_header_that_is_asked_for_and_in_no_other(host: Simulator) -> None:
    host.faults.append(Fault("status", times=None, status=200, body={"object": "list", "data": []}))
    for auth, name, value in (
        (None, "authorization", f"Bearer {KEY}"),
        ("bearer", "authorization", f"Bearer {KEY}"),
        ("api-key", "api-key", KEY),
    ):
        host.requests.clear()
        jobs(host, KEY, auth)
        (request,) = host.requests
        assert {n: v for n, v in request.headers.items() if KEY in v} == {name: value}


def test_a_refused_token_is_replaced_once_and_the_request_sent_again(host: Simulator) -> None:
    tokens = Tokens()
    host.faults.append(Fault("status", times=1, status=401, message="The token has expired."))
    api = jobs(host, tokens)
    assert [request.key for request in host.requests] == [token(0), token(1)]
    assert api.requests == 2

    host.requests.clear()
    host.faults[:] = [Fault("status", times=None, status=401, message="The token has expired.")]
    with pytest.raises(RequestError) as raised:
        jobs(host, tokens)
    assert raised.value.status == 401
    assert [request.key for request in host.requests] == [token(1), token(2)]


def test_a_refused_key_is_not_sent_again_nor_is_a_token_that_stays_the_same(host: Simulator) -> None:
    host.faults.append(Fault("status", times=None, status=401))
    for key in (KEY, lambda: KEY):
        host.requests.clear()
        with pytest.raises(RequestError):
            jobs(host, key)
        assert len(host.requests) == 1


def test_many_threads_get_one_new_token_when_theirs_is_refused(world: ScriptedWorld) -> None:
    tokens = Tokens()
    with Simulator(world, api_keys={token(1): frozenset()}) as host:
        api = FineTuningApi(host.base_url, tokens)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: api.get_page(JOBS_PATH), range(40)))
        api.close()
    assert tokens.number == 1
    assert tokens.asked_at_once == 0


def test_a_token_that_several_requests_find_refused_is_forgotten_once() -> None:
    tokens = Tokens()
    allowed = ("http", "127.0.0.1", 80)
    credential = Credential(tokens, "bearer", allowed=allowed, headers={}, redactor=Redactor())
    refused = credential.headers_for("http://127.0.0.1/v1")
    found: list[bool] = []
    real = credential.secret

    def late() -> str:
        # The second request learns of the refusal after the first forgot the token, and before it has a new one.
        credential.secret = real  # type: ignore[method-assign]
        found.append(credential.renew(refused))
        return real()

    credential.secret = late  # type: ignore[method-assign]
    found.append(credential.renew(refused))
    assert found == [True, True]
    assert tokens.number == 1


def test_no_error_says_a_token_neither_the_present_nor_a_past_one(host: Simulator) -> None:
    words = f"Not these: {token(0)} {token(1)} Bearer {token(1)}"
    host.faults.append(Fault("status", times=None, status=401, message=words, code=token(0)))
    with pytest.raises(RequestError) as raised:
        jobs(host, Tokens())
    told = f"{raised.value!s} {raised.value!r} {vars(raised.value)}"
    assert "signature" not in told
    assert "[key]" in told


def test_a_provider_that_fails_is_told_without_what_it_was_about_to_say(host: Simulator) -> None:
    given = iter([token(0)])

    def provider() -> str:
        for one in given:
            return one
        raise RuntimeError(f"no token after {token(0)}\n  line two")

    api = FineTuningApi(host.base_url, provider)
    try:
        api.get_page(JOBS_PATH)
        with pytest.raises(HostError, match="no token") as raised:
            api.get_page(JOBS_PATH)
    finally:
        api.close()
    assert "signature" not in str(raised.value)
    assert "\n" not in str(raised.value)
    for nothing in ("", "two words", "line\nbreak", None):
        with pytest.raises(HostError, match="no token"):
            jobs(host, lambda nothing=nothing: nothing)  # type: ignore[misc]
    assert len(host.requests) == 1


def test_the_fingerprint_is_of_the_key_or_of_the_tenant_and_of_organisation_and_project() -> None:
    def identity(key: str | Callable[[], str], url: str = "https://a.example.com/v1", **headers: str) -> str:
        return FineTuningApi(url, key, **headers).identity  # type: ignore[arg-type]

    assert identity("one") == identity("one", auth="api-key") != identity("two")
    assert identity("one") != identity("one", "https://b.example.com/v1")
    assert identity(lambda: token(1, tid="t1")) == identity(lambda: token(2, tid="t1"))
    assert identity(lambda: token(1, tid="t1")) != identity(lambda: token(1, tid="t2"))
    assert identity(lambda: token(1, iss="i", sub="s")) == identity(lambda: token(2, iss="i", sub="s"))
    assert identity(lambda: token(1, iss="i", sub="s")) != identity(lambda: token(1, iss="i", sub="t"))
    assert identity(lambda: "opaque-1") == identity(lambda: "opaque-2") != identity("opaque-1")
    assert len({identity("one"), identity("one", org_id="o"), identity("one", project_id="o")}) == 3
    assert identity("one", org_id="", project_id="") == identity("one")


def test_a_dlt_user_may_hand_over_a_function_that_gives_tokens(world: ScriptedWorld, host: Simulator) -> None:
    world.add_job()
    tokens = Tokens()
    pipeline = dlt.pipeline("tokens", destination=dlt.destinations.duckdb("tokens.duckdb"), dataset_name="tuning")
    pipeline.run(openai_fine_tuning(tokens, host.base_url))
    assert {request.headers["authorization"] for request in host.requests} == {f"Bearer {token(0)}"}
    host.requests.clear()
    pipeline.run(openai_fine_tuning(tokens, host.base_url, openai_auth="bearer").with_resources("jobs"))
    assert len(host.requests) == 1, "the same frontier"
