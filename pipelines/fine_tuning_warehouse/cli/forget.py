"""The command `ftw forget`."""

from __future__ import annotations

import sys
from typing import Any

import click

from fine_tuning_warehouse.errors import DONE, UsageError
from fine_tuning_warehouse.text import counted

from .failures import json_on_failure
from .options import WarehouseOptions, archives_option, existing_warehouse_options, lock_wait_option, prepare
from .terminal import output


@click.command()
@click.option("--account", "label", metavar="LABEL", required=True, help="The account to remove.")
@click.option("--job", "jobs", metavar="ID", multiple=True, help="Remove only this job (repeatable).")
@archives_option
@click.option("--yes", is_flag=True, help="Do not ask first. (Without a terminal nothing is asked.)")
@existing_warehouse_options
@lock_wait_option
@output.format_option("text", "json")
def forget(
    *,
    label: str,
    jobs: tuple[str, ...],
    archives: tuple[str, ...],
    yes: bool,
    target: WarehouseOptions,
    lock_wait: float,
    output_format: str,
) -> int:
    """Remove an account from a warehouse, or one of its jobs, for good.

    Removes its rows, its staged rows and its state, and with --archive its rows and files there: the manifest keeps a
    tombstone, and the next `ftw archive` goes on. The host is not touched. A job that was removed does not come back
    with the next sync; an account does, as long as it is configured.
    """
    prepare()
    from fine_tuning_warehouse.account_life import Removed  # noqa: PLC0415 - imports dlt, after `prepare`
    from fine_tuning_warehouse.account_life import forget as run  # noqa: PLC0415
    from fine_tuning_warehouse.archive import open_store, rewrite  # noqa: PLC0415

    removed: list[Removed] = []

    def done() -> dict[str, Any]:
        rows = {name: sum(one.rows.get(name, 0) for one in removed) for one in removed for name in one.rows}
        return {"account": label, "jobs": list(jobs), "rows": rows, "archives": list(archives)}

    with json_on_failure(output_format, done):
        warehouse, stores = target.find_existing().waiting(lock_wait), [open_store(where) for where in archives]
        what = f"the account {label}" if not jobs else f"{', '.join(jobs)} of the account {label}"
        if not yes and sys.stdin.isatty():
            click.confirm(f"Remove {what} from {', '.join([warehouse.shown, *archives])}?", abort=True, err=True)
        for job in jobs or (None,):
            try:
                one = run(warehouse, label, job)
            except UsageError:
                if not stores:
                    raise
                one = Removed(label, job, {})  # gone from the warehouse already, but not from an archive
            removed.append(one)
            for store in stores:
                rewrite(store, warehouse, label, job=job)
    if output_format == "json":
        output.print_result({"status": "done", "error": None, **done(), "archives": [store.shown for store in stores]})
        return DONE
    for one in removed:
        name = f"the account {label}" if one.job is None else f"the job {one.job}"
        click.echo(f"Removed {name} from {warehouse.shown}: {counted(sum(one.rows.values()), 'row')}.")
    for store in stores:
        click.echo(f"Removed {what} from the archive {store.shown}.")
    return DONE
