"""The explorer's charts: Vega-Lite by Altair, with their data inside, so that the page asks nobody for anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from .data import FAMILIES, Key, Row, key
from .words import number, text

LINES = {"train": "#4c8dd6", "validation": "#e08a1e", "full validation": "#d2527f"}
"""Colours that can be told apart by most eyes, on white as on black."""

RUNS = ("#4c8dd6", "#e08a1e", "#2fa37c", "#d2527f", "#9a78d8", "#a8852c", "#3aa6b9", "#8c8c8c")
"""A colour a run: as many as can be compared at once."""

_BEST = "#1fa355"
_TITLES = {
    "loss": "Loss (nats per token)",
    "accuracy": "Token accuracy (share of tokens)",
    "reward": "Mean reward",
    "train_loss": "Train loss (nats per token)",
    "valid_loss": "Validation loss (nats per token)",
    "full_valid_loss": "Full validation loss (nats per token)",
}
_HEIGHT = 300
_STAR = (
    "M0,-1L0.236,-0.325L0.951,-0.309L0.382,0.124L0.588,0.809"
    "L0,0.4L-0.588,0.809L-0.382,0.124L-0.951,-0.309L-0.236,-0.325Z"
)
_KINDS = {"best": "best checkpoint", "final": "final checkpoint", "checkpoint": "checkpoint"}
_MARKS: Mapping[str, Mapping[str, Any]] = {
    "other": {"shape": "diamond", "size": 110, "color": "#8c8c8c"},
    "best": {"shape": _STAR, "size": 380, "color": _BEST},
}


def curve_chart(
    family: str, points: Sequence[Row], marks: Sequence[Row], *, logarithmic: bool = False
) -> alt.LayerChart:
    """A run's lines of one family of metrics, with its checkpoints on them.

    Args:
        family: `loss`, `accuracy` or `reward`.
        points: Rows of `curves`.
        marks: Rows of `checkpoint_marks`.
        logarithmic: Whether the values' axis is; what is not above 0 is then left out.
    """
    drawn = [_point(row, row["split"]) for row in points if not logarithmic or row["lowest"] > 0]
    named = [name for name in LINES if any(row["line"] == name for row in drawn)]
    colour = alt.Color("line:N", title=None).scale(domain=named, range=[LINES[name] for name in named])
    layers = [*_lines(drawn, family, colour, logarithmic=logarithmic), *_marks(marks, logarithmic=logarithmic)]
    title = "Token accuracy" if family == "accuracy" else family.capitalize()
    told = f"{title} by step: {', '.join(named)}; checkpoints marked, the best one starred."
    return _finished(alt.layer(*layers), title, told)


def comparison_chart(
    family: str,
    split: str,
    points: Sequence[Row],
    marks: Sequence[Row],
    names: Mapping[Key, str],
    *,
    logarithmic: bool = False,
) -> alt.LayerChart:
    """One line of several runs over one another, with their best checkpoints.

    Args:
        family: `loss`, `accuracy` or `reward`.
        split: Which line of it.
        points: Rows of `curves`.
        marks: Rows of `checkpoint_marks`.
        names: What to call each run.
        logarithmic: Whether the values' axis is.
    """
    drawn = [
        _point(row, names[key(row)])
        for row in points
        if row["split"] == split and key(row) in names and (not logarithmic or row["lowest"] > 0)
    ]
    layers = [
        *_lines(drawn, f"{split} {family}", _run_colour(names), logarithmic=logarithmic),
        *_marks([{**mark, "line": names[key(mark)]} for mark in marks if key(mark) in names], logarithmic=logarithmic),
    ]
    title = f"{split.capitalize()} {family}"
    return _finished(alt.layer(*layers), title, f"{title} by step of {len(names)} runs.", columns=1)


def best_and_final_chart(rows: Sequence[Row], names: Mapping[Key, str]) -> alt.LayerChart:
    """The best and the final value of several runs that are judged by one metric.

    Args:
        rows: Rows of `jobs`.
        names: What to call each run.
    """
    metric = str(rows[0]["evaluation_metric"])
    values = [
        {
            "run": names[key(row)],
            "checkpoint": kind,
            "value": row[column],
            "told": number(row[column]),
            "label": f"{names[key(row)]}, {kind}: {number(row[column])}",
            "best": row["best_evaluation_value"],
            "final": row["final_evaluation_value"],
        }
        for row in rows
        for kind, column in (("best", "best_evaluation_value"), ("final", "final_evaluation_value"))
        if row[column] is not None
    ]
    base = alt.Chart(_data(values)).encode(
        y=alt.Y("run:N", title=None, sort=[names[key(row)] for row in rows]).axis(labelLimit=190, labelOverlap=False),
    )
    value_axis = (
        alt.X("value:Q", title=_TITLES.get(metric, metric.replace("_", " ").capitalize()))
        .scale(zero=False, nice=True, padding=12)
        .axis(tickCount=6, format="~g")
    )
    between = base.mark_rule(strokeWidth=3, opacity=0.35, color="#8c8c8c", aria=False).encode(
        x=alt.X("best:Q"), x2=alt.X2("final:Q")
    )
    kinds = ["best", "final"]
    dots = base.mark_point(filled=False, strokeWidth=3, opacity=1).encode(
        x=value_axis,
        color=alt.Color("checkpoint:N", title=None).scale(domain=kinds, range=[_BEST, "#e08a1e"]),
        shape=alt.Shape("checkpoint:N", title=None).scale(domain=kinds, range=["diamond", "circle"]),
        size=alt.condition(alt.datum.checkpoint == "best", alt.value(40), alt.value(220)),
        tooltip=[alt.Tooltip("run:N"), alt.Tooltip("checkpoint:N"), alt.Tooltip("told:N", title=metric)],
        description=alt.Description("label:N"),
    )
    chart = alt.layer(between, dots).properties(height=max(36 * len(names), 72))
    title = f"Best and final {metric.replace('_', ' ').replace('valid', 'validation')}"
    return _finished(chart, title, f"{title} of {len(names)} runs.", height=None)


def checkpoint_marks(checkpoints: Sequence[Row], family: str, split: str | None = None) -> list[Row]:
    """Where the checkpoints stand in the chart of a family of metrics.

    By the metric that they are judged by, where it is of that family; else by the most telling one they have.

    Args:
        checkpoints: Rows of `checkpoint_history`.
        family: `loss`, `accuracy` or `reward`.
        split: The one line that is drawn, where it is one.
    """
    metrics = {line: names[0] for line, names in FAMILIES[family].items() if split in (None, line)}
    marks = []
    for row in checkpoints:
        if row["evaluation_metric"] in metrics.values():
            value = row["evaluation_value"]
        else:
            values = (row.get(metrics.get(line, "")) for line in ("full validation", "validation", "train"))
            value = next((value for value in values if value is not None), None)
        if value is not None and math.isfinite(value) and row["step_number"] is not None:
            kind = "best" if row["is_best"] else "final" if row["is_final"] else "checkpoint"
            marks.append({**row, "kind": kind, "value": value})
    return marks


def _data(values: Sequence[Row]) -> alt.Data:
    return alt.Data(values=list(values))  # type: ignore[no-untyped-call]


def _point(row: Row, line: str) -> Row:
    return {
        "line": line,
        "step": row["step"],
        "value": row["value"],
        "lowest": row["lowest"],
        "highest": row["highest"],
        "steps": row["points"],
        "told": number(row["value"]),
        "label": f"{line}, step {row['step']}: {number(row['value'])}",
    }


def _lines(points: Sequence[Row], what: str, colour: alt.Color, *, logarithmic: bool) -> list[alt.Chart]:
    family = what.rpartition(" ")[2]
    scale = alt.Scale(type="log") if logarithmic else alt.Scale(zero=False)
    chart = alt.Chart(_data(list(points)))
    x = (
        alt.X("step:Q", title="Training step")
        .axis(format=",d", tickMinStep=1, tickCount=8, grid=False)
        .scale(nice=False)
    )
    title = _TITLES[family] if what == family else what.capitalize() + _TITLES[family].partition(family.capitalize())[2]
    y = alt.Y("value:Q", title=title).scale(scale).axis(format="~%" if family == "accuracy" else "~g", tickCount=6)
    layers = [
        chart.mark_line(strokeWidth=2, interpolate="linear", aria=False).encode(x=x, y=y, color=colour),
        chart.transform_joinaggregate(length="count()", groupby=["line"])
        .mark_circle(size=28)
        .encode(
            x=x,
            y=y,
            color=colour,
            opacity=alt.condition("datum.length <= 60", alt.value(0.9), alt.value(0)),
            tooltip=[
                alt.Tooltip("line:N", title="line"),
                alt.Tooltip("step:Q", format=",d", title="step"),
                alt.Tooltip("told:N", title=what),
                alt.Tooltip("steps:Q", format=",d", title="steps in this point"),
            ],
            description=alt.Description("label:N"),
        ),
    ]
    if any(point["steps"] > 1 for point in points):
        band = chart.mark_area(opacity=0.18, aria=False).encode(
            x=x, y=alt.Y("lowest:Q").scale(scale), y2=alt.Y2("highest:Q"), color=colour
        )
        layers.insert(0, band)
    return layers


def _marks(marks: Sequence[Row], *, logarithmic: bool) -> list[alt.Chart]:
    values = [
        {
            "step": mark["step_number"],
            "value": mark["value"],
            "told": number(mark["value"]),
            "kind": mark["kind"],
            "label": f"{_KINDS[mark['kind']]}, step {mark['step_number']}: {number(mark['value'])}",
            "line": mark.get("line", ""),
            "name": text(mark["fine_tuned_model_checkpoint"] or mark["checkpoint_id"]),
        }
        for mark in marks
        if not logarithmic or mark["value"] > 0
    ]
    if not values:
        return []
    layers = []
    for kind, style in _MARKS.items():
        these = [value for value in values if (value["kind"] == "best") == (kind == "best")]
        if not these:
            continue
        chart = alt.Chart(_data(these)).encode(x=alt.X("step:Q"))
        if kind == "best":
            rule = chart.mark_rule(color=_BEST, strokeDash=[4, 4], opacity=0.7, aria=False)
            layers.append(rule.encode(y=alt.value(0), y2=alt.value("height")))
        layers.append(
            chart.mark_point(filled=True, stroke="white", strokeWidth=1, opacity=1, **style).encode(
                y=alt.Y("value:Q"),
                tooltip=[
                    alt.Tooltip("kind:N", title="checkpoint"),
                    alt.Tooltip("step:Q", format=",d", title="step"),
                    alt.Tooltip("told:N", title="value"),
                    alt.Tooltip("name:N", title="name"),
                ],
                description=alt.Description("label:N"),
            )
        )
    return layers


def _run_colour(names: Mapping[Key, str]) -> alt.Color:
    runs = list(names.values())
    return alt.Color("line:N", title=None).scale(domain=runs, range=list(RUNS[: len(runs)]))


def _finished(
    chart: Any, title: str, description: str, *, height: int | None = _HEIGHT, columns: int = 3
) -> alt.LayerChart:
    properties: dict[str, Any] = {"height": height} if height else {}
    embed = {
        "ast": True,
        "renderer": "svg",
        "actions": {"export": True, "source": False, "compiled": False, "editor": False},
    }
    finished: alt.LayerChart = (
        chart.properties(
            width="container",
            title=alt.Title(title, anchor="start", fontSize=15, offset=10),
            description=description,
            usermeta={"embedOptions": embed},
            background="transparent",
            **properties,
        )
        .configure_view(strokeOpacity=0)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridOpacity=0.25)
        .configure_legend(orient="top", labelFontSize=12, labelLimit=260, columns=columns, symbolOpacity=1)
    )
    return finished
