"""The tutorial is true: its commands are run in its order, on a terminal, and their output compared."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from command import FTW, NOW, Command
from fine_tuning_simulator import Clock, GeneratedWorld, Simulator
from test_readme import console_sessions

PAGE = (Path(__file__).parent.parent / "docs/tutorial.md").read_text(encoding="utf-8")
DEMO, OWN = PAGE.split("## With your own key")
OPENAI = "https://api.openai.com/v1"


@pytest.fixture
def ftw(tmp_path: Path) -> Command:
    """The command, in an empty folder, without a key."""
    ftw = Command(tmp_path)
    ftw.env.pop("OPENAI_API_KEY")
    return ftw


@pytest.fixture
def openai() -> Iterator[Simulator]:
    """What stands in for OpenAI."""
    clock = Clock(start=NOW, speed=0)
    with Simulator(GeneratedWorld(seed=1, jobs=6, clock=clock), clock=clock) as host:
        yield host


def on_a_terminal(ftw: Command, *arguments: str) -> str:
    """What a command prints on a terminal of 120 columns. Asserts that it succeeded."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    try:
        with subprocess.Popen(
            [FTW, *arguments], cwd=ftw.folder, env=ftw.env, stdout=its, stderr=subprocess.PIPE
        ) as ran:
            os.close(its)
            printed = b""
            try:
                while piece := os.read(ours, 65536):
                    printed += piece
            except OSError:
                pass  # Linux: nobody holds the other end any more
            assert ran.stderr is not None
            told = ran.stderr.read().decode()
    finally:
        os.close(ours)
    assert (ran.returncode, told) == (0, ""), arguments
    return printed.decode().replace("\r\n", "\n")


def comparable(text: str) -> str:
    """What was printed, without what differs from run to run."""
    return re.sub(r"\d+\.\d s\b", "N s", text).strip()


@pytest.mark.thorough
def test_it_goes_from_nothing_to_the_checkpoint_to_deploy(ftw: Command) -> None:
    sessions = console_sessions(DEMO)
    assert len(sessions) >= 6
    for command, shown in sessions:
        printed = on_a_terminal(ftw, *shlex.split(command)[1:])
        assert comparable(printed) == comparable(shown), command


@pytest.mark.thorough
def test_the_explorer_opens_over_what_was_synced(ftw: Command) -> None:
    pytest.importorskip("marimo", reason="the explorer needs the extra `explore`")
    assert "```sh\nftw explore\n```" in DEMO
    assert ftw("sync", "--demo").code == 0
    with ftw.start("explore", "--headless") as running:
        assert running.process.stderr is not None
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+/\?token=[\w-]+", running.process.stderr.readline())
        assert requests.get(address, timeout=30).status_code == 200
        running.signal(2)
        running.end()


@pytest.mark.thorough
def test_it_goes_on_with_a_key_of_ones_own(ftw: Command, openai: Simulator) -> None:
    for command, shown in console_sessions(OWN):
        words = shlex.split(command)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            ftw.env[name] = value
            continue
        ended = ftw(*words[1:], "--base-url", openai.base_url)
        printed = ended.all.replace(openai.base_url, OPENAI).replace("from --base-url", "from the default, OpenAI")
        assert comparable(printed) == comparable(shown), command
    assert {request.key for request in openai.requests} == {"sk-your-key"}
