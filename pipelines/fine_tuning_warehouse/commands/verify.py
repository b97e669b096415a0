"""`ftw verify`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fine_tuning_warehouse import output
from fine_tuning_warehouse.errors import DIFFERS, DONE

from .options import account_options, warehouse_options

if TYPE_CHECKING:
    from fine_tuning_warehouse.destinations import TableFormat

_SHOWN = 20


@click.command()
@warehouse_options
@account_options
@click.option("--concurrency", type=click.IntRange(1, 256), default=16, show_default=True, help="Requests in flight.")
@click.option("--output", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def verify(
    *,
    database: str | None,
    destination: str | None,
    table_format: TableFormat | None,
    dataset: str | None,
    account: str | None,
    base_url: str | None,
    concurrency: int,
    form: str,
) -> int:
    """Compare the warehouse with the API, row by row.

    Reads everything once more and writes nothing. Exits 4 where a row is missing or different. Rows that the host no
    longer lists, and rows that the next sync will bring, are told and are no failure.
    """
    from fine_tuning_warehouse.accounts import find_account  # noqa: PLC0415
    from fine_tuning_warehouse.destinations import DEFAULT_DATABASE, find_warehouse  # noqa: PLC0415
    from fine_tuning_warehouse.logs import set_up_logging  # noqa: PLC0415

    set_up_logging(quiet=False, verbose=False)
    warehouse = find_warehouse(
        database=database,
        destination=destination,
        dataset=dataset,
        table_format=table_format,
        default=DEFAULT_DATABASE,
    )
    whose = find_account(account, base_url)
    from fine_tuning_warehouse import verify as verification  # noqa: PLC0415
    from fine_tuning_warehouse.progress import progress_bar  # noqa: PLC0415

    watch = progress_bar if sys.stderr.isatty() else None
    comparison = verification.verify(whose, warehouse, concurrency=concurrency, watch=watch)
    if form == "json":
        click.echo(output.as_json({"status": "differs" if comparison.differs else "equal", **asdict(comparison)}))
        return DIFFERS if comparison.differs else DONE
    failures_first = sorted(comparison.findings, key=lambda finding: finding.verdict not in ("missing", "different"))
    for finding in failures_first[:_SHOWN]:
        columns = f" ({', '.join(finding.columns)})" if finding.columns else ""
        click.echo(f"{finding.verdict:<10}  {finding.table}  {output.safe(finding.key)}{columns}")
    if len(comparison.findings) > _SHOWN:
        click.echo(f"... and {len(comparison.findings) - _SHOWN:,} more (all of them: --output json)")
    for skip in comparison.skipped:
        what = f"{skip['resource']} of {skip['job']}: {skip['reason']}"
        click.echo(f"Skipped {output.safe(what)}", err=True)
    verdict = "differs from" if comparison.differs else "holds what is at"
    click.echo(
        f"{warehouse.shown} {verdict} {whose.base_url} (account {whose.label}, {comparison.requests:,} requests):"
    )
    for line in verification.lines(comparison):
        click.echo(line)
    return DIFFERS if comparison.differs else DONE
