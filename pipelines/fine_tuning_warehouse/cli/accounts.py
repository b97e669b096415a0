"""The command `ftw accounts`."""

from __future__ import annotations

from dataclasses import asdict, fields

import click

from fine_tuning_warehouse.errors import DONE, UsageError

from .options import WarehouseOptions, archives_option, existing_warehouse_options, lock_wait_option, prepare
from .terminal import output


@click.group(invoke_without_command=True)
@existing_warehouse_options
@output.format_option("text", "json")
@click.pass_context
def accounts(context: click.Context, *, target: WarehouseOptions, output_format: str) -> int:
    """List the accounts of a warehouse: label, host, rows, last sync.

    `ftw accounts rename OLD NEW` gives one another label.
    """
    if context.invoked_subcommand is not None:
        if any(getattr(target, one.name) is not None for one in fields(target)) or output_format != "text":
            raise UsageError(
                f"Name the warehouse after {context.invoked_subcommand}: the options before it are not used."
            )
        return DONE
    prepare()
    from fine_tuning_warehouse.account_life import stored_accounts  # noqa: PLC0415 - imports dlt, after `prepare`

    warehouse = target.find_existing()
    found = stored_accounts(warehouse)
    if output_format == "json":
        click.echo(output.as_json([asdict(one) for one in found]))
    elif found:
        rows = [
            {
                "account": one.account,
                "host": one.host or "?",
                "rows": f"{sum(one.rows.values()):,}",
                "last sync": "none succeeded" if one.last_sync is None else f"{one.last_sync:%Y-%m-%d %H:%M:%S} UTC",
            }
            for one in found
        ]
        click.echo(output.as_table(list(rows[0]), [list(row.values()) for row in rows]))
    else:
        click.echo(f"{warehouse.shown} holds no rows of a sync yet.", err=True)
    return DONE


@accounts.command()
@click.argument("old")
@click.argument("new")
@existing_warehouse_options
@archives_option
@lock_wait_option
def rename(*, old: str, new: str, target: WarehouseOptions, archives: tuple[str, ...], lock_wait: float) -> int:
    """Give an account another label: in all rows, and in the state, so that the next sync goes on there.

    Change its section in .dlt/config.toml and .dlt/secrets.toml too, or use --account NEW. Name every archive of the
    warehouse with --archive: else the next run there finds no rows of the old label, and refuses to lose them.
    """
    prepare()
    from fine_tuning_warehouse.account_life import rename as run  # noqa: PLC0415 - see sync
    from fine_tuning_warehouse.account_life import stored_accounts  # noqa: PLC0415
    from fine_tuning_warehouse.accounts.config_files import configured_labels  # noqa: PLC0415
    from fine_tuning_warehouse.archive import accounts_of, open_archives, rewrite  # noqa: PLC0415

    warehouse = target.find_existing().waiting(lock_wait)
    stores, configured = open_archives(archives, warehouse), configured_labels()
    try:
        run(warehouse, old, new)
    except UsageError:
        labels = {one.account for one in stored_accounts(warehouse)}
        if old in labels or new not in labels or not any(old in accounts_of(store) for store in stores):
            raise  # else it is renamed already, but not in an archive
    click.echo(f"The account {old} is called {new} in {warehouse.shown} now.")
    for store in stores:
        rewrite(store, warehouse, old, renamed_to=new)
        click.echo(f"The archive {store.shown} calls it {new} too.")
    if old in configured:
        click.echo(
            f"{old} is still the label of a configured account: change its section to {new}, or the next sync reads "
            "everything once more.",
            err=True,
        )
    return DONE
