"""The page about growing is true: its commands are run, in their order, against a simulated host and real engines."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from command import Command
from fine_tuning_simulator import GeneratedWorld, Simulator
from test_archive_docs import commands

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["postgres"]


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_a_history_moves_as_the_page_says(tmp_path: Path, postgres: Postgres) -> None:
    if importlib.util.find_spec("pyiceberg") is None:
        pytest.skip("needs pyiceberg: uv run --group engines pytest")
    ran = {}
    with Simulator(GeneratedWorld(jobs=4)) as host:
        ftw = Command(tmp_path, host.base_url)
        assert ftw("sync").code == 0
        for line in commands("growing.md"):
            words = shlex.split(line)
            if words[0] == "export":
                name, _, value = words[1].partition("=")
                assert value.startswith(("postgresql://", "file:///", "sql", "{"))
                known = {"DESTINATION__POSTGRES__CREDENTIALS": postgres.credentials}
                ftw.env[name] = known.get(name, value.replace("file:///data/lake", (tmp_path / "lake").as_uri()))
            elif words[0] == "ftw":
                ended = ran[line] = ftw(*words[1:])
                assert ended.code == 0, f"{line}: {ended.all}"
            else:
                assert line.startswith("pip install"), line
    assert [line.split()[1] for line in ran] == ["copy", "sync", "verify", "copy", "sync", "copy", "best"]
