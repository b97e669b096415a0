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
    "created (UTC)=created_at, name, status, advice, best=best_evaluation_value, cost_of_final, checkpoint_to_deploy, "
    "epochs=n_epochs, batch_size, learning rate=learning_rate_multiplier, "
    "base_model, method, metric=evaluation_metric, evidence, final=final_evaluation_value, checkpoints, seed, "
    "training file=training_file_name, validation file=validation_file_name, duration (min)=duration_seconds, "
    "trained_tokens, job=fine_tuning_job_id, account, error=last_error"
)
CHECKPOINT_COLUMNS = _columns(
    "role, step=step_number, metric=evaluation_metric, value=evaluation_value, rank=rank_in_job, "
    "generalization_loss, train_loss, validation loss=valid_loss, full validation loss=full_valid_loss, "
    "train accuracy=train_mean_token_accuracy, validation accuracy=valid_mean_token_accuracy, "
    "train reward=train_mean_reward, validation reward=valid_mean_reward, kept by the host=is_retained, "
    "created (UTC)=created_at, name to deploy=fine_tuned_model_checkpoint, checkpoint=checkpoint_id"
)
POINT_COLUMNS = _columns("run, metric=family, line=split, step, value, lowest, highest, steps=points")
FACTS = _columns(
    "method, base_model, epochs=n_epochs, batch_size, learning rate multiplier=learning_rate_multiplier, beta, "
    "reasoning_effort, compute_multiplier, seed, training file=training_file_name, "
    "validation file=validation_file_name, trained_tokens, duration (min)=duration_seconds, "
    "waited (min)=queue_seconds, checkpoints, built on job=parent_job_id, account"
)
"""What was set for a run, and what it took."""
RUN_COLUMNS = {
    **_columns(
        "run, best=best_evaluation_value, metric=evaluation_metric, best_step, final=final_evaluation_value, "
        "cost_of_final, advice, status"
    ),
    **FACTS,
    **_columns("checkpoint_to_deploy, job=fine_tuning_job_id"),
}
"""The columns of the tables: their heads, and their names in the rows."""

_ADVICE = {
    "deploy": "deploy",
    "keep_final": "keep the final",
    "retrain": "train again",
    "cannot_tell": "cannot tell",
    "not_finished": "not finished",
}
"""Each advice of `best_checkpoints` in words."""
KNOWN = ("deploy", "keep_final")
"""The advice that a measured difference stands behind: only this is shown in green."""

_ALWAYS = {"name", "status", "step", "value", "run", "job"}


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


def differing(rows: Sequence[Row], columns: Mapping[str, str]) -> set[str]:
    """Return the heads of the columns in which the rows differ."""
    return {head for head, name in columns.items() if len({str(row.get(name)) for row in rows}) > 1}


def cell(head: str) -> Callable[[Any], str]:
    """Return the function that shows the cells of a column; they stay numbers, so that they sort as such."""

    def shown(value: Any) -> str:
        if value is None or value == "":
            return NONE
        if isinstance(value, float) and not head.endswith("(min)"):
            return number(value)
        if head.startswith("seed"):
            return str(value)
        return f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)

    return shown


def _cell(head: str, value: Any) -> Any:
    if head == "advice" and value is not None:
        return _ADVICE.get(value, text(value))
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


def totals(jobs: Sequence[Row]) -> str:
    """Return the jobs in a few numbers, as Markdown."""
    failed = sum(job["status"] == "failed" for job in jobs)
    advised = [job["advice"] for job in jobs if job["advice"] in (*KNOWN, "retrain")]
    facts = [
        f"**{counted(len(jobs), 'job')}** ({sum(not has_ended(job) for job in jobs):,} in progress, {failed:,} failed)",
        counted(sum(job["checkpoints"] or 0 for job in jobs), "checkpoint"),
        f"another checkpoint than the final one is the better choice in **{sum(map(_is_improvable, jobs)):,}** of "
        f"{counted(len(advised), 'run')} that can be judged" * bool(advised),
        f"{compact(sum(job['trained_tokens'] or 0 for job in jobs))} trained tokens",
    ]
    return " · ".join(filter(None, facts))


def _is_improvable(job: Row) -> bool:
    is_other = job["checkpoint_to_deploy"] not in (None, job["fine_tuned_model"]) and (job["cost_of_final"] or 0) > 0
    return is_other and job["advice"] in ("deploy", "retrain")


def has_ended(job: Row) -> bool:
    """Return whether a job will not change any more."""
    return job["finished_at"] is not None or job["status"] in ("succeeded", "failed", "cancelled")


def mood(job: Row) -> Literal["success", "warn", "danger", "neutral"]:
    """Return the colour of the text about a run: grey for all that is not known."""
    moods: dict[str, Literal["success", "warn", "danger"]]
    moods = {"retrain": "danger", "deploy": "warn", "keep_final": "success"}
    return moods.get(job["advice"] or "", "neutral")


def verdict(job: Row) -> str:
    """Return the text about a run, as Markdown: what state it is in, what to do, and why."""
    status = escaped(job["status"] or "no status")
    lines = [f"**{_headline(job)}** · {status} · <code>{escaped(job['fine_tuning_job_id'])}</code>"]
    if job["advice"]:
        lines.append(escaped(job["reason"]))
    elif not has_ended(job):
        lines.append("It has no checkpoints yet: hosts show them when a job ends.")
    elif job["status"] == "succeeded":
        lines.append("The host lists no checkpoints of it.")
    else:
        lines.append("It ended before its first checkpoint.")
    if job["last_error"] or job["error_message"]:
        lines.append(f"The host says: {escaped(job['error_message'] or job['last_error'])}")
    return "\n\n".join(lines)


def _headline(job: Row) -> str:
    if not has_ended(job):
        return "In progress"
    if job["status"] in ("failed", "cancelled"):
        return str(job["status"]).capitalize()
    if job["advice"]:
        no_validation = job["advice"] == "cannot_tell" and job["evidence"] == "training_only"
        advice = _ADVICE.get(job["advice"], escaped(job["advice"])).capitalize()
        return "Without validation: cannot tell" if no_validation else advice
    return "Without checkpoints"


def facts(job: Row) -> str:
    """Return what was set for a run and what it took, as a table in Markdown."""
    (row,) = table([job], FACTS)
    lines = [f"| {escaped(head)} | {escaped(cell(head)(value))} |" for head, value in row.items()]
    return "\n".join(["| | |", "|:--|:--|", *lines])


def about_comparison(rows: Sequence[Row], picks: Sequence[Row]) -> str:
    """Return which runs are compared, as Markdown."""
    if len(picks) > len(rows):
        return f"The first {len(rows)} of the {len(picks)} runs that are picked."
    if len(picks) > 1:
        return "The runs that are picked in the table of the jobs, and here."
    if len(rows) > 1:
        return "The run above, and the newest others that can be compared with it. Pick others in the table, or here."
    return "No other run can be compared with the one above. Pick others in the table, or here."


def about_curves(lines: Curves) -> str:
    """Return what is drawn and what is not, as Markdown."""
    if not lines.points:
        return "No curve is known of this: hosts send metrics as a job trains, `ftw sync` reads them with the events."
    sentences = []
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
