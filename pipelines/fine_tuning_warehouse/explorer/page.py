"""Parts of the explorer's page that it has several of: tables, downloads, filters."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import marimo as mo
import pyarrow as pa

from fine_tuning_warehouse.formats import as_csv
from fine_tuning_warehouse.text import safe

from . import charts, data, texts
from .data import Choices, Curves, Filters, Key, Row

_COPYABLE = """<style>
.codehilite-wrapper { width: fit-content; max-width: 100%; padding-right: 2.5rem }
.codehilite-wrapper pre { white-space: pre-wrap; overflow-wrap: anywhere }
.codehilite-wrapper > .absolute { opacity: 1; top: 0 }
</style>"""
"""How marimo's code with a button that copies it is shown: the button always, not below a mouse alone."""

_WIDTHS = {
    "created (UTC)": 140,
    "name": 150,
    "status": 90,
    "advice": 110,
    "best": 75,
    "cost of final": 100,
    "checkpoint to deploy": 230,
    "epochs": 75,
    "batch size": 90,
    "learning rate": 110,
}
"""The columns of the jobs that decide, with their widths in pixels; the others are behind the button `Columns`."""


class Address:
    """The part of the page's address that says what is shown: it survives a reload, and can be shared.

    Cells name this object, not marimo's: a change of the address runs no cell again.
    """

    def __init__(self) -> None:
        self._parameters = mo.query_params()

    def all(self, name: str) -> list[str]:
        """Return the values of a parameter."""
        return [value for value in str(self._parameters.get(name, "")).split(",") if value]

    def first(self, name: str) -> str:
        """Return the first value of a parameter; an empty text if there is none."""
        return next(iter(self.all(name)), "")

    def put(self, name: str, *values: str) -> None:
        """Set a parameter to its values that are not empty."""
        wanted = [value for value in values if value]
        if wanted != self.all(name):
            # In one text: of a parameter that stands twice, marimo keeps one when the page is loaded again.
            self._parameters[name] = ",".join(wanted) or []


def table(rows: Sequence[Row], columns: Mapping[str, str], label: str, **more: Any) -> Any:
    """A table with pages.

    Args:
        rows: Rows of a view.
        columns: What to show of them: heads, and columns of the view.
        label: What the table holds.
        more: Other arguments of `mo.ui.table`.
    """
    shown = texts.table(rows, columns)
    if not shown:
        return mo.md(f"{label}: none.")
    numeric = [head for head in shown[0] if any(isinstance(row[head], (int, float)) for row in shown)]
    arguments: dict[str, Any] = {
        "selection": None,
        "page_size": 10,
        "show_column_summaries": False,
        "show_data_types": False,
        "show_download": False,
        "show_search": False,
        "freeze_columns_left": list(shown[0])[:1],
        "format_mapping": {head: texts.cell(head) for head in shown[0]},
        "text_justify_columns": dict.fromkeys(numeric, "right"),
        "label": label,
        **more,
    }
    return mo.ui.table(pa.Table.from_pylist(shown), **arguments)  # only a data frame keeps its selection when sorted


def jobs_table(rows: Sequence[Row], address: Address) -> Any:
    """The table of the jobs; a click on a row picks it. Those that the address names are picked at first."""
    names = data.addresses(rows)
    places = {names[data.key(row)]: str(index) for index, row in enumerate(rows)}
    heads = list(texts.table(rows, texts.JOB_COLUMNS)[0])
    return table(
        rows,
        texts.JOB_COLUMNS,
        "Jobs, newest first",
        selection="multi-cell",
        initial_selection=[(places[run], heads[0]) for run in address.all("run") if run in places],
        column_widths={head: width for head, width in _WIDTHS.items() if head in heads},
        visible_columns=[head for head in heads if head in _WIDTHS],
    )


def picked(rows: Sequence[Row], jobs_table: Any, address: Address) -> list[Row]:
    """Return the rows that are picked in the table of the jobs, the last pick first; the address then names them."""
    places = dict.fromkeys(int(cell.row) for cell in jobs_table.value)
    chosen = [rows[place] for place in places if place < len(rows)]
    names = data.addresses(rows)
    address.put("run", *(names[data.key(row)] for row in chosen))
    return chosen


def run_control(rows: Sequence[Row], address: Address) -> Any:
    """The control that picks runs to compare by their names: the table of the jobs takes no keys."""
    names, short = data.addresses(rows), data.short_names(rows)
    options = {short[run]: name for run, name in names.items()}
    value = [option for option, name in options.items() if name in address.all("with")]
    return mo.ui.multiselect(options, value=value, label="Compare with")


def compared_runs(rows: Sequence[Row], opened: Sequence[Row], control: Any, address: Address) -> list[Row]:
    """Return the runs that are open and those of `run_control`; the address then names the latter."""
    address.put("with", *control.value)
    names = data.addresses(rows)
    others = [row for row in rows if names[data.key(row)] in control.value]
    return list({data.key(row): row for row in (*opened, *others)}.values())


def overlay(
    line: tuple[str, str],
    lines: Curves,
    checkpoints: Sequence[Row],
    rows: Sequence[Row],
    *,
    names: Mapping[Key, str],
    view: charts.View,
) -> Any:
    """The chart of one line of the compared runs; where none has it, a sentence that says so."""
    family, split = line
    points = lines.of(family)
    if not any(point["split"] == split for point in points):
        return mo.callout(mo.md(f"None of these runs has a line of {split} {family}: pick another."), kind="neutral")
    known = [data.key(row) for row in rows if row["advice"] in texts.KNOWN]
    marks = charts.checkpoint_marks(checkpoints, family, split, known)
    return charts.comparison_chart(family, split, points, marks, names=names, view=view)


def comparison_table(rows: Sequence[Row]) -> Any:
    """The compared runs in numbers; what was set differently is marked."""
    settings = texts.differing(rows, texts.FACTS)
    columns = {f"{head} ≠" if head in settings else head: name for head, name in texts.RUN_COLUMNS.items()}
    return table(
        rows,
        columns,
        "The runs in numbers (≠: set differently)",
        style_cell=lambda _row, head, _value: {"fontWeight": "bold"} if head.endswith("≠") else {},
    )


def download(rows: Callable[[], Sequence[Row]], filename: str, label: str) -> Any:
    """Return a button that downloads rows as CSV with all their columns; they are read when it is pressed."""
    button = mo.download(lambda: as_bytes(rows()), filename=filename, mimetype="text/csv", label=label)
    return mo.hstack([button], justify="start")


def details(sections: Mapping[str, tuple[Any, Any]]) -> Any:
    """Return tables with their downloads, each folded away under its title."""
    return mo.accordion({title: mo.vstack(parts) for title, parts in sections.items()}, multiple=True)


def as_bytes(rows: Sequence[Row]) -> bytes:
    """Return rows as CSV with a header, safe to open in a spreadsheet; nothing where there are no rows."""
    if not rows:
        return b""
    names = list(rows[0])
    return as_csv(names, [[row[name] for name in names] for row in rows], spreadsheet_safe=True).encode()


def copyable(name: str) -> Any:
    """Return a name on the page with a button that copies it."""
    code = f'<div class="codehilite"><pre><span></span><code>{html.escape(safe(name))}</code></pre></div>'
    return mo.Html(_COPYABLE + code)


def filter_controls(offered: Choices, address: Address) -> Any:
    """The filters of the page, as one element whose value is a dict; at first they are as in the address."""

    def several(name: str, options: list[str], label: str) -> Any:
        return mo.ui.multiselect(options, value=[one for one in address.all(name) if one in options], label=label)

    def day(name: str, otherwise: date | None, label: str) -> Any:
        return mo.ui.date(value=_day(address.first(name)) or otherwise, label=label)

    controls = {
        "find": mo.ui.text(
            value=address.first("find"),
            label="Find",
            placeholder="suffix, model, job, file, method, status …",
            debounce=400,
            full_width=True,
        ),
        "account": several("account", offered.accounts, "Account"),
        "model": several("model", offered.base_models, "Base model"),
        "status": several("status", offered.statuses, "Status"),
        "since": day("since", offered.first, "Created from"),
        "until": day("until", offered.last, "Created to"),
    }
    return mo.ui.dictionary(controls)


def filters(chosen: Mapping[str, Any], offered: Choices, address: Address) -> Filters:
    """The filters as they are set; the address then names them, days only where they are not the whole range."""
    since = chosen["since"] if chosen["since"] != offered.first else None
    until = chosen["until"] if chosen["until"] != offered.last else None
    address.put("find", chosen["find"])
    for name in ("account", "model", "status"):
        address.put(name, *chosen[name])
    address.put("since", since.isoformat() if since else "")
    address.put("until", until.isoformat() if until else "")
    return Filters(chosen["account"], chosen["model"], chosen["status"], since, until, chosen["find"])


def view_controls(address: Address, prefix: str = "") -> Any:
    """The controls of a section's charts, as one element whose value is a dict."""
    smoothing = address.first(f"{prefix}smoothing")
    steps = [place / 20 for place in range(20)]
    controls: dict[str, Any] = {
        "smoothing": mo.ui.slider(
            steps=steps,
            value=next((one for one in steps if str(one) == smoothing), 0.0),
            label="Smoothing",
            show_value=True,
        ),
        "epochs": mo.ui.switch(label="Epochs", value=bool(address.first(f"{prefix}epochs"))),
        "log": mo.ui.switch(label="Logarithmic loss", value=bool(address.first(f"{prefix}log"))),
    }
    return mo.ui.dictionary(controls)


def view(chosen: Mapping[str, Any], epochs: Mapping[Key, float], address: Address, prefix: str = "") -> charts.View:
    """How the charts of a section show their lines; the address then says so.

    Args:
        chosen: The value of `view_controls`.
        epochs: The steps of an epoch of each run where that is known.
        address: The page's address.
        prefix: The prefix of the section's parameters in the address.
    """
    for name, value in chosen.items():
        address.put(f"{prefix}{name}", str(value) if value else "")
    return charts.View(chosen["smoothing"], epochs if chosen["epochs"] else {}, chosen["log"])


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
