"""What the command says of itself: its options and their descriptions, and the completion in a shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from command import Command
from fine_tuning_warehouse.cli.main import ftw as ftw_command
from openai_fine_tuning.settings import CONCURRENCY


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_for_completion_on_the_page_works(tmp_path: Path, shell: str) -> None:
    page = (Path(__file__).parent.parent / "docs/reference/command.md").read_text(encoding="utf-8")
    assert f"_FTW_COMPLETE={shell}_source ftw" in page
    ftw = Command(tmp_path)
    script = ftw(env={"_FTW_COMPLETE": f"{shell}_source"})
    assert (script.code, script.err) == (0, "")
    assert "ftw" in script.out
    asked = {"COMP_WORDS": "ftw best --so", "COMP_CWORD": "--so" if shell == "fish" else "2"}
    assert "--sort" in ftw(env={"_FTW_COMPLETE": f"{shell}_complete", **asked}).out


def commands(group: click.Group) -> Iterator[click.Command]:
    """The commands of a group, and of the groups in it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from commands(command)


def test_the_default_that_is_shown_is_the_one_that_is_used() -> None:
    shown = {
        command.name: option.help or ""
        for command in commands(ftw_command)
        for option in command.params
        if isinstance(option, click.Option) and option.name == "database"
    }
    reading = {"accounts", "rename", "best", "explore", "forget", "maintain", "query", "views"}
    assert {name for name, text in shown.items() if "else the demo's" in text} == reading
    (concurrency,) = {
        option.default for command in commands(ftw_command) for option in command.params if option.name == "concurrency"
    }
    assert concurrency == CONCURRENCY


def test_every_option_has_a_description() -> None:
    lacking = [
        (command.name, option.name)
        for command in commands(ftw_command)
        for option in command.params
        if isinstance(option, click.Option) and not (option.help or "").strip()
    ]
    assert lacking == []
