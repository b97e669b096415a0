"""The explorer's charts: Vega-Lite by Altair, with their data inside, so that the page asks nobody for anything."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from .data import FAMILIES, Key, Row, key, line_of
from .texts import number, text

LINES = {"train": "#4c8dd6", "validation": "#e08a1e", "full validation": "#d2527f"}
"""The colour of each line of a run: most eyes can tell them apart, on white as on black."""

RUNS = ("#4c8dd6", "#e08a1e", "#2fa37c", "#d2527f", "#9a78d8", "#a8852c", "#3aa6b9", "#8c8c8c")
"""A colour for each run that is compared: so many runs can be compared at once."""

_GREY = "#8c8c8c"
_UNITS = {"loss": " (nats per token)", "accuracy": " (share of tokens)"}
_STAR = "M0,-1L.24,-.32L.95,-.31L.38,.12L.59,.81L0,.4L-.59,.81L-.38,.12L-.95,-.31L-.24,-.32Z"
_SIGNS = {
    "best checkpoint": (_STAR, 380, "#1fa355"),
    "best, not advised": (_STAR, 380, _GREY),
    "final checkpoint": ("square", 110, _GREY),
    "checkpoint": ("diamond", 110, _GREY),
}
"""The sign of each kind of checkpoint: its shape, size and colour."""
_POINTS_SHOWN = 60


@dataclass(frozen=True)
class View:
    """How a chart shows its lines.

    Attributes:
        smoothing: Weight of the points before, from 0 (the lines as measured) to below 1. Values on the whole
            validation file are never smoothed.
        steps_per_epoch: Steps of an epoch of each run; empty for an axis of steps.
        is_logarithmic: Use a logarithmic axis for losses, and leave out those that are not above 0.
    """

    smoothing: float = 0
    steps_per_epoch: Mapping[Key, float] = field(default_factory=dict)
    is_logarithmic: bool = False


def curve_chart(family: str, points: Sequence[Row], marks: Sequence[Row], view: View | None = None) -> alt.LayerChart:
    """Return a chart of the lines of a run in one family of metrics, with its checkpoints on them.

    Args:
        family: `loss`, `accuracy` or `reward`.
        points: Rows of `curves`.
        marks: Rows of `checkpoint_marks`.
        view: How to show them.
    """
    colours = {name: LINES[name] for name in LINES if any(row["split"] == name for row in points)}
    title = "Token accuracy" if family == "accuracy" else family.capitalize()
    lines = [{**row, "line": row["split"]} for row in points]
    return _chart(title, family, lines, marks, colours=colours, view=view or View())


def comparison_chart(
    family: str,
    split: str,
    points: Sequence[Row],
    marks: Sequence[Row],
    *,
    names: Mapping[Key, str],
    view: View | None = None,
) -> alt.LayerChart:
    """Return a chart of one line of several runs, with their checkpoints.

    Args:
        family: `loss`, `accuracy` or `reward`.
        split: `train`, `validation` or `full validation`.
        points: Rows of `curves`.
        marks: Rows of `checkpoint_marks`.
        names: The name of each run.
        view: How to show them.
    """
    lines = [{**row, "line": names[key(row)]} for row in points if row["split"] == split and key(row) in names]
    colours = dict(zip(names.values(), RUNS, strict=False))
    shown = [mark for mark in marks if key(mark) in names]
    return _chart(f"{split.capitalize()} {family}", family, lines, shown, colours=colours, view=view or View())


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
        color=alt.Color("checkpoint:N", title=None).scale(domain=kinds, range=list(RUNS[:2])),
        shape=alt.Shape("checkpoint:N", title=None).scale(domain=kinds, range=["diamond", "circle"]),
        size=alt.condition(alt.datum.checkpoint == "best", alt.value(40), alt.value(220)),
        tooltip=["run:N", "checkpoint:N", alt.Tooltip("shown:N", title=metric)],
        description="label:N",
    )
    title = f"Best and final {name}"
    about = f"{title} of each run. " + ". ".join(str(one["label"]) for one in values)
    return _finished(alt.layer(between, dots), title, about, height=max(36 * len(names), 72))


def checkpoint_marks(
    checkpoints: Sequence[Row], family: str, split: str | None = None, advised: Collection[Key] = ()
) -> list[Row]:
    """Return the checkpoints with the value at which each stands in the chart of a family of metrics.

    It is the value of the metric that the checkpoint is judged by, if this metric is of the family. Else it is the
    value on full validation, on validation or in training, whichever is there first.

    Args:
        checkpoints: Rows of `checkpoint_history`.
        family: `loss`, `accuracy` or `reward`.
        split: The only line that is drawn, if it is one.
        advised: Runs of which it is known which checkpoint to deploy.
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
            kind = "final checkpoint" if row["is_final"] else "checkpoint"
            if row["is_best"]:
                kind = "best checkpoint" if key(row) in advised else "best, not advised"
            marks.append({**row, "kind": kind, "value": value})
    return marks


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """Return the exponential moving mean of values, without a bias to the first one.

    Example:
        >>> smoothed([1.0, 3.0], 0.5)
        [1.0, 2.3333333333333335]
    """
    means, mean, total = [], 0.0, 0.0
    for value in values:
        mean, total = weight * mean + value, weight * total + 1
        means.append(mean / total)
    return means


def _data(values: Sequence[Row]) -> alt.Data:
    return alt.Data(values=list(values))  # type: ignore[no-untyped-call]


def _chart(
    title: str, family: str, points: Sequence[Row], marks: Sequence[Row], *, colours: Mapping[str, str], view: View
) -> alt.LayerChart:
    is_logarithmic = view.is_logarithmic and family == "loss"
    lines: dict[str, list[Row]] = {name: [] for name in colours}
    for row in points:
        if row["line"] in lines and not (is_logarithmic and row["lowest"] <= 0):
            lines[row["line"]].append(_point(row, row["line"], view))
    for line in lines.values():
        weight = 0 if line and line[0]["split"] == "full validation" else view.smoothing
        for row, mean in zip(line, smoothed([row["value"] for row in line], weight), strict=True):
            row["mean"] = mean
    stars = [_mark(mark, view) for mark in marks if not (is_logarithmic and mark["value"] <= 0)]

    x = alt.X("x:Q", title="Epoch" if view.steps_per_epoch else "Training step").scale(nice=False)
    x = x.axis(format="~g" if view.steps_per_epoch else ",d", tickMinStep=0 if view.steps_per_epoch else 1, tickCount=8)
    scale = alt.Scale(type="log", nice=False) if is_logarithmic else alt.Scale(zero=False)
    y = alt.Y("value:Q", title=title + _UNITS.get(family, "")).scale(scale)
    y = y.axis(format="~%" if family == "accuracy" else "~g", tickCount=6)
    colour = alt.Color("line:N", title=None).scale(domain=list(colours), range=list(colours.values()))
    drawn = [row for line in lines.values() for row in line]
    base = alt.Chart(_data(drawn)).encode(x=x, color=colour)
    few = alt.condition(f"datum.length <= {_POINTS_SHOWN}", alt.value(0.9 - 0.6 * bool(view.smoothing)), alt.value(0))
    measured = base.mark_line(strokeWidth=2, aria=False, opacity=0.25 if view.smoothing else 1).encode(y=y)
    layers = [
        measured,
        base.transform_joinaggregate(length="count()", groupby=["line"])
        .mark_circle(size=28)
        .encode(y=y, opacity=few, description="label:N"),
    ]
    notes = []
    if any(row["points"] > 1 for row in drawn):
        notes.append("Each point: the mean of several steps. Band: their range.")
        band = base.mark_area(opacity=0.18, aria=False)
        layers.insert(0, band.encode(y=alt.Y("lowest:Q").scale(scale), y2="highest:Q"))
    if view.smoothing:
        notes.append("Bold: smoothed. Pale: as measured.")
        layers.append(base.mark_line(strokeWidth=2.5, aria=False).encode(y=alt.Y("mean:Q").scale(scale)))
    layers += _mark_layers(stars)
    layers += _hover(lines, stars)
    columns = 3 if max(map(len, colours), default=0) <= len("full validation") else 1
    return _finished(alt.layer(*layers), title, _description(title, lines, stars), notes, columns=columns)


def _point(row: Row, line: str, view: View) -> Row:
    columns = {name: row[name] for name in ("split", "step", "value", "lowest", "highest", "points")}
    label = f"{line}, step {row['step']}: {number(row['value'])}"
    return {"line": line, "x": _x(row, row["step"], view), **columns, "label": label}


def _x(row: Row, step: int, view: View) -> float:
    return step / view.steps_per_epoch.get(key(row), 1) if view.steps_per_epoch else step


def _mark(mark: Row, view: View) -> Row:
    return {
        "x": _x(mark, mark["step_number"], view),
        "step": mark["step_number"],
        "value": mark["value"],
        "kind": mark["kind"],
        "size": _SIGNS[mark["kind"]][1],
        "label": f"{mark['kind']}, step {mark['step_number']}: {number(mark['value'])}",
        "name": text(mark["fine_tuned_model_checkpoint"] or mark["checkpoint_id"]),
    }


def _mark_layers(marks: Sequence[Row]) -> list[alt.Chart]:
    if not marks:
        return []
    kinds = [kind for kind in _SIGNS if any(mark["kind"] == kind for mark in marks)]
    shapes, _, colours = (list(one) for one in zip(*(_SIGNS[kind] for kind in kinds), strict=True))

    def sign(channel: Any, signs: list[Any]) -> Any:
        return channel.scale(domain=kinds, range=signs)

    legend = alt.Legend(orient="bottom", title=None, symbolSize=200, columns=2)
    chart = alt.Chart(_data(marks)).encode(
        x="x:Q",
        shape=sign(alt.Shape("kind:N", legend=legend), shapes),
        size=alt.Size("size:Q", scale=None, legend=None),
        fill=sign(alt.Fill("kind:N", legend=legend), colours),
    )
    best = [mark for mark in marks if mark["kind"].startswith("best")]
    rule = alt.Chart(_data(best)).mark_rule(strokeDash=[4, 4], opacity=0.7, aria=False, color=_GREY)
    point = chart.mark_point(stroke="white", strokeWidth=1, opacity=1)
    return [
        rule.encode(x="x:Q", y=alt.value(0), y2=alt.value("height")),
        point.encode(y="value:Q", description="label:N"),
    ]


def _hover(lines: Mapping[str, Sequence[Row]], marks: Sequence[Row]) -> list[alt.Chart]:
    """Return a layer that shows, at the step nearest to the pointer, the value of every line and the checkpoints."""
    steps = {name: [row["x"] for row in line] for name, line in lines.items() if line}
    at = {row["x"]: row["step"] for line in lines.values() for row in line}
    values: list[Row] = []
    for x in sorted(at):
        shown = {"x": x, "step": at[x]}
        for index, (name, places) in enumerate(steps.items()):
            after = min(bisect_left(places, x), len(places) - 1)
            nearest = min((max(after - 1, 0), after), key=lambda place, x=x, places=places: abs(places[place] - x))  # type: ignore[misc]
            row = lines[name][nearest]
            shown[f"line{index}"] = number(row["value"]) + ("" if row["x"] == x else f" (step {row['step']})")
        there = [f"{mark['kind']} {mark['name']}" for mark in marks if mark["x"] == x]
        values.append({**shown, "checkpoint": ", ".join(there) or "none"})
    if not values:
        return []
    hover = alt.selection_point(
        name="hover", nearest=True, on="pointerover", clear="pointerout", fields=["x"], empty=False
    )
    tooltip = [
        alt.Tooltip("step:Q", format=",d"),
        *(alt.Tooltip(f"line{index}:N", title=name) for index, name in enumerate(steps)),
        alt.Tooltip("checkpoint:N"),
    ]
    rule = alt.Chart(_data(values)).mark_rule(color=_GREY, aria=False)
    return [
        rule.encode(
            x="x:Q",
            y=alt.value(0),
            y2=alt.value("height"),
            tooltip=tooltip,
            opacity=alt.condition(hover, alt.value(0.6), alt.value(0)),
        ).add_params(hover)
    ]


def _description(title: str, lines: Mapping[str, Sequence[Row]], marks: Sequence[Row]) -> str:
    """Return what a chart shows, for those who cannot see it."""
    sentences = [f"{title} by step."]
    for name, line in lines.items():
        if line:
            low, high = (f"{number(one['value'])} at step {one['step']}" for one in _extremes(line))
            sentences.append(
                f"{name}: from {number(line[0]['value'])} to {number(line[-1]['value'])}, lowest {low}, highest {high}."
            )
    sentences += [f"{mark['label']}." for mark in marks if mark["kind"] != "checkpoint"]
    return " ".join(sentences)


def _extremes(line: Sequence[Row]) -> tuple[Row, Row]:
    return min(line, key=lambda row: row["value"]), max(line, key=lambda row: row["value"])


def _finished(
    chart: Any, title: str, description: str, notes: Sequence[str] = (), *, height: int = 300, columns: int = 3
) -> alt.LayerChart:
    actions = {"export": True, "source": False, "compiled": False, "editor": False}
    finished: alt.LayerChart = (
        chart.properties(
            width="container",
            height=height,
            title=alt.Title(title, subtitle=list(notes), anchor="start", fontSize=15, offset=10),
            description=description,
            # `ast`: Vega's interpreter computes expressions, since the page's Content-Security-Policy forbids `eval`.
            usermeta={"embedOptions": {"ast": True, "renderer": "svg", "actions": actions}},
            background="transparent",
        )
        .configure_view(strokeOpacity=0)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridOpacity=0.25)
        .configure_axisX(grid=False)
        .configure_legend(orient="top", labelFontSize=12, labelLimit=260, columns=columns, symbolOpacity=1)
    )
    return finished
