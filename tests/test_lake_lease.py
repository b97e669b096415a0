"""The lease of a lake: one sync at a time, in a folder and in a bucket; a dead holder is followed, never joined."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from command import Command, wait_until
from engines import Engine
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.errors import BusyError, CommandError
from fine_tuning_warehouse.warehouses.lake import Lease, hold
from fine_tuning_warehouse.warehouses.lake.lease import Times
from histories import add_history, assert_holds, truth_of

if TYPE_CHECKING:
    from bucket import Bucket

pytest_plugins = ["lakes"]

QUICK = Times(last=1.0, renew=0.25, settle=0.2)
NEVER = Times(last=1.0, renew=60.0)
"""Of a holder that stands still: it never renews."""


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Any, str]:
    """Where leases lie on this machine."""
    return fsspec.filesystem("file"), str(tmp_path / "lake" / "fine_tuning.lease")


@pytest.fixture
def in_bucket(bucket: Bucket) -> tuple[Any, str]:
    """Where leases lie in a bucket."""
    options = {"key": "any", "secret": "any-secret", "endpoint_url": bucket.env["AWS_ENDPOINT_URL"]}
    return fsspec.filesystem("s3", **options), f"{bucket.url.removeprefix('s3://')}/fine_tuning.lease"


@pytest.fixture(params=["folder", pytest.param("in_bucket", marks=pytest.mark.engine)])
def place(request: pytest.FixtureRequest) -> tuple[Any, str]:
    """Where leases lie."""
    found: tuple[Any, str] = request.getfixturevalue(request.param)
    return found


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user, which takes root")
def test_a_user_without_a_name_goes_by_the_number() -> None:
    code = (
        "import os; from fine_tuning_warehouse.warehouses import working_directory as workspace;"
        "from fine_tuning_warehouse.warehouses.lake import lease;"
        "os.setuid(54321); print(lease._who()); print(workspace._root())"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"TMPDIR": folder}
        )
    who, root = ran.stdout.splitlines()
    assert who.startswith("54321@")
    assert root == f"{folder}/fine-tuning-warehouse-54321"


def lease(place: tuple[Any, str], times: Times = QUICK) -> Lease:
    """A lease that is not taken yet."""
    return Lease(*place, "the lake", times)


def held(place: tuple[Any, str]) -> dict[str, Any]:
    """What the newest lease says."""
    files, path = place
    files.invalidate_cache()
    newest = max(files.ls(path, detail=False))
    said: dict[str, Any] = json.loads(files.cat_file(newest))
    return said


def from_another_machine(place: tuple[Any, str], **changes: Any) -> None:
    """Have the newest lease said by a process of another machine, which this one cannot look at."""
    files, path = place
    newest = max(files.ls(path, detail=False))
    files.pipe_file(newest, json.dumps({**held(place), "machine": "another", **changes}).encode())


def test_one_holds_it_at_a_time_and_it_is_free_at_the_end_and_after_an_error(place: tuple[Any, str]) -> None:
    with hold(lease(place)) as first:
        with pytest.raises(BusyError, match=rf"the lake: .*@.* \(process {os.getpid()}, since"):
            lease(place).acquire()
        time.sleep(QUICK.last + QUICK.renew)
        first.check()  # it is renewed
        with pytest.raises(BusyError):
            lease(place).acquire()
    with pytest.raises(ValueError, match="mine"), hold(lease(place)):
        raise ValueError("mine")
    lease(place).acquire()
    assert len(place[0].ls(place[1])) == 1, "the former ones are tidied up"


def test_of_many_at_once_one_gets_it(place: tuple[Any, str]) -> None:
    for _ in range(3):
        leases = [lease(place) for _ in range(6)]
        got: list[Lease] = []
        start = threading.Barrier(len(leases))

        def take(one: Lease, start: threading.Barrier = start, got: list[Lease] = got) -> None:
            start.wait()
            try:
                one.acquire()
            except BusyError:
                return
            got.append(one)

        threads = [threading.Thread(target=take, args=(one,)) for one in leases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (first,) = got
        first.renew()
        first.release()


def test_an_expired_one_is_taken_over_and_its_holder_may_write_no_more(place: tuple[Any, str]) -> None:
    still = lease(place, NEVER)
    still.acquire()
    with pytest.raises(BusyError):
        lease(place).acquire()
    from_another_machine(place)
    time.sleep(NEVER.last + 0.05)
    with pytest.raises(BusyError, match="stopped writing"):
        still.check()
    with hold(lease(place)) as follower:
        with pytest.raises(BusyError):
            still.renew()
        still.release()
        follower.renew()


def test_a_holder_that_wakes_up_late_finds_that_another_has_followed(place: tuple[Any, str]) -> None:
    still = lease(place, Times(last=100, renew=60))
    still.acquire()
    from_another_machine(place, expires=time.time() - 1)
    with hold(lease(place)), pytest.raises(BusyError, match=r"taken over by .*process"):
        still.renew()
    still.release()
    assert held(place)["released"], "the follower's, which it has given back"


def test_one_that_looks_expired_but_is_renewed_is_held(place: tuple[Any, str]) -> None:
    """The clocks of two machines differ."""
    with hold(lease(place, Times(last=3600, renew=60))) as first:
        from_another_machine(place, expires=time.time() - 100)
        renewing = threading.Timer(0.7 * QUICK.last, first.renew)  # it was out of reach for some time
        renewing.start()
        with pytest.raises(BusyError):
            lease(place).acquire()
        renewing.join()


def test_a_dead_one_whose_clock_was_ahead_is_followed(folder: tuple[Any, str]) -> None:
    lease(folder, NEVER).acquire()
    from_another_machine(folder, expires=time.time() + 3600)
    with hold(lease(folder)):
        pass


def test_a_process_that_was_killed_on_this_machine_is_followed_at_once(place: tuple[Any, str]) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("tells processes by /proc")
    abandoned = lease(place, Times(last=3600, renew=60))
    abandoned.acquire()
    from_another_machine(place, machine=held(place)["machine"], process=[os.getpid(), 1])
    began = time.monotonic()
    with hold(lease(place, Times())):
        assert time.monotonic() - began < 5


def test_one_that_was_killed_as_it_began_is_followed(folder: tuple[Any, str]) -> None:
    files, path = folder
    files.makedirs(path)
    files.pipe_file(f"{path}/00000007.json", b"")
    with hold(lease(folder)):
        assert [file.name for file in Path(path).iterdir()] == ["00000008.json"]


def test_a_storage_that_ignores_conditions_is_told_and_keeps_two_apart_by_waiting(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(MemoryFileSystem):  # type: ignore[misc]  # as S3-compatible storages of old are
        store: dict[str, Any] = {}  # noqa: RUF012 - as fsspec has it

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
            super().pipe_file(path, value)

    monkeypatch.setattr(logging.getLogger("fine_tuning_warehouse"), "propagate", True)
    place = (Careless(), "/bucket/fine_tuning.lease")
    got, start = [], threading.Barrier(4)

    def take() -> None:
        start.wait()
        try:
            one = lease(place)
            one.acquire()
        except BusyError:
            return
        got.append(one)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (first,) = got
    assert "start one at a time" in caplog.text
    first.release()


def test_a_storage_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CommandError, match="the lake takes no lease"):
        lease((fsspec.filesystem("file"), str(tmp_path / "file" / "fine_tuning.lease"))).acquire()


# syncs ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ftw(tmp_path: Path, host: Simulator) -> Command:
    """The command, with a key for the host."""
    return Command(tmp_path, host.base_url)


@pytest.fixture(params=["lake", "bucket_lake"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """A lake of either kind."""
    found: Engine = request.getfixturevalue(request.param)
    return found


@pytest.mark.engine
def test_a_second_sync_is_busy_and_a_killed_one_is_followed_with_all_rows(
    world: ScriptedWorld, host: Simulator, ftw: Command, engine: Engine
) -> None:
    add_history(world, range(2))
    ftw.env.update(engine.env)
    silent = Fault("silent", path="/events$", times=None)
    host.faults.append(silent)
    with ftw.start("sync", *engine.options) as first:
        wait_until(lambda: silent.hits)
        second = ftw("sync", *engine.options, "--output", "json")
        assert second.code == 75
        assert f"process {first.process.pid}" in second.json["error"]
        assert second.json["load_ids"] == []
        listings = [request for request in host.requests if request.path.endswith("/fine_tuning/jobs")]
        assert len(listings) == 1, "the second requested nothing"
        first.signal(signal.SIGKILL)
        first.end()
    host.faults.clear()
    assert ftw("sync", *engine.options).code == 0
    assert_holds(engine.rows, truth_of(world))


@pytest.mark.engine
def test_a_sync_that_lost_its_lease_writes_nothing_more(
    world: ScriptedWorld, host: Simulator, lake: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another takes over while the host is slow, and loads; what the first has read must not come on top."""
    import dlt

    folder = lake.folder
    assert folder is not None
    add_history(world, range(2))
    lake.sync(host)
    before = sorted(folder.rglob("*"))
    load = dlt.Pipeline.load

    def late(self: Any, *args: Any, **kwargs: Any) -> Any:
        place = (fsspec.filesystem("file"), str(folder / "fine_tuning.lease"))
        from_another_machine(place, expires=time.time() - 1)
        lease(place).acquire()
        return load(self, *args, **kwargs)

    add_history(world, range(2, 4))
    with monkeypatch.context() as patched:
        patched.setattr(dlt.Pipeline, "load", late)
        with pytest.raises(BusyError, match="stopped writing"):
            lake.sync(host, full_refresh=True)
    after = [path for path in sorted(folder.rglob("*")) if path.parent.name != "fine_tuning.lease"]
    assert after == [path for path in before if path.parent.name != "fine_tuning.lease"]
