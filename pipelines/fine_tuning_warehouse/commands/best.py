"""`ftw best`."""

from __future__ import annotations

import click

from fine_tuning_warehouse import output

from .options import existing_database


@click.command()
@click.option("--job", "jobs", metavar="ID", multiple=True, help="Only this job (repeatable).")
@click.option("--account", metavar="LABEL", help="Only jobs of this account.  [default: all]")
@click.option("--database", metavar="PATH", help="The DuckDB file.  [default: the one there is]")
@click.option("--destination", metavar="NAME", help="Any SQL destination of dlt.  [default: duckdb]")
@click.option("--dataset", metavar="NAME", help="Schema that holds the tables.  [default: fine_tuning]")
@click.option("--output", "form", type=click.Choice(["text", "json", "csv"]), default="text", show_default=True)
def best(
    *,
    jobs: tuple[str, ...],
    account: str | None,
    database: str | None,
    destination: str | None,
    dataset: str | None,
    form: str,
) -> None:
    """The checkpoint to deploy for each job, and why.

    The best by validation loss, else by training loss (reinforcement runs: by reward), among those that the host still
    keeps; and what deploying the final one instead would cost. Newest job first.
    """
    from fine_tuning_warehouse.best import as_text, best_checkpoints  # noqa: PLC0415
    from fine_tuning_warehouse.destinations import find_warehouse  # noqa: PLC0415
    from fine_tuning_warehouse.logs import set_up_logging  # noqa: PLC0415

    set_up_logging(quiet=False, verbose=False)
    warehouse = find_warehouse(
        database=database,
        destination=destination,
        dataset=dataset,
        table_format=None,
        default=str(existing_database(None)),
    )
    names, rows = best_checkpoints(warehouse, account=account, job_ids=jobs)
    if form == "json":
        click.echo(output.as_json(rows))
    elif form == "csv":
        click.echo(output.as_csv(names, [[row[name] for name in names] for row in rows]))
    elif rows:
        click.echo(as_text(rows, output.terminal_width()))
    else:
        whose = "" if account is None else f" of account {account}"
        click.echo(f"{warehouse.shown} holds no checkpoints{whose} yet.", err=True)
