"""The explorer in a real browser: what its page shows is what SQL says, and nobody else is asked for anything."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from command import NOW, Command, wait_until
from fine_tuning_simulator import Clock, ScriptedWorld, Simulator

pytest.importorskip("marimo", reason="the explorer needs the extra `explore`")
pytest.importorskip("altair", reason="the explorer needs the extra `explore`")
playwright = pytest.importorskip("playwright.sync_api", reason="needs the dependency group `browser`")
CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)"),
    # Playwright's driver leaves its event loop to the interpreter's end.
    pytest.mark.filterwarnings("default::ResourceWarning", "default::pytest.PytestUnraisableExceptionWarning"),
]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000
CONTROLS = ("Account", "Base model", "Status", "Find", "Run", "Runs to compare", "Line", "Logarithmic loss axis")
LINES = {"train": "train_loss", "validation": "valid_loss", "full validation": "full_valid_loss"}
EVIL = "<img src='http://evil.invalid/a.png'> ![x](http://evil.invalid/b.png) http://evil.invalid/c.png"


@pytest.fixture(scope="module")
def ftw(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command beside the demo's database."""
    command = Command(tmp_path_factory.mktemp("browser"))
    assert command("sync", "--demo").code == 0
    return command


@pytest.fixture(scope="module")
def demo(ftw: Command) -> Path:
    """The demo's database."""
    return ftw.folder / "fine_tuning_demo.duckdb"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser with a profile of its own."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def served(ftw: Command, database: Path) -> Iterator[str]:
    """The address of a running explorer."""
    with ftw.start("explore", "--headless", "--database", str(database)) as running:
        assert running.process.stderr is not None
        line = running.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=[\w-]+", line)
        assert found, line
        yield found[0]
        running.signal(2)
        assert "Traceback" not in running.end().err


@contextmanager
def opened(chromium: Any, url: str, *, width: int = 1400, scheme: str = "light") -> Iterator[Any]:
    """A page of the explorer; nothing else may be asked for."""
    context = chromium.new_context(viewport={"width": width, "height": 1000}, color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
    page.goto(url)
    page.wait_for_url(re.compile("/$"))  # the token does not stay in the address
    url = page.url
    yield page
    page.wait_for_timeout(500)
    context.close()
    others = {
        address
        for address in asked
        if not re.match(rf"(?:{re.escape(url)}|ws{re.escape(url[4:])}|data:|blob:)", address)
    }
    assert len(asked) > 10
    assert others == set()
    assert errors == []


def asked(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute("SET search_path = 'fine_tuning'")
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql).fetchall()


def pick_run(page: Any, job: str) -> None:
    """Pick a job, and wait until it is shown."""
    picker = page.get_by_label("Run", exact=True)
    picker.locator("option", has_text=job).wait_for(state="attached")
    (name,) = [name for name in picker.locator("option").all_inner_texts() if job in name]
    picker.select_option(label=name)
    page.locator("code", has_text=job).first.wait_for()


def chart(page: Any, title: str) -> Any:
    """The chart of that title."""
    return page.locator("svg.marks", has=page.get_by_text(title, exact=True)).first


def labels(page: Any, title: str) -> list[str]:
    """What a chart's marks are called for a screen reader."""
    marks = chart(page, title).locator("[aria-roledescription*='mark'][aria-label], path[aria-label]")
    return [str(label) for label in marks.evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")]


def cells(page: Any, head: str) -> list[list[str]]:
    """The rows of the table that has such a head, as shown."""
    table = page.locator("table", has=page.get_by_text(head, exact=True)).first
    table.wait_for()
    rows = table.locator("tr").evaluate_all("all => all.map(row => [...row.cells].map(cell => cell.innerText.trim()))")
    return [[str(cell) for cell in row] for row in rows]


def test_a_run_is_shown_as_sql_says(ftw: Command, demo: Path, chromium: Any) -> None:
    ((job, step, value, name, reason),) = asked(
        demo,
        "SELECT fine_tuning_job_id, step_number, evaluation_value, fine_tuned_model_checkpoint, reason "
        "FROM best_checkpoints WHERE evaluation_metric = 'full_valid_loss' ORDER BY cost_of_final DESC LIMIT 1",
    )
    with served(ftw, demo) as url, opened(chromium, url) as page:
        pick_run(page, job)
        page.get_by_text(name, exact=True).wait_for()
        page.get_by_text(reason, exact=True).wait_for()
        star = f"best checkpoint, step {step}: {value:.4g}"
        wait_until(lambda: star in labels(page, "Loss"))
        shown = labels(page, "Loss")
        for split, metric in LINES.items():
            told = asked(
                demo,
                f"SELECT data__step::BIGINT, data__{metric} FROM events "
                f"WHERE fine_tuning_job_id = '{job}' AND data__{metric} IS NOT NULL ORDER BY 1",
            )
            drawn = [label for label in shown if label.startswith(f"{split}, step")]
            assert told
            assert sorted(drawn) == sorted(f"{split}, step {at}: {loss:.4g}" for at, loss in told)
        others = [label for label in shown if "checkpoint" in label]
        assert len(others) == asked(demo, f"SELECT count(*) FROM checkpoints WHERE fine_tuning_job_id = '{job}'")[0][0]

        page.get_by_role("button", name="Checkpoints of this run").click()
        head, *rows = cells(page, "rank")
        columns = [head.index(column) for column in ("step", "value", "rank", "checkpoint")]
        assert [[row[column] for column in columns] for row in rows] == [
            [str(at), f"{loss:.4g}", str(rank), checkpoint]
            for at, loss, rank, checkpoint in asked(
                demo,
                "SELECT step_number, evaluation_value, rank_in_job, checkpoint_id FROM checkpoint_history "
                f"WHERE fine_tuning_job_id = '{job}' ORDER BY step_number",
            )
        ]


def test_filters_tables_and_downloads_agree_with_sql(ftw: Command, demo: Path, chromium: Any) -> None:
    with served(ftw, demo) as url, opened(chromium, url) as page:
        told = asked(demo, "SELECT fine_tuning_job_id FROM job_overview ORDER BY created_at DESC, fine_tuning_job_id")
        page.get_by_text(f"{len(told)} rows").wait_for()
        head, *rows = cells(page, "trained tokens")
        shown = [row[head.index("job")] for row in rows if len(row) == len(head)]
        assert shown == [job for (job,) in told[:10]]

        page.get_by_label("Find", exact=True).fill("release nano")
        some = asked(
            demo,
            "SELECT fine_tuning_job_id FROM job_overview "
            "WHERE (suffix = 'release-notes' OR training_file_name LIKE '%release%') AND base_model LIKE '%nano%'",
        )
        page.get_by_text(f"{len(some)} rows").wait_for()
        assert page.get_by_label("Run", exact=True).locator("option").count() == len(some)
        with page.expect_download() as download:
            page.get_by_role("link", name="Download these jobs (CSV)").or_(
                page.get_by_role("button", name="Download these jobs (CSV)")
            ).first.click()
        with Path(download.value.path()).open(newline="") as file:
            assert {row["fine_tuning_job_id"] for row in csv.DictReader(file)} == {job for (job,) in some}
        page.get_by_label("Find", exact=True).fill("no such job")
        page.get_by_text("No job matches these filters.").wait_for()


def test_runs_are_compared_as_sql_says(ftw: Command, demo: Path, chromium: Any) -> None:
    told = asked(
        demo,
        "SELECT fine_tuning_job_id, suffix, base_model, best_evaluation_value, final_evaluation_value "
        "FROM job_overview WHERE base_model = 'gpt-4.1-mini-2025-04-14' AND evaluation_metric = 'full_valid_loss' "
        "ORDER BY created_at DESC",
    )
    assert len(told) > 1
    with served(ftw, demo) as url, opened(chromium, url) as page:
        pick_run(page, told[0][0])
        names = {job: f"{(suffix or model)[:24]} …{job[-5:]}" for job, suffix, model, _, _ in told}
        expected = {
            f"{names[job]}, {kind}: {value:.4g}"
            for job, _, _, best, final in told
            for kind, value in (("best", best), ("final", final))
        }
        wait_until(lambda: set(labels(page, "Best and final full validation loss")) >= expected)
        assert set(labels(page, "Best and final full validation loss")) == expected
        assert {
            label.partition(", step")[0] for label in labels(page, "Full validation loss") if ", step" in label
        } >= set(names.values())


def test_a_new_sync_shows_without_a_restart_and_keeps_what_was_picked(
    ftw: Command, tmp_path: Path, chromium: Any
) -> None:
    command = Command(tmp_path)
    assert command("sync", "--demo").code == 0
    database = command.folder / "fine_tuning_demo.duckdb"
    ((job,),) = asked(database, "SELECT fine_tuning_job_id FROM best_checkpoints ORDER BY 1 LIMIT 1")
    with served(command, database) as url, opened(chromium, url) as page:
        pick_run(page, job)
        page.get_by_text("24 rows").wait_for()
        assert command("sync", "--demo", "--strict").code == 0  # the page never keeps a sync from writing
        page.get_by_text("25 rows").wait_for()
        page.locator("code", has_text=job).first.wait_for()
        assert job in page.get_by_label("Run", exact=True).locator("option:checked").inner_text()


def test_an_empty_warehouse_says_what_to_run_and_fills_by_itself(tmp_path: Path, chromium: Any) -> None:
    command = Command(tmp_path)
    database = command.folder / "fine_tuning_demo.duckdb"
    duckdb.connect(str(database)).close()
    with served(command, database) as url, opened(chromium, url) as page:
        page.get_by_text("Nothing to show yet.").wait_for()
        assert page.get_by_text("ftw sync --demo").count() == 1
        assert command("sync", "--demo").code == 0
        page.get_by_role("heading", name="Jobs at a glance").wait_for()


def test_hostile_texts_are_texts(tmp_path: Path, chromium: Any) -> None:
    world = ScriptedWorld()
    world.add_job(
        id="ftjob-evil",
        created_at=NOW - 9000,
        model=EVIL,
        user_provided_suffix=EVIL,
        fine_tuned_model=EVIL,
        status="failed",
        error={"code": "x", "message": EVIL, "param": None},
    )
    world.add_checkpoint(
        "ftjob-evil", id="ftckpt-1", step_number=1, fine_tuned_model_checkpoint=EVIL, metrics={"valid_loss": 0.5}
    )
    with Simulator(world, clock=Clock(start=NOW, speed=0)) as host:
        command = Command(tmp_path, host.base_url)
        assert command("sync").code == 0
        with served(command, command.database) as url, opened(chromium, url) as page:
            chart(page, "Best and final validation loss").wait_for()
            page.get_by_role("button", name="Checkpoints of this run").click()
            cells(page, "rank")
            assert page.locator("img[src*='evil']").count() == 0
            assert page.locator("a[href*='evil']").count() == 0


def test_controls_have_names_and_take_keys(ftw: Command, demo: Path, chromium: Any) -> None:
    with served(ftw, demo) as url, opened(chromium, url) as page:
        chart(page, "Loss").wait_for()
        for name in CONTROLS:
            control = page.get_by_label(name, exact=True)
            assert control.count() == 1, name
            control.focus()
            assert control.evaluate("one => one.getRootNode().activeElement === one"), name
        page.get_by_label("Logarithmic loss axis").focus()
        page.keyboard.press("Space")
        page.locator("[aria-label*='for a log scale']").first.wait_for(state="attached")
        picker = page.get_by_label("Run", exact=True)
        before = picker.locator("option:checked").inner_text()
        picker.focus()
        page.keyboard.press("ArrowDown")
        wait_until(lambda: picker.locator("option:checked").inner_text() != before)
        job = picker.locator("option:checked").inner_text().rpartition(" · ")[2]
        page.locator("code", has_text=job).first.wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (1400, "dark"), (360, "light")])
def test_it_fits_light_and_dark_and_a_phone(ftw: Command, demo: Path, chromium: Any, width: int, scheme: str) -> None:
    picture = ftw.folder / f"explorer-{scheme}-{width}.png"
    with served(ftw, demo) as url, opened(chromium, url, width=width, scheme=scheme) as page:
        chart(page, "Token accuracy").wait_for()
        page.wait_for_timeout(1000)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = page.locator("svg.marks").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
        assert max(boxes) <= width
        dark = page.evaluate(
            "document.body.matches('.dark, .dark *') || document.querySelector('body .dark, body.dark') !== null"
        )
        assert dark == (scheme == "dark")
        height = page.evaluate("Math.max(...[...document.querySelectorAll('*')].map(one => one.scrollHeight))")
        page.set_viewport_size({"width": width, "height": min(height, 6000)})
        page.wait_for_timeout(1000)
        page.screenshot(path=picture)
        assert picture.stat().st_size > 20_000
