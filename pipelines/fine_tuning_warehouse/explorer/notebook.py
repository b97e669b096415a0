# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""Fine-tuning explorer: the page of `ftw explore`, and a notebook to go on from (`ftw explore --edit`)."""

import marimo

app = marimo.App(width="full", app_title="Fine-tuning explorer")

with app.setup:
    import os
    from pathlib import Path

    import marimo as mo

    from fine_tuning_warehouse.explorer import charts, data, page, texts


@app.cell
def _():
    # Which warehouse: `marimo edit notebook.py -- --database PATH --dataset NAME`, or the environment.
    said = mo.cli_args()
    reader = data.Reader(
        Path(str(said.get("database") or os.environ.get("FTW_DATABASE") or "fine_tuning_warehouse.duckdb")),
        str(said.get("dataset") or os.environ.get("FTW_DATASET") or "fine_tuning"),
    )
    address = page.Address()  # what is shown, so that a reload or a new sync changes nothing but the data
    return address, reader


@app.cell
def _(reader):
    mo.md(f"# Fine-tuning runs\n\n{texts.escaped(reader.database.name)}")
    return


@app.cell
def _():
    version, set_version = mo.state(0)
    tick = mo.ui.refresh(default_interval="5s")
    tick.style({"display": "none"})
    return set_version, tick, version


@app.cell
def _(reader, set_version, tick):
    # Looks at the file's time only; everything that depends on `version` is asked anew where that has changed.
    tick.value  # noqa: B018
    if reader.has_news():
        set_version(lambda number: number + 1)
    return


@app.cell
def _(reader, tick, version):
    tick.value, version()
    mo.md(texts.freshness(data.last_syncs(reader), reader.problem))
    return


@app.cell
def _(reader, version):
    version()
    missing = data.what_is_missing(reader)
    mo.stop(
        missing is not None,
        mo.callout(mo.md(texts.nothing_to_show(missing or "", str(reader.database))), kind="warn"),
    )
    offered = data.choices(reader)
    return (offered,)


@app.cell
def _(address, offered):
    controls = page.filter_controls(offered, address)
    find, *more = controls.elements.values()
    are_set = any(address.first(name) for name in controls.elements if name != "find")
    mo.vstack([find, mo.accordion({"Filters": mo.hstack(more, justify="start", gap=1, wrap=True)}, expanded=are_set)])
    return (controls,)


@app.cell
def _(address, controls, offered, reader):
    all_jobs = data.jobs(reader)
    jobs = data.jobs(reader, page.filters(controls.value, offered, address))
    mo.stop(not jobs, mo.callout(mo.md("No job matches these filters."), kind="neutral"))
    jobs_table = page.jobs_table(jobs, address)
    mo.vstack(
        [
            mo.md(texts.totals(jobs)),
            mo.md(
                "Click a row to open the run, and more rows to compare them; a second click takes a row out. "
                "Without a mouse: the newest run that *Find* leaves is open, and *Compare with* takes others."
            ),
            jobs_table,
            page.download(lambda: jobs, "jobs.csv", "Download these jobs (CSV)"),
        ]
    )
    return all_jobs, jobs, jobs_table


@app.cell
def _(address, jobs, jobs_table, reader):
    selected = page.picked(jobs, jobs_table, address)
    chosen = selected[0] if selected else data.likely(jobs)
    lines = data.curves(reader, [data.key(chosen)])
    checkpoints = data.checkpoints(reader, [data.key(chosen)])
    to_deploy = chosen["checkpoint_to_deploy"]
    mo.vstack(
        [
            mo.md(f"## {texts.escaped(chosen['name'])} · {texts.time(chosen['created_at'])}"),
            mo.callout(mo.md(texts.verdict(chosen)), kind=texts.mood(chosen)),
            *([mo.md("Checkpoint to deploy:"), page.copyable(to_deploy)] if to_deploy else []),
        ]
    )
    return checkpoints, chosen, lines, selected


@app.cell
def _(address):
    run_view = page.view_controls(address)
    return (run_view,)


@app.cell
def _(address, checkpoints, chosen, lines, run_view):
    view = page.view(run_view.value, data.steps_per_epoch([chosen], lines, checkpoints), address)
    advised = [data.key(chosen)] if chosen["advice"] in texts.KNOWN else []
    drawn = [
        charts.curve_chart(
            family, lines.of(family), charts.checkpoint_marks(checkpoints, family, advised=advised), view
        )
        for family in data.FAMILIES
        if lines.of(family)
    ]
    mo.hstack(
        [
            mo.vstack(
                [
                    mo.hstack(list(run_view.elements.values()), justify="start", gap=2, wrap=True),
                    *drawn,
                    mo.md(texts.about_curves(lines)),
                ]
            ).style({"flex": "3 1 26rem", "min-width": "0"}),
            mo.md(texts.facts(chosen)).style({"flex": "1 1 18rem", "min-width": "0", "overflow-x": "auto"}),
        ],
        wrap=True,
        gap=2,
        align="start",
    )
    return


@app.cell
def _(checkpoints, chosen, lines, reader):
    job = chosen["fine_tuning_job_id"]
    drawn_points = [{**point, "run": job} for point in lines.points]
    page.details(
        {
            "Checkpoints of this run": (
                page.table(checkpoints, texts.CHECKPOINT_COLUMNS, "Checkpoints by step"),
                page.download(lambda: checkpoints, f"checkpoints-{job}.csv", "Download these checkpoints (CSV)"),
            ),
            "Points of the curves": (
                page.table(drawn_points, texts.POINT_COLUMNS, "As drawn"),
                page.download(
                    lambda: data.all_points(reader, [data.key(chosen)]),
                    f"curves-{job}.csv",
                    "Download every value of every metric (CSV)",
                ),
            ),
        }
    )
    return


@app.cell
def _(address, chosen):
    offered_lines = {
        f"{split} {family}": (family, split) for family, splits in data.FAMILIES.items() for split in splits
    }
    line_name = address.first("line")
    judged_by = data.line_of(chosen["evaluation_metric"] or "train_loss")
    line = mo.ui.dropdown(
        offered_lines,
        value=line_name if line_name in offered_lines else judged_by,
        allow_select_none=False,
        label="Line",
        on_change=lambda chosen_line: address.put("line", " ".join(reversed(chosen_line))),
    )
    compare_view = page.view_controls(address, "compare-")
    return compare_view, line


@app.cell
def _(address, all_jobs):
    others = page.run_control(all_jobs, address)
    return (others,)


@app.cell
def _(address, all_jobs, chosen, jobs, others, reader, selected):
    picks = page.compared_runs(all_jobs, selected or [chosen], others, address)
    rows = (picks if len(picks) > 1 else data.comparable_runs(jobs, chosen))[: len(charts.RUNS)]
    short = data.short_names(rows)
    overlaid = data.curves(reader, list(short))
    compared = data.checkpoints(reader, list(short))
    return compared, overlaid, picks, rows, short


@app.cell
def _(address, compare_view, compared, line, overlaid, rows, short):
    overlay_view = page.view(
        compare_view.value, data.steps_per_epoch(rows, overlaid, compared), address, prefix="compare-"
    )
    overlay = page.overlay(line.value, overlaid, compared, rows, names=short, view=overlay_view)
    return (overlay,)


@app.cell
def _(compare_view, line, others, overlaid, overlay, picks, rows, short):
    mo.vstack(
        [
            mo.md(f"## Compare\n\n{texts.about_comparison(rows, picks)}"),
            mo.hstack([others, line, *compare_view.elements.values()], justify="start", gap=2, wrap=True),
            overlay,
            mo.md(texts.about_curves(overlaid)),
            page.comparison_table([{**row, "run": short[data.key(row)]} for row in rows]),
            page.download(lambda: rows, "compared-runs.csv", "Download these runs (CSV)"),
            *(
                charts.best_and_final_chart(judged, {data.key(row): short[data.key(row)] for row in judged})
                for judged in data.by_metric(rows)
            ),
        ]
    )
    return


@app.cell
def _(overlaid, short):
    points = [{**point, "run": short[data.key(point)]} for point in overlaid.points]
    page.details(
        {
            "Points of the compared curves": (
                page.table(points, texts.POINT_COLUMNS, "As drawn, all lines"),
                page.download(lambda: points, "compared-curves.csv", "Download these points (CSV)"),
            ),
        }
    )
    return


if __name__ == "__main__":
    app.run()
