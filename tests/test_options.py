"""Options of the command, and what they are called and set to elsewhere."""

from __future__ import annotations

import inspect

from fine_tuning_warehouse.cli import ftw
from fine_tuning_warehouse.scheduled import sync_configured
from openai_fine_tuning import settings

NOT_SCHEDULED = {
    "demo": "a schedule has a host",
    "base_url": "a host is configured beside its key",
    "jobs": "one job is read by hand; the next scheduled sync reads it anyway",
    "since": "a bound to a first look; a schedule reads whatever is new",
    "full_refresh": "a repair, done once and by hand",
    "lock_wait": "a schedule tries again by itself",
    "every": "the scheduler keeps the time",
    "health_file": "the scheduler knows what succeeded",
    "form": "the totals are returned",
    "strict": "the totals say `is_incomplete`",
    "quiet": "nothing is printed",
    "verbose": "logging is the scheduler's",
}
"""Options of `ftw sync` that `sync_configured` does without, each with the reason."""


def test_requests_in_flight_are_bounded_alike_by_the_command_and_the_source() -> None:
    options = [option for command in ftw.commands.values() for option in command.params if option.name == "concurrency"]
    assert len(options) == 3
    assert {option.default for option in options} == {settings.CONCURRENCY}


def test_a_scheduled_sync_takes_the_options_of_the_command_but_for_those_it_has_no_use_for() -> None:
    of_command = {str(option.name) for option in ftw.commands["sync"].params}
    arguments = set(inspect.signature(sync_configured).parameters)
    assert not arguments & set(NOT_SCHEDULED)
    assert {name.replace("accounts", "account") for name in arguments} | set(NOT_SCHEDULED) == of_command
