"""A lake keeps its state in files beside its tables: a crash between them, or within one, loses and repeats nothing."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engines import Engine
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync
from fine_tuning_warehouse.warehouses.iceberg import Iceberg
from histories import add_history, assert_holds, truth_of

pytest_plugins = ["lakes"]


def newest(folder: Path, pattern: str) -> Path:
    """The file that was written last."""
    return max(folder.glob(pattern), key=lambda file: (file.stat().st_mtime_ns, file.name))


def tear(file: Path) -> None:
    """Cut a file off, as a crash in the middle of writing it does."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


@pytest.mark.engine
def test_torn_files_are_set_aside_and_told_and_nothing_is_lost(
    world: ScriptedWorld,
    host: Simulator,
    lake: Engine,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("fine_tuning_warehouse"), "propagate", True)
    assert lake.folder is not None
    dataset = lake.folder / "fine_tuning"
    add_history(world, range(2))
    lake.sync(host)
    add_history(world, range(2, 4))
    lake.sync(host)
    torn = [newest(dataset, "_dlt_pipeline_state/*"), newest(dataset, "events/metadata/*.metadata.json")]
    tear(torn[0])
    assert lake.tables()["jobs"].num_rows == 4, "who only reads gets past it"
    tear(torn[1])
    with pytest.raises(CommandError, match=r"torn by a crash: `ftw sync` mends it"):
        lake.tables()
    assert all(file.exists() for file in torn), "who only reads moves nothing"
    summary = lake.sync(host)
    assert summary.rows["jobs"] == 2, "what was loaded since the whole state before is read again, and no more"
    assert_holds(lake.rows, truth_of(world))
    for file in torn:
        assert not file.exists()
        assert str(file) in caplog.text
    assert len(list(dataset.rglob("*.torn"))) == 2
    assert lake.sync(host).requests == 1, "the state is whole again"

    for state in dataset.glob("_dlt_pipeline_state/*.jsonl"):
        tear(state)
    tear(newest(dataset, "_dlt_version/*"))
    assert lake.sync(host).rows["jobs"] == 4, "no state is left: everything is read again"
    assert_holds(lake.rows, truth_of(world))
    assert lake.sync(host).requests == 1


def dying(where: str, number: int) -> None:
    """Make this process kill itself at a point: `commit` and `committed` (before and after the n-th commit of a table),
    `write` and `written` (before and after the n-th file beside the tables: the state, and the load).
    """
    from pyiceberg.catalog.sql import SqlCatalog

    from fine_tuning_warehouse.warehouses.lake.destination import _Client

    passed: Counter[str] = Counter()

    def passing(point: str) -> None:
        passed[point] += 1
        if (point, passed[point]) == (where, number):
            os.kill(os.getpid(), signal.SIGKILL)

    def patch(owner: Any, name: str, before: str, after: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def patched(*args: Any, **kwargs: Any) -> Any:
            passing(before)
            result = original(*args, **kwargs)
            passing(after)
            return result

        setattr(owner, name, patched)

    patch(SqlCatalog, "commit_table", "commit", "committed")
    patch(_Client, "_write_to_json_file", "write", "written")


def sync_to_death(where: str, number: int, base_url: str, env: dict[str, str]) -> None:
    """The body of a process that syncs into a lake, and is to die on the way."""
    os.environ.update(env)
    os.chdir(env["HOME"])
    dying(where, number)
    run_sync(Account("default", "key", base_url), Iceberg(), SyncOptions())


@pytest.mark.thorough
@pytest.mark.engine
def test_a_sync_into_a_lake_that_is_killed_at_any_point_is_made_whole_by_the_next_one(
    tmp_path: Path, world: ScriptedWorld, host: Simulator, lake: Engine
) -> None:
    env = {"HOME": str(tmp_path), **lake.env}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["fine_tuning_warehouse.sync.run", "fine_tuning_warehouse.warehouses.lake", "pyiceberg.table"]
    )
    points = [("commit", 1), ("committed", 3), ("committed", 5), ("write", 1), ("written", 1)]
    for index, (where, number) in enumerate(points):
        add_history(world, [2 * index, 2 * index + 1])
        process = context.Process(target=partial(sync_to_death, where, number, host.base_url, env))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, f"{where} {number}: exit {process.exitcode}"
        if index % 2:  # and now and then two are killed in a row
            lake.sync(host)
            assert_holds(lake.rows, truth_of(world))
    lake.sync(host)
    assert_holds(lake.rows, truth_of(world))
    assert lake.sync(host).requests == 1
