"""What the explorer's page is made from: questions to the views, answered in SQL, in moments."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.query import query
from fine_tuning_warehouse.text import safe
from fine_tuning_warehouse.warehouses.warehouse import DEFAULT_DATASET

Row = dict[str, Any]
Key = tuple[str, str]
"""A job: its account and its id."""

BINS = 400
"""Points of a line that are drawn one by one; of longer ones, the means of as many bins."""

MAX_CHOICES = 500
"""Runs that the pickers offer at once: the newest. The filters reach the others."""

FAMILIES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "loss": {
        "train": ("train_loss",),
        "validation": ("valid_loss",),
        "full validation": ("full_valid_loss",),
    },
    "accuracy": {
        "train": ("train_mean_token_accuracy", "train_accuracy"),
        "validation": ("valid_mean_token_accuracy", "valid_accuracy"),
        "full validation": ("full_valid_mean_token_accuracy", "full_valid_accuracy"),
    },
    "reward": {
        "train": ("train_mean_reward",),
        "validation": ("valid_mean_reward",),
        "full validation": ("full_valid_mean_reward",),
    },
}
"""What is drawn: family, line, and the metrics that tell of it (result files name the accuracy as they like)."""

_NAMED = ", ".join(
    f"('{metric}', '{family}', '{split}')"
    for family, splits in FAMILIES.items()
    for split, metrics in splits.items()
    for metric in metrics
)
_CACHED = 64


class Reader:
    """Reads a warehouse that others write to: opens it for each question, and closes it at once.

    An answer is kept for as long as the file stays the same, and shown on where a sync holds the file just then.

    Attributes:
        database: The DuckDB file.
        dataset: The schema that holds the views.
        problem: Why the last question could not be asked, where it could not.
    """

    def __init__(self, database: Path, dataset: str = DEFAULT_DATASET) -> None:
        self.database = database
        self.dataset = dataset
        self.problem: str | None = None
        self._answers: OrderedDict[str, tuple[object, list[Row]]] = OrderedDict()
        self._seen = self._stamp()

    def has_news(self) -> bool:
        """Whether the file has changed since this was last asked, or could not be read since. Opens nothing."""
        seen, self._seen = self._seen, self._stamp()
        had_problem, self.problem = self.problem is not None, None
        return had_problem or seen != self._seen

    def rows(self, sql: str) -> list[Row]:
        """The rows of a query.

        Raises:
            CommandError: The database cannot be read, and this was not asked before.
        """
        before, stamp = self._answers.get(sql), self._stamp()
        if before and (before[0] == stamp or self.problem):
            self._answers.move_to_end(sql)
            return before[1]
        try:
            names, rows = query(self.database, sql, self.dataset)
        except CommandError as error:
            self.problem = str(error)
            if before is None:
                raise
            return before[1]
        answer = [dict(zip(names, row, strict=True)) for row in rows]
        self._answers[sql] = (stamp, answer)
        self._answers.move_to_end(sql)
        if len(self._answers) > _CACHED:
            self._answers.popitem(last=False)
        return answer

    def _stamp(self) -> object:
        stamps: list[tuple[int, ...] | None] = []
        for path in (self.database, self.database.with_name(self.database.name + ".wal")):
            try:
                stat = path.stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(stamps)


@dataclass(frozen=True)
class Filters:
    """Which jobs to show; an empty choice is all of them.

    Attributes:
        accounts: Labels of accounts.
        base_models: Base models.
        statuses: Statuses.
        since: First day of creation (UTC).
        until: Last day of creation (UTC).
        text: What the id, suffix, base model, file name or name of the model has to contain.
    """

    accounts: Collection[str] = ()
    base_models: Collection[str] = ()
    statuses: Collection[str] = ()
    since: date | None = None
    until: date | None = None
    text: str = ""

    def condition(self) -> str:
        """As SQL over `job_overview AS o`."""
        conditions = [
            f"o.{column} IN ({', '.join(map(_text, chosen))})"
            for column, chosen in (
                ("account", self.accounts),
                ("base_model", self.base_models),
                ("status", self.statuses),
            )
            if chosen
        ]
        if self.since:
            conditions.append(f"o.created_at >= TIMESTAMPTZ '{self.since.isoformat()} 00:00:00+00'")
        if self.until:
            after = self.until + timedelta(days=1)
            conditions.append(f"o.created_at < TIMESTAMPTZ '{after.isoformat()} 00:00:00+00'")
        if self.text.strip():
            searched = "concat_ws(' ', o.fine_tuning_job_id, o.suffix, o.base_model, o.training_file_name, o.method)"
            conditions += [f"contains(lower({searched}), {_text(word)})" for word in self.text.lower().split()]
        return " AND ".join(conditions) or "true"


@dataclass(frozen=True)
class Choices:
    """What the filters offer.

    Attributes:
        accounts: Labels of accounts.
        base_models: Base models.
        statuses: Statuses.
        first: Day of the oldest job (UTC).
        last: Day of the newest job (UTC).
    """

    accounts: list[str]
    base_models: list[str]
    statuses: list[str]
    first: date | None
    last: date | None


@dataclass(frozen=True)
class Curves:
    """Lines to draw.

    Attributes:
        points: A point each: `account, fine_tuning_job_id, family, split, step, value, lowest, highest, points`. Where
            a line is longer than `BINS`, a point is the mean of `points` steps, with their lowest and highest value.
        steps: Values that they are drawn from.
        not_finite: Values that cannot be drawn: NaN and infinities, where a run diverged.
    """

    points: list[Row]
    steps: int
    not_finite: int

    @property
    def is_binned(self) -> bool:
        """Whether a point stands for several steps."""
        return any(point["points"] > 1 for point in self.points)

    def of(self, family: str) -> list[Row]:
        """The points of a family of metrics."""
        return [point for point in self.points if point["family"] == family]


def views(reader: Reader) -> frozenset[str]:
    """The views that there are."""
    rows = reader.rows(
        f"SELECT view_name FROM duckdb_views() WHERE schema_name = {_text(reader.dataset)} AND NOT internal"  # noqa: S608
    )
    return frozenset(row["view_name"] for row in rows)


def what_is_missing(reader: Reader) -> str | None:
    """Why nothing can be shown, and what to run, for people; None where jobs can be shown."""
    try:
        present = views(reader)
        if "job_overview" not in present:
            tables = reader.rows(
                f"SELECT table_name FROM duckdb_tables() WHERE schema_name = {_text(reader.dataset)}"  # noqa: S608
            )
            if not tables:
                return f"{reader.database.name} holds no dataset {reader.dataset} yet: `ftw sync` makes it."
            return f"{reader.database.name} holds no view job_overview yet: the next `ftw sync` makes the views."
        if not reader.rows("SELECT 1 FROM job_overview LIMIT 1"):
            return f"{reader.database.name} holds no jobs yet: `ftw sync` brings those that the host has."
    except CommandError as error:
        return str(error)
    return None


def choices(reader: Reader) -> Choices:
    """What the filters offer."""
    (row,) = reader.rows(
        "SELECT list_sort(list(DISTINCT account)) AS accounts, list_sort(list(DISTINCT base_model)) AS base_models, "
        "list_sort(list(DISTINCT status)) AS statuses, min(created_at) AS first, max(created_at) AS last "
        "FROM job_overview"
    )
    return Choices(
        accounts=_present(row["accounts"]),
        base_models=_present(row["base_models"]),
        statuses=_present(row["statuses"]),
        first=row["first"].date() if row["first"] else None,
        last=row["last"].date() if row["last"] else None,
    )


def jobs(reader: Reader, filters: Filters | None = None) -> list[Row]:
    """The rows of `job_overview`, newest first, with what `best_checkpoints` says of each."""
    best = "LEFT JOIN best_checkpoints AS b USING (account, fine_tuning_job_id)"
    told = (
        "b.fine_tuned_model_checkpoint AS checkpoint_to_deploy, b.step_number AS best_step, b.cost_of_final, b.reason"
    )
    if "best_checkpoints" not in views(reader):
        best, told = "", "NULL AS checkpoint_to_deploy, NULL AS best_step, NULL AS cost_of_final, NULL AS reason"
    return reader.rows(
        f"SELECT o.*, {told} FROM job_overview AS o {best} WHERE {(filters or Filters()).condition()} "  # noqa: S608
        "ORDER BY o.created_at DESC NULLS LAST, o.account, o.fine_tuning_job_id"
    )


def checkpoints(reader: Reader, keys: Collection[Key]) -> list[Row]:
    """The rows of `checkpoint_history` of some jobs, by step."""
    if not keys or "checkpoint_history" not in views(reader):
        return []
    return reader.rows(
        f"SELECT * FROM checkpoint_history WHERE {_one_of(keys)} "  # noqa: S608
        "ORDER BY account, fine_tuning_job_id, step_number, checkpoint_id"
    )


def curves(reader: Reader, keys: Collection[Key], bins: int = BINS) -> Curves:
    """The lines of some jobs, a value a step: that of the events, else of the result file, else of the checkpoint.

    Longer ones are thinned out in SQL: the steps fall into as many bins as wide as one another.
    """
    if not keys or "training_curves" not in views(reader):
        return Curves([], 0, 0)
    these = _one_of(keys)
    named = f"(VALUES {_NAMED}) AS n(metric, family, split)"
    points = reader.rows(f"""
        WITH told AS (
            SELECT account, fine_tuning_job_id, family, split, step, avg(value) AS value,
                CASE source WHEN 'event' THEN 1 WHEN 'result_file' THEN 2 ELSE 3 END AS place
            FROM training_curves JOIN {named} USING (metric)
            WHERE {these} AND isfinite(value) AND step IS NOT NULL
            GROUP BY ALL
        ),
        known AS (
            SELECT account, fine_tuning_job_id, family, split, step, min_by(value, place) AS value
            FROM told GROUP BY ALL
        ),
        measured AS (
            SELECT *, count(*) OVER line AS length, min(step) OVER line AS first, max(step) OVER line AS last
            FROM known WINDOW line AS (PARTITION BY account, fine_tuning_job_id, family, split)
        )
        SELECT account, fine_tuning_job_id, family, split,
            CAST(round(avg(step)) AS BIGINT) AS step, avg(value) AS value,
            min(value) AS lowest, max(value) AS highest, count(*) AS points
        FROM measured
        GROUP BY account, fine_tuning_job_id, family, split,
            CASE WHEN length <= {bins} THEN step ELSE (step - first) * {bins} // (last - first + 1) END
        ORDER BY account, fine_tuning_job_id, family, split, step
    """)  # noqa: S608
    (odd,) = reader.rows(
        f"SELECT count(*) AS n FROM training_curves JOIN {named} USING (metric) "  # noqa: S608
        f"WHERE {these} AND NOT isfinite(value)"
    )
    return Curves(points, sum(point["points"] for point in points), odd["n"])


def all_points(reader: Reader, keys: Collection[Key]) -> list[Row]:
    """The rows of `training_curves` of some jobs, whole."""
    if not keys or "training_curves" not in views(reader):
        return []
    return reader.rows(f"SELECT * FROM training_curves WHERE {_one_of(keys)} ORDER BY ALL")  # noqa: S608


def last_syncs(reader: Reader) -> list[Row] | None:
    """The last sync of each account, the latest first; None where that cannot be known."""
    try:
        if "sync_history" not in views(reader):
            return None
        return _last_syncs(reader)
    except CommandError:
        return None


def _last_syncs(reader: Reader) -> list[Row]:
    return reader.rows(
        "SELECT * FROM sync_history QUALIFY row_number() OVER (PARTITION BY account ORDER BY finished_at DESC) = 1 "
        "ORDER BY finished_at DESC"
    )


def comparable_runs(rows: Sequence[Row], chosen: Row, limit: int = 6) -> list[Row]:
    """A run, and the newest others on the same base model that are judged by the same metric."""

    def judged(row: Row) -> tuple[Any, ...]:
        return row["base_model"], row["evaluation_metric"]

    alike = [row for row in rows if judged(row) == judged(chosen) and key(row) != key(chosen)]
    return [chosen, *alike][:limit] if chosen["best_evaluation_value"] is not None else [chosen]


def by_metric(rows: Sequence[Row]) -> list[list[Row]]:
    """Runs that have a best value, together with those that are judged by the same metric."""
    judged: dict[str, list[Row]] = {}
    for row in rows:
        if row["best_evaluation_value"] is not None:
            judged.setdefault(row["evaluation_metric"], []).append(row)
    return list(judged.values())


def key(row: Row) -> Key:
    """The job that a row is about."""
    return row["account"], row["fine_tuning_job_id"]


def run_names(rows: Sequence[Row]) -> dict[Key, str]:
    """A name for each job that tells it from the others: day, suffix or model, and as much of the id as that takes."""
    several = len({row["account"] for row in rows}) > 1
    names = {}
    for row in rows:
        created = row["created_at"]
        parts = [
            f"{created:%Y-%m-%d %H:%M}" if isinstance(created, datetime) else "no date",
            str(row["suffix"] or row["base_model"] or "no model"),
            str(row["status"] or "no status"),
            row["fine_tuning_job_id"],
        ]
        names[key(row)] = safe(" · ".join([*parts, row["account"]] if several else parts))
    return names


def short_names(rows: Sequence[Row]) -> dict[Key, str]:
    """A short name for each job, for a legend: suffix or model, and the end of its id."""

    def name(row: Row) -> str:
        return f"{safe(str(row['suffix'] or row['base_model'] or 'run'))[:24]} …{safe(row['fine_tuning_job_id'])[-5:]}"

    return {key(row): name(row) for row in rows}


def _present(values: list[str | None] | None) -> list[str]:
    return [value for value in values or [] if value is not None]


def _one_of(keys: Collection[Key]) -> str:
    pairs = ", ".join(f"({_text(account)}, {_text(job)})" for account, job in keys)
    ids = ", ".join(_text(job) for _, job in keys)
    return f"fine_tuning_job_id IN ({ids}) AND (account, fine_tuning_job_id) IN ({pairs})"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
