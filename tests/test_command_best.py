"""`ftw best`: the checkpoint to deploy for each job, for people and for programs; and tables that fit the terminal."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from command import FTW, NOW, Command, is_told_well
from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from fine_tuning_warehouse.best import best_checkpoints
from fine_tuning_warehouse.cli.best import as_text
from fine_tuning_warehouse.cli.terminal import output
from fine_tuning_warehouse.views import VIEWS
from fine_tuning_warehouse.warehouses.duckdb import DuckDb

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["postgres"]

EVIL = "\x1b[31mred\x1b]0;title\x07"
COLUMNS = list(next(view for view in VIEWS if view.name == "best_checkpoints").columns)


def add_history(world: ScriptedWorld) -> None:
    world.add_job(id="ftjob-old", created_at=NOW - 90_000, user_provided_suffix="old")
    for step, loss in ((10, 0.4), (20, 0.5)):
        world.add_checkpoint("ftjob-old", id=f"ftckpt-old-{step}", step_number=step, metrics={"valid_loss": loss})
    world.add_job(id="ftjob-new", created_at=NOW - 80_000, user_provided_suffix=EVIL)
    world.add_checkpoint("ftjob-new", id="ftckpt-new", step_number=5, metrics={})
    world.add_job(id="ftjob-runs", created_at=NOW - 70_000, status="running")


@pytest.fixture(scope="module")
def ftw(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command beside a database with two jobs that have checkpoints and one that runs."""
    world = ScriptedWorld()
    add_history(world)
    with Simulator(world, clock=Clock(start=NOW, speed=0)) as host:
        command = Command(tmp_path_factory.mktemp("best"), host.base_url)
        assert command("sync", "--strict").code == 0
    return command


def test_json_is_an_array_of_rows_newest_job_first(ftw: Command) -> None:
    ended = ftw("best", "--output", "json", env={"OPENAI_API_KEY": None})
    assert (ended.code, ended.err) == (0, "")
    rows = ended.json
    assert [list(row) for row in rows] == [COLUMNS] * 2
    assert [row["fine_tuning_job_id"] for row in rows] == ["ftjob-new", "ftjob-old"]
    old = rows[1]
    assert (old["checkpoint_id"], old["evaluation_value"], old["suffix"]) == ("ftckpt-old-10", 0.4, "old")
    assert old["cost_of_final"] == pytest.approx(0.1)
    assert rows[0]["evaluation_value"] is None
    assert rows == ftw("query", "FROM best_checkpoints ORDER BY job_created_at DESC", "--output", "json").json


def test_csv_has_the_same_columns(ftw: Command) -> None:
    ended = ftw("best", "--output", "csv", "--job", "ftjob-old")
    assert (ended.code, ended.err) == (0, "")
    header, row = csv.reader(io.StringIO(ended.out))
    assert header == COLUMNS
    assert row[COLUMNS.index("checkpoint_id")] == "ftckpt-old-10"


def test_people_get_two_lines_a_run_with_the_reason(ftw: Command) -> None:
    ended = ftw("best")
    assert (ended.code, ended.err) == (0, "Not in this list: 1 job without checkpoints (1 running).\n")
    new, _, old, why = ended.out.splitlines()
    assert old.startswith("old · gpt-4o-mini-2024-07-18 · 2026-05-27 · ftjob-old: ")
    assert "ckpt-step-10" in old
    assert why == f"  {ftw('best', '--job', 'old', '--output', 'json').json[0]['reason']}"
    assert "ftjob-new: cannot tell (no checkpoint is advised)" in new
    assert all(character.isprintable() or character == "\n" for character in ended.out)


@pytest.mark.thorough
def test_a_job_is_named_by_its_id_the_beginning_of_it_or_its_suffix(ftw: Command) -> None:
    for name in ("ftjob-old", "ftjob-o", "old"):
        assert [row["fine_tuning_job_id"] for row in ftw("best", "--job", name, "--output", "json").json] == [
            "ftjob-old"
        ]
    both = ftw("best", "--job", "ftjob-", "--job", "old", "--output", "json").json
    assert sorted(row["fine_tuning_job_id"] for row in both) == ["ftjob-new", "ftjob-old"]
    assert ftw("best", "--job", "ftjob-").err == "Not in this list: 1 job without checkpoints (1 running).\n"
    assert is_told_well(ftw("best", "--job", "ftjob-r"), "ftjob-runs has no checkpoints", "running")
    for name, meant in (
        ("", ""),
        ("ol", "did you mean 'ftjob-old'"),
        ("FTJOB-O", "did you mean 'ftjob-o'"),
        ("xyz", ""),
    ):
        assert is_told_well(ftw("best", "--job", name), "There is no job", meant, "ftw sync")


def test_a_job_of_two_accounts_shows_where_it_has_checkpoints() -> None:
    from fine_tuning_warehouse.best import _named

    row = {"account": "a", "fine_tuning_job_id": "ftjob-1", "suffix": None}
    jobs = [{"account": label, "id": "ftjob-1", "status": "running"} for label in ("a", "b")]
    assert _named(["ftjob-1"], [row], jobs, "") == ([row], [jobs[1]])


@pytest.mark.thorough
def test_jobs_are_sorted_limited_and_only_those_that_can_be_improved(tmp_path: Path) -> None:
    world = ScriptedWorld()
    for name, final in (("small", 0.6), ("none", 0.4), ("large", 0.9)):
        world.add_job(id=f"ftjob-{name}", created_at=NOW - 90_000, user_provided_suffix=name)
        for step, loss in ((10, 0.5), (20, final)):
            world.add_checkpoint(
                f"ftjob-{name}", id=f"ftckpt-{name}-{step}", step_number=step, metrics={"full_valid_loss": loss}
            )
    with Simulator(world, clock=Clock(start=NOW, speed=0)) as host:
        ftw = Command(tmp_path, host.base_url)
        assert ftw("sync", "--strict").code == 0

    def suffixes(*options: str) -> list[str]:
        return [row["suffix"] for row in ftw("best", *options, "--output", "json").json]

    assert suffixes("--sort", "cost") == ["large", "small", "none"]
    assert suffixes("--sort", "cost", "--limit", "1") == ["large"]
    assert sorted(suffixes("--improvable")) == ["large", "small"]
    assert ftw("best", "--limit", "0").code == 2
    assert "None of these jobs" in ftw("best", "--improvable", "--job", "none").err


@pytest.mark.nightly
def test_a_terminal_that_is_too_low_gets_a_pager(ftw: Command) -> None:
    paged = Command(ftw.folder.parent)
    paged.folder, paged.env = ftw.folder, {**ftw.env, "PAGER": "sed s/^/paged:/"}
    many = in_a_terminal(paged, 400, "best", lines=3)
    assert [line.startswith("paged:") for line in many[:4]] == [True] * 4
    assert not any("paged:" in line for line in in_a_terminal(paged, 400, "best"))


@pytest.mark.thorough
def test_jobs_and_accounts_can_be_chosen(ftw: Command) -> None:
    chosen = ftw("best", "--job", "ftjob-old", "--job", "ftjob-new", "--account", "default", "--output", "json")
    assert len(chosen.json) == 2
    unknown = ftw("best", "--job", "ftjob-old", "--job", "ftjob-unknown")
    assert unknown.code == 1
    assert is_told_well(unknown, "no job ftjob-unknown", "ftw sync")
    bare = ftw("best", "--job", "ftjob-runs")
    assert bare.code == 1
    assert is_told_well(bare, "ftjob-runs has no checkpoints", "running")
    assert ftw("best", "--job", "ftjob-old", "--account", "other").code == 1
    stranger = ftw("best", "--account", "other", "--output", "json")
    assert (stranger.code, stranger.json) == (0, [])
    told = ftw("best", "--account", "other")
    assert (told.code, told.out) == (0, "")
    assert "no checkpoints of account other" in told.err


@pytest.mark.nightly
def test_without_a_warehouse_it_says_what_to_run(ftw: Command, tmp_path: Path, host: Simulator) -> None:
    for form in ("text", "json", "csv"):
        missing = ftw("best", "--database", "missing.duckdb", "--output", form)
        assert missing.code == 1
        assert is_told_well(missing, "missing.duckdb", "ftw sync")
    other = ftw("best", "--dataset", "other")
    assert other.code == 1
    assert is_told_well(other, "best_checkpoints", "ftw sync")
    assert ftw("best", "--output", "yaml").code == 2
    elsewhere = Command(tmp_path, host.base_url)
    assert elsewhere("sync").code == 0
    empty = elsewhere("best", "--output", "json")
    assert (empty.code, empty.json) == (0, [])
    assert "no checkpoints" in elsewhere("best").err
    assert elsewhere("best", "--output", "csv").out.strip() == ",".join(COLUMNS)


def test_the_sql_of_the_views_is_told(ftw: Command) -> None:
    ended = ftw("views")
    assert (ended.code, ended.err) == (0, "")
    for view in VIEWS:
        assert f'CREATE OR REPLACE VIEW "fine_tuning"."{view.name}" AS\n' in ended.out
    missing = ftw("views", "--database", "missing.duckdb")
    assert missing.code == 1
    assert is_told_well(missing, "no database missing.duckdb", "ftw sync")
    other = ftw("views", "--dataset", "other")
    assert other.code == 1
    assert is_told_well(other, "holds no dataset other", "ftw sync")


def in_a_terminal(ftw: Command, columns: int, *arguments: str, lines: int = 40) -> list[str]:
    """The lines that a command prints into a terminal of so many columns."""
    if sys.platform == "win32":
        pytest.skip("Windows has no pseudo-terminals")
    import fcntl
    import pty
    import struct
    import subprocess
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with subprocess.Popen(
        [str(FTW), *arguments], cwd=ftw.folder, env=ftw.env, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        read = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            read += part
        assert process.wait(60) == 0
    os.close(ours)
    return read.decode().replace("\r", "").splitlines()


@pytest.mark.nightly
def test_it_fits_a_narrow_terminal(ftw: Command) -> None:
    lines = in_a_terminal(ftw, 80, "best")
    assert max(map(len, lines)) <= 80
    assert all(character.isprintable() for line in lines for character in line)
    wide = in_a_terminal(ftw, 400, "best")
    assert len(wide) == 5
    assert " ".join(" ".join(lines).split()) == " ".join(" ".join(wide).split())


@pytest.mark.nightly
def test_csv_on_a_terminal_shows_control_characters_as_escapes(ftw: Command) -> None:
    lines = in_a_terminal(ftw, 80, "query", "SELECT suffix FROM job_overview ORDER BY 1 LIMIT 1", "--output", "csv")
    assert lines == ["suffix", EVIL.encode("unicode_escape").decode()]
    best = in_a_terminal(ftw, 400, "best", "--output", "csv", "--job", "ftjob-new")
    assert len(best) == 2
    assert "\\x1b[31mred" in best[1]


def test_every_column_of_a_wide_table_is_shown_or_named(ftw: Command) -> None:
    lines = in_a_terminal(ftw, 80, "query", "SELECT * FROM jobs ORDER BY id")
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:5]] == ["ftjob-new", "ftjob-old", "ftjob-runs"]
    told = " ".join(lines)
    for name in ("created_at", "status", "checkpoints_listed_at", "error__message", "account default", "--output csv"):
        assert name in told
    one = in_a_terminal(ftw, 80, "query", "SELECT * FROM jobs WHERE id = 'ftjob-old'")
    assert max(map(len, one)) <= 80
    assert [line.split() for line in one if line.startswith("status ")] == [["status", "succeeded"]]


@pytest.mark.nightly
def test_a_terminal_shows_how_far_it_is(tmp_path: Path) -> None:
    ftw = Command(tmp_path)
    told = "\n".join(in_a_terminal(ftw, 120, "archive", "--demo", "kept", "--training-files"))
    assert re.search(r"Loading.* jobs · [\d,]+ rows · \d+ requests", told)
    for step in ("Exporting", "Fetching"):
        assert re.search(step + r".*\d+(\.\d+)?/?.*(bytes|kB|MB)", told), step
    assert "archived" in told.lower()


def test_a_table_fits_any_width() -> None:
    names = ["a", "long" * 10, "wide", "n"]
    rows: list[list[object]] = [["x", "y" * 50, "広い" * 10, 1.5], ["z", "y", "狭", None]]
    from rich.cells import cell_len

    for width in range(10, 150):
        assert max(cell_len(line) for line in output.as_table(names, rows, width).splitlines()) <= width
    assert output.as_table(names, rows, 200) == output.as_table(names, rows)
    assert output.as_table(["a", "b"], [], 80).splitlines()[0].split() == ["a", "b"]
    assert output.as_table([], []) == ""


@pytest.mark.timeout(300)
def test_it_reads_other_destinations(
    ftw: Command, tmp_path: Path, host: Simulator, world: ScriptedWorld, postgres: Postgres
) -> None:
    add_history(world)
    command = Command(tmp_path, host.base_url)
    there = {"DESTINATION__POSTGRES__CREDENTIALS": postgres.credentials}
    before = command("best", "--destination", "postgres", env=there)
    assert before.code == 1
    assert is_told_well(before, "best_checkpoints", "ftw sync")
    assert command("sync", "--destination", "postgres", env=there).code == 0
    ended = command("best", "--destination", "postgres", "--output", "json", env=there)
    assert (ended.code, ended.err) == (0, "")
    assert [dict(row, job_created_at=0, listed_at=0) for row in ended.json] == [
        dict(row, job_created_at=0, listed_at=0) for row in ftw("best", "--output", "json").json
    ]
    assert is_told_well(
        command("best", "--destination", "postgres", "--job", "ftjob-runs", env=there),
        "ftjob-runs has no checkpoints",
    )
    nowhere = {"DESTINATION__POSTGRES__CREDENTIALS": "postgresql://postgres:secret-word@127.0.0.1:1/none"}
    lost = command("best", "--destination", "postgres", env=nowhere)
    assert lost.code == 1
    assert is_told_well(lost, "postgres")
    assert "secret-word" not in lost.all


def test_two_accounts_are_told_apart(tmp_path: Path) -> None:
    row = {**dict.fromkeys(COLUMNS), "fine_tuning_job_id": "ftjob-1", "reason": "Because.", "advice": "deploy"}
    rows = [{**row, "account": label, "checkpoint_to_deploy": f"ft:{label}"} for label in ("a", "b")]
    assert as_text(rows).splitlines() == [
        "a · ftjob-1: deploy ft:a",
        "  Because.",
        "b · ftjob-1: deploy ft:b",
        "  Because.",
    ]
    assert as_text(rows[:1]).startswith("ftjob-1: deploy")
    with pytest.raises(Exception, match="no database"):
        best_checkpoints(DuckDb(tmp_path / "none.duckdb"))


def test_every_advice_of_the_view_has_its_words() -> None:
    from fine_tuning_warehouse.cli.best import _ADVICE

    about = next(view for view in VIEWS if view.name == "best_checkpoints").columns["advice"]
    assert [advice for advice in _ADVICE if advice not in about] == []


@pytest.mark.parametrize(("is_callable", "said"), [(False, True), (True, False), (None, False)])
def test_the_first_line_says_that_the_host_does_not_list_the_model(is_callable: bool | None, said: bool) -> None:
    row = {"account": "a", "suffix": "s", "base_model": "b", "fine_tuning_job_id": "j", "advice": "deploy"}
    text = as_text([{**row, "checkpoint_to_deploy": "ft:m", "reason": "Why.", "is_callable": is_callable}])
    first, _ = text.splitlines()
    assert first.endswith("deploy ft:m (the host does not list it)") is said
