"""The command `ftw check`."""

from __future__ import annotations

import click

from fine_tuning_warehouse.errors import DONE, FAILED

from .options import AccountOptions, WarehouseOptions, account_options, prepare, warehouse_options
from .terminal import output


@click.command()
@warehouse_options
@account_options
def check(*, target: WarehouseOptions, chosen_accounts: AccountOptions) -> int:
    """Check whether all is set up: configuration, keys, scopes, destination."""
    prepare()
    from fine_tuning_warehouse.check import check as findings  # noqa: PLC0415

    warehouse = target.find()
    accounts = chosen_accounts.find()
    failed = False
    shown: str | None = None
    for label, finding in findings(accounts, warehouse):
        if len(accounts) > 1 and label not in (shown, None):
            click.echo(f"account {label}")
        shown = label
        mark = {True: "ok", False: "FAILED", None: "-"}[finding.is_fine]
        click.echo(f"{mark:<6}  {finding.what:<14}  {output.safe(finding.words)}")
        failed = failed or finding.is_fine is False
    return FAILED if failed else DONE
