"""A real S3 API on this machine for the time of the tests, where its package is installed (group `engines`)."""

from __future__ import annotations

import importlib.util
import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

_SERVER = """
import sys, threading, os
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()  # it ends with the tests
threading.Timer(7200, os._exit, [1]).start()  # it ends in any case
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""


class Bucket:
    """An empty bucket of its own.

    Attributes:
        url: What fsspec takes.
        env: What its clients take from the environment.
    """

    def __init__(self, port: int, name: str) -> None:
        self.url = f"s3://{name}"
        self._name = name
        self.env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        import boto3  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self._client = boto3.client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any-secret",
        )
        self._client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)

    def lock(self, configuration: dict[str, Any]) -> None:
        """Let nothing be deleted for a time."""
        self._client.put_object_lock_configuration(Bucket=self._name, ObjectLockConfiguration=configuration)

    def objects(self) -> list[str]:
        """The objects in it."""
        return [found["Key"] for found in self._client.list_objects_v2(Bucket=self._name).get("Contents", ())]

    def get(self, key: str) -> bytes:
        """The content of an object."""
        content: bytes = self._client.get_object(Bucket=self._name, Key=key)["Body"].read()
        return content

    def put(self, key: str, content: bytes) -> None:
        """Replace an object, or add one."""
        self._client.put_object(Bucket=self._name, Key=key, Body=content)


_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
    """The port of an S3 API."""
    with running_server() as port:
        yield port


@pytest.fixture
def bucket(s3_server: int) -> Bucket:
    """An empty bucket."""
    return Bucket(s3_server, f"bucket-{next(_numbers)}")


@contextmanager
def running_server() -> Iterator[int]:
    """An S3 API on a free port. Skips the test where that cannot be had."""
    for module in ("moto", "boto3", "s3fs"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: uv run --group engines pytest")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while not _answers(port):
            assert server.poll() is None, "the S3 API ended as soon as it was started"
            assert time.monotonic() < until, "the S3 API did not start"
            time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.communicate()


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/moto-api/", timeout=5).ok
    except requests.ConnectionError:
        return False
