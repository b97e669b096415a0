"""How the explorer tells numbers, times and texts of unknown origin to people."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal

from fine_tuning_warehouse.text import counted, safe

from .data import BINS, FAMILIES, Curves, Row

NONE = "–"
_SHOWN_ACCOUNTS = 3

JOB_COLUMNS = {
    "created (UTC)": "created_at",
    "suffix": "suffix",
    "base model": "base_model",
    "method": "method",
    "status": "status",
    "verdict": "overfitting_band",
    "metric": "evaluation_metric",
    "best": "best_evaluation_value",
    "final": "final_evaluation_value",
    "cost of final": "cost_of_final",
    "checkpoint to deploy": "checkpoint_to_deploy",
    "checkpoints": "checkpoints",
    "duration (min)": "duration_seconds",
    "trained tokens": "trained_tokens",
    "training file": "training_file_name",
    "job": "fine_tuning_job_id",
    "account": "account",
    "error": "error_message",
}
CHECKPOINT_COLUMNS = {
    "role": "role",
    "step": "step_number",
    "metric": "evaluation_metric",
    "value": "evaluation_value",
    "rank": "rank_in_job",
    "verdict": "overfitting_band",
    "train loss": "train_loss",
    "validation loss": "valid_loss",
    "full validation loss": "full_valid_loss",
    "train accuracy": "train_mean_token_accuracy",
    "validation accuracy": "valid_mean_token_accuracy",
    "train reward": "train_mean_reward",
    "validation reward": "valid_mean_reward",
    "kept by the host": "is_retained",
    "created (UTC)": "created_at",
    "name to deploy": "fine_tuned_model_checkpoint",
    "checkpoint": "checkpoint_id",
}
POINT_COLUMNS = {
    "run": "run",
    "metric": "family",
    "line": "split",
    "step": "step",
    "value": "value",
    "lowest": "lowest",
    "highest": "highest",
    "steps": "points",
}
RUN_COLUMNS = {
    "run": "run",
    "base model": "base_model",
    "metric": "evaluation_metric",
    "best": "best_evaluation_value",
    "best step": "best_step",
    "final": "final_evaluation_value",
    "cost of final": "cost_of_final",
    "verdict": "overfitting_band",
    "trained tokens": "trained_tokens",
    "duration (min)": "duration_seconds",
    "checkpoint to deploy": "checkpoint_to_deploy",
    "job": "fine_tuning_job_id",
}
"""What the tables show: heads for people, and the columns of the views."""

_ALWAYS = {"suffix", "status", "step", "value", "run", "job"}


def number(value: Any) -> str:
    """A number of a metric: four digits that count."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def count(value: Any, noun: str | None = None) -> str:
    """A number of things, in full, with what they are called."""
    if not isinstance(value, int):
        return NONE if noun is None else f"{NONE} {noun}s"
    return f"{value:,}" if noun is None else counted(value, noun)


def compact(value: float) -> str:
    """A large number in short: 1.2 M."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {sign}"
    return f"{value:.3g}"


def duration(seconds: Any) -> str:
    """A time span in words."""
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return NONE
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def time(value: Any) -> str:
    """A time to the minute, in UTC."""
    return f"{value.astimezone(timezone.utc):%Y-%m-%d %H:%M}" if isinstance(value, datetime) else NONE


def ago(value: datetime, now: datetime | None = None) -> str:
    """How long ago that was, in words."""
    seconds = ((now or datetime.now(timezone.utc)) - value).total_seconds()
    return "just now" if seconds < 60 else f"{duration(seconds)} ago"


def text(value: Any) -> str:
    """A text of unknown origin as plain text: it steers nothing, and no address in it becomes a link or an image."""
    shown = safe(str(value))
    for sign in ("://", "www.", "data:"):
        shown = shown.replace(sign, f"{sign[:-1]}\u2060{sign[-1]}")  # a word joiner, which has no width
    return shown


def escaped(value: Any) -> str:
    """A text of unknown origin for Markdown and HTML, in which it is neither."""
    return "".join(sign if sign.isalnum() or sign in " _.," else f"&#{ord(sign)};" for sign in text(value))


def table(rows: Sequence[Row], columns: Mapping[str, str]) -> list[Row]:
    """Rows for a table on the page: heads for people, texts made safe, no columns that are empty throughout."""
    shown = {
        head: name
        for head, name in columns.items()
        if head in _ALWAYS or any(row.get(name) not in (None, "") for row in rows)
    }
    return [{head: _cell(head, row.get(name)) for head, name in shown.items()} for row in rows]


def cell(head: str) -> Callable[[Any], str]:
    """How to show the cells of a column, which stay numbers so that they sort."""

    def shown(value: Any) -> str:
        if value is None or value == "":
            return NONE
        if isinstance(value, int):
            return count(value)
        if isinstance(value, float):
            return f"{value:,.0f}" if head.endswith("(min)") else number(value)
        return str(value)

    return shown


def _cell(head: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return time(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return (value / 60 if head.endswith("(min)") else value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, int) else text(value)


def freshness(syncs: Sequence[Row] | None, problem: str | None) -> str:
    """How fresh the data is, as Markdown."""
    if syncs is None:
        return ""
    lines = [
        f"Last sync of account **{escaped(sync['account'])}**: "
        f"**{ago(sync['finished_at'])}** ({time(sync['finished_at'])} UTC), "
        f"{count(sync['jobs_open'], 'job')} still open."
        for sync in syncs[:_SHOWN_ACCOUNTS]
        if isinstance(sync["finished_at"], datetime)
    ]
    if len(syncs) > _SHOWN_ACCOUNTS:
        lines.append(f"and {counted(len(syncs) - _SHOWN_ACCOUNTS, 'more account')}")
    if problem:
        lines.append(f"⏳ Shown as it was before: {escaped(problem)}")
    return "<br>".join([*lines, "This page follows new syncs by itself."]) if lines else "No sync has completed yet."


def nothing_to_show(problem: str, database: str) -> str:
    """What to run where there is nothing to show, as Markdown."""
    shown = escaped(problem).replace(escaped("`ftw sync`"), "<code>ftw sync</code>")
    return (
        f"**Nothing to show yet.** {shown}\n\n"
        "- With your key: <code>export OPENAI_API_KEY=sk-...</code>, then "
        f"<code>ftw sync --database {escaped(database)}</code>\n"
        "- To look around without one: <code>ftw sync --demo</code>, then <code>ftw explore</code>\n\n"
        "This page goes on by itself when the sync is done."
    )


def totals(jobs: Sequence[Row]) -> list[tuple[str, str, str]]:
    """The jobs in a few numbers: label, value, caption."""
    ended = sum(job["finished_at"] is not None or job["status"] in ("succeeded", "failed", "cancelled") for job in jobs)
    failed = sum(job["status"] == "failed" for job in jobs)
    bands = [job["overfitting_band"] for job in jobs if job["overfitting_band"]]
    over = sum(band in ("overfitting", "severe") for band in bands)
    costly = sum((job["cost_of_final"] or 0) > 0 for job in jobs)
    compared = sum(job["cost_of_final"] is not None for job in jobs)
    tokens = sum(job["trained_tokens"] or 0 for job in jobs)
    return [
        ("Jobs", count(len(jobs)), f"{count(len(jobs) - ended)} not ended, {count(failed)} failed"),
        ("Checkpoints", count(sum(job["checkpoints"] or 0 for job in jobs)), "dropped ones included"),
        ("Overfitting at the end", f"{over:,} of {len(bands):,}", "with validation loss"),
        ("Final is not the best", f"{costly:,} of {compared:,}", "that compare"),
        ("Trained tokens", compact(tokens), "billable"),
    ]


def more_runs(matching: int, offered: int) -> str:
    """That not all runs are offered, as Markdown."""
    return (
        f"The newest {offered:,} of {counted(matching, 'job')}: narrow the filters to reach others."
        if matching > offered
        else ""
    )


def mood(job: Row) -> Literal["success", "warn", "danger", "neutral"]:
    """The colour of what is to be said of a run."""
    if job["status"] == "failed" or job["overfitting_band"] in ("overfitting", "severe"):
        return "danger"
    if job["overfitting_band"] == "watch" or (job["cost_of_final"] or 0) > 0:
        return "warn"
    return "success" if job["checkpoint_to_deploy"] else "neutral"


def verdict(job: Row) -> str:
    """What is to be said of a run, as Markdown."""
    band = job["overfitting_band"]
    facts = [
        f"<code>{escaped(job['fine_tuning_job_id'])}</code>",
        escaped(job["base_model"] or "no model"),
        escaped(job["method"] or "method unknown"),
        escaped(job["status"] or "no status"),
        f"took {duration(job['duration_seconds'])}" if job["duration_seconds"] is not None else "",
        count(job["trained_tokens"], "token") if job["trained_tokens"] is not None else "",
        f"at its end: **{escaped(band)}**" if band else "",
    ]
    lines = [" · ".join(fact for fact in facts if fact)]
    if job["checkpoint_to_deploy"]:
        lines.append(f"**Deploy** <code>{escaped(job['checkpoint_to_deploy'])}</code>")
        lines.append(escaped(job["reason"]))
    elif job["error_message"]:
        lines.append(f"**Failed**: {escaped(job['error_message'])}")
    else:
        lines.append("It has no checkpoints yet: hosts show them when a job ends.")
    return "\n\n".join(lines)


def about_curves(lines: Curves) -> str:
    """What is drawn, as Markdown."""
    if not lines.points:
        return "No curve is known of this: hosts send metrics as a job trains, `ftw sync` reads them with the events."
    told = ["★ best checkpoint, ◆ other checkpoints."]
    if lines.is_binned:
        told.append(
            f"Drawn are {len(lines.points):,} points for {lines.steps:,} values: lines of more than {BINS} steps are "
            "means of bins of steps, with the range from lowest to highest behind them. The download has every value."
        )
    if lines.not_finite:
        told.append(f"{lines.not_finite:,} values are NaN or infinite and cannot be drawn: the run diverged there.")
    return " ".join(told)


def marked(checkpoints: Sequence[Row]) -> list[Row]:
    """Rows of checkpoints with a sign for the best and the final one."""

    def sign(row: Row) -> str:
        return " ".join(word for word, holds in (("★ best", row["is_best"]), ("final", row["is_final"])) if holds)

    return [{**row, "role": sign(row)} for row in checkpoints]


def line_of(job: Row) -> str:
    """The line by which a job is judged."""
    for family, splits in FAMILIES.items():
        for split, metrics in splits.items():
            if job["evaluation_metric"] in metrics:
                return f"{split} {family}"
    return "train loss"
