"""Numbers with their nouns, and paths as people know them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fine_tuning_warehouse.archive.manifest import Missing
from fine_tuning_warehouse.cli.archive import missing_lines
from fine_tuning_warehouse.cli.terminal.output import skip_lines, summary_lines
from fine_tuning_warehouse.sync.summary import AccountResult
from fine_tuning_warehouse.text import counted, shown_path


def test_one_of_anything_is_no_plural() -> None:
    assert [counted(number, "row") for number in (0, 1, 2, 1835)] == ["0 rows", "1 row", "2 rows", "1,835 rows"]
    assert [counted(number, "retry", "retries") for number in (1, 2)] == ["1 retry", "2 retries"]
    one = AccountResult("mine", rows={"jobs": 1}, requests=1, retries=1, jobs={"seen": 1, "open": 0})
    assert summary_lines(one, "here", "there")[1:] == [
        "  jobs          1 row new or changed",
        "1 request (1 of them a retry), 1 job seen, 0 in progress, 0 to be read again.",
    ]


def test_of_many_things_that_could_not_be_read_the_first_are_named_and_the_rest_counted() -> None:
    skips: list[dict[str, str | None]] = [
        {"account": "mine", "job": f"ftjob-{number}", "resource": "events", "reason": "403"} for number in range(13)
    ]
    lines = skip_lines(AccountResult("mine", skipped=skips))
    assert lines[9:] == ["Skipped events of ftjob-9: 403", "Skipped 3 more (all of them: --output json)."]
    missing = [
        Missing("mine", f"file-{number}", "result_file", f"ftjob-{number}", f"404: no file-{number // 2}")
        for number in range(50)
    ]
    lines = list(missing_lines(missing))
    assert lines[0] == "Missing 2 result files, such as file-0 of ftjob-0: 404: no file-0"
    assert lines[20:] == ["Missing 10 more (all of them: manifest.json)."]


def test_a_path_in_the_working_directory_is_told_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert shown_path(here / "some" / "file.duckdb") == os.path.join("some", "file.duckdb")  # noqa: PTH118
    assert shown_path(tmp_path / "file.duckdb") == str(tmp_path / "file.duckdb")
    assert shown_path(Path("file.duckdb")) == "file.duckdb"
