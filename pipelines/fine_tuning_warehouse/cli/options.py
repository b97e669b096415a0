"""Options that several commands share, and what they name."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

from fine_tuning_warehouse.errors import MissingKeyError, UsageError
from fine_tuning_warehouse.warehouses.locking import LOCK_WAIT_SECONDS
from fine_tuning_warehouse.warehouses.warehouse import DEFAULT_DATABASE, DEFAULT_DATASET, find_warehouse

if TYPE_CHECKING:
    from fine_tuning_warehouse.accounts.account import Account
    from fine_tuning_warehouse.warehouses.warehouse import TableFormat, Warehouse


@dataclass(frozen=True)
class WarehouseOptions:
    """The options that name a warehouse, as they were given."""

    database: str | None
    destination: str | None
    dataset: str | None
    table_format: TableFormat | None

    def find(self, default: str = DEFAULT_DATABASE) -> Warehouse:
        """Find the warehouse; `default` is the DuckDB file if none is named. Raises `UsageError`."""
        return find_warehouse(**asdict(self), default=default)

    def find_existing(self) -> Warehouse:
        """Find the warehouse; if none is named, the DuckDB file that a sync has made here. Raises `UsageError`."""
        return self.find(existing_database())


@dataclass(frozen=True)
class AccountOptions:
    """The options that name accounts, as they were given."""

    labels: tuple[str, ...]
    base_url: str | None

    @property
    def label(self) -> str | None:
        """The label that was given; None if none or several were."""
        return self.labels[0] if len(self.labels) == 1 else None

    def find(self, *, without_key: str = "") -> list[Account]:
        """Find the accounts: at least one.

        Args:
            without_key: What the command can do without a key: a sentence for the error that a key is missing.

        Raises:
            UsageError: A label or a setting is invalid, or a key is missing.
        """
        from fine_tuning_warehouse.accounts.config_files import find_accounts  # noqa: PLC0415

        try:
            return find_accounts(self.labels, self.base_url)
        except MissingKeyError as error:
            raise MissingKeyError(f"{error} {without_key}".strip()) from None

    def demo_label(self) -> str:
        """Return the label of the demo's account. Raises `UsageError` if an option contradicts the demo."""
        from fine_tuning_warehouse.accounts.labels import checked_label  # noqa: PLC0415
        from fine_tuning_warehouse.sync.demo import DEMO_LABEL  # noqa: PLC0415

        if self.base_url is not None:
            raise UsageError("--demo has a host of its own: leave --base-url out.")
        if len(self.labels) > 1:
            raise UsageError("--demo is one account: name one --account, or none.")
        return checked_label(self.label or DEMO_LABEL)


def prepare(*, quiet: bool = False, verbose: bool = False) -> None:
    """Set up logging, and have dlt read its files. A command calls this before it imports anything that uses dlt.

    Raises:
        UsageError: One of the files is not valid TOML: dlt would show a traceback.
    """
    from fine_tuning_warehouse.cli.terminal.logs import set_up_logging  # noqa: PLC0415

    set_up_logging(quiet=quiet, verbose=verbose)  # before dlt, which starts its own
    import dlt  # noqa: PLC0415 - importing dlt costs half a second, which `--help` need not pay
    from dlt.common.configuration.providers.toml import TomlProviderReadException  # noqa: PLC0415

    try:
        len(dlt.config.config_providers)
    except TomlProviderReadException as error:
        # Not the words of the error, which may quote the file.
        where = re.search(r"at line \d+ col \d+", str(error))
        raise UsageError(f".dlt/{error.file_name} is not valid TOML{f' {where[0]}' if where else ''}.") from None


def existing_warehouse_options(command: Callable[..., Any]) -> Any:
    """Give a command that reads what is there the options of `WarehouseOptions`, as its argument `target`."""
    return warehouse_options(command, default=f"{DEFAULT_DATABASE}, else the demo's, whichever there is")


def warehouse_options(command: Callable[..., Any], *, default: str = DEFAULT_DATABASE) -> Any:
    """Give a command the options of `WarehouseOptions`, as its argument `target`; help shows `default`."""
    return _gathered(
        command,
        "target",
        WarehouseOptions,
        click.option("--dataset", metavar="NAME", help=f"Schema that holds the tables.  [default: {DEFAULT_DATASET}]"),
        click.option("--table-format", type=click.Choice(["iceberg", "delta"]), help="For --destination filesystem."),
        click.option("--destination", metavar="NAME", help="Any dlt destination.  [default: duckdb]"),
        click.option("--database", metavar="PATH", help=f"The DuckDB file.  [default: {default}]"),
    )


def account_options(command: Callable[..., Any]) -> Any:
    """Give a command the options of `AccountOptions`, as its argument `chosen_accounts`."""
    return _gathered(
        command,
        "chosen_accounts",
        AccountOptions,
        click.option("--base-url", metavar="URL", help="The host.  [default: OPENAI_BASE_URL, else OpenAI]"),
        click.option(
            "--account",
            "labels",
            metavar="LABEL",
            multiple=True,
            help="A configured account (repeatable), or else the label that every row carries.  "
            "[default: all that are configured, else `default`]",
        ),
    )


concurrency_option = click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    default=16,  # as the source's settings have it; reading them there would load dlt for `ftw --help`
    show_default=True,
    help="Requests in flight.",
)


def _gathered(command: Callable[..., Any], argument: str, kind: type, *options: Any) -> Any:
    """Add options to a command, which gets their values as one object of the dataclass `kind`."""

    @functools.wraps(command)
    def gather(**values: Any) -> Any:
        gathered = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        return command(**{argument: gathered}, **values)

    return functools.reduce(lambda decorated, option: option(decorated), options, gather)


def existing_database() -> str:
    """Return the DuckDB file that a sync has made here: the usual one, else that of the demo."""
    from fine_tuning_warehouse.sync.demo import DEMO_DATABASE  # noqa: PLC0415

    return DEMO_DATABASE if Path(DEMO_DATABASE).exists() and not Path(DEFAULT_DATABASE).exists() else DEFAULT_DATABASE


class Seconds(click.FloatRange):
    """A time in seconds, such as 90, or with its unit, such as 2m."""

    @override
    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text: Any = str(value).strip()
        has_unit = text[-1:] in tuple("smhd")
        return seconds_of(text, "--lock-wait", least=0) if has_unit else float(super().convert(text, param, ctx))


lock_wait_option = click.option(
    "--lock-wait",
    type=Seconds(0),
    default=LOCK_WAIT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a reader, or for another sync.",
)
"""The option of commands that write."""


archives_option = click.option(
    "--archive",
    "archives",
    metavar="DIR",
    multiple=True,
    help="An archive of this warehouse to change too (repeatable).",
)
"""The option of commands that change what is stored of an account."""


def seconds_of(text: str, option: str, *, least: float = 1e-9) -> float:
    """Return the seconds of a time such as 15m. Raises `UsageError`, which names the option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None or float(match[1]) < least:
        raise UsageError(f"Invalid {option} {text!r}: expected a time such as 30s, 15m, 6h or 1d.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
