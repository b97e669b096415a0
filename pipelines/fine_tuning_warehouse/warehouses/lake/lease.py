"""The lease of a lake: who may write to it, said by an object beside its dataset.

Each holder writes an object of the next number, which the storage creates only where there is none yet (S3:
`If-None-Match: *`; a folder: `O_EXCL`), so that one alone gets it. The highest number holds, and says until when; it
writes that anew while its sync runs. Whoever finds it expired writes the next number, and the one before has lost it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from fine_tuning_warehouse.errors import BusyError, CommandError
from fine_tuning_warehouse.hard_exit import released_at_exit
from fine_tuning_warehouse.warehouses.working_directory import user_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Times:
    """How long a lease lasts, in seconds.

    Attributes:
        last: From its last renewal to its end.
        renew: From one renewal to the next.
        settle: How long a new holder waits to see whether another was quicker, where the storage cannot tell.
    """

    last: float = 60.0
    renew: float = 15.0
    settle: float = 3.0


@dataclass(frozen=True)
class _Holder:
    """What a lease says.

    Attributes:
        owner: A name of its own for each sync.
        who: User and host, for people.
        machine: What tells this machine, this boot and these process numbers from others; empty where nothing does.
        process: The process, with when it started.
        since: Unix seconds by the holder's clock.
        expires: The same.
        released: Whether its sync has ended.
    """

    owner: str
    who: str
    machine: str
    process: tuple[int, int]
    since: float
    expires: float
    released: bool = False

    @property
    def is_dead(self) -> bool:
        """Whether it was a process of this machine that has ended."""
        return bool(self.machine) and self.machine == _machine() and _started(self.process[0]) != self.process[1]

    def __str__(self) -> str:
        return f"{self.who} (process {self.process[0]}, since {_clock(self.since)})"


class Lease:
    """The right to write to one dataset of a lake.

    Args:
        files: fsspec's file system.
        folder: Where the objects lie, without a scheme.
        shown: What people call the lake.
        times: How long it lasts.

    Attributes:
        since: When it was first asked for, in unix seconds.
    """

    def __init__(self, files: Any, folder: str, shown: str, times: Times | None = None) -> None:
        self._files = files
        self._folder = folder.rstrip("/")
        self._shown = shown
        self._times = times or Times()
        self._owner = uuid.uuid4().hex
        self.since = time.time()
        self._number = 0
        self._valid_until = (0.0, 0.0)
        self._lost: str | None = None
        self._ended = threading.Event()
        self._renewing = threading.Lock()
        self._heart: threading.Thread | None = None

    def acquire(self) -> None:
        """Take it, and keep it until it is released.

        Raises:
            BusyError: Another sync holds it.
            CommandError: The storage refuses.
        """
        try:
            self._take()
        except CommandError:
            raise
        except Exception as error:
            raise CommandError(f"{self._shown} takes no lease: {_first_line(error)}") from error
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._heart.start()

    def check(self) -> None:
        """Raise `BusyError` where it is lost: nothing may be written any more."""
        if self._lost is None and self._is_over():
            self._lost = "could not be renewed in time"
        if self._lost is not None:
            raise BusyError(
                f"This sync has stopped writing: its lease on {self._shown} {self._lost}. What it loaded before stays; "
                "the next sync goes on there."
            )

    def renew(self) -> None:
        """Make sure that it is still held, and hold it for the whole time from now.

        Raises:
            BusyError: It is lost.
        """
        with self._renewing:
            self.check()
            asked = (time.monotonic(), time.time())
            self._files.pipe_file(self._path(self._number), self._content())
            newest = max(self._numbers(), default=0)
            if newest > self._number:
                self._lost = f"was taken over by {self._read(newest)[0] or 'another sync'}"
                self.check()
            self._valid_until = (asked[0] + self._times.last, asked[1] + self._times.last)

    def release(self) -> None:
        """Give it back. Never raises: a lease that cannot be given back expires."""
        self._ended.set()
        if self._heart is not None:
            self._heart.join(self._times.renew)
        with self._renewing, suppress(Exception):
            if self._lost is None and not self._is_over():
                self._files.pipe_file(self._path(self._number), self._content(released=True))

    def _take(self) -> None:
        newest = max(self._numbers(), default=0)
        if newest:
            self._wait_for(newest)
        self._number = newest + 1
        asked = (time.monotonic(), time.time())
        if not self._create(self._number):
            holder = self._read(self._number)[0]
            if holder is None or holder.owner != self._owner:  # else the answer to our own request was lost
                raise self._busy(holder)
        elif self._create(self._number):
            logger.warning(
                "The storage of %s ignores conditions on writes, so that two syncs that start in the same moment are "
                "kept apart by waiting: start one at a time.",
                self._shown,
            )
            time.sleep(self._times.settle)
            holder = self._read(self._number)[0]
            if holder is None or holder.owner != self._owner or max(self._numbers()) > self._number:
                raise self._busy(holder)
        # A folder's listing may miss both an object that is written while it goes on and the one that is removed then.
        numbers = self._numbers()
        if (highest := max(numbers, default=0)) > self._number:
            self._remove(self._number)
            raise self._busy(self._read(highest)[0])
        self._valid_until = (asked[0] + self._times.last, asked[1] + self._times.last)
        for number in numbers:
            if number < self._number:
                self._remove(number)

    def _wait_for(self, number: int) -> None:
        """Return once the lease of that number has ended; `BusyError` where it is held."""
        holder, content = self._read(number)
        if holder is None:
            # Its writer was killed between creating it and writing to it, or is about to write.
            self._watch(number, content, self._times.last, None)
        elif not holder.released and not holder.is_dead:
            if 0 < holder.expires - time.time() <= self._times.last:
                raise self._busy(holder)
            # It looks expired, or held for longer than any is: clocks differ. One that is not renewed for as long as it
            # lasts has ended by every clock, its holder's too.
            self._watch(number, content, self._times.last, holder)

    def _watch(self, number: int, content: bytes, seconds: float, holder: _Holder | None) -> None:
        until = time.monotonic() + seconds
        logger.warning("Waiting to see whether %s still syncs into %s ...", holder or "another", self._shown)
        while time.monotonic() < until:
            time.sleep(min(1.0, seconds / 10))
            if max(self._numbers(), default=0) > number or self._read(number)[1] != content:
                raise self._busy(self._read(number)[0])

    def _beat(self) -> None:
        while not self._ended.wait(self._times.renew):
            try:
                self.renew()
            except CommandError:
                return
            except Exception as error:  # noqa: BLE001 - the next time may do; `check` tells where none does
                logger.info("The lease on %s could not be renewed: %s", self._shown, _first_line(error))

    def _is_over(self) -> bool:
        # Both clocks: one of them stands still while a machine sleeps, the other may be set.
        return time.monotonic() > self._valid_until[0] or time.time() > self._valid_until[1]

    def _busy(self, holder: _Holder | None) -> BusyError:
        until = f", until {_clock(holder.expires)} unless it goes on" if holder and not holder.released else ""
        return BusyError(f"Another sync is running on {self._shown}: {holder or 'it has just begun'}{until}.")

    def _create(self, number: int) -> bool:
        """Write the object of that number, if there is none."""
        try:
            if isinstance(self._files, LocalFileSystem):
                # fsspec looks whether there is a file and then writes one, which two may do in the same moment.
                with Path(self._path(number)).open("xb") as file:
                    file.write(self._content())
            else:
                self._files.pipe_file(self._path(number), self._content(), mode="create")
        except FileExistsError:
            return False
        except FileNotFoundError:  # a folder, where a bucket has none
            self._files.makedirs(self._folder, exist_ok=True)
            return self._create(number)
        except OSError as error:
            if "ConditionalRequestConflict" in str(error):  # S3: another is writing it in this moment
                return False
            raise
        return True

    def _remove(self, number: int) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(number))

    def _read(self, number: int) -> tuple[_Holder | None, bytes]:
        try:
            content: bytes = self._files.cat_file(self._path(number))
        except FileNotFoundError:
            return None, b""
        try:
            fields = json.loads(content)
            fields["process"] = (int(fields["process"][0]), int(fields["process"][1]))
            return _Holder(**fields), content
        except (ValueError, TypeError, LookupError):
            return None, content

    def _numbers(self) -> list[int]:
        self._files.invalidate_cache()
        try:
            paths = self._files.ls(self._folder, detail=False)
        except FileNotFoundError:
            return []
        names = [str(path).replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".json") for path in paths]
        return sorted(int(name) for name in names if name.isdigit())

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:08}.json"

    def _content(self, *, released: bool = False) -> bytes:
        own = os.getpid()
        now = time.time()
        holder = _Holder(
            self._owner, _who(), _machine(), (own, _started(own)), self.since, now + self._times.last, released
        )
        return json.dumps(vars(holder)).encode()


@contextmanager
def hold(lease: Lease) -> Iterator[Lease]:
    """Hold a lease for as long as the block runs. Raises what `Lease.acquire` raises."""
    lease.acquire()
    try:
        with released_at_exit(lease.release):
            yield lease
    finally:
        lease.release()


def _who() -> str:
    return f"{user_name()}@{socket.gethostname()}"


def _machine() -> str:
    # The boot and the space of process numbers: containers and machines may share a host name.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - no path at all
    except OSError:
        return ""


def _started(process: int) -> int:
    """When a process of this machine started, in ticks since its boot; 0 where there is none, or none can tell."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
        fields = status.rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return 0


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%H:%M:%S UTC")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
