"""The texts of the explorer: numbers, times, and texts of unknown origin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal

from fine_tuning_warehouse.text import counted, safe

from .data import BINS, Curves, Row

NONE = "–"
_SHOWN_ACCOUNTS = 3


def _columns(names: str) -> dict[str, str]:
    """Return the head of each column and its name in the rows: `head=name`, or a name that is also the head."""
    pairs = (column.strip().partition("=") for column in names.split(","))
    return {head.replace("_", " "): name or head for head, _, name in pairs}


JOB_COLUMNS = _columns(
    "created (UTC)=created_at, suffix, base_model, method, status, advice, metric=evaluation_metric, "
    "best=best_evaluation_value, final=final_evaluation_value, cost_of_final, checkpoint_to_deploy, checkpoints, "
    "duration (min)=duration_seconds, trained_tokens, training file=training_file_name, job=fine_tuning_job_id, "
    "account, error=error_message"
)
CHECKPOINT_COLUMNS = _columns(
    "role, step=step_number, metric=evaluation_metric, value=evaluation_value, rank=rank_in_job, "
    "generalization_loss, train_loss, validation loss=valid_loss, full validation loss=full_valid_loss, "
    "train accuracy=train_mean_token_accuracy, validation accuracy=valid_mean_token_accuracy, "
    "train reward=train_mean_reward, validation reward=valid_mean_reward, kept by the host=is_retained, "
    "created (UTC)=created_at, name to deploy=fine_tuned_model_checkpoint, checkpoint=checkpoint_id"
)
POINT_COLUMNS = _columns("run, metric=family, line=split, step, value, lowest, highest, steps=points")
RUN_COLUMNS = _columns(
    "run, base_model, metric=evaluation_metric, best=best_evaluation_value, best_step, final=final_evaluation_value, "
    "cost_of_final, advice, trained_tokens, duration (min)=duration_seconds, checkpoint_to_deploy, "
    "job=fine_tuning_job_id"
)
"""The columns of the tables: their heads, and their names in the rows."""

_ADVICE = {
    "deploy": "Deploy",
    "keep_final": "Keep the final checkpoint",
    "retrain": "Train again",
    "cannot_tell": "Cannot tell",
    "not_finished": "Not finished",
}
"""What each advice of `best_checkpoints` says in a headline."""

_ALWAYS = {"suffix", "status", "step", "value", "run", "job"}


def number(value: Any) -> str:
    """Return the number of a metric with four digits that count."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def count(value: Any, noun: str | None = None) -> str:
    """Return a number of things in full, with their name if there is one."""
    if not isinstance(value, int):
        return NONE if noun is None else f"{NONE} {noun}s"
    return f"{value:,}" if noun is None else counted(value, noun)


def compact(value: float) -> str:
    """Return a large number in short, such as 1.2 M."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {sign}"
    return f"{value:.3g}"


def duration(seconds: Any) -> str:
    """Return a time span in its two largest units, such as 2 h 35 min."""
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return NONE
    minutes = round(seconds / 60)
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def time(value: Any) -> str:
    """Return a time to the minute, in UTC."""
    return f"{value.astimezone(timezone.utc):%Y-%m-%d %H:%M}" if isinstance(value, datetime) else NONE


def ago(value: datetime, now: datetime | None = None) -> str:
    """Return how long ago a time was."""
    seconds = ((now or datetime.now(timezone.utc)) - value).total_seconds()
    return "just now" if seconds < 60 else f"{duration(seconds)} ago"


def text(value: Any) -> str:
    """Return a text of unknown origin as plain text: no address in it becomes a link or an image."""
    shown = safe(str(value))
    for sign in ("://", "www.", "data:"):
        shown = shown.replace(sign, f"{sign[:-1]}\u2060{sign[-1]}")  # a word joiner, which has no width
    return shown


def escaped(value: Any) -> str:
    """Return a text of unknown origin for Markdown and HTML, without a meaning in either."""
    return "".join(sign if sign.isalnum() or sign in " _.," else f"&#{ord(sign)};" for sign in text(value))


def table(rows: Sequence[Row], columns: Mapping[str, str]) -> list[Row]:
    """Return rows for a table on the page, with heads for names, safe texts, and without columns that are empty."""
    shown = {
        head: name
        for head, name in columns.items()
        if head in _ALWAYS or any(row.get(name) not in (None, "") for row in rows)
    }
    return [{head: _cell(head, row.get(name)) for head, name in shown.items()} for row in rows]


def cell(head: str) -> Callable[[Any], str]:
    """Return the function that shows the cells of a column; they stay numbers, so that they sort as such."""

    def shown(value: Any) -> str:
        if value is None or value == "":
            return NONE
        if isinstance(value, float) and not head.endswith("(min)"):
            return number(value)
        return f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)

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
    """Return how fresh the data is, as Markdown."""
    if syncs is None:
        return ""
    lines = [
        f"Last sync of account **{escaped(sync['account'])}**: **{ago(sync['finished_at'])}** "
        f"({time(sync['finished_at'])} UTC), {count(sync['jobs_open'], 'job')} to be read again."
        for sync in syncs[:_SHOWN_ACCOUNTS]
        if isinstance(sync["finished_at"], datetime)
    ]
    if len(syncs) > _SHOWN_ACCOUNTS:
        lines.append(f"and {counted(len(syncs) - _SHOWN_ACCOUNTS, 'more account')}")
    if problem:
        lines.append(f"⏳ Shown as it was before: {escaped(problem)}")
    return "<br>".join([*lines, "This page follows new syncs by itself."]) if lines else "No sync has completed yet."


def nothing_to_show(problem: str, database: str) -> str:
    """Return what to run if there is nothing to show, as Markdown."""
    shown = escaped(problem).replace(escaped("`ftw sync`"), "<code>ftw sync</code>")
    return (
        f"**Nothing to show yet.** {shown}\n\n"
        "- With your key: <code>export OPENAI_API_KEY=sk-...</code>, then "
        f"<code>ftw sync --database {escaped(database)}</code>\n"
        "- To look around without one: <code>ftw sync --demo</code>, then <code>ftw explore</code>\n\n"
        "This page goes on by itself when the sync is done."
    )


def totals(jobs: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Return the jobs in a few numbers: label, value and caption."""
    ended = sum(job["finished_at"] is not None or job["status"] in ("succeeded", "failed", "cancelled") for job in jobs)
    failed = sum(job["status"] == "failed" for job in jobs)
    advised = [job["advice"] for job in jobs if job["advice"] in ("deploy", "keep_final", "retrain")]
    tokens = sum(job["trained_tokens"] or 0 for job in jobs)
    return [
        ("Jobs", count(len(jobs)), f"{count(len(jobs) - ended)} in progress, {count(failed)} failed"),
        ("Checkpoints", count(sum(job["checkpoints"] or 0 for job in jobs)), "dropped ones included"),
        ("Final is not the best", f"{advised.count('deploy'):,} of {len(advised):,}", "clearly, by validation"),
        ("Best epoch was dropped", f"{advised.count('retrain'):,} of {len(advised):,}", "train again with fewer"),
        ("Trained tokens", compact(tokens), "as the jobs say"),
    ]


def more_runs(matching: int, offered: int) -> str:
    """Return a sentence that says that not all runs are offered; nothing if all are."""
    if matching <= offered:
        return ""
    return f"The newest {offered:,} of {counted(matching, 'job')}: narrow the filters to reach others."


def mood(job: Row) -> Literal["success", "warn", "danger", "neutral"]:
    """Return the colour of the text about a run."""
    if job["status"] == "failed":
        return "danger"
    moods: dict[str, Literal["success", "warn", "danger"]]
    moods = {"retrain": "danger", "deploy": "warn", "not_finished": "warn", "keep_final": "success"}
    return moods.get(job["advice"] or "", "neutral")


def verdict(job: Row) -> str:
    """Return the text about a run, as Markdown."""
    facts = [
        f"<code>{escaped(job['fine_tuning_job_id'])}</code>",
        escaped(job["base_model"] or "no model"),
        escaped(job["method"] or "method unknown"),
        escaped(job["status"] or "no status"),
        f"took {duration(job['duration_seconds'])}" if job["duration_seconds"] is not None else "",
        count(job["trained_tokens"], "token") if job["trained_tokens"] is not None else "",
    ]
    lines = [" · ".join(filter(None, facts))]
    if job["advice"]:
        name = f" <code>{escaped(job['checkpoint_to_deploy'])}</code>" if job["checkpoint_to_deploy"] else ""
        lines += [f"**{_ADVICE.get(job['advice'], escaped(job['advice']))}**{name}", escaped(job["reason"])]
    if job["error_message"]:
        lines.append(f"**Failed**: {escaped(job['error_message'])}")
    elif not job["advice"]:
        lines.append("It has no checkpoints yet: hosts show them when a job ends.")
    return "\n\n".join(lines)


def about_curves(lines: Curves) -> str:
    """Return what is drawn, as Markdown."""
    if not lines.points:
        return "No curve is known of this: hosts send metrics as a job trains, `ftw sync` reads them with the events."
    sentences = ["★ best checkpoint, ◆ other checkpoints."]
    if lines.is_binned:
        sentences.append(
            f"Drawn are {len(lines.points):,} points for {lines.steps:,} values: lines of more than {BINS} steps are "
            "means of bins of steps, with the range from lowest to highest behind them. The download has every value."
        )
    if lines.not_finite:
        sentences.append(
            f"{lines.not_finite:,} values are NaN or infinite and cannot be drawn: the run diverged there."
        )
    return " ".join(sentences)
