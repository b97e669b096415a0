"""Every host of the documentation, synced over sockets by the command with two environment variables."""

from __future__ import annotations

import base64
import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from command import Command, is_told_well
from fine_tuning_simulator import Clock, Fault, GeneratedWorld, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.environment import find_account
from fine_tuning_warehouse.errors import UsageError
from harness import HOUR, NOW

ENTRA_SECRET = "the-header-of-the-identity-endpoint"


def bare(folder: Path, **env: str) -> Command:
    """The command with these settings and no others."""
    ftw = Command(folder)
    del ftw.env["OPENAI_API_KEY"]
    ftw.env.update(env)
    return ftw


OPENAI = ("OPENAI_API_KEY", "OPENAI_BASE_URL")
AZURE = ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT")


@pytest.mark.first_only
@pytest.mark.parametrize(
    ("profile", "ending", "names"),
    [
        pytest.param("openai", "/v1", OPENAI, marks=pytest.mark.thorough),
        ("nebius", "/v1", OPENAI),
        pytest.param("azure", "", AZURE, marks=pytest.mark.thorough),
        ("azure", "?api-version=2024-10-21", AZURE),
        pytest.param("azure", "/api/projects/mine/", AZURE, marks=pytest.mark.thorough),
    ],
    ids=["openai", "nebius", "azure-v1", "azure-classic", "foundry"],
)
def test_a_host_is_checked_and_synced_with_two_variables(
    tmp_path: Path, clock: Clock, profile: str, ending: str, names: tuple[str, str]
) -> None:
    header = "api-key" if names == AZURE else "authorization"
    world = GeneratedWorld(seed=3, jobs=8, profile=profile, clock=clock)
    with Simulator(world) as host:
        root = host.base_url.removesuffix(host.profile.base_path)
        ftw = bare(tmp_path, **dict(zip(names, ("a-key-of-this-host", root + ending), strict=True)))
        checked = ftw("check")
        assert checked.code == 0, checked.all
        assert "FAILED" not in checked.all
        assert f"host from {names[1]}, key from {names[0]}" in checked.all
        assert ftw("sync", "--strict").code == 0
        assert {request.status for request in host.requests} == {200}
        assert all("a-key-of-this-host" in request.headers[header] for request in host.requests)
        other = {"authorization", "api-key"} - {header}
        assert not any(other & set(request.headers) for request in host.requests)
        if "?" in ending:
            assert {request.query["api-version"] for request in host.requests} == {"2024-10-21"}
        assert ftw.rows("SELECT id FROM jobs ORDER BY id") == sorted((job["id"],) for job in world.jobs())
        listed = {record["id"] for job in world.jobs() for record in world.checkpoints(job["id"]) or ()}
        assert {name for (name,) in ftw.rows("SELECT id FROM checkpoints")} == listed
        files = {file_id for job in world.jobs() for file_id in job.get("result_files") or ()}
        assert {name for (name,) in ftw.rows("SELECT DISTINCT file_id FROM result_metrics")} <= files
        organisations = {name for (name,) in ftw.rows("SELECT DISTINCT organization_id FROM jobs")}
        assert (profile == "openai") == all(organisations)
        again = ftw("sync", "--output", "json").json
        assert again["jobs"]["open"] < 8
        assert set(again["rows"].values()) == {0}, "nothing has changed"


def test_a_gateway_that_lists_nothing_makes_empty_tables(tmp_path: Path, world: ScriptedWorld, host: Simulator) -> None:
    world.add_job()
    empty = {"object": "list", "data": [], "has_more": False}
    host.faults.append(Fault("status", path="/jobs$", times=None, status=200, body=empty))
    ftw = bare(tmp_path, OPENAI_API_KEY="key", OPENAI_BASE_URL=host.base_url)
    assert ftw("sync", "--strict").code == 0
    assert ftw.rows("SELECT count(*) FROM jobs") == [(0,)]


# tokens of Entra -----------------------------------------------------------------------------------------------------


class Identity:
    """A managed identity's endpoint, as App Service has one on this machine."""

    def __init__(self) -> None:
        self.asked = 0
        self.resources: set[str] = set()
        self.lasts = 3600.0
        self.url = ""

    def token(self, number: int) -> str:
        """The token of the n-th request."""
        claims = json.dumps({"tid": "my-tenant", "jti": number}).encode()
        return f"eyJhbGciOiJub25lIn0.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.signature{number}"


@contextmanager
def identity_endpoint() -> Iterator[Identity]:
    """One that answers as long as the block runs."""
    identity = Identity()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["X-IDENTITY-HEADER"] == ENTRA_SECRET
            identity.asked += 1
            identity.resources.add(self.path)
            body = json.dumps(
                {
                    "access_token": identity.token(identity.asked),
                    "expires_on": str(int(time.time() + identity.lasts)),
                    "resource": "https://cognitiveservices.azure.com",
                    "token_type": "Bearer",
                }
            ).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        identity.url = f"http://127.0.0.1:{server.server_address[1]}/msi/token"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield identity
        finally:
            server.shutdown()
            thread.join()


def entra(folder: Path, host: Simulator, identity: Identity) -> Command:
    """The command with an Azure endpoint and a managed identity."""
    return bare(
        folder,
        AZURE_OPENAI_ENDPOINT=host.base_url.removesuffix("/openai/v1"),
        IDENTITY_ENDPOINT=identity.url,
        IDENTITY_HEADER=ENTRA_SECRET,
    )


@pytest.mark.nightly
@pytest.mark.engine
def test_an_endpoint_without_a_key_is_read_with_tokens_of_entra(tmp_path: Path, world: ScriptedWorld) -> None:
    pytest.importorskip("azure.identity", reason="needs the extra azure")
    for number in range(3):
        world.add_job(id=f"ftjob-{number}", created_at=NOW - (number + 30) * HOUR)
        world.add_checkpoint(f"ftjob-{number}")
    with Simulator(world, profile="azure") as host, identity_endpoint() as identity:
        ftw = entra(tmp_path, host, identity)
        checked = ftw("check")
        assert checked.code == 0, checked.all
        assert "tokens of Entra" in checked.all
        synced = ftw("sync", "--strict", "--verbose")
        assert synced.code == 0, synced.err
        sent = {request.headers["authorization"] for request in host.requests}
        assert sent == {f"Bearer {identity.token(number)}" for number in (1, 2)}, "one for each command"
        assert not any("api-key" in request.headers for request in host.requests)
        assert all("cognitiveservices.azure.com" in resource for resource in identity.resources)

        # Another token of the same tenant goes on with the same frontier.
        host.requests.clear()
        again = ftw("sync", "--output", "json")
        assert again.json["requests"] == 1

        # Refused, and about to end: a new one is asked for.
        host.requests.clear()
        host.faults.append(Fault("status", times=1, status=401, message="The token has expired."))
        assert ftw("sync").code == 0
        assert [request.key for request in host.requests] == [identity.token(4), identity.token(5)]
        identity.lasts, before = 200.0, identity.asked
        assert ftw("sync", "--full-refresh").code == 0
        assert identity.asked > before + 3

        host.faults.append(Fault("status", times=None, status=401, message="The principal lacks the data action."))
        refused = ftw("check")
        assert refused.code == 1
        assert "role Cognitive Services OpenAI User" in refused.all
        for secret in ("signature", ENTRA_SECRET):
            assert all(secret not in text for text in (checked.all, synced.all, refused.all))
            assert not any(secret.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()), (
                secret
            )


@pytest.mark.engine
def test_where_nobody_is_signed_in_it_says_how_to(tmp_path: Path, world: ScriptedWorld) -> None:
    pytest.importorskip("azure.identity", reason="needs the extra azure")
    with Simulator(world, profile="azure") as host:
        ftw = bare(
            tmp_path,
            AZURE_OPENAI_ENDPOINT=host.base_url,
            AZURE_TOKEN_CREDENTIALS="EnvironmentCredential",  # asks no machine around here
        )
        ended = ftw("sync")
        assert ended.code == 1
        assert is_told_well(ended, "signed in", "az login", "AZURE_CLIENT_SECRET", "AZURE_OPENAI_API_KEY")
        assert "signed in" in ftw("check").all
        assert host.requests == []


def test_without_azure_identity_it_says_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.cn")
    with pytest.raises(UsageError) as raised:
        find_account(None, None)
    assert "fine-tuning-warehouse[azure]" in str(raised.value)
    assert "AZURE_OPENAI_API_KEY" in str(raised.value)
