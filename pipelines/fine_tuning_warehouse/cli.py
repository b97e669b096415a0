"""The command `ftw`: options in, exit code out. Whatever costs time to import is imported where it is needed."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from . import output
from .errors import BUSY, DONE, FAILED, INCOMPLETE, USAGE, CommandError, UsageError

if TYPE_CHECKING:
    from .destinations import TableFormat

_RESOURCES = ("jobs", "checkpoints", "events", "result_metrics")


def main() -> NoReturn:
    """The console command. Failures are told in a line or two on stderr, with the exit codes of the contract."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = ftw.main(standalone_mode=False) or DONE
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "ftw"
        code = _tell(f"{error.format_message()} (`{command} --help` shows what there is)", USAGE)
    except CommandError as error:
        code = _tell(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _tell("Stopped. What was loaded stays, and the next sync goes on there.", FAILED)
        # Threads may still wait for an answer of the host; nothing they bring is wanted any more.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)
    except BrokenPipeError:
        os._exit(FAILED)
    sys.exit(int(code))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _tell(message: str, code: int) -> int:
    click.echo(f"Error: {output.safe(message)}", err=True)
    return code


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fine-tuning-warehouse", prog_name="ftw")
def ftw() -> None:
    """The whole history of your fine-tuning, in your own warehouse."""


def _warehouse_options(command: Any) -> Any:
    for option in (
        click.option("--dataset", metavar="NAME", help="Schema that holds the tables.  [default: fine_tuning]"),
        click.option("--table-format", type=click.Choice(["iceberg", "delta"]), help="For --destination filesystem."),
        click.option("--destination", metavar="NAME", help="Any dlt destination.  [default: duckdb]"),
        click.option("--database", metavar="PATH", help="The DuckDB file.  [default: fine_tuning_warehouse.duckdb]"),
    ):
        command = option(command)
    return command


def _account_options(command: Any) -> Any:
    for option in (
        click.option("--base-url", metavar="URL", help="The host.  [default: OPENAI_BASE_URL, else OpenAI]"),
        click.option("--account", metavar="LABEL", help="Label that every row carries.  [default: default]"),
    ):
        command = option(command)
    return command


@ftw.command()
@click.option("--demo", is_flag=True, help="Sync from a simulated host: no key, no network.")
@_warehouse_options
@_account_options
@click.option("--job", "jobs", metavar="ID", multiple=True, help="Read only this job (repeatable).")
@click.option("--resources", metavar="A,B", help=f"Some of {','.join(_RESOURCES)}.  [default: all]")
@click.option("--since", metavar="DATE", help="Read only jobs created since, such as 2026-01-31.")
@click.option("--full-refresh", is_flag=True, help="Read everything once more, into the same rows.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=16, show_default=True, help="Requests in flight.")
@click.option("--every", metavar="TIME", help="Stay, and sync again every 15m, 6h, 1d ...")
@click.option("--output", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--strict", is_flag=True, help="Exit 3 where something was rejected or skipped.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--verbose", is_flag=True, help="Log what is done.")
def sync(
    *,
    demo: bool,
    database: str | None,
    destination: str | None,
    table_format: TableFormat | None,
    dataset: str | None,
    account: str | None,
    base_url: str | None,
    jobs: tuple[str, ...],
    resources: str | None,
    since: str | None,
    full_refresh: bool,
    concurrency: int,
    every: str | None,
    form: str,
    strict: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Load what is new.

    Reads the jobs, checkpoints, events and result files of an account, only what the warehouse lacks, and loads them
    as typed tables. What is interrupted is taken up by the next sync.
    """
    pause = None if every is None else _seconds(every)
    chosen = _chosen_resources(resources)
    _check_since(since)
    if demo and base_url is not None:
        raise UsageError("--demo has a host of its own: leave --base-url out.")
    if full_refresh and (jobs or since):
        raise UsageError("--full-refresh reads everything: it goes neither with --job nor with --since.")
    with _told_as(form, account or "default") as told:
        from .accounts import checked_label, find_account  # noqa: PLC0415
        from .demo import DEMO_DATABASE, DEMO_LABEL, demo_account  # noqa: PLC0415
        from .destinations import DEFAULT_DATABASE, find_warehouse  # noqa: PLC0415

        warehouse = find_warehouse(
            database=database,
            destination=destination,
            dataset=dataset,
            table_format=table_format,
            default=DEMO_DATABASE if demo else DEFAULT_DATABASE,
        )
        _set_up_logging(verbose=verbose)
        from .progress import progress_bar  # noqa: PLC0415
        from .sync import Reading, Summary, run_sync  # noqa: PLC0415

        reading = Reading(chosen, jobs, since, full_refresh, concurrency)
        watch = progress_bar if sys.stderr.isatty() and not quiet and not verbose else None
        stop = threading.Event()
        while True:
            with ExitStack() as stack:
                if demo:
                    label = checked_label(account or DEMO_LABEL)
                    whose = stack.enter_context(demo_account(label, warehouse))
                else:
                    whose = find_account(account, base_url)
                told.summary = Summary(whose.label)
                try:
                    run_sync(whose, warehouse, reading, watch=watch, summary=told.summary)
                except CommandError as error:
                    if pause is None:
                        raise
                    told.summary.status, told.summary.error = "failed", str(error)
            _show(told.summary, whose.base_url, warehouse.shown, form=form, quiet=quiet, demo=demo)
            if pause is None:
                return INCOMPLETE if strict and told.summary.is_incomplete else DONE
            stop.wait(pause)


class _told_as:  # noqa: N801 - a context manager that reads as a sentence
    """Tells a failure as JSON too, where that was asked for."""

    def __init__(self, form: str, label: str) -> None:
        self._form = form
        self._label = label
        self.summary: Any = None

    def __enter__(self) -> _told_as:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if self._form == "json" and isinstance(error, CommandError):
            from .sync import Summary  # noqa: PLC0415

            summary = self.summary or Summary(self._label)
            summary.status, summary.error = "failed", str(error)
            click.echo(output.as_json(summary.as_json()))


def _show(summary: Any, host: str, warehouse: str, *, form: str, quiet: bool, demo: bool) -> None:
    if form == "json":
        click.echo(output.as_json(summary.as_json()))
    elif summary.status == "failed":
        click.echo(f"Error: {output.safe(str(summary.error))}", err=True)
    elif not quiet:
        for line in output.summary_lines(summary, "a simulated host" if demo else host, warehouse):
            click.echo(line)
    if not quiet:
        for line in output.skip_lines(summary):
            click.echo(line, err=True)


@ftw.command()
@_warehouse_options
@_account_options
def check(
    *,
    database: str | None,
    destination: str | None,
    table_format: TableFormat | None,
    dataset: str | None,
    account: str | None,
    base_url: str | None,
) -> int:
    """Is all set up: configuration, key, scopes, destination."""
    from .accounts import find_account  # noqa: PLC0415
    from .check import check as findings  # noqa: PLC0415
    from .destinations import DEFAULT_DATABASE, find_warehouse  # noqa: PLC0415

    warehouse = find_warehouse(
        database=database,
        destination=destination,
        dataset=dataset,
        table_format=table_format,
        default=DEFAULT_DATABASE,
    )
    whose = find_account(account, base_url)
    failed = False
    for finding in findings(whose, warehouse):
        mark = {True: "ok", False: "FAILED", None: "-"}[finding.is_fine]
        click.echo(f"{mark:<6}  {finding.what:<14}  {output.safe(finding.words)}")
        failed = failed or finding.is_fine is False
    return FAILED if failed else DONE


@ftw.command()
@click.argument("sql")
@click.option("--database", metavar="PATH", help="The DuckDB file.  [default: the one there is]")
@click.option("--dataset", metavar="NAME", default="fine_tuning", show_default=True)
@click.option("--output", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
def query(sql: str, database: str | None, dataset: str, form: str) -> None:
    """Read-only SQL over the warehouse."""
    from .query import query as run  # noqa: PLC0415

    names, rows = run(_existing_database(database), sql, dataset)
    if form == "json":
        click.echo(output.as_json([dict(zip(names, row, strict=True)) for row in rows]))
    elif form == "csv":
        click.echo(output.as_csv(names, rows))
    elif names:
        width = None
        if sys.stdout.isatty():
            width = click.get_current_context().terminal_width or os.get_terminal_size().columns
        click.echo(output.as_table(names, rows, width))


@ftw.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(0), default=24, show_default=True, help="Jobs in its history.")
@click.option("--profile", type=click.Choice(["openai", "azure", "nebius"]), default="openai", show_default=True)
@click.option("--speed", type=click.FloatRange(0), default=1.0, show_default=True, help="0 is a frozen clock.")
def simulate(port: int, seed: int, jobs: int, profile: str, speed: float) -> None:
    """Run the simulated host on its own."""
    try:
        from fine_tuning_simulator import serve  # noqa: PLC0415
    except ImportError:
        raise UsageError("The simulator needs its server: pip install 'fine-tuning-warehouse[demo]'.") from None

    def ready(base_url: str) -> None:
        click.echo(f"Serving {base_url} until you press Ctrl-C. To sync from it:", err=True)
        click.echo(f"  OPENAI_API_KEY=any ftw sync --base-url {base_url}", err=True)

    try:
        serve(port=port, seed=seed, jobs=jobs, profile=profile, speed=speed, on_ready=ready)
    except OSError as error:
        raise CommandError(f"Port {port} cannot be used: {error.strerror or error}. Try --port 0.") from None
    except KeyboardInterrupt:
        return


def _existing_database(database: str | None) -> Path:
    """The database that was named, or the one that a sync has made here."""
    from .demo import DEMO_DATABASE  # noqa: PLC0415
    from .destinations import DEFAULT_DATABASE  # noqa: PLC0415

    if database is not None:
        return Path(database).expanduser()
    default, demo = Path(DEFAULT_DATABASE), Path(DEMO_DATABASE)
    return demo if demo.exists() and not default.exists() else default


def _chosen_resources(resources: str | None) -> tuple[str, ...]:
    if resources is None:
        return _RESOURCES
    chosen = [name.strip() for name in resources.split(",") if name.strip()]
    for name in chosen:
        if name not in _RESOURCES:
            raise UsageError(f"There is no resource {name!r}: choose from {', '.join(_RESOURCES)}.")
    if not chosen:
        raise UsageError(f"--resources names none: choose from {', '.join(_RESOURCES)}.")
    return tuple(name for name in _RESOURCES if name in chosen)


def _check_since(since: str | None) -> None:
    from datetime import datetime  # noqa: PLC0415

    try:
        if since is not None:
            datetime.fromisoformat(since.strip().replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(f"--since {since!r} is no date: it looks like 2026-01-31 or 2026-01-31T12:00.") from None


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--every {text!r} is no time: it looks like 30s, 15m, 6h or 1d.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _set_up_logging(*, verbose: bool) -> None:
    os.environ["RUNTIME__LOG_LEVEL"] = "INFO" if verbose else "CRITICAL"


__all__ = ["BUSY", "ftw", "main"]
