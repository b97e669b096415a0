"""What a sync does to the process that it runs in, and how it ends one: bugs, telemetry, settings of the process."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from command import KEY, Command
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.errors import is_bug
from histories import add_history


def error_of(call: Any) -> Exception:
    """Return what a call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any
        call()
    return caught.value


def test_an_error_that_our_code_makes_is_a_bug_and_one_of_a_library_or_the_system_is_not() -> None:
    assert not is_bug(error_of(lambda: json.loads("{")))
    assert not is_bug(error_of(lambda: duckdb.sql("SELECT nothing")))
    assert not is_bug(OSError(errno.ENOSPC, "No space left"))
    assert not is_bug(MemoryError())

    namespace: dict[str, Any] = {"__name__": "openai_fine_tuning.anything", "pa": pa, "json": json, "duckdb": duckdb}
    code = """
        def key(): return {}["nope"]
        def arrow(): return pa.array(["x"], pa.int64())
        def stdlib(): return json.loads("{")
        def system(): return open("/nowhere/at/all")
        def database(): return duckdb.sql("SELECT nothing")
    """
    exec(textwrap.dedent(code), namespace)
    bugs = {name: is_bug(error_of(namespace[name])) for name in ("key", "arrow", "stdlib", "system", "database")}
    assert bugs == {"key": True, "arrow": True, "stdlib": True, "system": False, "database": False}


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_bug_is_a_traceback_without_secrets_that_asks_to_be_reported(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, form: str
) -> None:
    add_history(world, range(1))
    ftw = Command(tmp_path, host.base_url)
    (ftw.folder / ".dlt").mkdir()
    (ftw.folder / ".dlt" / "secrets.toml").write_text('anything = "stands-in-a-file"\n')
    code = f"""
        import os, sys
        from fine_tuning_warehouse.cli.main import main
        from fine_tuning_warehouse.warehouses import load_id
        def broken(table): raise KeyError(os.environ["OPENAI_API_KEY"], "stands-in-a-file")
        broken.__globals__["__name__"] = "fine_tuning_warehouse.broken"
        load_id._with_load_id = broken
        sys.argv = ["ftw", "sync", "--output", "{form}"]
        main()
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ftw.folder,
        env=ftw.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "in broken" in ended.stderr
    assert "report" in ended.stderr.splitlines()[-1]
    assert KEY not in ended.stdout + ended.stderr
    assert "stands-in-a-file" not in ended.stderr
    if form == "json":
        told = json.loads(ended.stdout)
        assert (told["status"], told["error"]) == ("failed", "A bug in ftw: KeyError")


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
