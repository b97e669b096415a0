"""What the pages of docs/ show is what is there: columns, queries and their results over the demo."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click import Option
from filelock import FileLock

import generate
from fine_tuning_simulator import Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse import errors
from fine_tuning_warehouse.accounts import config_files as configured
from fine_tuning_warehouse.cli.main import ftw
from fine_tuning_warehouse.cli.terminal.output import as_table
from fine_tuning_warehouse.query import query
from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.views import VIEWS
from harness import DAY, HOUR, NOW, Database
from openai_fine_tuning import settings
from openai_fine_tuning.api.connection import CERTIFICATES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NAMES = [*(f"tables/{name}" for name in TABLES), *(f"views/{view.name}" for view in VIEWS)]


PAGES = [page.relative_to(DOCS).as_posix() for page in generate.pages_of_the_demo()]
"""The pages whose queries are answered by the demo."""


def text_of(page: str) -> str:
    """A page as it stands."""
    return (DOCS / page).read_text(encoding="utf-8")


def examples(page: str) -> list[Any]:
    """The queries of a page."""
    return list(generate.examples(text_of(page)))


@pytest.fixture(scope="session")
def demo_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo warehouse after two syncs, made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    database, done = shared / "docs_demo.duckdb", shared / "docs_demo.done"
    with FileLock(shared / "docs_demo.lock"), pytest.MonkeyPatch.context() as patch:
        if not done.exists():
            for name in list(os.environ):
                if name.lower().endswith("_proxy"):
                    patch.delenv(name)
            patch.setenv("DLT_DATA_DIR", str(shared / "docs_demo.dlt"))
            database.unlink(missing_ok=True)
            generate.demo_database(database)
            done.touch()
    return database


@pytest.fixture(scope="session")
def demo(demo_database: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The demo warehouse, opened for reading."""
    with generate.connect(demo_database) as connection:
        yield connection


@pytest.mark.parametrize("name", NAMES)
def test_the_columns_of_a_page_are_those_of_the_table(name: str, demo: duckdb.DuckDBPyConnection) -> None:
    shown = re.findall(r"<!-- columns -->\n(.*?)<!-- /columns -->", text_of(f"{name}.md"), flags=re.DOTALL)
    assert shown == [generate.column_table(demo, name.split("/")[1])], f"docs/{name}.md: run {generate.COMMAND}"


@pytest.mark.parametrize("page", PAGES)
def test_the_results_of_a_page_are_those_of_its_queries(page: str, demo: duckdb.DuckDBPyConnection) -> None:
    for example in examples(page):
        assert example.shown is not None, f"docs/{page}: no ```text block below the query of {example.question!r}"
        answer = generate.answer(demo, example.sql)
        assert example.shown == answer, f"docs/{page}, {example.question!r}: run {generate.COMMAND}"


def test_ftw_query_prints_what_a_page_shows(demo_database: Path) -> None:
    first = examples("questions.md")[0]
    assert as_table(*query(demo_database, first.sql, "fine_tuning")) + "\n" == first.shown


def test_every_table_and_view_has_a_page_with_queries() -> None:
    assert sorted(PAGES) == sorted(["questions.md", *(f"{name}.md" for name in NAMES)])
    for name in NAMES:
        questions = [example.question for example in examples(f"{name}.md")]
        assert 3 <= len(questions) <= 6, name
        assert len(set(questions)) == len(questions), name
        assert all(question.endswith("?") for question in questions), name
        assert all(re.search(rf"\b{name.split('/')[1]}\b", example.sql) for example in examples(f"{name}.md")), name


def test_the_index_names_every_page_and_every_link_leads_somewhere() -> None:
    pages = [*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "sources/openai_fine_tuning/README.md"]
    links = {page: re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")) for page in pages}
    listed = {(DOCS / target).resolve() for target in links[DOCS / "README.md"]}
    assert {DOCS / "README.md", *listed} >= set(DOCS.rglob("*.md")), "docs/README.md names every page"
    for page, targets in links.items():
        for target in targets:
            assert page.parent.joinpath(target).is_file(), f"{page}: {target}"


@pytest.mark.parametrize(
    "words",
    [
        "checkpoint should I deploy",
        "final model instead cost",
        "overfitting",
        "same base model compare",
        "the curve",
        "reward, gap, tokens, errors",
        "tokens and hours",
        "failed, and why",
        "fresh",
        "skipped or rejected",
        "changed since a date",
        "host dropped",
    ],
)
def test_what_analysts_ask_has_a_query(words: str) -> None:
    assert any(words in example.question for example in examples("questions.md"))


@pytest.mark.thorough
def test_queries_whose_answer_is_empty_in_the_demo_find_what_they_look_for(
    world: ScriptedWorld, host: Simulator, clock: Clock, database: Database
) -> None:
    world.add_job(id="drops", created_at=NOW - DAY, finished_at=NOW, result_files=["file-gone"])
    for step, loss in ((1, 0.4), (2, 0.5)):
        world.add_checkpoint("drops", id=f"drops-{step}", step_number=step, metrics={"valid_loss": loss})
    world.add_job(id="odd", created_at=NOW - DAY, status="running")
    world.add_raw_checkpoint("odd", {"id": "ckpt-odd", "created_at": "no time", "step_number": []})
    world.add_job(id="closed", created_at=NOW - HOUR, status="running")
    host.faults.append(Fault("status", path="closed/checkpoints", times=None, status=403))
    host.faults.append(Fault("status", path="odd/events", status=500))
    database.sync()
    world.remove_checkpoint("drops-1")
    clock.advance(60)
    database.sync()

    def rows(page: str, question: str) -> list[dict[str, Any]]:
        (example,) = [example for example in examples(page) if example.question == question]
        names, found = query(database.path, example.sql, "fine_tuning")
        return [dict(zip(names, row, strict=True)) for row in found]

    dropped = "Which checkpoints has the host dropped?"
    assert [row["id"] for row in rows("tables/checkpoints.md", dropped)] == ["drops-1"]
    for page in ("questions.md", "views/checkpoint_history.md"):
        (row,) = rows(page, dropped)
        assert (row["checkpoint_id"], row["evaluation_value"], row["rank_in_job"]) == ("drops-1", 0.4, 1)

    (row,) = rows("tables/rejected_records.md", "What was rejected, and why?")
    assert (row["resource"], row["fine_tuning_job_id"]) == ("checkpoints", "odd")
    assert row["reason"]
    assert "ckpt-odd" in row["record"]
    (row,) = rows("tables/rejected_records.md", "Which reasons are the most frequent?")
    assert (row["resource"], row["records"], row["jobs"]) == ("checkpoints", 1, 1)
    (row,) = rows("tables/rejected_records.md", "Which jobs may be incomplete here?")
    assert (row["fine_tuning_job_id"], row["status"], row["rejected"]) == ("odd", "running", 1)

    (row,) = [
        row for row in rows("views/sync_history.md", "What was skipped, and why?") if row["resource"] == "checkpoints"
    ]
    assert (row["job"], row["syncs"]) == ("closed", 2)
    assert "403" in row["reason"]
    still = rows("views/sync_history.md", "What was still skipped in the last sync?")
    assert ("closed", "checkpoints") in [(row["job"], row["resource"]) for row in still]
    both = rows("questions.md", "What was skipped or rejected?")
    told = [(row["what"], row["job"], row["resource"]) for row in both]
    assert ("skipped", "closed", "checkpoints") in told
    assert ("rejected", "odd", "checkpoints") in told

    assert len(rows("tables/syncs.md", "Which syncs skipped or rejected something?")) == 2
    (row,) = rows("tables/syncs.md", "What share of the requests had to be sent again?")
    assert row["retries"] == 1
    assert row["percent"] > 0
    assert [row["id"] for row in rows("tables/result_metrics.md", "Which jobs have no result file here?")] == ["drops"]


# the reference --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["reference/command.md", "reference/configuration.md"])
def test_the_reference_says_what_the_code_says(page: str) -> None:
    assert text_of(page) == generate.with_reference(text_of(page)), f"docs/{page}: run {generate.COMMAND}"


def test_every_command_and_every_exit_code_is_in_the_reference() -> None:
    page = text_of("reference/command.md")
    assert set(re.findall(r"^## ftw ([\w-]+)$", page, re.MULTILINE)) == set(ftw.commands)
    options = [option for command in ftw.commands.values() for option in command.params if isinstance(option, Option)]
    assert all(f"`{option.opts[0]}" in page for option in options)
    assert f"Some of {','.join(settings.RESOURCES)}." in page
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert codes == {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}


def test_every_variable_that_the_code_reads_is_in_the_reference() -> None:
    code = [
        path.read_text(encoding="utf-8") for root in ("sources", "pipelines") for path in (ROOT / root).rglob("*.py")
    ]
    asked = r"""(?:environ(?:\.get\(|\.setdefault\(|\[)|_environment\(|EnvVar\()["']([A-Z_]+)["']"""
    names = {name for text in code for name in re.findall(asked, text)} | {*configured.PLAIN, *CERTIFICATES}
    assert len(names) > len(configured.PLAIN) + len(CERTIFICATES) + 4
    page = text_of("reference/configuration.md")
    assert {name for name in names if f"`{name}`" not in page} == set()
    assert all(f"`{name}`" in page for name in configured.NAMES)
