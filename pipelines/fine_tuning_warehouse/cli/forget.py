"""The command `ftw forget`."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import click

from fine_tuning_warehouse.errors import DONE, UsageError
from fine_tuning_warehouse.text import counted

from .failures import json_on_failure
from .options import WarehouseOptions, archives_option, existing_warehouse_options, lock_wait_option, prepare
from .terminal import output


@click.command()
@click.option("--account", "labels", metavar="LABEL", required=True, multiple=True, help="The account (repeatable).")
@click.option("--job", "jobs", metavar="ID", multiple=True, help="Remove only this job (repeatable).")
@archives_option
@click.option("--yes", is_flag=True, help="Do not ask first. (Without a terminal nothing is asked.)")
@existing_warehouse_options
@lock_wait_option
@output.format_option("text", "json")
def forget(
    *,
    labels: tuple[str, ...],
    jobs: tuple[str, ...],
    archives: tuple[str, ...],
    yes: bool,
    target: WarehouseOptions,
    lock_wait: float,
    output_format: str,
) -> int:
    """Remove accounts from a warehouse, or jobs of one account, for good.

    Removes its rows, its staged rows and its state, and with --archive its rows and files there: the manifest keeps a
    tombstone, and the next `ftw archive` goes on. The host is not touched. A job that was removed does not come back
    with the next sync; an account does, as long as it is configured.
    """
    prepare()
    from fine_tuning_warehouse.account_life import Removed, require_accounts  # noqa: PLC0415 - imports dlt, after `prepare`
    from fine_tuning_warehouse.account_life import forget as run  # noqa: PLC0415
    from fine_tuning_warehouse.archive import open_archives, rewrite  # noqa: PLC0415

    removed: list[Removed] = []

    def done() -> dict[str, Any]:
        rows = {name: sum(one.rows.get(name, 0) for one in removed) for one in removed for name in one.rows}
        account = labels[0] if len(labels) == 1 else None
        return {"account": account, "accounts": list(labels), "jobs": list(jobs), "rows": rows, "archives": shown}

    shown, labels = list(archives), tuple(dict.fromkeys(labels))
    with json_on_failure(output_format, done):
        if jobs and len(labels) > 1:
            raise UsageError("--job names a job of one account: name that account alone with --account.")
        warehouse = target.find_existing().waiting(lock_wait)
        stores = open_archives(archives, warehouse)
        shown = [store.shown for store in stores]
        accounts = f"the {'account' if len(labels) == 1 else 'accounts'} {', '.join(labels)}"
        what = f"{', '.join(jobs)} of {accounts}" if jobs else accounts
        if not yes and sys.stdin.isatty():
            click.confirm(f"Remove {what} from {', '.join([warehouse.shown, *shown])}?", abort=True, err=True)
        if len(labels) > 1 and not stores:
            require_accounts(warehouse, labels)
        for label, job in itertools.product(labels, jobs or (None,)):
            try:
                removed.append(run(warehouse, label, job))
            except UsageError:
                if not stores:
                    raise
                removed.append(Removed(label, job, {}))  # gone from the warehouse already, but not from an archive
        for store in stores:
            rewrite(store, warehouse, *labels, jobs=jobs)
    if output_format == "json":
        output.print_result({"status": "done", "error": None, **done()})
        return DONE
    for one in removed:
        name = f"the account {one.account}" if one.job is None else f"the job {one.job}"
        click.echo(f"Removed {name} from {warehouse.shown}: {counted(sum(one.rows.values()), 'row')}.")
    for store in stores:
        click.echo(f"Removed {what} from the archive {store.shown}.")
    return DONE
