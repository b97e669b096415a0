"""Who may ask, and what the errors look like."""

from collections.abc import Callable, Iterator

import pytest
import requests

from fine_tuning_simulator import FILES_SCOPE, JOBS_SCOPE, ScriptedWorld, Simulator

Get = Callable[..., requests.Response]


@pytest.fixture
def guarded() -> Iterator[Simulator]:
    keys = {
        "all": frozenset[str](),
        "no-files": frozenset({FILES_SCOPE}),
        "no-jobs": frozenset({JOBS_SCOPE}),
    }
    with Simulator(ScriptedWorld(), api_keys=keys) as running:
        yield running


@pytest.fixture
def plain() -> Iterator[Simulator]:
    world = ScriptedWorld()
    world.add_job(id="ftjob-1")
    with Simulator(world) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic eA=="}, {"api-key": "x"}]
)
def test_no_key_is_401(plain: Simulator, get: Get, headers: dict[str, str]) -> None:
    answer = get(plain, "/fine_tuning/jobs", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_azure_takes_either_header(get: Get) -> None:
    with Simulator(ScriptedWorld(), profile="azure") as running:
        for headers in ({"api-key": "x"}, bearer("x")):
            assert get(running, "/fine_tuning/jobs", headers=headers).status_code == 200
        assert get(running, "/fine_tuning/jobs", headers={}).status_code == 401
        assert [request.key for request in running.requests] == ["x", "x", ""]


def test_an_unknown_key_is_401_and_is_not_repeated(guarded: Simulator, get: Get) -> None:
    answer = get(guarded, "/fine_tuning/jobs", headers=bearer("a-secret-that-nobody-knows"))
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "that-nobody-knows" not in answer.text


@pytest.mark.parametrize(
    ("key", "path", "scope"),
    [("no-files", "/files", "api.files.read"), ("no-jobs", "/fine_tuning/jobs", "api.fine_tuning.jobs.read")],
)
def test_a_missing_scope_is_401_and_named(guarded: Simulator, get: Get, key: str, path: str, scope: str) -> None:
    answer = get(guarded, path, headers=bearer(key))
    assert answer.status_code == 401
    assert f"Missing scopes: {scope}" in answer.json()["error"]["message"]
    assert get(guarded, path, headers=bearer("all")).status_code == 200


def test_an_unknown_path_is_an_invalid_url(plain: Simulator, get: Get) -> None:
    answer = get(plain, "/nothing/here")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "Invalid URL (GET /v1/nothing/here)"
    assert get(plain, "/nothing/here", headers={}).status_code == 401


@pytest.mark.parametrize("child", ["", "/checkpoints", "/events"])
def test_an_unknown_job_is_404(plain: Simulator, get: Get, child: str) -> None:
    answer = get(plain, f"/fine_tuning/jobs/ftjob-none{child}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "fine_tune_not_found"
    assert answer.json()["error"]["param"] == "fine_tune_id"


@pytest.mark.parametrize("path", ["/files/file-none", "/files/file-none/content"])
def test_an_unknown_file_is_404(plain: Simulator, get: Get, path: str) -> None:
    answer = get(plain, path)
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "id"


@pytest.mark.parametrize("path", ["/fine_tuning/jobs", "/fine_tuning/jobs/ftjob-1/events", "/files"])
def test_an_unknown_cursor_is_404(plain: Simulator, get: Get, path: str) -> None:
    answer = get(plain, path, params={"after": "nothing"})
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "after"


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/fine_tuning/jobs", "0"), ("/fine_tuning/jobs", "many"), ("/files", "10001"), ("/files", "-1")],
)
def test_a_bad_limit_is_400(plain: Simulator, get: Get, path: str, limit: str) -> None:
    assert get(plain, path, params={"limit": limit}).status_code == 400


def test_an_order_that_there_is_not_is_400(plain: Simulator, get: Get) -> None:
    answer = get(plain, "/files", params={"order": "newest"})
    assert answer.status_code == 400
    assert "newest" in answer.json()["error"]["message"]


def test_the_simulator_only_reads(plain: Simulator) -> None:
    answer = requests.post(f"{plain.base_url}/fine_tuning/jobs", headers=bearer("x"), timeout=10)
    assert answer.status_code == 405
    assert "error" in answer.json()
