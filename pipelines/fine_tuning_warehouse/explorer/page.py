"""Parts of the explorer's page that it has several of: tables, downloads, filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import marimo as mo

from fine_tuning_warehouse.formats import as_csv

from . import texts
from .data import (
    Choices,
    Filters,
    Row,
    key,
    run_names,
)

Memory = dict[Any, Any]
"""What was picked: a new sync makes the controls anew, and they go on where they were."""


def table(rows: Sequence[Row], columns: Mapping[str, str], label: str, *, search: bool = False) -> Any:
    """A table with pages.

    Args:
        rows: Rows of a view.
        columns: What to show of them: heads, and columns of the view.
        label: What the table holds.
        search: Whether to offer a search in it.
    """
    shown = texts.table(rows, columns)
    if not shown:
        return mo.md(f"{label}: none.")
    numeric = [head for head in shown[0] if any(isinstance(row[head], (int, float)) for row in shown)]
    return mo.ui.table(
        shown,
        selection=None,
        page_size=10,
        show_column_summaries=False,
        show_data_types=False,
        show_download=False,
        show_search=search,
        format_mapping={head: texts.cell(head) for head in shown[0]},
        text_justify_columns=dict.fromkeys(numeric, "right"),
        label=label,
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


def filter_controls(offered: Choices, memory: Memory) -> Any:
    """The filters of the page, as one element whose value is a dict."""

    def several(name: str, options: list[str], label: str) -> Any:
        chosen = [value for value in memory.get(name, []) if value in options]
        return mo.ui.multiselect(options, value=chosen, label=label)

    def day(name: str, otherwise: Any, label: str) -> Any:
        return mo.ui.date(value=memory.get(name) or otherwise, label=label)

    controls = {
        "account": several("account", offered.accounts, "Account"),
        "base_model": several("base_model", offered.base_models, "Base model"),
        "status": several("status", offered.statuses, "Status"),
        "since": day("since", offered.first, "Created from"),
        "until": day("until", offered.last, "to"),
        "text": mo.ui.text(value=memory.get("text", ""), label="Find", placeholder="suffix, job, file …", debounce=400),
    }
    return mo.ui.dictionary(controls)


def filters(chosen: Mapping[str, Any], offered: Choices, memory: Memory) -> Filters:
    """The filters as they are set; remembers them, days only where they are not the whole range."""
    memory.update({name: chosen[name] for name in ("account", "base_model", "status", "text")})
    memory["since"] = chosen["since"] if chosen["since"] != offered.first else None
    memory["until"] = chosen["until"] if chosen["until"] != offered.last else None
    return Filters(
        chosen["account"],
        chosen["base_model"],
        chosen["status"],
        memory["since"],
        memory["until"],
        chosen["text"],
    )


def run_picker(rows: Sequence[Row], memory: Memory) -> Any:
    """The control that picks one run: the one that was picked before, else the newest that has checkpoints."""
    names = run_names(rows)
    likely = next((row for row in rows if row["checkpoints"]), rows[0])
    wanted = memory.get("run")
    by_name = {name: run for run, name in names.items()}
    return mo.ui.dropdown(
        by_name,
        value=names[wanted if wanted in names else key(likely)],
        allow_select_none=False,
        label="Run",
        full_width=True,
        on_change=lambda run: memory.__setitem__("run", run),
    )


def runs_picker(rows: Sequence[Row], chosen: Row, alike: Sequence[Row], memory: Memory, limit: int) -> Any:
    """The control that picks several runs: what was picked beside this run before, else the runs like it."""
    names = run_names(rows)
    place = ("compared", key(chosen))
    wanted = memory.get(place, [key(row) for row in alike])
    return mo.ui.multiselect(
        {name: run for run, name in names.items()},
        value=[names[run] for run in wanted if run in names],
        max_selections=limit,
        label="Runs to compare",
        full_width=True,
        on_change=lambda runs: memory.__setitem__(place, runs),
    )
