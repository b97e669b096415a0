"""An archive holds everything, stands alone, and only ever gains."""

from __future__ import annotations

import base64
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalogs import catalog_env
from fine_tuning_simulator import FILES_SCOPE, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.archive import (
    Archived,
    Plan,
    archive,
    check,
    open_store,
    parquet,
)
from fine_tuning_warehouse.archive.lock import only_run, unfinished
from fine_tuning_warehouse.archive.originals import named
from fine_tuning_warehouse.errors import BusyError, CommandError, UsageError
from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.views import VIEWS
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.iceberg import Iceberg
from fine_tuning_warehouse.warehouses.postgres import PostgreSql
from fine_tuning_warehouse.warehouses.rows import relation
from harness import DAY, HOUR, NOW, QUICK, Database
from histories import add_history

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["postgres"]

JOBS = 4


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    add_history(world, range(JOBS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the archive is to lie."""
    return tmp_path / "archive"


class Archiving:
    """Archives of one database; the first of them, of a database that holds all, where it `begins` so."""

    def __init__(self, database: Database, folder: Path, *, begins: bool = False) -> None:
        self.database = database
        self.folder = folder
        self._begins = begins

    def __call__(
        self, *, account: str | None = "default", key: str = "key", folder: Path | None = None, **plan: Any
    ) -> Archived:
        """Archive once; without an account, without a sync."""
        host = self.database.host
        if self._begins and account is not None and not self.database.path.exists() and not host.faults:
            self.database.begin()
        host.requests.clear()
        whose = [] if account is None else [Account(account, key, host.base_url, policy=QUICK)]
        warehouse = plan.pop("warehouse", DuckDb(self.database.path))
        return archive(open_store(str(folder or self.folder)), Plan(warehouse, whose, **plan))

    @property
    def manifest(self) -> Any:
        """Its manifest."""
        return json.loads((self.folder / "manifest.json").read_text())

    def missing(self) -> dict[str, str]:
        """Id to reason."""
        return {one["id"]: one["reason"] for one in self.manifest["missing"]}

    def content(self, folder: Path | None = None) -> dict[str, bytes]:
        """Every file by its path."""
        root = folder or self.folder
        return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}

    def damaged(self, folder: Path | None = None) -> dict[str, str]:
        """What a check finds."""
        return {one.path: one.reason for one in check(open_store(str(folder or self.folder))).damaged}


@pytest.fixture
def archiving(database: Database, folder: Path) -> Archiving:
    return Archiving(database, folder, begins=True)


def add_training_files(world: ScriptedWorld) -> dict[str, bytes]:
    """Give each job a training file, which two of them share, and the last one a validation file."""
    contents = {f"file-train-{number}": bytes([65 + number]) * (1000 + number) for number in range(3)}
    contents["file-valid"] = b'{"messages": []}\n' * 10
    for file_id, content in contents.items():
        world.add_file(file_id, content, purpose="fine-tune", filename=f"../../{file_id}.jsonl")
    for number in range(JOBS):
        world.update_job(f"ftjob-{number:03}", training_file=f"file-train-{min(number, 2)}")
    world.update_job(f"ftjob-{JOBS - 1:03}", validation_file="file-valid")
    return contents


# what is in it --------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_every_row_of_every_table_and_view_is_there_with_its_descriptions(
    archiving: Archiving, database: Database, folder: Path
) -> None:
    archiving()
    names = [*(f"tables/{name}" for name in TABLES), *(f"views/{view.name}" for view in VIEWS)]
    present = {
        row[0] for row in database.rows("SELECT table_name FROM duckdb_columns() WHERE schema_name = 'fine_tuning'")
    }
    names = [name for name in names if name.split("/")[1] in present]
    assert len(names) >= 11
    for name in names:
        table = name.split("/")[1]
        kept = f"SELECT * FROM '{folder}/{name}.parquet'"
        assert database.rows(f"SELECT count(*) FROM ({kept})") == database.rows(f'SELECT count(*) FROM "{table}"')
        rows = f"SELECT COLUMNS(name -> name <> 'age_seconds') FROM \"{table}\""
        assert database.rows(f"({kept} EXCEPT ALL {rows}) UNION ALL ({rows} EXCEPT ALL {kept})") == []
        schema = pq.read_schema(folder / f"{name}.parquet")
        assert schema.metadata[b"description"]
        described = json.loads(schema.metadata[b"columns"])
        ours = TABLES[table].types if table in TABLES else next(view for view in VIEWS if view.name == table).columns
        assert set(ours) - {"age_seconds"} <= set(described)  # it is of the moment of the query
        for column, description in described.items():
            assert schema.field(column).metadata[b"description"].decode() == description
        metadata = pq.read_metadata(folder / f"{name}.parquet")
        assert all(
            metadata.row_group(group).column(0).compression == "ZSTD" for group in range(metadata.num_row_groups)
        )
    assert pq.read_schema(folder / "tables/jobs.parquet").field("created_at").type.tz == "UTC"


@pytest.mark.thorough
def test_the_manifest_names_every_file_with_its_checksum(archiving: Archiving, host: Simulator, folder: Path) -> None:
    archived = archiving()
    manifest = archiving.manifest
    content = archiving.content()
    assert set(manifest["files"]) == set(content) - {"manifest.json"}
    for path, about in manifest["files"].items():
        assert about["sha256"] == hashlib.sha256(content[path]).hexdigest()
        assert about["bytes"] == len(content[path])
    assert manifest["archive_version"] == 1
    assert manifest["tables"]["jobs"] == JOBS
    assert manifest["views"]["job_overview"] == JOBS
    assert (manifest["account"], manifest["host"]) == ("default", host.base_url)
    assert manifest["accounts"] == {"default": {"host": host.base_url}}
    assert {"dlt", "duckdb", "fine_tuning_warehouse", "pyarrow", "python"} == set(manifest["versions"])
    assert manifest["missing"] == []
    assert archived.written == len(content) - 1
    assert archived.unchanged == 0
    assert archiving.damaged() == {}
    sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums == {path: about["sha256"] for path, about in manifest["files"].items() if path != "SHA256SUMS"}
    if shutil.which("sha256sum") is not None:
        subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


@pytest.mark.thorough
def test_result_files_are_as_the_host_gave_them(archiving: Archiving, world: ScriptedWorld, folder: Path) -> None:
    archiving()
    for number in range(JOBS):
        assert (folder / f"result_files/file-{number:03}.csv").read_bytes() == world.file_content(f"file-{number:03}")
    assert base64.b64decode((folder / "result_files/file-001.csv").read_bytes()).startswith(b"step,")
    about = archiving.manifest["files"]["result_files/file-001.csv"]
    assert (about["kind"], about["id"], about["jobs"]) == ("result_file", "file-001", ["ftjob-001"])


@pytest.mark.nightly
def test_training_files_come_where_they_are_asked_for(
    archiving: Archiving, world: ScriptedWorld, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contents = add_training_files(world)
    archiving()
    assert not (folder / "training_files").exists()
    archiving(training_files=True)
    for file_id, content in contents.items():
        assert (folder / f"training_files/{file_id}.jsonl").read_bytes() == content
    about = archiving.manifest["files"]["training_files/file-train-2.jsonl"]
    assert about["filename"] == "../../file-train-2.jsonl", "a name of the host is data"
    assert about["jobs"] == ["ftjob-002", "ftjob-003"]
    assert archiving.manifest["files"]["training_files/file-valid.jsonl"]["kind"] == "validation_file"
    total = sum(map(len, contents.values()))
    assert f"Fetching 4 training and validation files: {total:,} bytes" in caplog.text
    archiving()
    assert (folder / "training_files/file-valid.jsonl").exists(), "an archive only ever gains"
    assert archiving.damaged() == {}


@pytest.mark.nightly
def test_files_that_a_host_names_by_their_records_come_too(
    archiving: Archiving, world: ScriptedWorld, folder: Path
) -> None:
    add_training_files(world)
    world.update_job("ftjob-000", result_files=[{"object": "file", "id": "file-000"}])
    world.update_job("ftjob-000", training_file={"object": "file", "id": "file-train-0"})
    archiving(training_files=True)
    assert (folder / "result_files/file-000.csv").exists()
    assert (folder / "training_files/file-train-0.jsonl").exists()
    assert archiving.missing() == {}


def test_the_questions_of_its_readme_are_answered_by_it(
    archiving: Archiving, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archiving()
    text = (folder / "README.md").read_text()
    monkeypatch.chdir(folder)
    queries = re.findall(r"```sql\n(.*?)```", text, flags=re.DOTALL)
    assert len(queries) == 4
    for query in queries:
        assert duckdb.sql(query).fetchall()
    (described,) = re.findall(r"`(SELECT decode\(value\)[^`]*)`", text)
    (row,) = duckdb.sql(described).fetchall()
    assert json.loads(row[0])["status"].startswith("validating_files")
    for path in archiving.manifest["files"]:
        assert path in text or path.split("/")[0] in ("result_files", "training_files", "README.md", "SHA256SUMS")


@pytest.mark.nightly
@pytest.mark.engine
def test_they_are_answered_in_pandas_too(
    archiving: Archiving, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("pandas") is None:
        pytest.skip("needs pandas: uv run --group engines pytest")
    archiving()
    monkeypatch.chdir(folder)
    scripts = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    assert len(scripts) == 5
    for script in scripts:
        capsys.readouterr()
        exec(script, {})
        assert capsys.readouterr().out.strip()


def test_what_the_table_of_files_knows_is_not_asked_again(tmp_path: Path) -> None:
    jobs, files = tmp_path / "jobs.parquet", tmp_path / "files.parquet"
    duckdb.sql(
        "SELECT 'a' AS account, 'job' AS id, '[\"r\"]' AS result_files, 't' AS training_file, 'v' AS validation_file"
    ).write_parquet(str(jobs))
    duckdb.sql("SELECT 'a' AS account, 't' AS id, '../t.jsonl' AS filename, 7::BIGINT AS bytes").write_parquet(
        str(files)
    )
    found = {one.id: (one.kind, one.path, one.filename, one.bytes) for one in named(jobs, files, None, training=True)}
    assert found == {
        "r": ("result_file", "result_files/r.csv", None, None),
        "t": ("training_file", "training_files/t.jsonl", "../t.jsonl", 7),
        "v": ("validation_file", "training_files/v.jsonl", None, None),
    }
    assert [one.id for one in named(jobs, None, None, training=False)] == ["r"]


# again ----------------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_two_archives_of_one_warehouse_differ_in_nothing_but_the_time(
    archiving: Archiving, database: Database, folder: Path, tmp_path: Path
) -> None:
    database.begin()
    other = tmp_path / "other"
    archiving(account=None)
    archiving(account=None, folder=other)
    one, two = archiving.content(), archiving.content(other)
    manifests = [json.loads(content.pop("manifest.json")) for content in (one, two)]
    assert one == two
    for manifest in manifests:
        manifest["archived_at"] = ""
    assert manifests[0] == manifests[1]


@pytest.mark.thorough
def test_an_archive_without_a_sync_asks_no_host_and_needs_no_key(
    archiving: Archiving, database: Database, host: Simulator
) -> None:
    database.begin()
    archiving(account=None)
    assert host.requests == []
    assert set(archiving.missing()) == {f"file-{number:03}" for number in range(JOBS)}
    assert "--no-sync" in archiving.missing()["file-000"]
    archiving()
    assert archiving.missing() == {}
    archiving(account=None)
    assert archiving.missing() == {}


@pytest.mark.thorough
def test_what_has_not_changed_is_left_alone(archiving: Archiving, folder: Path, world: ScriptedWorld) -> None:
    archiving()

    def times() -> dict[str, int]:
        return {path: (folder / path).stat().st_mtime_ns for path in archiving.content()}

    before = times()
    archived = archiving(account=None)
    assert times() == before
    assert (archived.written, archived.unchanged) == (0, len(before) - 1)

    add_history(world, [JOBS])
    (folder / "tables/checkpoints.parquet").unlink()
    archived = archiving()
    after = times()
    changed = {path for path, time in after.items() if before.get(path) != time}
    assert {"result_files/file-004.csv", "tables/jobs.parquet", "manifest.json"} <= changed
    assert not changed & {f"result_files/file-{number:03}.csv" for number in range(JOBS)}
    assert archived.written == len(changed) - 1
    assert [path for path in requested(archiving) if path.endswith("content")].count("/files/file-000/content") == 0
    assert archiving.damaged() == {}


def requested(archiving: Archiving) -> list[str]:
    return archiving.database.paths()


@pytest.mark.thorough
def test_an_archive_of_an_earlier_release_goes_on(
    archiving: Archiving, world: ScriptedWorld, folder: Path, host: Simulator
) -> None:
    """Everybody can read its files, one path begins with a dash, and a killed run left drafts beside the files."""
    world.add_file("-old", b"step,train_loss\n1,1\n")
    world.add_job(id="ftjob-old", created_at=NOW - DAY, result_files=["-old"])
    archiving()
    (now,) = [path for path, about in archiving.manifest["files"].items() if about.get("id") == "-old"]
    (folder / now).rename(folder / "result_files/-old.csv")
    resign(folder / "manifest.json", json.dumps(now), '"result_files/-old.csv"')
    for file in folder.rglob("*.*"):
        file.chmod(0o644)
    for draft in ("manifest.json.part", "tables/jobs.parquet.part", "archive.unfinished.part"):
        (folder / draft).write_bytes(b"half")
    host.requests.clear()
    archiving(account=None)
    assert host.requests == []
    assert archiving.manifest["files"]["result_files/-old.csv"]["id"] == "-old"
    assert archiving.missing() == {}
    assert archiving.damaged() == {}
    world.add_job(id="ftjob-new", created_at=NOW - HOUR, result_files=["-old"], status="succeeded")
    archiving()
    assert archiving.manifest["files"]["result_files/-old.csv"]["jobs"] == ["ftjob-new", "ftjob-old"]
    assert stat.S_IMODE((folder / "manifest.json").stat().st_mode) == 0o644


@pytest.mark.nightly
def test_a_file_that_the_host_has_lost_stays(archiving: Archiving, world: ScriptedWorld, folder: Path) -> None:
    archiving()
    world.remove_file("file-000")
    world.update_job("ftjob-001", result_files=[])
    archiving(options=full_refresh())
    assert (folder / "result_files/file-000.csv").exists()
    assert "result_files/file-001.csv" in archiving.manifest["files"]
    assert archiving.missing() == {}
    assert archiving.damaged() == {}


def full_refresh() -> Any:
    from fine_tuning_warehouse.sync.run import SyncOptions

    return SyncOptions(full_refresh=True)


@pytest.mark.nightly
def test_a_damaged_file_is_fetched_and_written_anew(archiving: Archiving, folder: Path) -> None:
    archiving()
    whole = archiving.content()
    for path in ("result_files/file-002.csv", "tables/events.parquet", "README.md"):
        content = bytearray((folder / path).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / path).write_bytes(content)
    (folder / "result_files/file-001.csv").unlink()
    assert set(archiving.damaged()) == {
        "result_files/file-001.csv",
        "result_files/file-002.csv",
        "tables/events.parquet",
        "README.md",
    }
    archiving()
    assert archiving.damaged() == {}
    for path in ("result_files/file-001.csv", "result_files/file-002.csv", "tables/events.parquet"):
        assert (folder / path).read_bytes() == whole[path]


@pytest.mark.nightly
def test_a_damaged_file_that_the_host_has_lost_is_named(
    archiving: Archiving, world: ScriptedWorld, folder: Path
) -> None:
    archiving()
    (folder / "result_files/file-002.csv").write_bytes(b"other")
    world.remove_file("file-002")
    archiving()
    assert set(archiving.missing()) == {"file-002"}
    assert set(archiving.damaged()) == {"result_files/file-002.csv"}
    assert (folder / "result_files/file-002.csv").read_bytes() == b"other", "it may be of use"


# what cannot be had ---------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_what_is_gone_is_missing_with_the_hosts_reason(archiving: Archiving, world: ScriptedWorld) -> None:
    contents = add_training_files(world)
    world.remove_file("file-000")
    world.remove_file("file-train-1")
    archived = archiving(training_files=True)
    assert archived.is_incomplete
    assert archiving.missing() == {
        "file-000": "404: No such File object: file-000",
        "file-train-1": "404: No such File object: file-train-1",
    }
    assert archiving.manifest["missing"][1] == {
        "account": "default",
        "id": "file-train-1",
        "job": "ftjob-001",
        "kind": "training_file",
        "reason": "404: No such File object: file-train-1",
    }
    archiving()
    assert "file-train-1" in archiving.missing(), "who does not ask for training files is told still"
    world.add_file("file-train-1", contents["file-train-1"])
    archiving(training_files=True)
    assert set(archiving.missing()) == {"file-000"}
    assert archiving.damaged() == {}


@pytest.mark.nightly
def test_a_host_that_has_the_content_of_files_alone_is_archived(
    archiving: Archiving, world: ScriptedWorld, host: Simulator
) -> None:
    contents = add_training_files(world)
    nothing = Fault("status", path="/files(/[^/]+)?$", times=None, status=404, body={"detail": "Not Found"})
    host.faults.append(nothing)
    archiving(training_files=True)
    assert nothing.hits > 0
    assert archiving.missing() == {}
    kept = archiving.content()
    assert {f"training_files/{name}.jsonl": content for name, content in contents.items()}.items() <= kept.items()


def test_a_warehouse_without_jobs_is_archived_and_told_to_know_no_files(
    archiving: Archiving, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    database.sync(resources=("events",))
    archiving(account=None)
    assert "There is no table jobs" in caplog.text
    assert archiving.missing() == {}
    assert archiving.manifest["tables"]["events"] == 3 * JOBS
    assert archiving.damaged() == {}


@pytest.mark.nightly
def test_a_key_that_may_not_read_files_costs_one_request_for_all_of_them(
    world: ScriptedWorld, clock: Any, tmp_path: Path, folder: Path
) -> None:
    add_training_files(world)
    with Simulator(world, clock=clock, api_keys={"key": frozenset({FILES_SCOPE})}) as host:
        archiving = Archiving(Database(tmp_path / "restricted.duckdb", host), folder)
        archived = archiving(training_files=True)
        asked = [request for request in host.requests if "/files/file-train" in request.path]
    assert archived.is_incomplete
    reasons = archiving.missing()
    assert len(reasons) == JOBS + 4
    assert all("Missing scopes: api.files.read" in reason for reason in reasons.values())
    assert len(asked) <= 2, "once by the archive, and at the most once by the sync"
    assert archiving.manifest["tables"]["jobs"] == JOBS
    assert archiving.damaged() == {}


@pytest.mark.nightly
def test_a_training_file_of_another_size_than_the_host_says_is_missing(
    archiving: Archiving, world: ScriptedWorld, folder: Path
) -> None:
    add_training_files(world)
    world.add_file("file-short", b"short", purpose="fine-tune", bytes=9)
    world.update_job("ftjob-000", training_file="file-short")
    archiving(training_files=True)
    assert archiving.missing() == {"file-short": "the host sent 5 bytes of a file that has 9"}
    assert not (folder / "training_files/file-short.jsonl").exists()
    assert list(folder.glob(".*")) == []


@pytest.mark.nightly
def test_breaks_while_files_come_are_got_over(archiving: Archiving, host: Simulator, world: ScriptedWorld) -> None:
    contents = add_training_files(world)
    host.faults.append(Fault("reset_body", path="file-(train|0).*content$", times=None, probability=0.4))
    archiving(training_files=True)
    assert archiving.missing() == {}
    kept = archiving.content()
    assert {f"training_files/{name}.jsonl": content for name, content in contents.items()}.items() <= kept.items()


@pytest.mark.thorough
def test_a_host_that_goes_down_leaves_a_whole_archive_that_says_what_it_lacks(
    archiving: Archiving, host: Simulator, database: Database
) -> None:
    database.begin()
    told = "You exceeded your current quota"
    fault = Fault("status", path="content$", times=None, status=429, code="insufficient_quota", message=told)
    host.faults.append(fault)
    with pytest.raises(CommandError, match="quota"):
        archiving()
    assert len(archiving.missing()) == JOBS
    assert archiving.damaged() == {}
    host.faults.clear()
    archiving()
    assert archiving.missing() == {}


ODD_IDS = [
    "-rf",
    "--help",
    ".bashrc",
    "...",
    "prn",
    "com1",
    "Lpt9",
    "a\x7fb",
    "a\x1b[31mb",
    "a ",
    "a.",
    "~",
    "../../etc/passwd",
    "..",
    ".",
    "/etc/passwd",
    "a" * 300,
    "a\\b",
    "nul",
    "CON",
    "a\nb",
    "fi:le",
    "file-é",
    " ",
]


@pytest.mark.thorough
def test_an_id_never_becomes_a_path(archiving: Archiving, world: ScriptedWorld, folder: Path, tmp_path: Path) -> None:
    for number, file_id in enumerate(ODD_IDS):
        world.add_file(file_id, f"step,train_loss\n1,{number}\n".encode())
        world.add_job(id=f"ftjob-odd{number}", created_at=NOW - DAY, result_files=[file_id], training_file=file_id)
    before = set(tmp_path.rglob("*"))
    archiving(training_files=True)
    made = set(tmp_path.rglob("*")) - before - {archiving.database.path, tmp_path / "warehouse.duckdb.lock"}
    assert all(path == folder or folder in path.parents for path in made)
    kept = {about["id"]: path for path, about in archiving.manifest["files"].items() if about.get("id") in ODD_IDS}
    assert {"/etc/passwd", "nul", "CON", "a\nb", "file-é"} & set(kept), "a host may well have such files"
    for file_id, path in kept.items():
        assert re.fullmatch(r"result_files/[0-9a-f]{64}\.csv", path)
        assert (folder / path).read_bytes() == world.file_content(file_id)
    assert set(kept) | set(archiving.missing()) >= set(ODD_IDS)
    assert archiving.damaged() == {}


@pytest.mark.nightly
def test_ids_that_some_file_systems_take_for_one_lie_apart(
    archiving: Archiving, world: ScriptedWorld, folder: Path
) -> None:
    for name in ("file-AbC", "file-aBc"):
        world.add_file(name, f"step,train_loss\n1,{len(name)}\n".encode() + name.encode())
    world.add_job(id="ftjob-twins", created_at=NOW - DAY, result_files=["file-AbC", "file-aBc", "file-AbC", 7, None])
    archiving()
    paths = [path for path in archiving.manifest["files"] if path.lower().startswith("result_files/file-abc")]
    assert len({path.lower() for path in paths}) == 2
    assert archiving.missing() == {"7": "404: No such File object: 7"}
    before = archiving.content()
    archiving(account=None)
    assert archiving.content() == before


# several accounts, several warehouses ---------------------------------------------------------------------------------


@pytest.mark.nightly
def test_the_files_of_another_account_come_with_its_key(archiving: Archiving, database: Database) -> None:
    database.sync(account="staging")
    archiving(account=None)
    assert "--no-sync" in archiving.missing()["file-000"]
    archiving()
    assert archiving.manifest["tables"]["jobs"] == 2 * JOBS
    assert set(archiving.manifest["accounts"]) == {"default", "staging"}
    assert archiving.missing()["file-000"] == "belongs to the account staging: archive with --account staging"
    archiving(account="staging")
    assert archiving.missing() == {}
    kept = [about for about in archiving.manifest["files"].values() if about.get("id") == "file-000"]
    assert {about["account"] for about in kept} == {"default", "staging"}
    assert archiving.manifest["accounts"]["default"]["host"] == database.host.base_url
    assert archiving.damaged() == {}


@pytest.mark.nightly
def test_another_warehouse_does_not_replace_the_rows_of_the_first(
    archiving: Archiving, database: Database, tmp_path: Path, world: ScriptedWorld, host: Simulator
) -> None:
    archiving()
    before = archiving.content()
    other = DuckDb(tmp_path / "other.duckdb")
    for account in ("default", "staging"):
        with pytest.raises(UsageError, match="archive of another warehouse"):
            archiving(account=account, warehouse=other)
        assert archiving.content() == before
    with pytest.raises(UsageError, match="dataset"):
        archiving(warehouse=DuckDb(database.path, "elsewhere"))
    assert archiving.content() == before
    with duckdb.connect(str(database.path)) as connection:
        for view in reversed(VIEWS):
            connection.execute(f"DROP VIEW fine_tuning.{view.name}")
    with pytest.raises(UsageError, match="another warehouse"):
        archiving(account=None)
    assert archiving.content() == before


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["file", "full", "missing database", "no dataset", "damaged manifest", "newer"])
def test_what_cannot_be_is_told_and_changes_nothing(
    archiving: Archiving, database: Database, folder: Path, tmp_path: Path, kind: str
) -> None:
    expected: tuple[type[Exception], str] = (CommandError, "")
    if kind == "file":
        folder.write_text("mine")
        expected = (UsageError, "is a file")
    elif kind == "full":
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
        expected = (UsageError, "not empty")
    elif kind == "missing database":
        expected = (CommandError, "no database")
    elif kind == "no dataset":
        with duckdb.connect(str(database.path)) as connection:
            connection.execute("CREATE TABLE x (i INTEGER)")
        expected = (CommandError, "holds no dataset")
    elif kind in ("damaged manifest", "newer"):
        archiving()
        text = (folder / "manifest.json").read_text()
        newer = text.replace('"archive_version": 1', '"archive_version": 2')
        (folder / "manifest.json").write_text(text[:-50] if kind == "damaged manifest" else newer)
        expected = (CommandError, "damaged" if kind == "damaged manifest" else "later release")
    before = archiving.content() if folder.is_dir() else None
    with pytest.raises(expected[0], match=expected[1]):
        archiving(account=None)
    if before is None:
        assert folder.is_file() == (kind == "file")
        assert not folder.is_dir(), "a folder that was made for nothing is taken away"
    else:
        assert archiving.content() == before


@pytest.mark.nightly
def test_a_file_that_no_run_has_written_is_not_replaced(
    archiving: Archiving, folder: Path, world: ScriptedWorld
) -> None:
    archiving()
    add_history(world, [JOBS])
    mine = folder / "result_files/file-004.csv"
    mine.write_text("mine")
    (folder / "tables/notes.part").write_text("mine too")
    with pytest.raises(UsageError, match=r"holds result_files/file-004\.csv, which is not listed"):
        archiving()
    assert mine.read_text() == "mine"
    mine.unlink()
    (folder / "notes.txt").write_text("also mine")
    archiving()
    assert (folder / "notes.txt").read_text() == "also mine"
    assert set(archiving.damaged()) == {"notes.txt", "tables/notes.part"}


@pytest.mark.parametrize("locks_folders", [True, False])
def test_two_runs_at_once_do_not_write_to_one_archive(
    archiving: Archiving, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch, locks_folders: bool
) -> None:
    if not locks_folders:  # as NFS does not, which no test can mount
        import fcntl

        flock = fcntl.flock

        def files_only(descriptor: int, operation: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            flock(descriptor, operation)

        monkeypatch.setattr("fcntl.flock", files_only)
    database.begin()
    with only_run(open_store(str(folder))), pytest.raises(BusyError, match="Another archive run"):
        archiving(account=None)
    archiving(account=None)


def test_a_run_notices_that_one_of_another_machine_has_begun(folder: Path) -> None:
    folder.mkdir()
    store = open_store(str(folder))
    with unfinished(store) as first:
        first.check()
        with unfinished(store) as second:
            second.check()
            with pytest.raises(BusyError, match="Another archive run has begun"):
                first.check()
        with pytest.raises(BusyError, match="Another archive run has begun"):
            first.check()


def test_row_groups_are_the_same_however_rows_come(tmp_path: Path) -> None:
    jobs = relation("jobs", {"account": pa.string(), "id": pa.string()})
    rows = pa.table({"account": ["a"] * 27, "id": [str(number) for number in range(27)]}, jobs.schema)
    contents = []
    for size in (1, 7, 10, 27):
        assert parquet.write(jobs, rows.to_batches(size), tmp_path / "jobs.parquet", group_rows=10) == (27, {"a"})
        metadata = pq.read_metadata(tmp_path / "jobs.parquet")
        assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [10, 10, 7]
        contents.append((tmp_path / "jobs.parquet").read_bytes())
    assert len(set(contents)) == 1


@pytest.mark.nightly
def test_a_table_that_has_gained_a_column_is_written_anew_and_one_that_has_lost_values_is_refused(
    archiving: Archiving, database: Database, folder: Path
) -> None:
    archiving()
    with duckdb.connect(str(database.path)) as connection:
        connection.execute("ALTER TABLE fine_tuning.jobs ADD COLUMN more VARCHAR DEFAULT 'yes'")
        connection.execute("ALTER TABLE fine_tuning.jobs ADD COLUMN empty VARCHAR")
    archiving(account=None)
    assert pq.read_table(folder / "tables/jobs.parquet")["more"].to_pylist() == ["yes"] * JOBS
    assert archiving.damaged() == {}
    with duckdb.connect(str(database.path)) as connection:
        connection.execute("ALTER TABLE fine_tuning.jobs DROP COLUMN empty")
    archiving(account=None)
    with duckdb.connect(str(database.path)) as connection:
        connection.execute("ALTER TABLE fine_tuning.jobs DROP COLUMN more")
    before = archiving.content()
    with pytest.raises(UsageError, match="columns of jobs such as more"):
        archiving(account=None)
    assert archiving.content() == before


@pytest.mark.thorough
def test_a_disk_without_room_is_told_before_anything_comes(
    archiving: Archiving, world: ScriptedWorld, folder: Path, host: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_training_files(world)
    world.add_file("file-huge", b"", purpose="fine-tune", bytes=10**18)
    world.update_job("ftjob-000", training_file="file-huge")
    with pytest.raises(CommandError, match="bytes free"):
        archiving(training_files=True)
    assert not any("content" in request.path and "train" in request.path for request in host.requests)
    assert not folder.exists()


# the check ------------------------------------------------------------------------------------------------------------


Damaging = Callable[[Path], object]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def resign(path: Path, old: str, new: str) -> None:
    """Edit a manifest as a faulty run would have written it, with its checksum."""
    edit(path, old, new)
    content = json.loads(path.read_text())
    rest = {name: value for name, value in content.items() if name not in ("archived_at", "sha256")}
    content["sha256"] = hashlib.sha256(f"{json.dumps(rest, indent=2, sort_keys=True)}\n".encode()).hexdigest()
    path.write_text(json.dumps(content))


DAMAGES: list[tuple[Damaging, str, str]] = [
    (lambda root: flip(root / "tables/jobs.parquet"), "tables/jobs.parquet", "SHA-256"),
    (lambda root: flip(root / "SHA256SUMS"), "SHA256SUMS", "SHA-256"),
    (lambda root: (root / "views/job_overview.parquet").unlink(), "views/job_overview.parquet", "is missing"),
    (lambda root: (root / "README.md").write_text(""), "README.md", "has 0 bytes"),
    (lambda root: (root / "result_files/new.csv").touch(), "result_files/new.csv", "not listed"),
    (lambda root: (root / "tables/jobs.parquet.part").touch(), "tables/jobs.parquet.part", "not listed"),
    (lambda root: (root / "archive.unfinished").touch(), "archive.unfinished", "has not ended"),
    (
        lambda root: resign(root / "manifest.json", '"README.md"', '"../mine"'),
        "../mine",
        "cannot be a path of an archive",
    ),
    (lambda root: resign(root / "manifest.json", '"rows": 12,', '"rows": 13,'), "tables/events.parquet", "12 rows"),
]


def test_a_check_names_what_is_wrong_and_asks_no_host(archiving: Archiving, folder: Path, tmp_path: Path) -> None:
    archiving()
    archiving.database.host.requests.clear()
    read: list[int] = []
    assert check(open_store(str(folder)), read.append).files == len(read)
    assert sum(read) == sum(about["bytes"] for about in archiving.manifest["files"].values())
    for number, (damage, path, reason) in enumerate(DAMAGES):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(folder, copy)
        assert archiving.damaged(copy) == {}
        damage(copy)
        assert reason in archiving.damaged(copy)[path]
    assert archiving.database.host.requests == []


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"jobs": 4', '"jobs": 5'),
        ('"archive_version": 1', '"archive_version": "1"'),
        ('"bytes": ', '"bytes": -'),
        ('"404: ', '"403: '),
        ('"missing": [', '"missing": [7, '),
        ('"missing": [', f'"missing": [{"[" * 100_000}'),
    ],
)
def test_a_manifest_that_is_not_as_it_was_written_is_told(
    archiving: Archiving, world: ScriptedWorld, folder: Path, old: str, new: str
) -> None:
    world.remove_file("file-003")
    archiving()
    edit(folder / "manifest.json", old, new)
    with pytest.raises(CommandError, match=r"manifest\.json is damaged"):
        archiving.damaged()
    with pytest.raises(CommandError, match=r"manifest\.json is damaged"):
        archiving(account=None)


# PostgreSQL -----------------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_postgres_is_archived_as_duckdb_is(
    archiving: Archiving, database: Database, postgres: Postgres, tmp_path: Path, world: ScriptedWorld
) -> None:
    world.add_job(id="ftjob-zoë", created_at=NOW - HOUR, metadata={"a": "\x00", "b": "ü"}, training_file=None)
    world.add_job(id="ftjob-odd", created_at=NOW - HOUR, result_files="file-000")
    folder, other = tmp_path / "postgres", tmp_path / "again"
    archiving(folder=folder, warehouse=PostgreSql())
    archiving(folder=other, warehouse=PostgreSql(), account=None)
    archiving()
    assert archiving.damaged(folder) == {}
    assert_alike(archiving.folder, folder)
    for file in (*folder.glob("tables/*"), *folder.glob("views/*")):
        assert (other / file.relative_to(folder)).read_bytes() == file.read_bytes(), "from rows to bytes, always alike"


def assert_alike(mine: Path, theirs: Path) -> None:
    """Assert that two archives of one history, read by two syncs, hold the same tables and views."""
    left = "_dlt_load_id, last_listed_at, checkpoints_listed_at, rejected_at, last_synced_at, synced_at"
    files = sorted(file.relative_to(mine) for kind in ("tables", "views") for file in (mine / kind).iterdir())
    assert files == sorted(
        file.relative_to(theirs) for kind in ("tables", "views") for file in (theirs / kind).iterdir()
    )
    for file in files:
        schemas = [pq.read_schema(folder / file) for folder in (mine, theirs)]
        assert dict(zip(schemas[0].names, schemas[0].types, strict=True)) == dict(
            zip(schemas[1].names, schemas[1].types, strict=True)
        ), file
        if file.stem in ("syncs", "sync_history", "account_health"):
            continue
        columns = ", ".join(name for name in schemas[0].names if name not in left)
        rows = [
            duckdb.sql(f"SELECT {columns} FROM '{folder / file}' ORDER BY ALL").fetchall() for folder in (mine, theirs)
        ]
        assert rows[0] == rows[1], file


# tables that are files ------------------------------------------------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.engine
@pytest.mark.parametrize("table_format", ["delta", "iceberg"])
def test_a_lake_is_archived_as_duckdb_is(
    archiving: Archiving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table_format: Any
) -> None:
    needed = {"delta": "deltalake", "iceberg": "pyiceberg"}[table_format]
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}: uv run --group engines pytest")
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", (tmp_path / "lake").as_uri())
    for name, value in catalog_env(tmp_path / "catalog.db", (tmp_path / "lake").as_uri()).items():
        monkeypatch.setenv(name, value)
    lake = Iceberg(table_format=table_format)
    archiving(warehouse=lake, training_files=True)
    assert archiving.damaged() == {}
    assert archiving.manifest["tables"]["jobs"] == JOBS
    assert archiving.manifest["views"].keys() == {view.name for view in VIEWS}
    before = archiving.content()
    archiving(warehouse=lake, account=None)
    assert archiving.content() == before
    archiving(folder=tmp_path / "duckdb", training_files=True)
    assert_alike(tmp_path / "duckdb", archiving.folder)
