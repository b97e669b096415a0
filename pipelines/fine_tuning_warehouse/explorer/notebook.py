# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""Fine-tuning explorer: the page of `ftw explore`, and a notebook to go on from (`ftw explore --edit`)."""

import marimo

app = marimo.App(width="medium", app_title="Fine-tuning explorer")

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
    remembered: page.Memory = {}  # what was picked, so that a new sync changes nothing but the data
    return reader, remembered


@app.cell
def _(reader):
    mo.md(f"# Fine-tuning explorer\n\n{texts.escaped(reader.database.name)}")
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
def _(offered, remembered):
    controls = page.filter_controls(offered, remembered)
    mo.hstack(list(controls.elements.values()), justify="start", gap=1, wrap=True)
    return (controls,)


@app.cell
def _(controls, offered, reader, remembered):
    jobs = data.jobs(reader, page.filters(controls.value, offered, remembered))
    mo.hstack(
        [
            mo.stat(value, label=label, caption=caption, bordered=True).style({"flex": "1", "min-width": "9.5rem"})
            for label, value, caption in texts.totals(jobs)
        ],
        gap=1,
        wrap=True,
    )
    return (jobs,)


@app.cell
def _(jobs):
    mo.vstack(
        [
            mo.md("## Jobs at a glance"),
            page.table(jobs, texts.JOB_COLUMNS, "Jobs, newest first", search=True),
            page.download(lambda: jobs, "jobs.csv", "Download these jobs (CSV)"),
        ]
    )
    return


@app.cell
def _(jobs, remembered):
    mo.stop(not jobs, mo.callout(mo.md("No job matches these filters."), kind="neutral"))
    offered_runs = jobs[: data.MAX_CHOICES]
    by_key = {data.key(row): row for row in offered_runs}
    run = page.run_picker(offered_runs, remembered)
    logarithmic = mo.ui.switch(label="Logarithmic loss axis", value=remembered.get("log", False))
    mo.vstack([mo.md("## One run"), run, mo.md(texts.more_runs(len(jobs), len(offered_runs))), logarithmic])
    return by_key, logarithmic, offered_runs, run


@app.cell
def _(by_key, reader, run):
    chosen = by_key[run.value]
    lines = data.curves(reader, [run.value])
    checkpoints = data.checkpoints(reader, [run.value])
    mo.callout(mo.md(texts.verdict(chosen)), kind=texts.mood(chosen))
    return checkpoints, chosen, lines


@app.cell
def _(checkpoints, lines, logarithmic, remembered):
    remembered["log"] = logarithmic.value
    drawn = [
        charts.curve_chart(
            family,
            lines.of(family),
            charts.checkpoint_marks(checkpoints, family),
            logarithmic=logarithmic.value and family == "loss",
        )
        for family in data.FAMILIES
        if lines.of(family)
    ]
    mo.vstack([*drawn, mo.md(texts.about_curves(lines))])
    return


@app.cell
def _(checkpoints, lines, reader, run):
    job = run.value[1]
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
                    lambda: data.all_points(reader, [run.value]),
                    f"curves-{job}.csv",
                    "Download every value of every metric (CSV)",
                ),
            ),
        }
    )
    return


@app.cell
def _(chosen, jobs, offered_runs, remembered):
    alike = data.comparable_runs(jobs, chosen)
    compared = page.runs_picker(offered_runs, chosen, alike, remembered, limit=len(charts.RUNS))
    line = mo.ui.dropdown(
        {f"{split} {family}": (family, split) for family, splits in data.FAMILIES.items() for split in splits},
        value=data.line_of(chosen["evaluation_metric"] or "train_loss"),
        allow_select_none=False,
        label="Line",
    )
    mo.vstack(
        [
            mo.md(
                f"## Compare runs\n\nAt first those on **{texts.escaped(chosen['base_model'])}** that are judged by "
                "the metric of the run above; pick others as you like."
            ),
            compared,
            line,
        ]
    )
    return compared, line


@app.cell
def _(by_key, compared, line, logarithmic, reader):
    rows = [by_key[key] for key in compared.value if key in by_key]
    mo.stop(not rows, mo.callout(mo.md("Pick a run or more."), kind="neutral"))
    short = data.short_names(rows)
    overlaid = data.curves(reader, list(short))
    family, split = line.value
    marks = charts.checkpoint_marks(data.checkpoints(reader, list(short)), family, split)
    overlay = (
        charts.comparison_chart(
            family, split, overlaid.of(family), marks, short, logarithmic=logarithmic.value and family == "loss"
        )
        if any(point["split"] == split for point in overlaid.of(family))
        else mo.callout(mo.md(f"None of these runs has a line of {split} {family}: pick another."), kind="neutral")
    )
    mo.vstack([overlay, mo.md(texts.about_curves(overlaid))])
    return overlaid, rows, short


@app.cell
def _(rows, short):
    mo.vstack(
        [
            charts.best_and_final_chart(judged, {data.key(row): short[data.key(row)] for row in judged})
            for judged in data.by_metric(rows)
        ]
    )
    return


@app.cell
def _(overlaid, rows, short):
    named = [{**row, "run": short[data.key(row)]} for row in rows]
    points = [{**point, "run": short[data.key(point)]} for point in overlaid.points]
    page.details(
        {
            "The runs in numbers": (
                page.table(named, texts.RUN_COLUMNS, "Compared runs"),
                page.download(lambda: rows, "compared-runs.csv", "Download these runs (CSV)"),
            ),
            "Points of the compared curves": (
                page.table(points, texts.POINT_COLUMNS, "As drawn, all lines"),
                page.download(lambda: points, "compared-curves.csv", "Download these points (CSV)"),
            ),
        }
    )
    return


if __name__ == "__main__":
    app.run()
