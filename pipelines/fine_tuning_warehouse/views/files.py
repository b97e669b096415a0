"""The views as they stand in their files: what each is for, its columns, its SELECT in DuckDB's dialect."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

_COLUMN = re.compile(r"([a-z_]+): (.*)")


@dataclass(frozen=True)
class View:
    """A view.

    Attributes:
        name: Its name, and that of its file; a part begins with an underscore, and lies in `parts/`.
        over: The tables that it is about: it is made where one of them exists. What else it reads may be missing.
        is_large: Whether it takes seconds to compute in a large warehouse: `materialize` keeps its rows there. Each of
            its rows depends on the rows of one job alone.
    """

    name: str
    over: tuple[str, ...]
    is_large: bool = False

    @cached_property
    def text(self) -> str:
        """The whole file."""
        path = f"parts/{self.name[1:]}.sql" if self.name.startswith("_") else f"{self.name}.sql"
        return (files(__package__) / path).read_text(encoding="utf-8")

    @cached_property
    def description(self) -> str:
        """What it is for."""
        return self._head[0]

    @cached_property
    def columns(self) -> dict[str, str]:
        """Its columns in order, name to description."""
        return self._head[1]

    @cached_property
    def _head(self) -> tuple[str, dict[str, str]]:
        # The comment that the file starts with: the purpose, an empty line, then the columns. What follows on the next
        # line is indented.
        head = self.text.partition("\n\n")[0]
        purpose, _, rest = "\n".join(line[2:] for line in head.splitlines()).partition("\n\n")
        columns: dict[str, str] = {}
        for line in re.sub(r"\n {2,}", " ", rest).splitlines():
            match = _COLUMN.fullmatch(line.strip())
            if match is None:
                raise ValueError(f"{self.name}.sql: {line!r} describes no column")
            columns[match[1]] = match[2]
        return " ".join(purpose.split()), columns


VIEWS = (
    View("checkpoint_history", over=("checkpoints",), is_large=True),
    View("model_status", over=("jobs", "checkpoints", "models")),
    View("best_checkpoints", over=("checkpoints",)),
    View("job_overview", over=("jobs",)),
    View("comparable_runs", over=("jobs",)),
    View("job_costs", over=("jobs",)),
    View("run_curves", over=("events", "result_metrics", "checkpoints")),
    View("training_curves", over=("events", "result_metrics", "checkpoints")),
    View("sync_history", over=("syncs",)),
    View("account_health", over=("syncs",)),
)
"""All views; one that reads another comes after it."""

PARTS = (
    View("_account_rows", over=("jobs",)),
    View("_accounts", over=("jobs",)),
    View("_job_rows", over=("jobs",)),
    View("_job_facts", over=("jobs",)),
    View("_step_values", over=("events", "result_metrics", "checkpoints")),
    View("_event_facts", over=("events",), is_large=True),
    View("_advice", over=("checkpoints",), is_large=True),
)
"""Queries that views read, each as a common table expression of the view. One that reads another comes after it."""

MATERIALIZED = tuple(view for view in (*VIEWS, *PARTS) if view.is_large)
"""Those with rows that a large warehouse keeps in tables. One that reads another comes after it."""
