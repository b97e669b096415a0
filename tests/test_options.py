"""Options of the command, and what they are called and set to elsewhere."""

from __future__ import annotations

import inspect
import re

import pytest
from click.testing import CliRunner

from fine_tuning_warehouse.cli.main import ftw
from fine_tuning_warehouse.sync.scheduled import sync_configured
from openai_fine_tuning import openai_fine_tuning, request_policy, settings
from repository import ROOT

NOT_SCHEDULED = {
    "demo": "a schedule has a host",
    "base_url": "a host is configured beside its key",
    "jobs": "one job is read by hand; the next scheduled sync reads it anyway",
    "since": "a bound to a first look; a schedule reads whatever is new",
    "full_refresh": "a repair, done once and by hand",
    "lock_wait": "a schedule tries again by itself",
    "every": "the scheduler keeps the time",
    "log_format": "logging is the scheduler's",
    "metrics_file": "the scheduler has its own",
    "health_file": "the scheduler knows what succeeded",
    "output_format": "the result is returned",
    "strict": "the totals say `is_incomplete`",
    "quiet": "nothing is printed",
    "verbose": "logging is the scheduler's",
}
"""Options of `ftw sync` that `sync_configured` does without, each with the reason."""


RARELY_SET = {
    "fine_tuning_grace_seconds": "hosts keep within it",
    "fine_tuning_timeout_seconds": "hosts keep within it",
    "fine_tuning_stop_after_seconds": "for who commits in parts, as `ftw sync` does",
    "fine_tuning_stop_after_rows": "for who commits in parts, as `ftw sync` does",
    "fine_tuning_report": "no setting",
    "fine_tuning_policy": "no setting",
}
"""Arguments of the source that its README leaves to the reference, each with the reason."""


def test_requests_in_flight_are_bounded_alike_by_the_command_and_the_source() -> None:
    options = [option for command in ftw.commands.values() for option in command.params if option.name == "concurrency"]
    assert len(options) == 3
    assert {option.default for option in options} == {settings.CONCURRENCY}


def test_a_scheduled_sync_takes_the_options_of_the_command_but_for_those_it_has_no_use_for() -> None:
    of_command = {str(option.name) for option in ftw.commands["sync"].params}
    arguments = set(inspect.signature(sync_configured).parameters)
    assert not arguments & set(NOT_SCHEDULED)
    assert {name.replace("accounts", "labels") for name in arguments} | set(NOT_SCHEDULED) == of_command


def test_the_readme_of_the_source_names_its_arguments() -> None:
    readme = (ROOT / "sources/openai_fine_tuning/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[a-z_`, ]+) \|", readme.partition("## Settings")[2], re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert named == [name for name in inspect.signature(openai_fine_tuning).parameters if name not in RARELY_SET]


def test_the_list_of_commands_says_the_first_sentence_of_each() -> None:
    listed = CliRunner().invoke(ftw, ["--help"], terminal_width=300).output.partition("Commands:\n")[2]
    lines = dict(re.findall(r"^  (\S+) +(.*)$", listed, re.MULTILINE))
    assert lines == {name: command.get_short_help_str(300) for name, command in ftw.commands.items()}


def test_a_policy_that_is_handed_in_keeps_its_retries_and_takes_the_configured_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FINE_TUNING_ANSWER_SECONDS", "7")
    given = settings.RequestPolicy(backoff=0.25, answer_seconds=1)
    policy = request_policy(fine_tuning_policy=given)
    assert (policy.backoff, policy.answer_seconds) == (0.25, 7)
    assert policy.read_timeout == settings.READ_TIMEOUT_SECONDS
