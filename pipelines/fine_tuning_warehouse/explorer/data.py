"""The data of the explorer's page: SQL over the views, each query with a connection of its own."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
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
"""Steps of a line that are drawn one by one. A longer line is drawn as the means of as many bins."""

FAMILIES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "loss": {"train": ("train_loss",), "validation": ("valid_loss",), "full validation": ("full_valid_loss",)},
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
"""The charts: a family of metrics, its lines, and the metrics of each line (result files name the accuracy freely)."""

_LINES = [
    (metric, family, split)
    for family, lines in FAMILIES.items()
    for split, metrics in lines.items()
    for metric in metrics
]
_SEARCHED = (
    "fine_tuning_job_id",
    "suffix",
    "base_model",
    "fine_tuned_model",
    "training_file_name",
    "method",
    "status",
    "account",
)
_CACHED = 64


class Reader:
    """Reads a DuckDB file that others write to: opens it for each query, and closes it at once.

    The rows of a query are kept until the file changes, and are shown on while a sync holds the file.

    Attributes:
        database: The DuckDB file.
        dataset: The schema that holds the views.
        problem: Why the last query could not run; None if it could.
    """

    def __init__(self, database: Path, dataset: str = DEFAULT_DATASET) -> None:
        self.database = database
        self.dataset = dataset
        self.problem: str | None = None
        self._kept: OrderedDict[str, tuple[object, list[Row]]] = OrderedDict()
        self._seen = self._stamp()

    def has_news(self) -> bool:
        """Return whether the file has changed since the last call, or could not be read since. Opens nothing."""
        seen, self._seen = self._seen, self._stamp()
        had_problem, self.problem = self.problem is not None, None
        return had_problem or seen != self._seen

    def rows(self, sql: str) -> list[Row]:
        """Return the rows of a query.

        Raises:
            CommandError: The file cannot be read, and no rows of this query are kept.
        """
        kept, stamp = self._kept.get(sql), self._stamp()
        if kept is None or (kept[0] != stamp and not self.problem):
            try:
                names, rows = query(self.database, sql, self.dataset)
            except CommandError as error:
                self.problem = str(error)
                if kept is None:
                    raise
                return kept[1]
            kept = self._kept[sql] = (stamp, [dict(zip(names, row, strict=True)) for row in rows])
        self._kept.move_to_end(sql)
        if len(self._kept) > _CACHED:
            self._kept.popitem(last=False)
        return kept[1]

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
    """The filters of jobs; an empty filter lets all jobs through. Days are in UTC.

    Attributes:
        accounts: Labels of accounts.
        base_models: Base models.
        statuses: Statuses.
        since: First day of creation.
        until: Last day of creation.
        text: Words that the names, the files, the method and the status of the job together have to contain.
    """

    accounts: Collection[str] = ()
    base_models: Collection[str] = ()
    statuses: Collection[str] = ()
    since: date | None = None
    until: date | None = None
    text: str = ""

    def condition(self) -> str:
        """Return the filters as a condition in SQL over `job_overview AS o`."""
        chosen = {"account": self.accounts, "base_model": self.base_models, "status": self.statuses}
        conditions = [f"o.{column} IN ({', '.join(map(_text, values))})" for column, values in chosen.items() if values]
        if self.since:
            conditions.append(f"o.created_at >= TIMESTAMPTZ '{self.since.isoformat()} 00:00:00+00'")
        if self.until:
            after = self.until + timedelta(days=1)
            conditions.append(f"o.created_at < TIMESTAMPTZ '{after.isoformat()} 00:00:00+00'")
        searched = f"concat_ws(' ', {', '.join(f'o.{name}' for name in _SEARCHED)})"
        conditions += [f"contains(lower({searched}), {_text(word)})" for word in self.text.lower().split()]
        return " AND ".join(conditions) or "true"


@dataclass(frozen=True)
class Choices:
    """The values that the filters offer; `first` and `last` are the days (UTC) of the oldest and the newest job."""

    accounts: list[str]
    base_models: list[str]
    statuses: list[str]
    first: date | None
    last: date | None


@dataclass(frozen=True)
class Curves:
    """Lines to draw.

    Attributes:
        points: `account, fine_tuning_job_id, family, split, step, value, lowest, highest, points`. In a line of more
            than `BINS` steps, a point is the mean of `points` steps, with their lowest and highest value.
        steps: How many values the points stand for.
        not_finite: How many values cannot be drawn: NaN and infinities, where a run diverged.
    """

    points: list[Row]
    steps: int
    not_finite: int

    @property
    def is_binned(self) -> bool:
        """Whether a point stands for several steps."""
        return any(point["points"] > 1 for point in self.points)

    def of(self, family: str) -> list[Row]:
        """Return the points of a family of metrics."""
        return [point for point in self.points if point["family"] == family]


def views(reader: Reader) -> frozenset[str]:
    """Return the names of the views in the dataset, and of the tables that a copy of a warehouse has in their place."""
    sql = f"SELECT table_name FROM information_schema.tables WHERE table_schema = {_text(reader.dataset)}"  # noqa: S608
    return frozenset(row["table_name"] for row in reader.rows(sql))


def what_is_missing(reader: Reader) -> str | None:
    """Return why no jobs can be shown, and what to run; None if there are jobs."""
    name = reader.database.name
    try:
        present = views(reader)
        if "job_overview" not in present:
            if not present:
                return f"{name} holds no dataset {reader.dataset} yet: `ftw sync` makes it."
            return f"{name} holds no view job_overview yet: the next `ftw sync` makes the views."
        first = reader.rows("SELECT * FROM job_overview LIMIT 1")
        if not first:
            return f"{name} holds no jobs yet: `ftw sync` brings those that the host has."
        if "advice" not in first[0]:
            return f"{name} holds the views of an earlier release: the next `ftw sync` makes them anew."
    except CommandError as error:
        return str(error)
    return None


def choices(reader: Reader) -> Choices:
    """Return the values that the filters offer."""
    (row,) = reader.rows(
        "SELECT coalesce(list_sort(list(DISTINCT account) FILTER (account IS NOT NULL)), []) AS accounts, "
        "coalesce(list_sort(list(DISTINCT base_model) FILTER (base_model IS NOT NULL)), []) AS base_models, "
        "coalesce(list_sort(list(DISTINCT status) FILTER (status IS NOT NULL)), []) AS statuses, "
        "CAST(min(created_at) AS DATE) AS first, CAST(max(created_at) AS DATE) AS last FROM job_overview"
    )
    return Choices(**row)


def jobs(reader: Reader, filters: Filters | None = None) -> list[Row]:
    """Return the rows of `job_overview`, newest first, each with the columns of its row of `best_checkpoints`."""
    best = "best_checkpoints"
    if best not in views(reader):
        names = ("account", "fine_tuning_job_id", "step_number", "reason")
        best = f"(SELECT {', '.join(f'NULL AS {name}' for name in names)})"
    return reader.rows(f"""
        SELECT b.*, o.*, b.step_number AS best_step,
            coalesce(nullif(o.suffix, ''), o.base_model, o.fine_tuning_job_id) AS name
        FROM job_overview AS o LEFT JOIN {best} AS b USING (account, fine_tuning_job_id)
        WHERE {(filters or Filters()).condition()}
        ORDER BY o.created_at DESC NULLS LAST, o.account, o.fine_tuning_job_id
    """)  # noqa: S608


def checkpoints(reader: Reader, keys: Collection[Key]) -> list[Row]:
    """Return the rows of `checkpoint_history` of some jobs by step, with a `role`: best, final, both or neither."""
    if not keys or "checkpoint_history" not in views(reader):
        return []
    return reader.rows(f"""
        SELECT *, concat_ws(' ', CASE WHEN is_best THEN '★ best' END, CASE WHEN is_final THEN 'final' END) AS role
        FROM checkpoint_history WHERE {_one_of(keys)}
        ORDER BY account, fine_tuning_job_id, step_number, checkpoint_id
    """)  # noqa: S608


def all_points(reader: Reader, keys: Collection[Key]) -> list[Row]:
    """Return the rows of `training_curves` of some jobs, all of them."""
    if not keys or "training_curves" not in views(reader):
        return []
    return reader.rows(f"SELECT * FROM training_curves WHERE {_one_of(keys)} ORDER BY ALL")  # noqa: S608


def curves(reader: Reader, keys: Collection[Key], bins: int = BINS) -> Curves:
    """Return the lines of some jobs: a value a step, from the events, else the result file, else the checkpoint.

    A line of more than `bins` steps is drawn as the means of so many bins of steps, each as wide as the others.
    """
    if not keys or "training_curves" not in views(reader):
        return Curves([], 0, 0)
    lines = f"training_curves JOIN (VALUES {', '.join(map(str, _LINES))}) AS n(metric, family, split) USING (metric)"
    (odd,) = reader.rows(f"SELECT count(*) AS n FROM {lines} WHERE {_one_of(keys)} AND NOT isfinite(value)")  # noqa: S608
    points = reader.rows(f"""
        WITH values_of_sources AS (
            SELECT account, fine_tuning_job_id, family, split, step, avg(value) AS value,
                list_position(['event', 'result_file'], source) AS place
            FROM {lines}
            WHERE {_one_of(keys)} AND isfinite(value) AND step IS NOT NULL AND (value >= 0 OR family = 'reward')
            GROUP BY ALL
        ),
        values_of_steps AS (
            SELECT account, fine_tuning_job_id, family, split, step, min_by(value, coalesce(place, 3)) AS value
            FROM values_of_sources GROUP BY ALL
        ),
        measured AS (
            SELECT *, count(*) OVER line AS length, min(step) OVER line AS first, max(step) OVER line AS last
            FROM values_of_steps WINDOW line AS (PARTITION BY account, fine_tuning_job_id, family, split)
        )
        SELECT account, fine_tuning_job_id, family, split,
            CAST(round(avg(step)) AS BIGINT) AS step, avg(value) AS value,
            min(value) AS lowest, max(value) AS highest, count(*) AS points
        FROM measured
        GROUP BY account, fine_tuning_job_id, family, split,
            CASE WHEN length <= {bins} THEN step ELSE (step - first) * {bins} // (last - first + 1) END
        ORDER BY account, fine_tuning_job_id, family, split, step
    """)  # noqa: S608
    return Curves(points, sum(point["points"] for point in points), odd["n"])


def last_syncs(reader: Reader) -> list[Row] | None:
    """Return the last sync of each account, the latest first; None if that cannot be read."""
    try:
        if "sync_history" not in views(reader):
            return None
        return reader.rows(
            "SELECT * FROM sync_history WHERE status = 'done' "
            "QUALIFY row_number() OVER (PARTITION BY account ORDER BY finished_at DESC) = 1 ORDER BY finished_at DESC"
        )
    except CommandError:
        return None


def likely(rows: Sequence[Row]) -> Row:
    """Return the run to show where none is picked: the newest that has checkpoints, else the newest."""
    return next((row for row in rows if row["checkpoints"]), rows[0])


def comparable_runs(rows: Sequence[Row], chosen: Row, limit: int = 6) -> list[Row]:
    """Return a run, and the newest other runs with the same metric and validation file (else the same base model)."""
    if chosen["best_evaluation_value"] is None:
        return [chosen]
    file = "validation_file" if chosen["validation_file"] else "base_model"
    same = ("account", "evaluation_metric", "method", file)
    alike = [row for row in rows if key(row) != key(chosen) and all(row[name] == chosen[name] for name in same)]
    return [chosen, *(row for row in alike if row["best_evaluation_value"] is not None)][:limit]


def steps_per_epoch(rows: Sequence[Row], lines: Curves, checkpoints: Sequence[Row]) -> dict[Key, float]:
    """Return how many steps an epoch of each run has, where the number of its epochs is known."""
    last: dict[Key, int] = {}
    for row in (*lines.points, *checkpoints):
        for step in (row.get("step"), row.get("step_number"), row.get("total_steps")):
            last[key(row)] = max(last.get(key(row), 0), int(step or 0))
    return {key(row): last[key(row)] / row["n_epochs"] for row in rows if row["n_epochs"] and last.get(key(row))}


def by_metric(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the runs that have a best value, in a list for each metric that they are judged by."""
    judged: dict[str, list[Row]] = {}
    for row in rows:
        if row["best_evaluation_value"] is not None:
            judged.setdefault(row["evaluation_metric"], []).append(row)
    return list(judged.values())


def line_of(metric: str) -> str:
    """Return the line that a metric is drawn as, such as `full validation loss`."""
    return next((f"{split} {family}" for name, family, split in _LINES if name == metric), metric.replace("_", " "))


def key(row: Row) -> Key:
    """Return the job that a row is about."""
    return row["account"], row["fine_tuning_job_id"]


def short_names(rows: Sequence[Row]) -> dict[Key, str]:
    """Return a short name for each run that is unlike the others, for a legend: its name and the end of its id."""
    names = {key(row): f"{safe(row['name'])[:24]} …{safe(row['fine_tuning_job_id'])[-5:]}" for row in rows}
    if len(set(names.values())) < len(names):
        names = {run: f"{short} {safe(run[0])} {safe(run[1])}" for run, short in names.items()}
    return names


def addresses(rows: Sequence[Row]) -> dict[Key, str]:
    """Return how the page's address names each run: its id, after its account where several have this id."""
    ids = Counter(row["fine_tuning_job_id"] for row in rows)
    return {(account, job): job if ids[job] == 1 else f"{account}/{job}" for account, job in map(key, rows)}


def _one_of(keys: Collection[Key]) -> str:
    pairs = ", ".join(f"({_text(account)}, {_text(job)})" for account, job in keys)
    ids = ", ".join(_text(job) for _, job in keys)  # DuckDB pushes a condition on one column down into the view
    return f"fine_tuning_job_id IN ({ids}) AND (account, fine_tuning_job_id) IN ({pairs})"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
