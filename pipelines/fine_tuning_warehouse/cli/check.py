"""`ftw check`."""

from __future__ import annotations

import click

from fine_tuning_warehouse.errors import DONE, FAILED

from . import output
from .options import (
    AccountOptions,
    WarehouseOptions,
    account_options,
    prepare,
    warehouse_options,
)


@click.command()
@warehouse_options
@account_options
def check(*, target: WarehouseOptions, whose: AccountOptions) -> int:
    """Is all set up: configuration, keys, scopes, destination."""
    prepare()
    from fine_tuning_warehouse.check import check as findings  # noqa: PLC0415

    warehouse = target.find()
    accounts = whose.find()
    failed = False
    section: str | None = None
    for label, finding in findings(accounts, warehouse):
        if len(accounts) > 1 and label not in (section, None):
            click.echo(f"account {label}")
        section = label
        mark = {True: "ok", False: "FAILED", None: "-"}[finding.is_fine]
        click.echo(f"{mark:<6}  {finding.what:<14}  {output.safe(finding.words)}")
        failed = failed or finding.is_fine is False
    return FAILED if failed else DONE
