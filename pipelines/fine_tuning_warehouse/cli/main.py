"""The command `ftw`: what it consists of, and how each failure ends it."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from typing import NoReturn

import click

from fine_tuning_warehouse.errors import (
    DONE,
    FAILED,
    INTERRUPTED,
    TERMINATED,
    USAGE,
    CommandError,
)
from fine_tuning_warehouse.hard_exit import exit_now

from . import output
from .archive import archive
from .best import best
from .check import check
from .copy import copy
from .explore import explore
from .failures import bug_report
from .health import health
from .query import query
from .simulate import simulate
from .sync import sync
from .verify import verify
from .views import views

_ENVIRONMENT = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__INTERCEPT_SIGNALS": "false",  # dlt would swallow SIGTERM until all of a load is done
}
"""Settings of dlt that hold for the whole process, which belongs to the command."""


def main() -> NoReturn:
    """Run the command line and end the process.

    A failure is one or two lines on stderr. A programming error is a traceback without secrets, and a line that asks to
    report it. Exit codes are those of `fine_tuning_warehouse.errors`.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    os.environ.update(_ENVIRONMENT)
    _keep_files_private()
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow's own keeps 40 MB that it does not need
    try:
        code = ftw.main(standalone_mode=False) or DONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = USAGE
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "ftw"
        code = _print_error(f"{error.format_message()} (`{command} --help` shows what there is)", USAGE)
    except CommandError as error:
        code = _print_error(str(error), error.exit_code)
    except click.Abort as error:
        terminated = isinstance(error.__cause__, _TerminatedError)
        code = _print_stopped(TERMINATED if terminated else INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - a bug
        click.echo(bug_report(error), err=True)
        code = FAILED
    # Threads may still wait for an answer of the host, up to a minute; nothing they bring is wanted any more.
    exit_now(int(code))


def _keep_files_private() -> None:
    """Have all new files be readable by their owner alone, unless FTW_UMASK says otherwise."""
    asked = os.environ.get("FTW_UMASK")
    if asked is None:
        os.umask(os.umask(0o077) | 0o077)
    elif re.fullmatch("0?[0-7]{3}", asked):
        os.umask(int(asked, 8))
    else:
        sys.exit(_print_error(f"Invalid FTW_UMASK {asked!r}: expected three octal digits such as 027.", USAGE))


_LONGEST_STOP_SECONDS = 1.5

_KEPT = {
    "sync": "what was loaded stays, and the next sync goes on there",
    "archive": "what came whole stays, and the next run goes on there",
    "copy": "what was copied whole stays; run it again, and it goes on there",
    "verify": "the warehouse is as it was",
}
"""What a command that is ended early leaves, where there is something to say of it."""


class _Running:
    """Which command runs, once that is known."""

    command: str | None = None


_running = _Running()


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def _interrupt(number: int, _frame: object) -> NoReturn:
    """End the command, at the latest after a moment: a library may swallow what is raised inside it."""
    timer = threading.Timer(_LONGEST_STOP_SECONDS, _leave_at_once, [number])
    timer.daemon = True
    timer.start()
    sys.unraisablehook = _tell_unraisable
    raise _TerminatedError if number == signal.SIGTERM else KeyboardInterrupt


def _tell_unraisable(swallowed: sys.UnraisableHookArgs) -> None:
    """Say nothing of a stop that was raised inside a finalizer, where Python swallows it: the timer ends all."""
    if not issubclass(swallowed.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(swallowed)


def _leave_at_once(number: int) -> None:
    exit_now(_print_stopped(TERMINATED if number == signal.SIGTERM else INTERRUPTED))


def _print_stopped(code: int) -> int:
    kept = _KEPT.get(_running.command or "")
    click.echo(f"Stopped: {kept}." if kept else "Stopped.", err=True)
    return code


def _print_error(message: str, code: int) -> int:
    click.echo(f"Error: {output.safe_lines(message)}", err=True)
    return code


def _show_version(context: click.Context, _option: click.Parameter, is_asked: bool) -> None:
    if is_asked and not context.resilient_parsing:
        from fine_tuning_warehouse.version import versions  # noqa: PLC0415 - reads packages' metadata, which `--help` does without

        click.echo(f"ftw {versions()}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the versions and exit.",
)
@click.pass_context
def ftw(context: click.Context) -> None:
    """The whole history of your fine-tuning, in your own warehouse."""
    _running.command = context.invoked_subcommand


for command in (sync, health, check, verify, archive, copy, best, query, views, explore, simulate):
    ftw.add_command(command)
