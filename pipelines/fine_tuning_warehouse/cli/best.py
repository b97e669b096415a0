"""The command `ftw best`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import click

from fine_tuning_warehouse.text import counted, safe

from .options import WarehouseOptions, existing_warehouse_options, prepare
from .terminal import output

_ADVICE = {
    "deploy": "deploy {}",
    "keep_final": "keep the final {}",
    "retrain": "train again (until then: {})",
    "cannot_tell": "cannot tell ({})",
    "not_finished": "not finished (so far: {})",
}
"""Each advice of `best_checkpoints` with the name of the checkpoint to deploy."""


@click.command()
@click.option(
    "--job",
    "jobs",
    metavar="ID",
    multiple=True,
    help="Only this job: its id, the beginning of its id, or its suffix (repeatable).",
)
@click.option("--account", "labels", metavar="LABEL", multiple=True, help="Only jobs of this account (repeatable).")
@click.option("--improvable", is_flag=True, help="Only jobs of which another checkpoint than the final one is advised.")
@click.option(
    "--sort",
    type=click.Choice(["created", "cost"]),
    default="created",
    show_default=True,
    help="What comes first: the newest job, or the one that loses most by its final checkpoint.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Show only the first N jobs.  [default: all]")
@existing_warehouse_options
@output.format_option("text", "json", "csv")
@output.spreadsheet_safe_option
def best(
    *,
    jobs: tuple[str, ...],
    labels: tuple[str, ...],
    improvable: bool,
    sort: Literal["created", "cost"],
    limit: int | None,
    target: WarehouseOptions,
    output_format: str,
    spreadsheet_safe: bool,
) -> None:
    """Show the checkpoint to deploy for each job, and why.

    Checkpoints are compared by validation loss (reinforcement runs: by reward), among those that the host still keeps.
    The advice is `deploy`, `keep_final` (no clear difference), `retrain` (the best epoch was dropped), `cannot_tell`
    (only training was measured) or `not_finished`. `cost_of_final`, by which --sort cost sorts, is how much worse the
    final checkpoint is than the best one. The newest job comes first. Jobs without checkpoints are not in the list.
    """
    prepare()
    from fine_tuning_warehouse.best import best_checkpoints  # noqa: PLC0415 - imports dlt, after `prepare`

    warehouse = target.find_existing()
    names, rows, without = best_checkpoints(
        warehouse, accounts=labels, job_ids=jobs, sort=sort, limit=limit, improvable=improvable
    )
    if output_format == "json":
        click.echo(output.as_json(rows))
    elif output_format == "csv":
        output.print_csv(names, [list(row.values()) for row in rows], spreadsheet_safe=spreadsheet_safe)
    elif rows:
        output.print_pages(as_text(rows, output.terminal_width()))
        if without and not (improvable or limit):
            kinds = ", ".join(f"{number} {status}" for status, number in sorted(without.items()))
            click.echo(
                f"Not in this list: {counted(sum(without.values()), 'job')} without checkpoints ({kinds}).", err=True
            )
    elif improvable:
        these = "None of these jobs" if jobs or labels else "No job"
        click.echo(f"{these} is known to lose by its final checkpoint.", err=True)
    else:
        of_account = f" of account {' or '.join(labels)}" if labels else ""
        click.echo(f"{warehouse.shown} holds no checkpoints{of_account} yet.", err=True)


def as_text(rows: Sequence[Mapping[str, Any]], width: int | None = None) -> str:
    """Return rows of `best_checkpoints` as two lines a job: what to deploy, and why.

    Args:
        rows: Rows of `best_checkpoints`.
        width: Columns of the terminal, where longer lines are broken; None for no limit.
    """
    several = len({row["account"] for row in rows}) > 1
    lines = []
    for row in rows:
        created = row.get("job_created_at")
        day = f"{created:%Y-%m-%d}" if created else None
        names = [row["account"] if several else None, row["suffix"], row["base_model"], day, row["fine_tuning_job_id"]]
        advice = _ADVICE.get(row["advice"], "{}").format(row["checkpoint_to_deploy"] or "no checkpoint is advised")
        if row.get("is_callable") is False:
            advice += " (the host does not list it)"
        lines += [f"{' · '.join(str(name) for name in names if name)}: {advice}", f"  {row['reason']}"]
    if width is None:
        return "\n".join(map(safe, lines))
    return "\n".join(
        textwrap.fill(safe(line), width, subsequent_indent="  ", break_on_hyphens=False, drop_whitespace=True)
        for line in lines
    )
