"""Whose certificates are trusted: the variables of OpenSSL and of requests, and the operating system's store."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openai_fine_tuning import ConfigurationError, HostError, settings
from openai_fine_tuning.api import connection
from openai_fine_tuning.api.client import FineTuningApi
from raw_host import EMPTY_PAGE


def openssl(*arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True).stdout


class Authority:
    """An authority of a company, and a server on this machine that it vouches for.

    Attributes:
        file: Its certificate.
        folder: A folder with its certificate under the name that OpenSSL looks for.
        url: The server's base URL.
        keys: What the server was sent.
    """

    def __init__(self, folder: Path) -> None:
        self.file, key = folder / "authority.pem", folder / "authority.key"
        made, asked, server_key = folder / "server.pem", folder / "server.csr", folder / "server.key"
        new = ("req", "-newkey", "rsa:2048", "-nodes")
        openssl(
            *new, "-x509", "-days", "2", "-subj", "/CN=A company", "-keyout", str(key), "-out", str(self.file),
            "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip
        openssl(*new, "-subj", "/CN=localhost", "-keyout", str(server_key), "-out", str(asked))
        (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl(
            "x509", "-req", "-in", str(asked), "-CA", str(self.file), "-CAkey", str(key), "-CAcreateserial",
            "-days", "2", "-extfile", str(folder / "extensions"), "-out", str(made),
        )  # fmt: skip
        self.folder = folder / "hashed"
        self.folder.mkdir()
        digest = openssl("x509", "-hash", "-noout", "-in", str(self.file)).strip()
        (self.folder / f"{digest}.0").write_bytes(self.file.read_bytes())
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(made, server_key)
        self.url = ""
        self.keys: list[str] = []


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    try:
        openssl("version")
    except OSError:
        pytest.skip("needs openssl to make certificates")
    made = Authority(tmp_path_factory.mktemp("authority"))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.keys.append(self.headers.get("authorization", ""))
            self.send_response(200)
            self.send_header("content-length", str(len(EMPTY_PAGE)))
            self.end_headers()
            self.wfile.write(EMPTY_PAGE)

        def log_message(self, *arguments: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *arguments: Any) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = made.context.wrap_socket(server.socket, server_side=True)
        made.url = f"https://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in connection.CERTIFICATES:
        monkeypatch.delenv(name, raising=False)
    connection._context.cache_clear()
    yield
    connection._context.cache_clear()


def listed(url: str) -> Any:
    with FineTuningApi(url, "key", policy=settings.RequestPolicy(max_attempts=1)) as api:
        return api.get_page("/fine_tuning/jobs").content["data"]


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_an_authority_that_a_variable_names_is_trusted(
    authority: Authority, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HostError, match="certificate"):
        listed(authority.url)
    assert authority.keys == []
    monkeypatch.setenv(name, str(authority.folder if name == "SSL_CERT_DIR" else authority.file))
    assert listed(authority.url) == []
    assert authority.keys.pop() == "Bearer key"


def test_a_folder_is_taken_for_a_bundle_and_several_folders_for_one(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}:{authority.folder}")
    assert listed(authority.url) == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.folder))
    assert listed(authority.url) == []
    authority.keys.clear()


def test_the_first_variable_counts_alone(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import certifi

    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    with pytest.raises(HostError, match="certificate"):
        listed(authority.url)
    assert authority.keys == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    assert listed(authority.url) == []
    authority.keys.clear()


def test_the_operating_systems_store_is_trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux, the store is where OpenSSL was compiled to look; a folder takes its place here."""
    nowhere: Any = None
    paths = ssl.DefaultVerifyPaths(nowhere, nowhere, "", "", "", "")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    from truststore import _openssl

    monkeypatch.setattr(_openssl, "_CA_FILE_CANDIDATES", [str(authority.file)])
    assert listed(authority.url) == []
    authority.keys.clear()


@pytest.mark.parametrize("name", connection.CERTIFICATES)
def test_a_variable_that_names_nothing_that_can_be_read_is_an_error_that_names_both(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        monkeypatch.setenv(name, str(place))
        with pytest.raises(ConfigurationError, match=name) as raised:
            FineTuningApi("https://api.example.com/v1", "key")
        assert str(place) in str(raised.value)
        (tmp_path / "empty.pem").write_text("nothing")
    FineTuningApi("http://127.0.0.1:1/v1", "key").close()  # needs none
