"""What a sync does to the process that it runs in, and how it ends one: bugs, telemetry, settings of the process."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from command import KEY, Command, wait_until
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.errors import CommandError, is_bug
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.errors import destination_errors
from histories import add_history


def error_of(call: Any) -> Exception:
    """Return what a call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any
        call()
    return caught.value


def test_an_error_of_our_code_or_of_a_program_that_uses_it_is_a_bug_and_one_of_a_library_or_the_system_is_not() -> None:
    assert not is_bug(error_of(lambda: duckdb.sql("SELECT nothing")))
    assert not is_bug(OSError(errno.ENOSPC, "No space left"))
    assert not is_bug(MemoryError())

    code = """
        def key(): return {}["nope"]
        def arrow(): return pa.array(["x"], pa.int64())
        def stdlib(): return json.loads("{")
        def system(): return open("/nowhere/at/all")
        def database(): return duckdb.sql("SELECT nothing")
    """
    for name, file in (
        ("openai_fine_tuning.anything", "<string>"),
        ("openai_fine_tuning.anything", "/python/site-packages/openai_fine_tuning/anything.py"),
        ("somebodys_program", "/opt/somebodys_program.py"),
        ("a_library", "/python/site-packages/a_library.py"),
    ):
        namespace: dict[str, Any] = {"__name__": name, "pa": pa, "json": json, "duckdb": duckdb}
        exec(compile(textwrap.dedent(code), file, "exec"), namespace)
        expected = name != "a_library"
        bugs = {what: is_bug(error_of(namespace[what])) for what in ("key", "arrow", "stdlib", "system", "database")}
        assert bugs == {"key": expected, "arrow": expected, "stdlib": expected, "system": False, "database": False}


def run_broken(ftw: Command, error: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a sync in which our code raises an error, given as an expression, while a table is made."""
    code = f"""
        import os, sys
        from fine_tuning_warehouse.cli.main import main
        from fine_tuning_warehouse.sync import run
        def broken(*_): raise {error}
        broken.__globals__["__name__"] = "fine_tuning_warehouse.broken"
        run.add_load_ids = broken
        sys.argv = {["ftw", "sync", *arguments]!r}
        main()
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ftw.folder,
        env=ftw.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_bug_is_a_traceback_without_secrets_that_asks_to_be_reported(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, form: str
) -> None:
    add_history(world, range(1))
    ftw = Command(tmp_path, host.base_url)
    (ftw.folder / ".dlt").mkdir()
    (ftw.folder / ".dlt" / "secrets.toml").write_text(
        "anything = \"stands-in-a-file\"\nmore = '''stands-in-many-quotes'''\nurl = \"pg://me:stands%20in-a-url@host/db\"\n"
    )
    ftw.env["OPENAI_EXTRA_HEADERS"] = '{"x-portkey-config": "stands-in-a-header"}'
    secrets = [
        "stands-in-a-file",
        "stands-in-many-quotes",
        "stands in-a-url",
        "stands%20in-a-url",
        "stands-in-a-header",
    ]
    ended = run_broken(ftw, f'KeyError(os.environ["OPENAI_API_KEY"], *{secrets})', "--output", form)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "in broken" in ended.stderr
    assert "report" in ended.stderr.splitlines()[-1]
    assert KEY not in ended.stdout + ended.stderr
    assert [secret for secret in secrets if secret in ended.stderr.split("KeyError:")[-1]] == []
    if form == "json":
        told = json.loads(ended.stdout)
        assert (told["status"], told["error"]) == ("failed", "A bug in ftw: KeyError")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ('OSError(28, "No space left on device", "/a/folder")', "No space left on device: '/a/folder'"),
        (
            '__import__("duckdb").IOException("IO Error: stands-in-the-way, stands-in-a-file")',
            "IO Error: stands-in-the",
        ),
    ],
)
def test_what_the_system_or_a_library_says_in_any_place_is_a_line(
    tmp_path: Path, host: Simulator, error: str, words: str
) -> None:
    ftw = Command(tmp_path, host.base_url)
    ftw.env["SOME_TOKEN"] = "stands-in-a-file"
    ended = run_broken(ftw, error, "--output", "json")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    (line,) = ended.stderr.splitlines()
    assert words in line
    assert words in json.loads(ended.stdout)["error"]
    assert "stands-in-a-file" not in ended.stdout + ended.stderr


@pytest.mark.nightly
def test_what_the_encoding_of_the_output_lacks_is_escaped(
    tmp_path: Path, world: ScriptedWorld, host: Simulator
) -> None:
    add_history(world, range(1))
    host.faults.append(Fault("status", path="events$", times=None, status=403, message="dosť"))
    ftw = Command(tmp_path, host.base_url)
    ftw.env |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ftw.warm = False
    ended = ftw("sync", "--account", "späť")
    assert ended.code == 2
    assert "Traceback" not in ended.err
    ftw.env["PYTHONIOENCODING"] = "latin-1"
    ended = ftw("sync")
    assert ended.code == 0
    assert "dos\\u0165" in ended.err


class Telemetry(HTTPServer):
    """A server that notes the events that dlt sends."""

    def __init__(self) -> None:
        self.events: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805
                body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
                self.events.append(json.dumps(body))
                handler.send_response(200)
                handler.end_headers()

            def log_message(handler, *_: object) -> None:  # noqa: N805
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.mark.thorough
def test_a_sync_in_python_leaves_the_process_as_it_was_and_sends_no_telemetry(
    tmp_path: Path, world: ScriptedWorld, host: Simulator
) -> None:
    add_history(world, range(2))
    code = """
        import json, logging, os, signal, sys

        def state():
            return [
                dict(os.environ), logging.getLogRecordFactory(), signal.getsignal(signal.SIGINT),
                signal.getsignal(signal.SIGTERM), sys.getrecursionlimit(), sys.excepthook, sys.unraisablehook,
                os.getcwd(), os.umask(os.umask(0o22)),
            ]

        before = state()
        import fine_tuning_warehouse
        assert state() == before, "importing the package"
        import dlt
        mine = dlt.pipeline("mine", destination=dlt.destinations.duckdb("mine.duckdb"), pipelines_dir="mine")
        providers = [provider.name for provider in dlt.config.config_providers]
        settings = dlt.config.get("normalize.parquet_normalizer.add_dlt_load_id")
        from fine_tuning_warehouse.scheduled import sync_configured
        result = sync_configured(database="synced.duckdb")
        assert state() == before, "a sync"
        assert dlt.pipeline() is mine, "the active pipeline"
        assert [provider.name for provider in dlt.config.config_providers] == providers
        assert dlt.config.get("normalize.parquet_normalizer.add_dlt_load_id") == settings
        print(json.dumps(result.as_json()["rows"]))
        mine.run([{"a": 1}], table_name="t")
        from dlt.common.runtime.telemetry import stop_telemetry
        stop_telemetry()
    """
    ftw = Command(tmp_path, host.base_url)
    with Telemetry() as telemetry:
        serving = threading.Thread(target=telemetry.serve_forever, daemon=True)
        serving.start()
        env = {
            **ftw.env,
            "RUNTIME__DLTHUB_TELEMETRY": "true",
            "RUNTIME__DLTHUB_TELEMETRY_ENDPOINT": f"http://127.0.0.1:{telemetry.server_port}",
        }
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=ftw.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        telemetry.shutdown()
        serving.join()
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["jobs"] == 2
    assert telemetry.events, "dlt sends those of the other pipeline: the test sees what is sent"
    loads = [event for event in telemetry.events if "pipeline_load" in event]
    assert len(loads) == 1
    loaded = {load for (load,) in ftw.rows("SELECT DISTINCT _dlt_load_id FROM jobs", ftw.folder / "synced.duckdb")}
    assert loaded
    assert None not in loaded
    assert os.environ.get("RUNTIME__DLTHUB_TELEMETRY") is None


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["main", "worker"])
def test_a_stop_that_hits_the_load_ends_with_the_code_of_its_signal(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, number: int, where: str
) -> None:
    add_history(world, range(1))
    ftw = Command(tmp_path, host.base_url)
    code = f"""
        import os, sys, threading, time
        from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
        from fine_tuning_warehouse.cli.main import main
        import dlt
        loading, load, execute = [], dlt.Pipeline.load, DuckDbSqlClient.execute_query
        def patched_load(*args, **named):
            loading.append(1)
            return load(*args, **named)
        def patched(*args, **named):
            if len(loading) == 1 and (threading.current_thread() is threading.main_thread()) == ("{where}" == "main"):
                loading.append(1)
                os.kill(os.getpid(), {number:d})
                time.sleep(30)
            return execute(*args, **named)
        dlt.Pipeline.load, DuckDbSqlClient.execute_query = patched_load, patched
        sys.argv = ["ftw", "sync"]
        main()
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ftw.folder,
        env=ftw.env,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert ended.stderr.lstrip() == "Stopped: what was loaded stays, and the next sync goes on there.\n"
    assert ended.returncode == 128 + number
    assert ftw("sync", "--strict").code == 0
    assert ftw.rows("SELECT count(*) FROM jobs") == [(1,)]


def test_a_full_folder_for_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "small"))
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(CommandError, match=r"No space left on device.*small.*TMPDIR"),
        destination_errors(DuckDb(tmp_path / "warehouse.duckdb"), "The sync failed"),
    ):
        raise full


@pytest.mark.thorough
def test_after_an_interrupted_sync_in_python_the_process_can_exit_at_once(
    tmp_path: Path, world: ScriptedWorld, host: Simulator
) -> None:
    add_history(world, range(2))
    host.faults.append(Fault("slow", path="checkpoints$", seconds=40))
    code = """
        import signal
        from fine_tuning_warehouse.scheduled import sync_configured
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        try:
            sync_configured()
        except KeyboardInterrupt:
            print("interrupted")
    """
    ftw = Command(tmp_path, host.base_url)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ftw.folder, env=ftw.env, stdout=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: any(request.path.endswith("checkpoints") for request in host.requests))
        process.send_signal(signal.SIGINT)
        try:
            assert process.communicate(timeout=20)[0] == "interrupted\n", "it waits for no answer"
        finally:
            process.kill()
    assert process.returncode == 0
