"""Warehouses beside DuckDB to sync into, each real: PostgreSQL, and lakes in a folder and in a bucket."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from catalogs import catalog_env
from engines import Engine
from fine_tuning_warehouse.warehouses.duckdb_extensions import extension_file
from fine_tuning_warehouse.warehouses.ducklake import DuckLake
from fine_tuning_warehouse.warehouses.iceberg import Iceberg
from fine_tuning_warehouse.warehouses.postgres import PostgreSql

if TYPE_CHECKING:
    from bucket import Bucket
    from postgres import Postgres

pytest_plugins = ["postgres", "bucket"]


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An Iceberg lake in a folder that does not exist yet."""
    needs("pyiceberg")
    return _lake(str(tmp_path / "lake"), {}, monkeypatch, tmp_path)


@pytest.fixture
def bucket_lake(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An Iceberg lake in a bucket."""
    needs("pyiceberg")
    credentials = {
        "AWS_ACCESS_KEY_ID": bucket.env["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": bucket.env["AWS_SECRET_ACCESS_KEY"],
        "ENDPOINT_URL": bucket.env["AWS_ENDPOINT_URL"],
        "REGION_NAME": bucket.env["AWS_DEFAULT_REGION"],
    }
    env = {f"DESTINATION__FILESYSTEM__CREDENTIALS__{name}": value for name, value in credentials.items()}
    url = f"{bucket.url}/lake"
    more = {
        "s3.endpoint": bucket.env["AWS_ENDPOINT_URL"],
        "s3.access-key-id": bucket.env["AWS_ACCESS_KEY_ID"],
        "s3.secret-access-key": bucket.env["AWS_SECRET_ACCESS_KEY"],
        "s3.region": bucket.env["AWS_DEFAULT_REGION"],
    }
    return _lake(url, {**env, **catalog_env(tmp_path / "catalog.db", url, **more)}, monkeypatch, tmp_path)


@pytest.fixture
def postgres_engine(postgres: Postgres) -> Engine:
    """An empty PostgreSQL database."""
    return Engine(PostgreSql(), {"DESTINATION__POSTGRES__CREDENTIALS": postgres.credentials})


def ducklake_needs(*extensions: str) -> None:
    """Skip the test where a package with an extension of DuckDB is missing."""
    for extension in ("ducklake", *extensions):
        if extension_file(extension) is None:
            pytest.skip(f"needs duckdb-extension-{extension}: uv run --group engines pytest")


@pytest.fixture(params=["sqlite", "duckdb", "postgres", "postgres-s3"])
def ducklake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A DuckLake with a catalog of each kind, which does not exist yet."""
    kind: str = request.param
    env = {}
    if kind.startswith("postgres"):
        ducklake_needs("postgres_scanner")
        postgres: Postgres = request.getfixturevalue("postgres")
        env["CATALOG"] = postgres.credentials
    else:
        ducklake_needs(*(["sqlite_scanner"] if kind == "sqlite" else []))
        env["CATALOG"] = f"{kind}:///{tmp_path}/catalog.{kind}"
    if kind.endswith("s3"):
        ducklake_needs("httpfs")
        bucket: Bucket = request.getfixturevalue("bucket")
        env["STORAGE__BUCKET_URL"] = f"{bucket.url}/lake"
        env["STORAGE__CREDENTIALS__AWS_ACCESS_KEY_ID"] = bucket.env["AWS_ACCESS_KEY_ID"]
        env["STORAGE__CREDENTIALS__AWS_SECRET_ACCESS_KEY"] = bucket.env["AWS_SECRET_ACCESS_KEY"]
        env["STORAGE__CREDENTIALS__ENDPOINT_URL"] = bucket.env["AWS_ENDPOINT_URL"]
        env["STORAGE__CREDENTIALS__REGION_NAME"] = bucket.env["AWS_DEFAULT_REGION"]
        env["STORAGE__CREDENTIALS__S3_URL_STYLE"] = "path"
    else:
        env["STORAGE__BUCKET_URL"] = str(tmp_path / "files")
    env = {f"DESTINATION__DUCKLAKE__CREDENTIALS__{name}": value for name, value in env.items()}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return Engine(DuckLake(), env)


def needs(module: str) -> None:
    """Skip the test where a package is missing."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}: uv run --group engines pytest")


def _lake(url: str, env: dict[str, str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Engine:
    env = {"DESTINATION__FILESYSTEM__BUCKET_URL": url, **catalog_env(folder / "catalog.db", url), **env}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return Engine(Iceberg(), env, folder / "lake")
