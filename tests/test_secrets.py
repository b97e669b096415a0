"""The key goes to the configured host and nowhere else: no other host, no file, no output."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from command import KEY, Command, is_told_well, wait_until
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from harness import QUICK
from histories import add_history, assert_holds, truth_of
from openai_fine_tuning import ConfigurationError, FineTuningSourceError
from openai_fine_tuning.api.client import FineTuningApi


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator) -> Command:
    """The command, with a key for the host."""
    return Command(tmp_path, host.base_url)


def key_stands_in(folder: Path) -> list[Path]:
    """Files below a folder that hold the key."""
    return [file for file in folder.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


@pytest.mark.thorough
def test_the_key_stands_nowhere_after_verbose_runs_that_fail(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    add_history(world, range(3))
    quick = {"retry-after-ms": "1", "x-echo": KEY}
    told = f"Incorrect API key provided: {KEY}. You sent 'Bearer {KEY}' and \"{KEY}\"."
    host.faults.extend(
        [
            Fault("status", path="/jobs$", times=2, status=500, message=told, headers=quick),
            Fault("html", path="/jobs$", times=1, body=f"<html>{KEY}</html>"),
            Fault("status", path="001/events$", times=None, status=403, message=told),
            Fault("status", path="002/checkpoints$", times=None, status=400, code=KEY, message=told),
            Fault("status", path="001/checkpoints$", times=None, status=404, body=told),
            Fault("html", path="000/events$", times=None, status=403, body=f"{KEY} is not JSON"),
        ]
    )
    runs = [ftw("sync", "--verbose")]
    assert runs[0].code == 0, runs[0].err
    runs.append(ftw("sync", "--output", "json"))
    host.faults[:] = [Fault("status", times=None, status=401, message=told, code="invalid_api_key")]
    runs.append(ftw("sync", "--verbose", "--full-refresh"))
    runs.append(ftw("sync", "--verbose", "--output", "json"))
    assert [run.code for run in runs] == [0, 0, 1, 1]
    host.faults[:] = [Fault("silent", path="/events$", times=None)]
    with ftw.start("sync", "--verbose", "--full-refresh") as running:
        wait_until(lambda: host.faults[0].hits)
        assert KEY not in Path(f"/proc/{running.process.pid}/cmdline").read_text() if os.name == "posix" else True
        running.signal(signal.SIGKILL)
        runs.append(running.end())
    assert list(ftw.temporary.glob("*/sync-*")), "what the killed sync left is looked through too"
    for run in runs:
        assert KEY not in run.all
    assert key_stands_in(tmp_path) == []
    assert KEY not in json.dumps(ftw.content(), default=str)
    host.faults.clear()
    assert ftw("sync").code == 0
    assert_holds(ftw.rows, truth_of(world))
    assert key_stands_in(tmp_path) == []
    assert {request.key for request in host.requests} == {KEY}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("html", times=None, body=f"{KEY} is no JSON"),
        Fault("html", times=None, body=f"{'x' * 50}{KEY} is no JSON"),
        Fault("status", times=None, status=400, code=KEY, message="No."),
        Fault("status", times=None, status=400, message=f"{'x' * 280}{KEY}"),
        Fault("status", times=None, status=400, message=f"_{KEY}_ {KEY}x key={KEY}"),
        Fault("status", times=None, status=429, code=KEY, headers={"retry-after": KEY}),
        Fault("redirect", times=None, location=f"http://{KEY}.example.com/"),
        Fault("redirect", times=None, location=f"http://{KEY}:{KEY}@example.com/?key={KEY}"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.details}".replace(KEY, "KEY")[:60],
)
def test_no_error_says_the_key_whatever_the_host_echoes(host: Simulator, fault: Fault) -> None:
    host.faults.append(fault)
    api = FineTuningApi(host.base_url, KEY, policy=QUICK)
    try:
        with pytest.raises(FineTuningSourceError) as raised:
            api.get_page("/fine_tuning/jobs")
    finally:
        api.close()
    told = f"{raised.value!s} {raised.value!r} {vars(raised.value)}".lower()
    assert KEY[:16].lower() not in told


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_host_is_not_followed(
    world: ScriptedWorld, host: Simulator, ftw: Command, status: int
) -> None:
    add_history(world, range(1))
    with Simulator(world) as other:
        target = other.base_url.replace("127.0.0.1", "localhost") if status == 302 else other.base_url
        host.faults.append(
            Fault("redirect", path="/jobs$", times=None, status=status, location=f"{target}/fine_tuning/jobs")
        )
        ended = ftw("sync")
        assert other.requests == []
        assert other.connections == 0
    assert ended.code == 1
    assert is_told_well(ended, "redirects to", urlsplit(target).hostname or "")


@pytest.mark.thorough
def test_a_redirect_within_the_host_is_followed_and_one_in_a_circle_ends(
    world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    add_history(world, range(1))
    host.faults.append(Fault("redirect", path="/jobs$", times=1, location="/v1/fine_tuning/jobs?limit=100"))
    assert ftw("sync", "--strict").code == 0
    assert_holds(ftw.rows, truth_of(world))
    before = len(host.requests)
    host.faults[:] = [Fault("redirect", path="/jobs$", times=None, location="/v1/fine_tuning/jobs")]
    assert ftw("sync").code == 1
    assert len(host.requests) - before < 30


# certificates --------------------------------------------------------------------------------------------------------


@contextmanager
def self_signed(folder: Path) -> Iterator[tuple[int, list[str]]]:
    """An https server whose certificate no one vouches for: its port, and the keys that it was sent."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("authorization", ""))
            body = b'{"object": "list", "data": [], "has_more": false}'
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *arguments: Any) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1], seen
        finally:
            server.shutdown()
            thread.join()


def test_a_certificate_that_no_one_vouches_for_is_refused(tmp_path: Path, ftw: Command) -> None:
    with self_signed(tmp_path) as (port, seen):
        ended = ftw("sync", "--base-url", f"https://127.0.0.1:{port}/v1")
        assert ended.code == 1
        assert is_told_well(ended, "certificate", f"https://127.0.0.1:{port}/v1")
        assert seen == []


def test_a_url_with_a_password_or_without_https_is_refused(host: Simulator, ftw: Command) -> None:
    port = urlsplit(host.base_url).port
    for url in (
        f"http://me:secret@127.0.0.1:{port}/v1",
        f"http://secret@127.0.0.1:{port}/v1",
        "http://127.0.0.1.nip.io/v1",
        "http://[::ffff:8.8.8.8]/v1",
        "http://localhost.example.com/v1",
        "ftp://127.0.0.1/v1",
        "http:///v1",
    ):
        with pytest.raises(ConfigurationError) as raised:
            FineTuningApi(url, KEY)
        assert "secret" not in str(raised.value)
    ended = ftw("sync", "--base-url", f"http://me:secret@127.0.0.1:{port}/v1")
    assert ended.code == 2
    assert is_told_well(ended, "password")
    assert "secret" not in ended.err
    assert host.requests == []


# other hosts ---------------------------------------------------------------------------------------------------------

AUDIT = """
import sys

def _hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        with open({log!r}, "a") as log:
            log.write(repr((event, arguments[1] if event == "socket.connect" else arguments[:2])) + "\\n")

sys.addaudithook(_hook)
"""


@pytest.mark.first_only
@pytest.mark.parametrize("demo", [False, True], ids=["sync", "demo"])
def test_no_other_host_is_connected_to(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ftw: Command, demo: bool
) -> None:
    add_history(world, range(2))
    site, log = tmp_path / "site", tmp_path / "connections"
    site.mkdir()
    (site / "sitecustomize.py").write_text(AUDIT.format(log=str(log)))
    ended = ftw("sync", *(["--demo"] if demo else []), "--verbose", env={"PYTHONPATH": str(site)})
    assert ended.code == 0, ended.err
    lines = set(log.read_text().splitlines())
    port = str(urlsplit(host.base_url).port)
    assert lines
    for line in lines:
        assert "'127.0.0.1'" in line, lines
        assert demo or port in line, lines


@pytest.mark.thorough
def test_no_other_host_is_connected_to_below_python_either(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, ftw: Command
) -> None:
    strace = shutil.which("strace")
    if strace is None or sys.platform != "linux":
        pytest.skip("needs strace, to see what libraries connect to")
    add_history(world, range(1))
    log = tmp_path / "connections"
    ftw.warm = False  # so that it is traced before it connects
    with ftw.start("sync", "--quiet", env={"STRACE": strace}) as running:
        traced = subprocess.run(
            [strace, "-f", "-qq", "-e", "trace=connect", "-o", str(log), "-p", str(running.process.pid)],
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert running.end().code == 0
    if traced.returncode and not log.exists():
        pytest.skip(f"may not trace here: {traced.stderr.decode().strip()}")
    connects = [line for line in log.read_text().splitlines() if "AF_INET" in line]
    assert connects
    for line in connects:
        assert f"sin_port=htons({urlsplit(host.base_url).port})" in line
        assert '"127.0.0.1"' in line


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'could not translate host name "t-PART2@localhost" to address: Name or service not known',
            (
                'could not translate host name "...@localhost" to address: Name or service not known (ValueError). '
                "In a URL, an @ of a password is written as %40"
            ),
        ),
        ("no route to postgresql://me:PART2@there/db", "no route to postgresql://me:...@there/db (ValueError)"),
        ("connection to host there failed: password=PART2 user=me", "connection to host there failed: password=... "),
    ],
)
def test_no_part_of_a_password_of_a_destination_is_told(said: str, told: str) -> None:
    from fine_tuning_warehouse.warehouses.errors import without_secrets

    words = without_secrets(ValueError(said))
    assert words.startswith(told)
    assert "PART2" not in words


@pytest.mark.engine
def test_a_password_with_an_at_sign_is_not_told_as_a_host(
    ftw: Command, host: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg2")
    credentials = "postgresql://loader:s3cr@t-PART2@localhost:1/analytics"
    ended = ftw("sync", "--destination", "postgres", env={"DESTINATION__POSTGRES__CREDENTIALS": credentials})
    assert ended.code == 1
    assert "%40" in ended.err
    assert "PART2" not in ended.all
