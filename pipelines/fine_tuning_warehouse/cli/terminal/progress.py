"""Progress on a terminal: jobs done of jobs seen, rows, requests, time left. Nothing in a pipe."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from openai_fine_tuning import Report

_REFRESH_SECONDS = 0.2


@contextmanager
def progress_bar(report: Report) -> Iterator[None]:
    """Show a sync's report on stderr while it grows."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("jobs · {task.fields[rows]:,} rows · {task.fields[requests]:,} requests{task.fields[retries]} ·"),
        TimeRemainingColumn(),
    )
    ended = threading.Event()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Reading", total=None, rows=0, requests=0, retries="")

        def show() -> None:
            while not ended.wait(_REFRESH_SECONDS):
                reading = report.jobs_read < report.jobs_to_read or not report.is_complete
                progress.update(
                    task,
                    description="Reading" if reading else "Loading",
                    completed=report.jobs_read,
                    total=report.jobs_to_read or None,
                    rows=report.rows.total(),
                    requests=report.requests,
                    retries=f" ({report.retries:,} retries)" if report.retries else "",
                )

        watcher = threading.Thread(target=show, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


@contextmanager
def bytes_bar(words: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """Show on stderr how many bytes of a task are done. Yields a function that takes the number of further bytes."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(words, total=size)
        yield lambda number: progress.advance(task, number)
