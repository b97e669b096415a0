"""What the reference says of the command and of the source, taken from their own code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click
import dlt

from fine_tuning_warehouse.cli.main import ftw
from openai_fine_tuning import openai_fine_tuning

_NO_SETTING = ("fine_tuning_report",)
"""Arguments that no configuration can hold."""


def command_sections() -> str:
    """A section for each command of `ftw`, with every option, as `--help` shows them."""
    parent = click.Context(ftw, info_name="ftw", **ftw.context_settings)
    sections = []
    commands = dict(ftw.commands)
    commands.update(
        (f"{name} {below}", one)
        for name, command in ftw.commands.items()
        if isinstance(command, click.Group)
        for below, one in command.commands.items()
    )
    for name, command in sorted(commands.items()):
        with click.Context(command, parent=parent, info_name=name) as context:
            usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
            purpose = _shown(inspect.cleandoc(command.help or ""))
            options = "\n".join(_options(command, context))
            sections.append(f"## ftw {name}\n\n{purpose}\n\n```text\n{usage}\n```\n\n{options}\n")
    return "\n".join(sections)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            names, words = record
            yield f"* `{names}`: {_shown(words)}"


def _shown(words: str) -> str:
    """A help text as Markdown: options stand out, and brackets are no links."""
    words = re.sub(r"\s*\[(.*?)\]", r" (\1)", words)
    return re.sub(r"(`[^`]*`)|(--[a-z-]+)", lambda found: found[1] or f"`{found[2]}`", words).strip()


def source_arguments() -> str:
    """A table of what can be said to the source in `.dlt` or the environment: name, default and meaning."""
    meanings = _meanings(inspect.getdoc(openai_fine_tuning) or "")
    rows = [
        f"| `{name}` | {_default(parameter.default)} | {meanings[name]} |"
        for name, parameter in inspect.signature(openai_fine_tuning).parameters.items()
        if name in meanings and name not in _NO_SETTING
    ]
    return "\n".join(["| name | default | what it is |", "|---|---|---|", *rows, ""])


def _meanings(documentation: str) -> dict[str, str]:
    """The section `Args` of a docstring: name to words."""
    arguments = re.search(r"^Args:\n(.*?)^\S", documentation, re.DOTALL | re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", arguments[1] if arguments else "", re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}


def _default(value: object) -> str:
    if value is None:
        return "none"
    return "must be set" if value is dlt.secrets.value else f"`{value}`"
