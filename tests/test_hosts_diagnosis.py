"""What `ftw check` says of each thing that can be wrong: which it is, and which setting is to be changed."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import ENTRA, Account
from fine_tuning_warehouse.accounts.diagnosis import advice_on_resource, diagnose
from fine_tuning_warehouse.accounts.lookup import SOURCE
from fine_tuning_warehouse.check import Finding, check
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.postgres import PostgreSql
from harness import HOUR, NOW, QUICK
from openai_fine_tuning import RequestError

ORIGINS = {"base_url": "MY_URL", "api_key": "MY_KEY", "org_id": "MY_ORG", "project_id": "MY_PROJECT"}


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    world.add_file("file-result", b"step,train_loss\n1,0.5\n")
    world.add_job(id="ftjob-1", created_at=NOW - 30 * HOUR, result_files=["file-result"])
    world.add_checkpoint("ftjob-1")
    world.add_event("ftjob-1")


@pytest.fixture
def azure(world: ScriptedWorld) -> Iterator[Simulator]:
    """The same history on Azure."""
    with Simulator(world, profile="azure") as simulator:
        yield simulator


def findings(account: Account) -> dict[str, Finding]:
    """What a check finds, by part."""
    return {finding.what: finding for _, finding in check([account], DuckDb(Path("w.duckdb")))}


def of(base_url: str, **settings: Any) -> Account:
    """An account whose settings were found in variables of ours."""
    return Account("default", "my-key", base_url, locations=ORIGINS, policy=QUICK, **settings)


def failure(account: Account) -> str:
    """The words of the one part that failed."""
    failed = [finding for finding in findings(account).values() if finding.is_fine is False]
    assert len(failed) == 1, failed
    assert "my-key" not in failed[0].words
    return failed[0].words


def test_where_all_is_well_each_part_is_named_with_the_settings_and_costs_one_request(host: Simulator) -> None:
    found = findings(of(host.base_url, org_id="org", project_id="proj"))
    assert list(found) == [
        *("settings", "host", "jobs", "checkpoints", "events", "result_metrics", "files", "models", "destination")
    ]
    assert all(finding.is_fine for finding in found.values())
    for origin in ORIGINS.values():
        assert origin in found["settings"].words
    assert len(host.requests) == 6
    assert "OPENAI_API_KEY" in findings(replace(of(host.base_url), locations={}))["settings"].words


@pytest.mark.parametrize("wrong", ["", "/v1/v1", "/v1/chat/completions", "/api", "/v1/fine_tuning/jobs"])
def test_a_wrong_path_is_named_with_the_one_that_answers(host: Simulator, wrong: str) -> None:
    words = failure(of(host.base_url.removesuffix("/v1") + wrong))
    assert f"{host.base_url} answers" in words
    assert "MY_URL" in words
    assert len(host.requests) <= 5


@pytest.mark.parametrize("wrong", ["", "/v1", "/openai/v2"])
def test_a_wrong_path_on_azure_is_named_with_the_one_that_answers(azure: Simulator, wrong: str) -> None:
    words = failure(of(azure.base_url.removesuffix("/openai/v1") + wrong))
    assert f"{azure.base_url} answers" in words
    assert "MY_URL" in words


def test_a_path_that_is_nowhere_says_what_paths_look_like(host: Simulator) -> None:
    host.faults.append(Fault("status", times=None, status=404, body={"error": {"message": "Invalid URL"}}))
    assert "/openai/v1 on Azure" in failure(of(host.base_url))


@pytest.mark.parametrize(
    ("ending", "answers"),
    [
        ("/openai", "/openai?api-version=2024-10-21"),
        ("/openai?api-version=2023-05-15", "/openai?api-version=2024-10-21"),
        ("/openai/v1?api-version=2024-10-21", "/openai/v1"),
    ],
)
def test_a_version_that_is_missing_or_not_known_is_named(azure: Simulator, ending: str, answers: str) -> None:
    root = azure.base_url.removesuffix("/openai/v1")
    words = failure(of(root + ending))
    assert f"{root}{answers} answers" in words
    assert "api-version" in words
    assert words.endswith("Change MY_URL.")
    azure.faults[:] = [Fault("status", times=None, status=404, message="Nothing here.")]
    assert "/openai/v1 on Azure's. Check MY_URL." in failure(of(root + ending))
    azure.faults[:] = [Fault("status", times=None, status=400, message="API version not supported")]
    assert failure(of(root + ending)).endswith("Check the api-version in MY_URL, such as 2024-10-21.")
    azure.faults.clear()
    elsewhere = replace(of(root + ending), locations={**ORIGINS, "api_version": "MY_VERSION"})
    assert failure(elsewhere).endswith("Change MY_VERSION.")


def test_a_wrong_key_is_named_and_so_is_one_in_the_wrong_header(world: ScriptedWorld, azure: Simulator) -> None:
    with Simulator(world, api_keys={"another": frozenset()}) as host:
        words = failure(of(host.base_url))
        assert "MY_KEY" in words
        assert "refused" in words
    with Simulator(world) as host:
        words = failure(of(host.base_url, auth="api-key"))
        assert "OPENAI_AUTH=bearer" in words
    azure.faults.append(
        Fault("status", times=2, status=401, body={"statusCode": 401, "message": "Access token is missing, invalid."})
    )
    assert "MY_KEY" in failure(of(azure.base_url, auth="bearer"))
    azure.faults[:] = [Fault("status", times=None, status=401, message="Your IP is not authorized to access this.")]
    assert failure(of(azure.base_url)).endswith("The key in MY_KEY may not be used from this address (IP).")


def test_on_the_hosts_of_azure_a_key_of_openai_is_known_by_its_looks_and_a_token_needs_a_role() -> None:
    account = of("https://mine.openai.azure.com/openai/v1")
    refused = RequestError("It answered 401", url=account.base_url, status=401, detail="Access denied.")
    assert "looks like one of OpenAI" in diagnose(replace(account, api_key="sk-any"), refused, tries=False)
    assert "AZURE_TENANT_ID" in diagnose(replace(account, auth=ENTRA), refused, tries=False)
    lacking = RequestError("It answered 403", url=account.base_url, status=403, detail="Insufficient permissions.")
    for words in (diagnose(replace(account, auth=ENTRA), lacking, tries=False), advice_on_resource(account, lacking)):
        assert words.startswith("It answered 403. Give ")
    assert "the role" in advice_on_resource(replace(account, auth=ENTRA), lacking)


LITELLM = "Invalid request, No litellm managed file id or custom_llm_provider provided."


@pytest.mark.parametrize(
    ("account", "status", "code", "detail", "advice"),
    [
        ({}, None, None, "Name or service not known", ["There is no host host.example.com", "MY_URL", "DNS"]),
        ({}, None, None, "Connection refused", ["Is the host up", "MY_URL"]),
        ({}, 200, None, "", ["Is this the address of the API?", "MY_URL"]),
        ({}, 302, None, "", ["Check MY_URL."]),
        ({}, 400, None, LITELLM, ["LiteLLM", "MY_URL", "https://host.example.com/openai_passthrough/v1."]),
        ({}, 500, None, "You must be a LiteLLM Enterprise user to use this feature.", ["openai_passthrough"]),
        (
            {"base_url": "https://host.example.com/x?a-key=s"},
            400,
            None,
            LITELLM,
            ["/x/openai_passthrough/v1?a-key=..."],
        ),
        ({}, 401, "incorrect_hostname", "Ask another host.", ["set MY_URL to that of its region"]),
        ({}, 404, None, "Not Found", ["ends in /v1 on most hosts", "MY_URL"]),
        ({}, 400, None, "API version not supported", ["Check the api-version in MY_URL"]),
        ({}, 401, None, "Missing scopes: api.fine_tuning.jobs.read", ["Give the key of MY_KEY the scopes"]),
        ({"org_id": "o"}, 401, "mismatched_organization", "", ["the organization in MY_ORG"]),
        ({"project_id": "p"}, 401, None, "No such project.", ["the project in MY_PROJECT"]),
        ({}, 401, "invalid_api_key", "Incorrect API key", ["The key was refused: check MY_KEY", "MY_URL"]),
        ({}, 401, None, "This IP is not allowed.", ["The key in MY_KEY may not be used from this address"]),
        ({}, 403, None, "No.", ["does not let it read", "MY_KEY"]),
    ],
)
def test_a_failure_leads_to_the_setting_to_change(
    account: dict[str, Any], status: int | None, code: str | None, detail: str, advice: list[str]
) -> None:
    broken = replace(of("https://host.example.com/v1"), **account)
    error = RequestError("It failed.", url=broken.base_url, status=status, code=code, detail=detail)
    words = diagnose(broken, error, tries=False)
    assert words.startswith("It failed. ")
    for word in advice:
        assert word in words


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("Attempted to access resource with incorrect regional hostname. Use us.api.openai.com.", "us.api.openai.com"),
        ("Please use evil.example.com.", None),
    ],
)
def test_the_host_of_another_region_is_named(host: Simulator, message: str, named: str | None) -> None:
    host.faults.append(Fault("status", times=None, status=401, code="incorrect_hostname", message=message))
    words = failure(of(host.base_url))
    assert f"set MY_URL to {f'https://{named}/v1' if named else 'that of its region'}" in words
    assert "MY_KEY" not in words


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": LITELLM, "type": "None", "param": "None", "code": "400"}}),
        (400, {"detail": {"error": LITELLM}}),
        (422, {"detail": [{"type": "missing", "loc": ["query", "custom_llm_provider"], "msg": "Field required"}]}),
        (200, {"object": "list", "data": None, "error": {"message": LITELLM}}),
    ],
)
def test_litellms_own_routes_are_recognised_and_its_pass_through_is_named(
    host: Simulator, status: int, body: dict[str, Any]
) -> None:
    host.faults.append(Fault("status", times=None, status=status, body=body))
    pass_through = host.base_url.removesuffix("/v1") + "/openai_passthrough/v1"
    assert f"set MY_URL to its pass-through, {pass_through}." in failure(of(host.base_url))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, which makes a certificate")
def test_a_certificate_that_nobody_knows_is_told_as_one_of_a_proxy(tmp_path: Path) -> None:
    made = [tmp_path / "key.pem", tmp_path / "certificate.pem"]
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=proxy"),
            *("-keyout", made[0], "-out", made[1]),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made[1], made[0])

    def greet() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    context.wrap_socket(connection, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        threading.Thread(target=greet, daemon=True).start()
        words = failure(of(f"https://127.0.0.1:{listener.getsockname()[1]}/v1"))
    assert "REQUESTS_CA_BUNDLE" in words
    assert words.endswith("The key was not sent.")


@pytest.mark.parametrize(
    ("message", "code", "named"),
    [
        ("OpenAI-Organization header should match organization for API key", "mismatched_organization", "MY_ORG"),
        ("OpenAI-Project header should match project for API key", "mismatched_project", "MY_PROJECT"),
    ],
)
def test_an_organisation_or_project_of_someone_else_is_named(
    host: Simulator, message: str, code: str, named: str
) -> None:
    host.faults.append(Fault("status", times=None, status=401, message=message, code=code))
    words = failure(of(host.base_url, org_id="org-1", project_id="proj_1"))
    assert f"in {named}" in words


def test_a_key_without_permission_is_told_from_one_that_is_unknown(host: Simulator) -> None:
    host.faults.append(Fault("status", times=None, status=403, message="Public access is disabled."))
    words = failure(of(host.base_url))
    assert "MY_KEY" in words
    assert "firewall" in words


def test_a_page_of_a_proxy_or_a_website_is_told_as_one(host: Simulator) -> None:
    host.faults.append(Fault("html", times=None, body="<html>Please log in to the network</html>"))
    assert "log-in" in failure(of(host.base_url))
    host.faults[:] = [Fault("status", times=None, status=200, body={"hello": "world"})]
    assert "MY_URL" in failure(of(host.base_url))
    host.faults[:] = [Fault("redirect", times=None, location="https://login.example.com/")]
    assert "login.example.com" in failure(of(host.base_url))


def test_a_host_that_does_not_exist_or_is_down_or_behind_a_proxy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    words = failure(of("https://api.openai.invalid/v1"))
    assert "no host api.openai.invalid" in words
    assert "MY_URL" in words
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert "host up" in failure(of(f"http://127.0.0.1:{port}/v1"))
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@127.0.0.1:{port}")
    words = failure(of("https://api.openai.invalid/v1"))
    assert "HTTPS_PROXY" in words
    assert "secret" not in words


def test_what_speaks_no_https_and_a_proxy_that_cannot_be_asked_are_told_at_once(
    host: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = failure(of(host.base_url.replace("http:", "https:")))
    assert "does not speak https" in words
    assert "certificate" not in words
    assert "MY_URL" in words
    for proxy, why in (("socks5://me:secret@127.0.0.1:9", "PySocks"), ("127.0.0.1:9:secret", "proxy, is not valid")):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        words = failure(of("https://api.openai.invalid/v1"))
        assert why in words
        assert "HTTPS_PROXY" in words
        assert "secret" not in words


def test_a_destination_that_is_not_set_up_is_told_as_a_sync_tells_it(host: Simulator) -> None:
    found = {finding.what: finding for _, finding in check([of(host.base_url)], PostgreSql())}
    assert found["destination"].is_fine is False
    assert "DESTINATION__POSTGRES__CREDENTIALS" in found["destination"].words


def test_an_endpoint_or_scope_that_is_missing_is_told_apart_from_the_rest(host: Simulator) -> None:
    host.faults.append(Fault("status", path="/events$", times=None, status=404, body={"detail": "Not Found"}))
    assert "no such endpoint" in failure(of(host.base_url))
    host.faults[:] = [Fault("status", path="/events$", times=None, status=403, message="Not yours.")]
    assert failure(of(host.base_url)).endswith("The key may read jobs, but not this: check what it is restricted to.")
    host.faults[:] = [Fault("status", path="/events$", times=None, status=500, message="Broken here.")]
    assert failure(of(host.base_url)).endswith("Broken here.")


def test_a_gateway_that_always_answers_an_empty_list_is_told(host: Simulator) -> None:
    empty = {"object": "list", "data": [], "has_more": False}
    host.faults.append(Fault("status", path="/jobs$", times=None, status=200, body=empty))
    found = findings(of(host.base_url))
    assert found["jobs"].is_fine
    assert "gateways" in found["jobs"].words
    assert found["checkpoints"].is_fine is None


def test_what_a_configured_account_lacks_belongs_into_its_section(host: Simulator) -> None:
    section = "[sources.openai_fine_tuning.accounts.mine]"
    account = replace(of(host.base_url), locations={"api_key": "MY_KEY"}, section=(*SOURCE, "accounts", "mine"))
    host.faults.append(Fault("status", times=None, status=404))
    assert f"openai_base_url under {section}" in failure(account)
