"""The page about hosts is true: its commands are run against simulated hosts, and `ftw check` prints what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from command import Command
from fine_tuning_simulator import Clock, GeneratedWorld, Simulator

PAGE = (Path(__file__).parent.parent / "docs" / "hosts.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^(#+) (.*?)$|```sh\n(.*?)```(?:\n\n```text\n(.*?)```)?", flags=re.DOTALL | re.MULTILINE)


def examples() -> list[tuple[str, list[str], str | None]]:
    """Heading, commands, and what the check of them prints where that is shown."""
    heading, found = "", []
    for match in _BLOCK.finditer(PAGE):
        if match[2]:
            heading = match[2]
        else:
            found.append((heading, match[3].splitlines(), match[4]))
    return found


def profile_of(address: str) -> str:
    """What kind of host an address is one of."""
    return "azure" if "azure" in address else "nebius" if "nebius" in address else "openai"


def with_keys() -> list[Any]:
    """The examples that need a key: the first one in the usual run, all in the thorough one."""
    first, *others = [example for example in examples() if "Entra" not in example[0]]
    return [first, *(pytest.param(*example, marks=pytest.mark.thorough) for example in others)]


@pytest.mark.first_only
@pytest.mark.parametrize(("heading", "lines", "shown"), with_keys())
def test_the_commands_work_and_the_check_prints_what_is_shown(
    tmp_path: Path, clock: Clock, heading: str, lines: list[str], shown: str | None
) -> None:
    env = dict(word.split("=", 1) for line in lines if line.startswith("export") for word in shlex.split(line)[1:])
    meant = env.get("AZURE_OPENAI_ENDPOINT") or env.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    origin = f"https://{urlsplit(meant).hostname}"
    with Simulator(GeneratedWorld(seed=1, jobs=4, profile=profile_of(meant), clock=clock)) as host:
        clock.advance(30 * 86400)
        here = f"http://127.0.0.1:{urlsplit(host.base_url).port}"
        ftw = Command(tmp_path)
        del ftw.env["OPENAI_API_KEY"]
        # LiteLLM passes on what comes below this path.
        ftw.env.update({k: v.replace(origin, here).replace("/openai_passthrough", "") for k, v in env.items()})
        option = () if len(env) > 1 else ("--base-url", host.base_url)
        for line in (line for line in lines if not line.startswith("export")):
            ended = ftw(*shlex.split(line)[1:], *option)
            if shown is None or "check" not in line:
                assert ended.code == 0, f"{heading}, {line}: {ended.all}"
                continue
            printed = ended.out.replace(here, origin).replace("from --base-url", "from the default, OpenAI")
            assert printed == shown, f"{heading}, {line}: {ended.all}"
            assert ended.code == ("FAILED" in shown)


def test_every_host_of_the_table_has_its_commands() -> None:
    headings = {heading for heading, _, _ in examples()}
    for anchor in re.findall(r"\]\(#([^)]+)\)", PAGE):
        assert any(re.sub(r"[^a-z -]", "", heading.lower()).replace(" ", "-") == anchor for heading in headings), anchor
