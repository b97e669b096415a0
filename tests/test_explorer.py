"""The explorer: what it reads, what it draws, the notebook as a script, and `ftw explore` as a server."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pytest
import requests

from command import Command, Running, is_told_well, wait_until
from fine_tuning_warehouse import query as querying
from fine_tuning_warehouse.errors import CommandError

pytest.importorskip("marimo", reason="the explorer needs the extra `explore`")
pytest.importorskip("altair", reason="the explorer needs the extra `explore`")

from fine_tuning_warehouse.explorer import charts, data, texts
from fine_tuning_warehouse.explorer.serve import NOTEBOOK

JOB = ("default", "ftjob-1")
NOON = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def ftw(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command beside the demo's database."""
    command = Command(tmp_path_factory.mktemp("explorer"))
    assert command("sync", "--demo").code == 0
    return command


@pytest.fixture(scope="module")
def demo(ftw: Command) -> Path:
    """The demo's database."""
    return ftw.folder / "fine_tuning_demo.duckdb"


@pytest.fixture
def reader(demo: Path) -> data.Reader:
    """A reader of the demo's database."""
    return data.Reader(demo)


def asked(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute("SET search_path = 'fine_tuning'")
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql).fetchall()


def make_curves(path: Path, select: str) -> data.Reader:
    """A database that holds nothing but the view of the curves."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE SCHEMA fine_tuning")
        connection.execute(f"CREATE TABLE fine_tuning.points AS {select}")
        connection.execute("CREATE VIEW fine_tuning.training_curves AS FROM fine_tuning.points")
    return data.Reader(path)


# What it reads


@pytest.mark.thorough
def test_jobs_are_those_of_the_view_with_their_best_checkpoint(reader: data.Reader, demo: Path) -> None:
    shown = data.jobs(reader)
    told = asked(
        demo,
        """
        SELECT o.fine_tuning_job_id, o.best_evaluation_value, b.checkpoint_to_deploy, b.cost_of_final
        FROM job_overview o LEFT JOIN best_checkpoints b USING (account, fine_tuning_job_id) ORDER BY o.created_at DESC
        """,
    )
    columns = ("fine_tuning_job_id", "best_evaluation_value", "checkpoint_to_deploy", "cost_of_final")
    assert sorted(tuple(row[name] for name in columns) for row in shown) == sorted(told)
    created = [row["created_at"] for row in shown]
    assert created == sorted(created, reverse=True)


@pytest.mark.first_only
@pytest.mark.parametrize(
    ("filters", "condition"),
    [
        (data.Filters(), "true"),
        (data.Filters(accounts=["demo"]), "account = 'demo'"),
        (data.Filters(accounts=["o'ther"]), "false"),
        (data.Filters(base_models=["gpt-4o-2024-08-06"]), "base_model = 'gpt-4o-2024-08-06'"),
        (data.Filters(statuses=["failed", "cancelled"]), "status IN ('failed', 'cancelled')"),
        (data.Filters(since=date(2026, 5, 31)), "created_at >= '2026-05-31'"),
        (data.Filters(until=date(2026, 5, 30)), "created_at < '2026-05-31'"),
        (data.Filters(text="TONE-of succ"), "suffix = 'tone-of-voice' AND status = 'succeeded'"),
        (
            data.Filters(text=" release NANO "),
            "(suffix = 'release-notes' OR training_file_name LIKE '%release%') AND base_model LIKE '%nano%'",
        ),
        (data.Filters(text="%"), "false"),
    ],
)
def test_filters_are_right(reader: data.Reader, demo: Path, filters: data.Filters, condition: str) -> None:
    shown = [row["fine_tuning_job_id"] for row in data.jobs(reader, filters)]
    told = asked(demo, f"SELECT fine_tuning_job_id FROM job_overview WHERE {condition}")
    assert sorted(shown) == sorted(job for (job,) in told)


def test_the_filters_offer_what_there_is(reader: data.Reader, demo: Path) -> None:
    offered = data.choices(reader)
    assert offered.accounts == ["demo"]
    for column, values in (("base_model", offered.base_models), ("status", offered.statuses)):
        assert values == [v for (v,) in asked(demo, f"SELECT DISTINCT {column} FROM job_overview ORDER BY 1")]
    ((first, last),) = asked(demo, "SELECT min(created_at)::DATE, max(created_at)::DATE FROM job_overview")
    assert (offered.first, offered.last) == (first, last)


def test_curves_are_those_of_the_events(reader: data.Reader, demo: Path) -> None:
    runs = [row for row in data.jobs(reader) if row["checkpoints"]]
    lines = data.curves(reader, [data.key(row) for row in runs])
    assert not lines.is_binned
    shown = [
        (point["fine_tuning_job_id"], point["step"], point["value"])
        for point in lines.of("loss")
        if point["split"] == "validation"
    ]
    told = asked(
        demo,
        "SELECT fine_tuning_job_id, data__step::BIGINT, data__valid_loss FROM events "
        "WHERE data__valid_loss IS NOT NULL "
        "AND fine_tuning_job_id IN (SELECT fine_tuning_job_id FROM checkpoint_history)",
    )
    assert len(shown) > 100
    assert sorted(shown) == sorted(told)
    assert lines.steps == len(lines.points)
    assert {point["family"] for point in lines.points} == {"loss", "accuracy", "reward"}


def test_a_step_has_one_value_the_events_first(tmp_path: Path) -> None:
    reader = make_curves(
        tmp_path / "made.duckdb",
        """
        SELECT 'default' account, 'ftjob-1' fine_tuning_job_id, * FROM (VALUES
            (1, 'train_loss', 0.5, 'event'), (1, 'train_loss', 0.7, 'event'), (1, 'train_loss', 0.1, 'result_file'),
            (2, 'train_loss', 0.4, 'result_file'), (2, 'train_loss', 0.3, 'checkpoint'),
            (3, 'train_loss', 'nan'::DOUBLE, 'event'), (4, 'train_loss', 'inf'::DOUBLE, 'event'),
            (5, 'train_loss', 0.2, 'checkpoint'), (5, 'valid_loss', 0.25, 'checkpoint'),
            (5, 'train_accuracy', 0.9, 'result_file'), (5, 'train_mean_token_accuracy', 0.8, 'event'),
            (5, 'completion_tokens_mean', 900.0, 'event'), (6, 'train_loss', -1.0, 'event')
        ) AS v(step, metric, value, source)
        UNION ALL SELECT 'other', 'ftjob-1', 1, 'train_loss', 9.0, 'event'
        """,
    )
    lines = data.curves(reader, [JOB])
    columns = ("family", "split", "step", "value")
    assert [tuple(point[name] for name in columns) for point in lines.points] == [
        ("accuracy", "train", 5, 0.8),
        ("loss", "train", 1, pytest.approx(0.6)),
        ("loss", "train", 2, 0.4),
        ("loss", "train", 5, 0.2),
        ("loss", "validation", 5, 0.25),
    ]
    assert (lines.steps, lines.not_finite) == (5, 2)
    assert "2 values are NaN" in texts.about_curves(lines)
    assert len(data.all_points(reader, [JOB])) == 13


@pytest.mark.thorough
def test_a_million_points_are_thinned_out_and_it_is_said(tmp_path: Path) -> None:
    reader = make_curves(
        tmp_path / "made.duckdb",
        "SELECT 'default' account, 'ftjob-1' fine_tuning_job_id, i AS step, 'train_loss' metric, "
        "CASE i WHEN 777777 THEN 50.0 ELSE 1000000.0 / i END AS value, 'event' AS source FROM range(1, 1000001) t(i)",
    )
    began = time.monotonic()
    lines = data.curves(reader, [JOB])
    assert time.monotonic() - began < 20
    assert len(lines.points) == data.BINS
    assert lines.is_binned
    assert lines.steps == 1_000_000 == sum(point["points"] for point in lines.points)
    assert {point["points"] for point in lines.points} == {2500}
    assert max(point["highest"] for point in lines.points[100:]) == 50.0
    assert lines.points[-1]["lowest"] == 1.0
    assert all(point["lowest"] <= point["value"] <= point["highest"] for point in lines.points)
    assert "Drawn are 400 points for 1,000,000 values" in texts.about_curves(lines)
    band, *_ = charts.curve_chart("loss", lines.of("loss"), []).to_dict()["layer"]
    assert band["mark"]["type"] == "area"
    assert (band["encoding"]["y"]["field"], band["encoding"]["y2"]["field"]) == ("lowest", "highest")


def test_five_thousand_jobs_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "made.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE SCHEMA fine_tuning")
        connection.execute(
            "CREATE VIEW fine_tuning.job_overview AS SELECT 'default' account, 'ftjob-' || i AS fine_tuning_job_id, "
            "'m' base_model, NULL suffix, 'supervised' AS method, 'succeeded' status, NULL training_file_name, "
            "NULL fine_tuned_model, "
            "TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_minutes(i) AS created_at FROM range(5000) t(i)"
        )
    reader = data.Reader(path)
    rows = data.jobs(reader)
    assert len(rows) == 5000
    assert rows[0]["fine_tuning_job_id"] == "ftjob-4999"
    assert len(set(data.addresses(rows).values())) == 5000
    assert len(data.jobs(reader, data.Filters(text="ftjob-123 m"))) == 11
    assert data.all_points(reader, [JOB]) == [], "there is no view of them"


@pytest.mark.parametrize("sql", ["DROP TABLE jobs", "FROM read_text('/etc/passwd')", "FROM enable_logging()"])
def test_the_page_asks_by_the_closed_query_alone(reader: data.Reader, sql: str) -> None:
    with pytest.raises(CommandError):
        reader.rows(sql)
    sources = "".join(path.read_text(encoding="utf-8") for path in NOTEBOOK.parent.glob("*.py"))
    assert "duckdb.connect" not in sources


def test_a_question_is_asked_once_until_the_file_changes(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.duckdb"
    shutil.copyfile(demo, copy)
    reader = data.Reader(copy)
    opened: list[str] = []
    real = querying.query

    def counting(database: Path, sql: str, dataset: str) -> Any:
        opened.append(sql)
        return real(database, sql, dataset)

    monkeypatch.setattr(data, "query", counting)
    before = data.jobs(reader)
    asked_then = len(opened)
    assert data.jobs(reader) == before
    assert len(opened) == asked_then
    assert not reader.has_news()
    with duckdb.connect(str(copy)) as connection:  # nothing holds the file: it can be written at once
        connection.execute("UPDATE fine_tuning.jobs SET status = 'paused'")
    assert reader.has_news()
    assert not reader.has_news()
    assert {row["status"] for row in data.jobs(reader)} == {"paused"}
    monkeypatch.setattr(data, "_CACHED", 2)
    for number in (1, 2, 3, 2, 1):
        assert reader.rows(f"SELECT {number} AS n") == [{"n": number}]
    assert opened[-4:] == [f"SELECT {number} AS n" for number in (1, 2, 3, 1)], "the oldest answer was let go"


@pytest.mark.thorough
def test_while_a_sync_holds_the_file_what_was_read_stays(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(querying, "READ_WAIT_SECONDS", 0.2)
    copy = tmp_path / "copy.duckdb"
    shutil.copyfile(demo, copy)
    reader = data.Reader(copy)
    before = data.jobs(reader)
    with writer(copy):
        assert data.jobs(reader) == before
        assert "Another program is writing" in str(reader.problem)
        began = time.monotonic()
        for _ in range(20):
            data.jobs(reader)
        assert time.monotonic() - began < 0.15, "it waited again"
        assert "Another program is writing" in texts.freshness([], reader.problem)
        with pytest.raises(CommandError, match="Another program is writing"):
            reader.rows("SELECT 1 AS never_asked_before")
        assert "Another program is writing" in str(data.what_is_missing(data.Reader(copy)))
    assert reader.has_news()
    assert {row["status"] for row in data.jobs(reader)} == {"paused"}
    assert reader.problem is None


@contextmanager
def writer(database: Path) -> Iterator[None]:
    """Another process that writes to a database, and holds it."""
    code = (
        f"import duckdb; c = duckdb.connect({str(database)!r}); "
        "c.execute(\"UPDATE fine_tuning.jobs SET status = 'paused'\"); c.execute('CHECKPOINT'); print(1, flush=True); "
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield
        finally:
            process.communicate("\n")


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        ([], "holds no dataset fine_tuning yet: `ftw sync`"),
        (["CREATE SCHEMA fine_tuning", "CREATE TABLE fine_tuning.jobs (id VARCHAR)"], "no view job_overview"),
        (["CREATE SCHEMA fine_tuning", "CREATE VIEW fine_tuning.job_overview AS SELECT 1 WHERE false"], "no jobs yet"),
        (["CREATE SCHEMA fine_tuning", "CREATE VIEW fine_tuning.job_overview AS SELECT 1"], "of an earlier release"),
    ],
)
def test_what_is_missing_is_told_with_what_to_run(tmp_path: Path, statements: list[str], told: str) -> None:
    path = tmp_path / "made.duckdb"
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    missing = data.what_is_missing(data.Reader(path))
    assert told in str(missing)
    assert "ftw sync" in texts.nothing_to_show(str(missing), str(path))


def test_the_last_sync_is_the_one_of_the_history(reader: data.Reader, demo: Path) -> None:
    (sync,) = data.last_syncs(reader) or []
    assert [(sync["sync_id"], sync["finished_at"])] == asked(demo, "SELECT sync_id, finished_at FROM sync_history")
    assert "Last sync of account **demo**: **just now**" in texts.freshness([sync], None)
    assert texts.freshness([sync] * 5, None).count("Last sync") == 3
    assert "and 2 more accounts" in texts.freshness([sync] * 5, None)
    assert texts.ago(sync["finished_at"], sync["finished_at"] + timedelta(hours=26, minutes=1)) == "1 d 2 h ago"


# What it draws


def values_of(chart: Any) -> list[list[dict[str, Any]]]:
    """The data of a chart's layers; where all share it, it stands above them."""
    drawn = chart.to_dict()
    return [layer.get("data", drawn.get("data"))["values"] for layer in drawn["layer"]]


@pytest.mark.nightly
def test_the_best_checkpoint_is_starred_where_the_views_say(reader: data.Reader, demo: Path) -> None:
    for row in data.jobs(reader):
        if not row["checkpoints"]:
            continue
        family = str(row["evaluation_metric"]).rpartition("_")[2]
        marks = charts.checkpoint_marks(data.checkpoints(reader, [data.key(row)]), family)
        assert len(marks) == row["checkpoints"]
        (best,) = [mark for mark in marks if mark["kind"].startswith("best")]
        assert (best["checkpoint_id"], best["value"]) == (row["best_checkpoint_id"], row["best_evaluation_value"])
        chart = charts.curve_chart(family, data.curves(reader, [data.key(row)]).of(family), marks)
        starred = [v for values in values_of(chart) for v in values if str(v.get("kind")).startswith("best")]
        assert {(value["step"], value["value"]) for value in starred} == {(row["best_step"], best["value"])}
        assert best["kind"] == "best, not advised"
        (known,) = charts.checkpoint_marks([best], family, advised=[data.key(row)])
        assert known["kind"] == "best checkpoint"


def test_what_is_said_of_a_run_is_that_of_its_row_and_only_what_is_known_has_a_colour(reader: data.Reader) -> None:
    headlines = {"deploy": "Deploy", "keep_final": "Keep the final", "retrain": "Train again"}
    colours = {"deploy": "warn", "keep_final": "success", "retrain": "danger"}
    for row in data.jobs(reader):
        verdict = texts.verdict(row)
        assert verdict.startswith(f"**{headlines.get(row['advice'], '')}")
        assert texts.escaped(row["reason"] or "") in verdict
        assert texts.escaped(row["error_message"] or "") in verdict
        assert texts.mood(row) == colours.get(row["advice"], "neutral")


RUN = {
    "status": "succeeded",
    "finished_at": NOON,
    "fine_tuning_job_id": "ftjob-1",
    "advice": None,
    "reason": None,
    "evidence": None,
    "error_message": None,
    "last_error": None,
}


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"status": "running", "finished_at": None}, "In progress"),
        ({"status": "queued", "finished_at": None, "advice": "not_finished", "reason": "So far"}, "In progress"),
        ({"status": "failed", "error_message": "bad file"}, "Failed"),
        ({"status": "failed", "advice": "not_finished", "reason": "Ended early"}, "Failed"),
        ({"status": "cancelled"}, "Cancelled"),
        ({}, "Without checkpoints"),
        ({"advice": "cannot_tell", "evidence": "training_only", "reason": "Only training"}, "Without validation"),
        ({"advice": "cannot_tell", "evidence": "full_validation", "reason": "Too few"}, "Cannot tell"),
    ],
)
def test_a_run_of_which_little_is_known_is_grey_and_said_as_what_it_is(run: dict[str, Any], said: str) -> None:
    job = {**RUN, **run}
    assert texts.mood(job) == "neutral"
    assert texts.verdict(job).startswith(f"**{said}")
    assert (job["reason"] or job["error_message"] or "") in texts.verdict(job)


def test_runs_are_compared_on_one_line_and_one_metric(reader: data.Reader) -> None:
    rows = data.jobs(reader)
    chosen = next(row for row in rows if row["evaluation_metric"] == "full_valid_loss")
    alike = data.comparable_runs(rows, chosen)
    assert alike[0] is chosen
    assert {(row["validation_file"], row["evaluation_metric"]) for row in alike} == {
        (chosen["validation_file"], "full_valid_loss")
    }
    names = data.short_names(alike)
    lines = data.curves(reader, list(names))
    chart = charts.comparison_chart("loss", "validation", lines.of("loss"), [], names=names)
    drawn = {value["line"] for value in values_of(chart)[0]}
    assert drawn == set(names.values())
    both = values_of(charts.best_and_final_chart(alike, names))[0]
    assert {(value["run"], value["checkpoint"], value["value"]) for value in both} == {
        (names[data.key(row)], kind, row[f"{kind}_evaluation_value"]) for row in alike for kind in ("best", "final")
    }
    assert len(data.by_metric(rows)) == len({row["evaluation_metric"] for row in rows if row["evaluation_metric"]})


def test_a_logarithmic_axis_leaves_out_what_is_not_above_zero() -> None:
    points = line("train", {1: 1.0, 2: 0.0, 3: 7.6e-07})
    chart = charts.curve_chart("loss", points, [], charts.View(is_logarithmic=True))
    assert [value["step"] for value in values_of(chart)[0]] == [1, 3]
    assert values_of(chart)[0][1]["label"] == "train, step 3: 7.6e-07"
    assert chart.to_dict()["layer"][0]["encoding"]["y"]["scale"]["type"] == "log"
    accuracy = charts.curve_chart("accuracy", points, [], charts.View(is_logarithmic=True))
    assert [value["step"] for value in values_of(accuracy)[0]] == [1, 2, 3], "it is an axis of losses"


def line(split: str, values: dict[int, float]) -> list[dict[str, Any]]:
    """The points of a line."""
    job = {"account": "default", "fine_tuning_job_id": "ftjob-1", "split": split, "points": 1}
    return [{**job, "step": step, "value": value, "lowest": value, "highest": value} for step, value in values.items()]


def test_the_pointer_shows_every_line_at_the_nearest_step() -> None:
    points = [*line("train", {1: 3.0, 2: 2.0, 9: 1.0}), *line("full validation", {2: 2.5})]
    chart = charts.curve_chart("loss", points, []).to_dict()
    rule = chart["layer"][-1]
    columns = {one["title"]: one["field"] for one in rule["encoding"]["tooltip"] if "title" in one}
    shown = [(one["step"], one[columns["train"]], one[columns["full validation"]]) for one in rule["data"]["values"]]
    assert shown == [(1, "3", "2.5 (step 2)"), (2, "2", "2.5"), (9, "1", "2.5 (step 2)")]
    assert (chart["params"][0]["select"]["nearest"], chart["params"][0]["select"]["on"]) == (True, "pointerover")


def test_smoothing_leaves_the_values_and_the_whole_validation_file_as_they_are() -> None:
    assert charts.smoothed([1.0, 3.0], 0.5) == [1.0, pytest.approx(7 / 3)]
    assert charts.smoothed([1.0, 3.0], 0) == [1.0, 3.0]
    points = [*line("train", {1: 1.0, 2: 3.0}), *line("full validation", {1: 1.0, 2: 3.0})]
    chart = charts.curve_chart("loss", points, [], charts.View(smoothing=0.5))
    drawn = {(one["line"], one["step"]): (one["value"], one["mean"]) for one in values_of(chart)[0]}
    assert drawn["train", 2] == (3.0, pytest.approx(7 / 3))
    assert drawn["full validation", 2] == (3.0, 3.0)
    assert "smoothed" in str(chart.to_dict()["title"]["subtitle"])


def test_a_chart_in_epochs_ends_at_the_number_of_epochs(reader: data.Reader) -> None:
    row = next(row for row in data.jobs(reader) if row["n_epochs"] and row["checkpoints"])
    lines, checkpoints = data.curves(reader, [data.key(row)]), data.checkpoints(reader, [data.key(row)])
    view = charts.View(steps_per_epoch=data.steps_per_epoch([row], lines, checkpoints))
    chart = charts.curve_chart("loss", lines.of("loss"), charts.checkpoint_marks(checkpoints, "loss"), view)
    assert max(one["x"] for one in values_of(chart)[0]) == pytest.approx(row["n_epochs"])
    assert chart.to_dict()["layer"][0]["encoding"]["x"]["title"] == "Epoch"


def test_a_chart_says_what_it_shows_to_those_who_cannot_see_it() -> None:
    said = charts.curve_chart("loss", line("train", {1: 3.0, 2: 1.0, 3: 2.0}), []).to_dict()["description"]
    assert said == "Loss by step. train: from 3 to 2, lowest 1 at step 2, highest 3 at step 1."


def test_settings_that_differ_are_found() -> None:
    rows = [{"seed": 1, "n_epochs": 3}, {"seed": 2, "n_epochs": 3}]
    assert texts.differing(rows, texts.FACTS) == {"seed"}


def test_numbers_and_times_are_told_in_short() -> None:
    assert [texts.number(value) for value in (0.42792599, 7.6e-07, 1.0, 12345.6, math.nan, None, True)] == [
        "0.4279",
        "7.6e-07",
        "1",
        "12,346",
        "–",
        "–",
        "–",
    ]
    assert [texts.duration(value) for value in (5, 90, 9290, 200_000, None)] == [
        "5 s",
        "2 min",
        "2 h 35 min",
        "2 d 7 h",
        "–",
    ]
    assert texts.cell("seed")(1378449793) == "1378449793"
    assert [texts.compact(value) for value in (999, 259_932, 3.2e6, 4e9)] == ["999", "260 k", "3.2 M", "4 G"]
    assert texts.time(datetime(2026, 6, 1, 1, 56, tzinfo=timezone.utc)) == "2026-06-01 01:56"


def test_texts_of_unknown_origin_neither_steer_nor_link() -> None:
    evil = "<img src=x onerror=alert(1)>\x1b[31m https://example.com/pixel.png data:image/png;base64,AA"
    shown = texts.escaped(evil)
    assert "<" not in shown
    assert "\x1b" not in shown
    assert "://" not in shown
    assert "data:" not in shown
    (row,) = texts.table([{"suffix": evil, "status": "s"}], {"suffix": "suffix", "status": "status"})
    assert "://" not in row["suffix"]
    assert texts.table([{"status": "s", "error_message": None}], {"status": "status", "error": "error_message"}) == [
        {"status": "s"}
    ]


# The notebook


@pytest.fixture
def worlds(demo: Path, tmp_path: Path) -> dict[str, Path]:
    """Databases of every kind that the notebook may meet."""
    made = {name: tmp_path / f"{name}.duckdb" for name in ("empty", "no-views", "no-jobs", "jobs-only", "missing")}
    duckdb.connect(str(made["empty"])).close()
    views = ("sync_history", "training_curves", "best_checkpoints", "job_overview", "checkpoint_history")
    for name, dropped in (("no-views", views), ("jobs-only", (*views[1:3], views[4])), ("no-jobs", ())):
        shutil.copyfile(demo, made[name])
        with duckdb.connect(str(made[name])) as connection:
            connection.execute("SET search_path = 'fine_tuning'")
            if name == "jobs-only":
                connection.execute(
                    "CREATE TABLE kept AS SELECT * REPLACE (0 AS checkpoints, NULL AS best_evaluation_value, "
                    "NULL AS evaluation_metric, NULL AS advice, NULL AS checkpoint_to_deploy) FROM job_overview"
                )
                connection.execute("CREATE OR REPLACE VIEW job_overview AS FROM kept")
            for view in dropped:
                connection.execute(f"DROP VIEW {view}")
            if name == "no-jobs":
                connection.execute("DELETE FROM jobs")
    return {"demo": demo, **made}


@pytest.mark.first_only
@pytest.mark.parametrize(
    ("world", "shown"),
    [
        ("demo", ["Click a row to open the run", "Download every value", "Last sync of account"]),
        ("empty", ["Nothing to show yet", "ftw sync"]),
        ("missing", ["Nothing to show yet", "There is no database"]),
        ("no-views", ["Nothing to show yet", "job_overview"]),
        ("no-jobs", ["Nothing to show yet", "no jobs yet"]),
        ("jobs-only", ["Click a row to open the run", "In progress", "No curve is known"]),
    ],
)
def test_the_notebook_runs(
    worlds: dict[str, Path], world: str, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fine_tuning_warehouse.explorer.notebook import app

    monkeypatch.setenv("FTW_DATABASE", str(worlds[world]))
    outputs, _ = app.run()
    page = "\n".join(getattr(output, "text", "") for output in outputs)
    for text in shown:
        assert text in page
    assert ("Nothing to show yet" in page) == (world not in ("demo", "jobs-only"))


@pytest.mark.nightly
def test_the_notebook_is_a_script_too(demo: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(NOTEBOOK), "--", "--database", str(demo)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


# The command


@contextmanager
def explorer(ftw: Command, *options: str, opener: str | None = None) -> Iterator[tuple[Running, str]]:
    """The running command and the address that it prints; a browser is opened where there is a command for it."""
    headless = ("--headless",) if opener is None else ()
    with ftw.start("explore", *headless, *options, env={"BROWSER": opener}) as running:
        assert running.process.stderr is not None
        line = running.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}(?= )", line)
        assert found, line
        yield running, found[0]


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_on_this_machine_and_ends_when_asked(ftw: Command, number: int, tmp_path: Path) -> None:
    browser, opened = tmp_path / "browser.py", tmp_path / "opened"
    browser.write_text(f"import pathlib, sys; pathlib.Path({str(opened)!r}).write_text(sys.argv[1])")
    with explorer(ftw, opener=f"{sys.executable} {browser} %s") as (running, url):
        with requests.Session() as session:
            welcome = session.get(url, timeout=30)
            assert (welcome.status_code, 'content="0;url=/"' in welcome.text) == (200, True)
            page = session.get(url.partition("?")[0], timeout=30)
            assert page.status_code == 200
            assert "Fine-tuning explorer" in page.text
        wait_until(lambda: opened.exists() and opened.read_text())
        address = opened.read_text()
        assert address.partition("=")[0] == url.partition("=")[0]
        assert address != url, "the command line of a browser can be read by every user"
        assert requests.get(address, timeout=30).status_code == 200
        assert requests.get(address, timeout=30).status_code == 403, "it works once"
        assert requests.get(url, timeout=30).status_code == 200
        began = time.monotonic()
        running.signal(number)
        ended = running.end()
        assert time.monotonic() - began < 5
        assert ended.code in (0, 128 + number)
        assert ended.all == ""


def status_of(port: int, path: str, *headers: str, method: str = "GET") -> int:
    """The status of an answer to a request that is written to the socket as it is here."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        lines = [f"{method} {path} HTTP/1.1", *headers, "Connection: close" * ("Upgrade: websocket" not in headers)]
        connection.sendall("".join(f"{line}\r\n" for line in [*filter(None, lines), ""]).encode())
        with connection.makefile("rb") as answer:
            return int(answer.readline().split()[1])


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


def test_nobody_sees_anything_without_the_token_and_no_other_site_with_it(ftw: Command) -> None:
    with explorer(ftw) as (running, url):
        port = int(url.split(":")[2].partition("/")[0])
        host, origin = f"Host: 127.0.0.1:{port}", f"Origin: http://127.0.0.1:{port}"
        session = requests.Session()
        token = url.partition("=")[2]
        set_cookie = session.get(url, timeout=30).headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(set_cookie.split("; "))
        assert token not in set_cookie
        page = session.get(f"http://127.0.0.1:{port}/", timeout=30)
        assert token not in page.text
        cookie = f"Cookie: {set_cookie.partition(';')[0]}"
        assets = re.findall(r'"\./(assets/[\w.-]+\.(?:js|css))"', page.text)
        assert assets
        paths = [
            "/",
            f"/{assets[0]}",
            "/favicon.ico",
            "/health",
            "/api/version",
            "/api/usage",
            "/openapi.json",
            "/auth/login",
        ]
        paths += [
            "/?token=",
            f"/?token={token[:-1]}",
            f"/?token={token}x",
            f"/health?token={token}",
            "/nowhere",
            "//",
            "/%2e",
        ]
        for path in paths:
            for more in (
                (),
                ("Authorization: Bearer " + token,),
                (cookie[:-1],),
                (cookie + "x",),
                ("Cookie: ;=,\x00",),
            ):
                assert status_of(port, path, host, *more) in (400, 401, 403), (path, more)
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert status_of(port, "/api/kernel/instantiate", host, origin, method=method) == 403
        socket_path = "/ws?session_id=s_1a2b3c"
        assert status_of(port, socket_path, host, origin, *UPGRADE) == 403

        assert status_of(port, f"/{assets[0]}", host, cookie) == 200
        assert status_of(port, f"/{assets[0]}", f"Host: localhost:{port}", cookie) == 200
        assert status_of(port, socket_path, host, origin, cookie, *UPGRADE) == 101
        assert status_of(port, socket_path, host, cookie, *UPGRADE) == 403, "without an Origin"
        assert status_of(port, "/api/kernel/interrupt", host, cookie, method="POST") == 403, "without an Origin"
        for foreign in (
            "http://example.com",
            "null",
            "http://127.0.0.1",
            f"http://127.0.0.1:{port + 1}",
            f"https://127.0.0.1:{port}",
            f"http://localhost:{port}",
            f"http://127.0.0.1:{port}.example.com",
            "",
        ):
            assert status_of(port, "/", host, f"Origin: {foreign}", cookie) == 403, foreign
            assert status_of(port, socket_path, host, f"Origin: {foreign}", cookie, *UPGRADE) == 403, foreign
        assert status_of(port, socket_path, host, origin, "Origin: http://example.com", cookie, *UPGRADE) in (400, 403)
        for name in (
            "example.com",
            f"example.com:{port}",
            "127.0.0.1.example.com",
            "localhost.example.com",
            "0.0.0.0",
            "",
            "127.0.0.1@example.com",
        ):
            assert status_of(port, "/", f"Host: {name}", cookie) in (400, 403), name
            assert status_of(port, f"/?token={token}", f"Host: {name}") in (400, 403), name
            same = f"Origin: http://{name}"
            assert status_of(port, socket_path, f"Host: {name}", same, cookie, *UPGRADE) in (400, 403), name
        running.signal(signal.SIGINT)
        assert token not in running.end().all
    kept = [path for path in ftw.folder.parent.rglob("*") if path.is_file()]
    assert [path for path in kept if token.encode() in path.read_bytes()] == []


def test_a_page_may_load_only_what_this_server_has_and_be_framed_by_nobody(ftw: Command) -> None:
    with explorer(ftw) as (_, url), requests.Session() as session:
        answers = [session.get(url, timeout=30), requests.get(url.partition("?")[0], timeout=30)]
        page = session.get(url.partition("?")[0], timeout=30)
        for answer in [*answers, page, session.get(f"{url.partition('?')[0]}favicon.ico", timeout=30)]:
            rules = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
            assert (rules["default-src"], rules["frame-ancestors"]) == ("'none'", "'none'")
            assert not re.search(r"\*|https|unsafe-eval|(?<!ws:)//", answer.headers["Content-Security-Policy"])
            assert (answer.headers["Referrer-Policy"], answer.headers["X-Content-Type-Options"]) == (
                "no-referrer",
                "nosniff",
            )
            assert answer.headers["Cache-Control"] == "no-store"
        rules = dict(rule.split(" ", 1) for rule in page.headers["Content-Security-Policy"].split("; "))
        assert "unsafe-inline" not in rules["script-src"]
        assert rules["script-src"].count("sha256-") == len(re.findall(r"<script(?![^>]* src=)", page.text))


def test_no_database_is_exit_1_with_what_to_run(ftw: Command, tmp_path: Path) -> None:
    ended = ftw("explore", "--headless", "--database", str(tmp_path / "missing.duckdb"))
    assert ended.code == 1
    assert is_told_well(ended, "missing.duckdb", "ftw sync", "--demo")
    assert not (tmp_path / "missing.duckdb").exists()


@pytest.mark.thorough
def test_a_port_that_is_taken_is_exit_1(ftw: Command) -> None:
    with explorer(ftw) as (_, url):
        port = url.split(":")[2].partition("/")[0]
        ended = ftw("explore", "--headless", "--port", port)
    assert ended.code == 1
    assert is_told_well(ended, port, "--port")


@pytest.mark.thorough
def test_a_file_that_is_no_database_is_refused_as_a_query_refuses_it(ftw: Command, tmp_path: Path) -> None:
    notes = tmp_path / "notes.duckdb"
    notes.write_text("not a database")
    refused = [ftw(*words, "--database", str(notes)) for words in (("query", "FROM jobs"), ("explore", "--headless"))]
    assert [ended.code for ended in refused] == [1, 1]
    assert refused[0].err == refused[1].err
    assert is_told_well(refused[1], "notes.duckdb", "not a valid DuckDB database file")


def test_what_is_shown_stays_in_the_address_when_the_token_goes(ftw: Command) -> None:
    with explorer(ftw) as (_, url):
        shown = requests.get(f"{url}&run=ftjob-1,ftjob-2&find=%22%3E%3Cscript%3E", timeout=30).text
        assert 'content="0;url=/?run=ftjob-1%2Cftjob-2&amp;find=%22%3E%3Cscript%3E"' in shown
        assert url.partition("token=")[2] not in shown


@pytest.mark.thorough
def test_edit_writes_a_copy_once(ftw: Command, demo: Path) -> None:
    ended = ftw("explore", "--edit")
    copy = ftw.folder / "fine_tuning_explorer.py"
    assert ended.code == 0
    assert ended.out == f"marimo edit fine_tuning_explorer.py -- --database {demo.name} --dataset fine_tuning\n"
    assert copy.read_text() == NOTEBOOK.read_text()
    copy.write_text("mine")
    assert ftw("explore", "--edit").code == 0
    assert copy.read_text() == "mine"


def test_downloads_hold_all_columns(reader: data.Reader, demo: Path) -> None:
    from fine_tuning_warehouse.explorer import page

    rows = data.jobs(reader)
    button = page.download(lambda: rows, "jobs.csv", "Download")
    assert "Download" in button.text
    read = list(csv.DictReader(io.StringIO(page.as_bytes(rows).decode())))
    assert [row["fine_tuning_job_id"] for row in read] == [row["fine_tuning_job_id"] for row in rows]
    assert set(read[0]) == set(rows[0])
    assert page.as_bytes([]) == b""
    assert page.as_bytes([{"suffix": "=1+1", "value": -1}]) == b"suffix,value\n'=1+1,-1\n", "no spreadsheet runs it"
