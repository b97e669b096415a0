"""`ftw check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fine_tuning_warehouse import output
from fine_tuning_warehouse.errors import DONE, FAILED

from .options import account_options, warehouse_options

if TYPE_CHECKING:
    from fine_tuning_warehouse.destinations import TableFormat


@click.command()
@warehouse_options
@account_options
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
    from fine_tuning_warehouse.accounts import find_account  # noqa: PLC0415
    from fine_tuning_warehouse.check import check as findings  # noqa: PLC0415
    from fine_tuning_warehouse.destinations import DEFAULT_DATABASE, find_warehouse  # noqa: PLC0415

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
