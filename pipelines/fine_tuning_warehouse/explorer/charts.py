"""The explorer's charts: Vega-Lite by Altair, with their data inside, so that the page asks nobody for anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from .data import FAMILIES, Key, Row, key, line_of
from .texts import number, text

LINES = {"train": "#4c8dd6", "validation": "#e08a1e", "full validation": "#d2527f"}
"""The colour of each line of a run: most eyes can tell them apart, on white as on black."""

RUNS = ("#4c8dd6", "#e08a1e", "#2fa37c", "#d2527f", "#9a78d8", "#a8852c", "#3aa6b9", "#8c8c8c")
"""A colour for each run that is compared: so many runs can be compared at once."""

_BEST, _GREY = "#1fa355", "#8c8c8c"
_UNITS = {"loss": " (nats per token)", "accuracy": " (share of tokens)"}
_KINDS = {"best": "best checkpoint", "final": "final checkpoint", "checkpoint": "checkpoint"}
_STAR = "M0,-1L.24,-.32L.95,-.31L.38,.12L.59,.81L0,.4L-.59,.81L-.38,.12L-.95,-.31L-.24,-.32Z"
_MARKS: Mapping[bool, Mapping[str, Any]] = {
    False: {"shape": "diamond", "size": 110, "color": _GREY},
    True: {"shape": _STAR, "size": 380, "color": _BEST},
}


def curve_chart(
    family: str, points: Sequence[Row], marks: Sequence[Row], *, logarithmic: bool = False
) -> alt.LayerChart:
    """Return a chart of the lines of a run in one family of metrics, with its checkpoints on them.

    Args:
        family: `loss`, `accuracy` or `reward`.
        points: Rows of `curves`.
        marks: Rows of `checkpoint_marks`.
        logarithmic: Use a logarithmic axis for the values, and leave out those that are not above 0.
    """
    named = [name for name in LINES if any(row["split"] == name for row in points)]
    colours = {name: LINES[name] for name in named}
    title = "Token accuracy" if family == "accuracy" else family.capitalize()
    about = f"{title} by step: {', '.join(named)}; checkpoints marked, the best one starred."
    lines = [_point(row, row["split"]) for row in points]
    layers = _layers(lines, marks, family, title + _UNITS.get(family, ""), colours, logarithmic=logarithmic)
    return _finished(alt.layer(*layers), title, about)


def comparison_chart(
    family: str,
    split: str,
    points: Sequence[Row],
    marks: Sequence[Row],
    names: Mapping[Key, str],
    *,
    logarithmic: bool = False,
) -> alt.LayerChart:
    """Return a chart of one line of several runs, with their checkpoints.

    Args:
        family: `loss`, `accuracy` or `reward`.
        split: `train`, `validation` or `full validation`.
        points: Rows of `curves`.
        marks: Rows of `checkpoint_marks`.
        names: The name of each run.
        logarithmic: Use a logarithmic axis for the values, and leave out those that are not above 0.
    """
    lines = [_point(row, names[key(row)]) for row in points if row["split"] == split and key(row) in names]
    shown = [mark for mark in marks if key(mark) in names]
    title = f"{split.capitalize()} {family}"
    colours = dict(zip(names.values(), RUNS, strict=False))
    axis = title + _UNITS.get(family, "")
    layers = _layers(lines, shown, title.lower(), axis, colours, logarithmic=logarithmic)
    return _finished(alt.layer(*layers), title, f"{title} by step of {len(names)} runs.", columns=1)


def best_and_final_chart(rows: Sequence[Row], names: Mapping[Key, str]) -> alt.LayerChart:
    """Return a chart of the best and the final value of several runs that are judged by one metric.

    Args:
        rows: Rows of `jobs`.
        names: The name of each run.
    """
    metric = str(rows[0]["evaluation_metric"])
    name = line_of(metric)
    values = [
        {
            "run": names[key(row)],
            "checkpoint": kind,
            "value": row[f"{kind}_evaluation_value"],
            "shown": number(row[f"{kind}_evaluation_value"]),
            "label": f"{names[key(row)]}, {kind}: {number(row[f'{kind}_evaluation_value'])}",
            "best": row["best_evaluation_value"],
            "final": row["final_evaluation_value"],
        }
        for row in rows
        for kind in ("best", "final")
        if row[f"{kind}_evaluation_value"] is not None
    ]
    runs = alt.Y("run:N", title=None, sort=[names[key(row)] for row in rows]).axis(labelLimit=190, labelOverlap=False)
    base = alt.Chart(_data(values)).encode(y=runs)
    axis = name.capitalize() + _UNITS.get(name.rpartition(" ")[2], "")
    value = alt.X("value:Q", title=axis).scale(zero=False, nice=True, padding=12).axis(tickCount=6, format="~g")
    kinds = ["best", "final"]
    between = base.mark_rule(strokeWidth=3, opacity=0.35, color=_GREY, aria=False).encode(x="best:Q", x2="final:Q")
    dots = base.mark_point(filled=False, strokeWidth=3, opacity=1).encode(
        x=value,
        color=alt.Color("checkpoint:N", title=None).scale(domain=kinds, range=[_BEST, LINES["validation"]]),
        shape=alt.Shape("checkpoint:N", title=None).scale(domain=kinds, range=["diamond", "circle"]),
        size=alt.condition(alt.datum.checkpoint == "best", alt.value(40), alt.value(220)),
        tooltip=["run:N", "checkpoint:N", alt.Tooltip("shown:N", title=metric)],
        description="label:N",
    )
    title = f"Best and final {name}"
    return _finished(alt.layer(between, dots), title, f"{title} of {len(names)} runs.", height=max(36 * len(names), 72))


def checkpoint_marks(checkpoints: Sequence[Row], family: str, split: str | None = None) -> list[Row]:
    """Return the checkpoints with the value at which each stands in the chart of a family of metrics.

    It is the value of the metric that the checkpoint is judged by, if this metric is of the family. Else it is the
    value on full validation, on validation or in training, whichever is there first.

    Args:
        checkpoints: Rows of `checkpoint_history`.
        family: `loss`, `accuracy` or `reward`.
        split: The only line that is drawn, if it is one.
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
    columns = {name: row[name] for name in ("step", "value", "lowest", "highest", "points")}
    label = f"{line}, step {row['step']}: {number(row['value'])}"
    return {"line": line, **columns, "shown": number(row["value"]), "label": label}


def _layers(
    points: Sequence[Row],
    marks: Sequence[Row],
    name: str,
    axis: str,
    colours: Mapping[str, str],
    *,
    logarithmic: bool,
) -> list[alt.Chart]:
    """Return the layers of a chart: ranges of bins, lines with their points, checkpoints."""
    drawn = [point for point in points if not logarithmic or point["lowest"] > 0]
    scale = alt.Scale(type="log") if logarithmic else alt.Scale(zero=False)
    x = alt.X("step:Q", title="Training step").axis(format=",d", tickMinStep=1, tickCount=8, grid=False)
    is_share = name.endswith("accuracy")
    y = alt.Y("value:Q", title=axis).scale(scale).axis(format="~%" if is_share else "~g", tickCount=6)
    colour = alt.Color("line:N", title=None).scale(domain=list(colours), range=list(colours.values()))
    base = alt.Chart(_data(drawn)).encode(x=x.scale(nice=False), color=colour)
    tooltip = [
        alt.Tooltip("line:N", title="line"),
        alt.Tooltip("step:Q", format=",d", title="step"),
        alt.Tooltip("shown:N", title=name),
        alt.Tooltip("points:Q", format=",d", title="steps in this point"),
    ]
    few = alt.condition("datum.length <= 60", alt.value(0.9), alt.value(0))
    layers = [
        base.mark_line(strokeWidth=2, interpolate="linear", aria=False).encode(y=y),
        base.transform_joinaggregate(length="count()", groupby=["line"])
        .mark_circle(size=28)
        .encode(y=y, opacity=few, tooltip=tooltip, description="label:N"),
    ]
    if any(point["points"] > 1 for point in drawn):
        lowest = alt.Y("lowest:Q").scale(scale)
        layers.insert(0, base.mark_area(opacity=0.18, aria=False).encode(y=lowest, y2="highest:Q"))
    return layers + _marks([mark for mark in marks if not logarithmic or mark["value"] > 0])


def _marks(marks: Sequence[Row]) -> list[alt.Chart]:
    layers = []
    for is_best, style in _MARKS.items():
        values = [
            {
                "step": mark["step_number"],
                "value": mark["value"],
                "shown": number(mark["value"]),
                "kind": mark["kind"],
                "label": f"{_KINDS[mark['kind']]}, step {mark['step_number']}: {number(mark['value'])}",
                "name": text(mark["fine_tuned_model_checkpoint"] or mark["checkpoint_id"]),
            }
            for mark in marks
            if (mark["kind"] == "best") == is_best
        ]
        if not values:
            continue
        chart = alt.Chart(_data(values)).encode(x="step:Q")
        if is_best:
            rule = chart.mark_rule(color=_BEST, strokeDash=[4, 4], opacity=0.7, aria=False)
            layers.append(rule.encode(y=alt.value(0), y2=alt.value("height")))
        tooltip = [
            alt.Tooltip("kind:N", title="checkpoint"),
            alt.Tooltip("step:Q", format=",d"),
            alt.Tooltip("shown:N", title="value"),
            "name:N",
        ]
        point = chart.mark_point(filled=True, stroke="white", strokeWidth=1, opacity=1, **style)
        layers.append(point.encode(y="value:Q", tooltip=tooltip, description="label:N"))
    return layers


def _finished(chart: Any, title: str, description: str, *, height: int = 300, columns: int = 3) -> alt.LayerChart:
    actions = {"export": True, "source": False, "compiled": False, "editor": False}
    finished: alt.LayerChart = (
        chart.properties(
            width="container",
            height=height,
            title=alt.Title(title, anchor="start", fontSize=15, offset=10),
            description=description,
            # `ast`: Vega's interpreter computes expressions, since the page's Content-Security-Policy forbids `eval`.
            usermeta={"embedOptions": {"ast": True, "renderer": "svg", "actions": actions}},
            background="transparent",
        )
        .configure_view(strokeOpacity=0)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridOpacity=0.25)
        .configure_legend(orient="top", labelFontSize=12, labelLimit=260, columns=columns, symbolOpacity=1)
    )
    return finished
