"""`ftw best`."""

from __future__ import annotations

import click

from . import output

from .options import WarehouseOptions, existing_database, prepare, warehouse_options


@click.command()
@click.option("--job", "jobs", metavar="ID", multiple=True, help="Only this job (repeatable).")
@click.option("--account", "labels", metavar="LABEL", multiple=True, help="Only jobs of this account (repeatable).")
@warehouse_options
@click.option(
    "--output",
    "form",
    type=click.Choice(["text", "json", "csv"]),
    default="text",
    show_default=True,
    help="How to print the rows.",
)
@output.spreadsheet_safe_option
def best(
    *,
    jobs: tuple[str, ...],
    labels: tuple[str, ...],
    target: WarehouseOptions,
    form: str,
    spreadsheet_safe: bool,
) -> None:
    """The checkpoint to deploy for each job, and why.

    The best by validation loss, else by training loss (reinforcement runs: by reward), among those that the host still
    keeps; and what deploying the final one instead would cost. Newest job first.
    """
    prepare()
    from fine_tuning_warehouse.best import as_text, best_checkpoints  # noqa: PLC0415

    warehouse = target.find(str(existing_database(None)))
    names, rows = best_checkpoints(warehouse, accounts=labels, job_ids=jobs)
    if form == "json":
        click.echo(output.as_json(rows))
    elif form == "csv":
        output.print_csv(names, [[row[name] for name in names] for row in rows], spreadsheet_safe=spreadsheet_safe)
    elif rows:
        click.echo(as_text(rows, output.terminal_width()))
    else:
        whose = f" of account {' or '.join(labels)}" if labels else ""
        click.echo(f"{warehouse.shown} holds no checkpoints{whose} yet.", err=True)
