"""The command `ftw verify`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fine_tuning_warehouse.errors import DIFFERS, DONE, CommandError
from fine_tuning_warehouse.text import counted

from .failures import json_on_failure
from .options import (
    AccountOptions,
    WarehouseOptions,
    account_options,
    concurrency_option,
    prepare,
    warehouse_options,
)
from .terminal import output

if TYPE_CHECKING:
    from fine_tuning_warehouse.accounts.account import Account
    from fine_tuning_warehouse.verify import Comparison
    from fine_tuning_warehouse.warehouses.warehouse import Warehouse

_SHOWN = 20


@click.command()
@warehouse_options
@account_options
@concurrency_option
@output.format_option("text", "json")
def verify(*, target: WarehouseOptions, chosen_accounts: AccountOptions, concurrency: int, output_format: str) -> int:
    """Compare the warehouse with the API, row by row.

    Reads everything of every account once more and writes nothing. Exits 4 if a row is missing, different, or there
    more than once. Rows that the host no longer lists, and rows that the next sync will bring, are listed and are not
    failures.
    """
    with json_on_failure(output_format, lambda: _total([], chosen_accounts.label)):
        prepare()
        warehouse = target.find()
        accounts = chosen_accounts.find()
    from fine_tuning_warehouse import verify as library  # noqa: PLC0415
    from fine_tuning_warehouse.cli.terminal.progress import progress_bar  # noqa: PLC0415

    watch = progress_bar if sys.stderr.isatty() else None
    results: list[dict[str, Any]] = []
    failures: list[CommandError] = []
    for account in accounts:
        try:
            comparison = library.verify(account, warehouse, concurrency=concurrency, watch=watch)
        except CommandError as error:
            failures.append(error)
            results.append(_as_json(account, library.Comparison(), str(error)))
            if len(accounts) > 1:
                click.echo(f"Account {account.label} failed: {output.safe(str(error))}", err=True)
            continue
        results.append(_as_json(account, comparison, None))
        if output_format == "text":
            _print(account, comparison, warehouse, several=len(accounts) > 1)
    if output_format == "json":
        label = accounts[0].label if len(accounts) == 1 else None
        output.print_result(_total(results, label))
    if any(one["status"] == "differs" for one in results):
        return DIFFERS
    if failures and len(accounts) == 1:
        raise failures[0]
    if failures:
        failed = ", ".join(str(one["account"]) for one in results if one["status"] == "failed")
        raise CommandError(f"{len(failures)} of {len(results)} accounts could not be compared: {failed}.")
    return DONE


def _as_json(account: Account, comparison: Comparison, error: str | None) -> dict[str, Any]:
    status = "failed" if error else "differs" if comparison.differs else "equal"
    findings = [{"account": account.label, **asdict(finding)} for finding in comparison.findings]
    return {"status": status, "error": error, "account": account.label, **asdict(comparison), "findings": findings}


def _total(results: Sequence[dict[str, Any]], label: str | None) -> dict[str, Any]:
    """Return the fields of all accounts together, and those of each account under `accounts`."""
    equal: Counter[str] = Counter()
    for one in results:
        equal.update(one["equal"])
    statuses = {one["status"] for one in results}
    errors = {one["account"]: one["error"] for one in results if one["error"]}
    several = " ".join(f"Account {label}: {error}" for label, error in errors.items())
    return {
        "status": next((status for status in ("differs", "failed") if status in statuses), "equal"),
        "error": (next(iter(errors.values())) if len(results) == 1 else several) if errors else None,
        "account": label,
        "equal": dict(equal),
        "findings": [finding for one in results for finding in one["findings"]],
        "skipped": [skip for one in results for skip in one["skipped"]],
        "warnings": [warning for one in results for warning in one["warnings"]],
        "requests": sum(one["requests"] for one in results),
        "accounts": results,
    }


def _print(account: Account, comparison: Comparison, warehouse: Warehouse, *, several: bool) -> None:
    from fine_tuning_warehouse.verify import FAILURES, lines  # noqa: PLC0415

    failures_first = sorted(comparison.findings, key=lambda finding: finding.verdict not in FAILURES)
    for finding in failures_first[:_SHOWN]:
        columns = f" ({', '.join(finding.columns)})" if finding.columns else ""
        click.echo(f"{finding.verdict:<10}  {finding.table}  {output.safe(finding.key)}{columns}")
    if len(comparison.findings) > _SHOWN:
        click.echo(f"... and {len(comparison.findings) - _SHOWN:,} more (all of them: --output json)")
    for skip in comparison.skipped:
        prefix = f"Account {account.label}: skipped" if several else "Skipped"
        what = f"{skip['resource']} of {skip['job']}: {skip['reason']}"
        click.echo(f"{prefix} {output.safe(what)}", err=True)
    verdict = "differs from" if comparison.differs else "holds what is at"
    requests = counted(comparison.requests, "request")
    click.echo(f"{warehouse.shown} {verdict} {account.host} (account {account.label}, {requests}):")
    for line in lines(comparison):
        click.echo(line)
