"""The page about several accounts is true: its files are written, its commands run, and their output compared."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import NOW, Command
from fine_tuning_simulator import Clock, GeneratedWorld, Simulator
from test_readme import console_sessions

PAGE = (Path(__file__).parent.parent / "docs/accounts.md").read_text(encoding="utf-8")
OPENAI, AZURE = "https://api.openai.com/v1", "https://example.openai.azure.com/openai/v1"


class Hosts:
    """The two hosts of the page, simulated."""

    def __init__(self, openai: Simulator, azure: Simulator) -> None:
        self.openai = openai
        self.azure = azure

    def here(self, text: str) -> str:
        """A text of the page, as it is on this machine."""
        return text.replace(OPENAI, self.openai.base_url).replace(AZURE, self.azure.base_url)

    def comparable(self, text: str) -> str:
        """What was printed, as the page shows it: without what differs from run to run."""
        text = text.replace(self.openai.base_url, OPENAI).replace(self.azure.base_url, AZURE)
        return re.sub(r"\d+\.\d s\b", "N s", text).strip()


def files(part: str, hosts: Hosts) -> Iterator[tuple[str, str]]:
    """The files that a part of the page shows: name and content."""
    for name, content in re.findall(r"```toml\n# (\S+)\n(.*?)```", part, flags=re.DOTALL):
        yield name, hosts.here(content)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Both, with a history each."""
    clock = Clock(start=NOW, speed=0)
    with (
        Simulator(GeneratedWorld(seed=1, jobs=6, clock=clock), clock=clock) as openai,
        Simulator(GeneratedWorld(seed=2, jobs=4, profile="azure", clock=clock), profile="azure", clock=clock) as azure,
    ):
        yield Hosts(openai, azure)


@pytest.fixture
def ftw(tmp_path: Path) -> Command:
    """The command, in an empty folder, with nothing set."""
    ftw = Command(tmp_path)
    ftw.env.pop("OPENAI_API_KEY")
    (ftw.folder / ".dlt").mkdir()
    return ftw


BEFORE, MOVING = PAGE.split("## From one account to several")


@pytest.mark.thorough
def test_the_page_shows_what_its_commands_print(ftw: Command, hosts: Hosts) -> None:
    for name, content in files(BEFORE, hosts):
        (ftw.folder / name).write_text(content)
    trial, pipe = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    tried = ftw(*trial.split()[1:])
    assert tried.code == 0, tried.all
    assert re.findall(r"^account (.*)", tried.out, re.MULTILINE) == ["research", "production"]
    sessions = console_sessions(PAGE)
    assert len(sessions) >= 4
    for command, shown in sessions:
        ended = ftw(*shlex.split(command)[1:])
        assert ended.code == (2 if "reserch" in command else 0), ended.all
        assert hosts.comparable(ended.all) == hosts.comparable(shown), command
    assert {request.headers.get("openai-project") for request in hosts.openai.requests} == {"proj_research"}
    assert {request.key for request in hosts.openai.requests} == {"sk-research"}
    assert {request.key for request in hosts.azure.requests} == {"azure-production"}

    _, _, program = pipe.partition("| python3 -c ")
    printed = ftw("sync", "--output", "json", "--resources", "jobs")
    piped = [sys.executable, "-c", *shlex.split(program)]
    assert subprocess.run(piped, input=printed.out, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.thorough
def test_the_label_default_keeps_what_was_loaded(ftw: Command, hosts: Hosts) -> None:
    alone = {"OPENAI_API_KEY": "sk-mine", "OPENAI_BASE_URL": hosts.openai.base_url}
    before = ftw("sync", "--resources", "jobs", "--output", "json", env=alone).json
    ((_, config),) = files(MOVING, hosts)
    # The page leaves the host out: it is OpenAI's.
    section = "[sources.openai_fine_tuning.accounts.default]"
    (ftw.folder / ".dlt/config.toml").write_text(
        config.replace(section, f'{section}\nopenai_base_url = "{hosts.openai.base_url}"')
    )
    (ftw.folder / ".dlt/secrets.toml").write_text(
        f'{section}\nopenai_api_key = "sk-mine"\n'
        '[sources.openai_fine_tuning.accounts.production]\nopenai_api_key = "az-ours"\n'
    )
    printed = ftw("sync", "--resources", "jobs", "--output", "json").json
    default, production = printed["accounts"]
    assert (before["rows"]["jobs"], default["rows"]["jobs"]) == (6, 0)
    assert default["requests"] == before["requests"] == 1
    assert production["rows"]["jobs"] == 4
    assert ftw.rows("SELECT account, count(*) FROM jobs GROUP BY ALL ORDER BY ALL") == [
        ("default", 6),
        ("production", 4),
    ]
