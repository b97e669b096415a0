"""The command `ftw`: its subcommands, and how each failure ends it."""

from __future__ import annotations

import ast
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import NoReturn, cast

import click
from typing_extensions import override

from fine_tuning_warehouse.errors import (
    DONE,
    FAILED,
    INTERRUPTED,
    TERMINATED,
    USAGE,
    CommandError,
    UsageError,
    exit_now,
    is_bug,
    root_cause,
)
from fine_tuning_warehouse.text import safe_lines

from .terminal.lines import echo, is_plain

_COMMANDS = (
    "accounts",
    "archive",
    "best",
    "check",
    "copy",
    "dbt-sources",
    "explore",
    "forget",
    "health",
    "maintain",
    "query",
    "simulate",
    "sync",
    "verify",
    "views",
)
"""The commands. Each is a function in the module of its name."""

_ENVIRONMENT = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__SENTRY_DSN": "",  # the configuration of a folder may name a host for errors, or for traces
    "RUNTIME__DLTHUB_DSN": "",
    "RUNTIME__INTERCEPT_SIGNALS": "false",  # dlt would swallow SIGTERM until all of a load is done
}
"""Settings of dlt that hold for the whole process, which belongs to the command."""

_KEPT = {
    "sync": "what was loaded stays, and the next sync goes on there",
    "archive": "what came whole stays, and the next run goes on there",
    "copy": "what was copied whole stays; run it again, and it goes on there",
    "verify": "the warehouse is as it was",
}
"""What a command that is ended early leaves behind."""

_LONGEST_STOP_SECONDS = 1.5


class _LazyCommands(Mapping[str, click.Command]):
    """The subcommands by name; each module is imported when its command is asked for."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in _COMMANDS:
            raise KeyError(name)
        module = name.replace("-", "_")
        return cast(click.Command, getattr(import_module(f"fine_tuning_warehouse.cli.{module}"), module))

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


def _first_sentence(name: str) -> str:
    """Return the first sentence of a command's docstring, without importing the command."""
    function = name.replace("-", "_")
    module = ast.parse(Path(__file__).with_name(f"{function}.py").read_text(encoding="utf-8"))
    found = next(one for one in module.body if isinstance(one, ast.FunctionDef) and one.name == function)
    sentence = re.split(r"(?<=\.)\s", ast.get_docstring(found) or "", maxsplit=1)[0]
    return " ".join(sentence.split())


class _Group(click.Group):
    """A group that lists its commands without importing them."""

    running: str | None = None
    """The command that runs, once that is known."""

    @override
    def invoke(self, ctx: click.Context) -> object:
        """Run the command. Click prints a line break after ^C, which has no place in a log."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            if is_plain():
                raise
            raise click.Abort from error

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and the first sentences of the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_sentence(name)) for name in _COMMANDS])


def _show_version(context: click.Context, _option: click.Parameter, is_asked: bool) -> None:
    """Print the versions that a bug report needs."""
    if is_asked and not context.resilient_parsing:
        import platform  # noqa: PLC0415 - `--help` does without
        from importlib.metadata import version  # noqa: PLC0415

        from fine_tuning_warehouse import __version__  # noqa: PLC0415

        libraries = f"dlt {version('dlt')}, DuckDB {version('duckdb')}, Python {platform.python_version()}"
        click.echo(f"ftw {__version__} ({libraries})")
        context.exit()


@click.group(
    cls=_Group,
    commands=cast("dict[str, click.Command]", _LazyCommands()),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
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
    _Group.running = context.invoked_subcommand


def main() -> NoReturn:
    """Run the command line and end the process.

    A failure is one or two lines on stderr. A programming error is a traceback without secrets, and a line that asks to
    report it. Exit codes are those of `fine_tuning_warehouse.errors`.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    os.environ.update(_ENVIRONMENT)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow's own keeps 40 MB that it does not need
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if it is closed
            stream.reconfigure(errors="backslashreplace")  # what its encoding lacks ends no command
    try:
        _keep_files_private()
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
        code = _print_stopped(signal.SIGTERM if isinstance(error.__cause__, _TerminatedError) else signal.SIGINT)
    except SystemExit as error:  # by click: after a completion, and if nobody reads the output any more
        code = error.code if isinstance(error.code, int) else FAILED
    except Exception as error:  # noqa: BLE001 - a bug, or what a library or the system says in a place of its own
        from .failures import bug_report, failure_name  # noqa: PLC0415

        if is_bug(root_cause(error)):
            echo(bug_report(error), "ERROR")
            code = FAILED
        else:
            code = _print_error(failure_name(error), FAILED)
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
        raise UsageError(f"Invalid FTW_UMASK {asked!r}: expected three octal digits such as 027.")


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def _interrupt(number: int, _frame: object) -> NoReturn:
    """End the command, at the latest after a moment: a library may swallow what is raised inside it."""
    timer = threading.Timer(_LONGEST_STOP_SECONDS, lambda: exit_now(_print_stopped(number)))
    timer.daemon = True
    timer.start()
    sys.unraisablehook = _show_unraisable
    raise _TerminatedError if number == signal.SIGTERM else KeyboardInterrupt


def _show_unraisable(swallowed: sys.UnraisableHookArgs) -> None:
    """Print no stop that Python swallows inside a finalizer: the timer ends the command."""
    if not issubclass(swallowed.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(swallowed)


def _print_stopped(number: int) -> int:
    kept = _KEPT.get(_Group.running or "")
    echo(f"Stopped: {kept}." if kept else "Stopped.")
    return TERMINATED if number == signal.SIGTERM else INTERRUPTED


def _print_error(message: str, code: int) -> int:
    text = safe_lines(message)
    echo(text, "ERROR", plain=f"Error: {text}")
    return code
