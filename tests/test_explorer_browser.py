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
CONTROLS = ("Find", "Compare with", "Line", "Account", "Base model", "Status", "Created from", "Created to")
SECTIONS = ("Smoothing", "Epochs", "Logarithmic loss")
"""Controls of charts: each section of the page has its own."""
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
    page.wait_for_url(lambda address: "token" not in address)
    url = page.url.partition("?")[0]
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
    """Find a job, click its row, and wait until it is shown."""
    page.get_by_label("Find", exact=True).fill(job)
    page.get_by_text("1 row", exact=False).first.wait_for()
    first_row(page).click()
    page.wait_for_url(re.compile(f"run={job}"))
    page.locator("code", has_text=job).first.wait_for()


def jobs_table(page: Any) -> Any:
    """The table of jobs."""
    return page.locator("table", has=page.get_by_text("created (UTC)", exact=True)).first


def first_row(page: Any, column: int = 2) -> Any:
    """A cell of the first row of the table of jobs."""
    return jobs_table(page).locator("tbody tr").first.locator("td").nth(column)


def shown_job(page: Any) -> str:
    """The id of the run that is open."""
    return str(page.locator("code", has_text="ftjob").first.inner_text())


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
        "FROM best_checkpoints WHERE advice = 'deploy' ORDER BY cost_of_final DESC LIMIT 1",
    )
    with served(ftw, demo) as url, opened(chromium, url) as page:
        pick_run(page, job)
        page.locator("code", has_text=name).first.wait_for()
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
        head, *rows = cells(page, "checkpoint to deploy")
        assert head[:3] == ["created (UTC)", "name", "status"]
        created = asked(
            demo, "SELECT strftime(created_at, '%Y-%m-%d %H:%M') FROM job_overview ORDER BY 1 DESC LIMIT 10"
        )
        assert [row[0] for row in rows if len(row) == len(head)] == [one for (one,) in created]

        page.get_by_label("Find", exact=True).fill("release nano")
        some = asked(
            demo,
            "SELECT fine_tuning_job_id FROM job_overview "
            "WHERE (suffix = 'release-notes' OR training_file_name LIKE '%release%') AND base_model LIKE '%nano%'",
        )
        page.get_by_text(f"{len(some)} rows").wait_for()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download these jobs (CSV)").or_(
                page.get_by_role("button", name="Download these jobs (CSV)")
            ).first.click()
        with Path(download.value.path()).open(newline="") as file:
            assert {row["fine_tuning_job_id"] for row in csv.DictReader(file)} == {job for (job,) in some}
        page.get_by_label("Find", exact=True).fill("no such job")
        page.get_by_text("No job matches these filters.").wait_for()


@pytest.mark.nightly
def test_runs_are_compared_as_sql_says(ftw: Command, demo: Path, chromium: Any) -> None:
    told = asked(
        demo,
        "SELECT fine_tuning_job_id, suffix, base_model, best_evaluation_value, final_evaluation_value "
        "FROM job_overview WHERE advice IS NOT NULL AND (validation_file, evaluation_metric) IN (SELECT "
        "(validation_file, evaluation_metric) FROM job_overview WHERE evaluation_metric = 'full_valid_loss' "
        "GROUP BY 1 HAVING count(*) BETWEEN 2 AND 6 ORDER BY max(created_at) DESC LIMIT 1) ORDER BY created_at DESC",
    )
    assert len(told) > 1
    with served(ftw, demo) as url, opened(chromium, url) as page:
        pick_run(page, told[0][0])
        page.get_by_label("Find", exact=True).fill("")
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
        page.get_by_label("Find", exact=True).fill("")
        page.get_by_text("24 jobs").wait_for()
        assert command("sync", "--demo", "--strict").code == 0  # the page never keeps a sync from writing
        page.get_by_text("25 jobs").wait_for()
        assert shown_job(page) == job
        assert f"run={job}" in page.url


@pytest.mark.nightly
def test_an_empty_warehouse_says_what_to_run_and_fills_by_itself(tmp_path: Path, chromium: Any) -> None:
    command = Command(tmp_path)
    database = command.folder / "fine_tuning_demo.duckdb"
    duckdb.connect(str(database)).close()
    with served(command, database) as url, opened(chromium, url) as page:
        page.get_by_text("Nothing to show yet.").wait_for()
        assert page.get_by_text("ftw sync --demo").count() == 1
        assert command("sync", "--demo").code == 0
        page.get_by_text("Click a row to open the run").wait_for()


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


@pytest.mark.nightly
def test_the_address_holds_what_is_shown_and_a_reload_shows_it_again(ftw: Command, demo: Path, chromium: Any) -> None:
    told = asked(
        demo, "SELECT fine_tuning_job_id FROM job_overview WHERE checkpoints > 0 ORDER BY created_at DESC LIMIT 3"
    )
    first, second, third = (job for (job,) in told)
    with served(ftw, demo) as url, opened(chromium, f"{url}&run={first},{second}&smoothing=0.5") as page:
        chart(page, "Loss").wait_for()
        assert shown_job(page) == first
        page.get_by_text("The runs that are picked").wait_for()
        page.get_by_text("Bold: smoothed.").first.wait_for()
        page.get_by_role("switch", name="Epochs").first.click()
        page.get_by_text("Epoch", exact=True).first.wait_for()
        page.goto(f"{page.url.partition('?')[0]}?run={third}")
        page.locator("code", has_text=third).first.wait_for()
        page.get_by_role("switch", name="Epochs").first.click()
        page.wait_for_url(re.compile("epochs="))
        page.reload()
        page.get_by_text("Epoch", exact=True).first.wait_for()
        assert shown_job(page) == third


def test_a_sorted_table_opens_the_row_that_was_clicked_and_more_rows_are_compared(
    ftw: Command, demo: Path, chromium: Any
) -> None:
    told = asked(
        demo,
        "SELECT fine_tuning_job_id, best_evaluation_value FROM job_overview ORDER BY best_evaluation_value NULLS LAST",
    )
    with served(ftw, demo) as url, opened(chromium, url) as page:
        head = jobs_table(page).locator("th", has_text="best").first
        head.hover()
        head.get_by_role("button", name=re.compile("Sort")).click()
        wait_until(lambda: first_row(page, 4).inner_text() == f"{told[0][1]:.4g}")
        first_row(page).click()
        page.wait_for_url(re.compile(f"run={told[0][0]}"))
        jobs_table(page).locator("tbody tr").nth(1).locator("td").first.click()
        page.wait_for_url(re.compile(f"run={told[1][0]}.*{told[0][0]}"))
        page.get_by_text("The runs that are picked").wait_for()
        head_cells, *rows = cells(page, "best step")
        assert len([row for row in rows if len(row) == len(head_cells)]) == 2
        assert any(one.endswith("≠") for one in head_cells)


@pytest.mark.nightly
def test_the_name_to_deploy_is_copied_by_a_button(ftw: Command, demo: Path, chromium: Any) -> None:
    ((job, name),) = asked(
        demo, "SELECT fine_tuning_job_id, checkpoint_to_deploy FROM job_overview WHERE advice = 'deploy' LIMIT 1"
    )
    with served(ftw, demo) as url, opened(chromium, f"{url}&run={job}") as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        button = page.get_by_role("button", name="Copy to clipboard")
        button.wait_for()
        assert button.locator("..").evaluate("one => getComputedStyle(one).opacity") == "1", (
            "it is there without a mouse"
        )
        button.click()
        wait_until(lambda: page.evaluate("navigator.clipboard.readText()") == name)


@pytest.mark.nightly
def test_the_pointer_shows_all_lines(ftw: Command, demo: Path, chromium: Any) -> None:
    ((job,),) = asked(demo, "SELECT fine_tuning_job_id FROM job_overview WHERE advice = 'deploy' LIMIT 1")
    with served(ftw, demo) as url, opened(chromium, f"{url}&run={job}") as page:
        picture = chart(page, "Loss")
        picture.wait_for()
        picture.scroll_into_view_if_needed()
        box = picture.bounding_box()
        for move in (0, 9):
            page.mouse.move(box["x"] + box["width"] / 2 + move, box["y"] + box["height"] / 2)
            page.wait_for_timeout(300)
        shown = page.locator("#vg-tooltip-element")
        wait_until(lambda: all(name in shown.inner_text() for name in ("step", *LINES)))


@pytest.mark.nightly
def test_controls_have_names_and_take_keys(ftw: Command, demo: Path, chromium: Any) -> None:
    with served(ftw, demo) as url, opened(chromium, url) as page:
        chart(page, "Loss").wait_for()
        about = page.locator(".chart-wrapper[role='graphics-document']").evaluate_all(
            "all => all.map(one => one.getAttribute('aria-label'))"
        )
        assert about
        assert all(re.match(r"[A-Z][\w ]+ (by step|of each run)\. ", str(one)) for one in about)
        page.locator("body").press("Tab")
        stops = 0
        while page.evaluate("document.activeElement.shadowRoot?.activeElement?.closest('table') == null"):
            page.keyboard.press("Tab")
            stops += 1
            assert stops < 15, "the table is far away"
        for name in SECTIONS:
            page.get_by_label(name, exact=True).nth(1).wait_for(state="attached")
        page.get_by_role("button", name="Filters").click()
        for name in CONTROLS:
            control = page.get_by_label(name, exact=True)
            assert control.count() >= 1, name
            if not name.startswith("Created"):
                control.focus()
                assert control.evaluate("one => one.getRootNode().activeElement === one"), name
        page.get_by_role("switch", name="Logarithmic loss").first.focus()
        page.keyboard.press("Space")
        page.locator("[aria-label*='for a log scale']").first.wait_for(state="attached")
        page.locator("[aria-label*='for a linear scale']").first.wait_for(state="attached")
        ((job,),) = asked(demo, "SELECT fine_tuning_job_id FROM job_overview ORDER BY created_at LIMIT 1")
        page.get_by_label("Compare with", exact=True).focus()
        page.keyboard.press("Enter")
        page.keyboard.type(job[-5:])
        page.get_by_role("option", name=re.compile(job[-5:])).wait_for()
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        page.wait_for_url(re.compile(f"with={job}"))
        page.get_by_text("The runs that are picked").wait_for()
        page.reload()
        page.get_by_text("The runs that are picked").wait_for()
        ((other,),) = asked(demo, "SELECT fine_tuning_job_id FROM best_checkpoints WHERE advice = 'deploy' LIMIT 1")
        page.get_by_label("Find", exact=True).press_sequentially(other)  # without a mouse: what is found is opened
        page.locator("code", has_text=other).first.wait_for()
        wait_until(lambda: {row[0][-5:] for row in cells(page, "best step")[1:]} >= {job[-5:], other[-5:]})


@pytest.mark.nightly
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (1920, "dark"), (390, "light")])
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
