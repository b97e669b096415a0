# /// script
# requires-python = ">=3.10"
# dependencies = ["uvicorn[standard]", "altair>=5.5", "vl-convert-python"] # the page server, and the picture
# [tool.uv]
# exclude-newer = "2026-11-20T00:00:00Z"
# ///
"""`ftw sync` beside what one would use instead, and beside what is possible: `uv run benchmarks/compare.py`.

Every contender is a process of its own, in an environment of its own, and loads the same history from the same local
server into a new DuckDB file; they take turns, several times. What is compared is medians of one run, as ratios: times
of two runs on different days say little. `--runs N`, `--only TRIAL` (repeatable).

Prints the table and what became of the goals; `--write` puts both into `docs/performance.md`, with a picture.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
CONTENDERS = HERE / "contenders"
EXCLUDE_NEWER = "2026-11-20T00:00:00Z"
CONCURRENCY = 16
"""Of `ftw sync`, and of the floor."""
KEY = "sk-proj-" + "Zr8vT1bQ5mK0xW3nY7cJ" * 8
"""As long as a key of OpenAI: `ftw sync` looks for it in every answer."""


# contenders ----------------------------------------------------------------------------------------------------------

ENVIRONMENTS = {
    "ftw": [str(PROJECT)],
    "openai": ["openai", "duckdb>=1.4,<2", "pyarrow"],
    "dlt": ["dlt[duckdb,parquet]", "duckdb>=1.4,<2", "sqlglot<30.22"],
    "tap": ["singer-sdk"],
    "target": ["target-duckdb"],
    "floor": ["orjson", "duckdb>=1.4,<2", "pyarrow"],
}
"""What each contender installs; bounds are the project's own, so that all load with one DuckDB."""


@dataclass(frozen=True)
class Contender:
    """Something that loads a history.

    Attributes:
        name: What people call it.
        is_slow: Whether it runs once only where the history is large.
    """

    name: str
    is_slow: bool = False

    def command(self, base_url: str, database: Path, trial: Trial, environments: Path) -> str:
        """The shell command that loads a trial's history into a DuckDB file."""
        kind = trial.kind

        def python(environment: str) -> str:
            return f"{environments}/{environment}/bin/python"

        where = (
            f"{base_url} {database} {kind}" if self is not READY else f"{database} {trial.ready(environments.parent)}"
        )
        if self.name == "ftw sync":
            some = "" if kind == "everything" else f" --resources jobs,{kind}"
            return f"{environments}/ftw/bin/ftw sync --quiet --base-url {base_url} --database {database}{some}"
        if self.name == "singer-sdk, target-duckdb":
            config = database.with_suffix(".json")
            config.write_text(json.dumps({"filepath": str(database), "default_target_schema": "fine_tuning"}))
            tap = f"{python('tap')} {CONTENDERS}/singer_tap.py {base_url} {kind}"
            return f"{tap} 2>/dev/null | {environments}/target/bin/target-duckdb --config {config} >/dev/null"
        script, environment = {
            "openai client": ("openai_client.py", "openai"),
            "dlt rest_api": ("rest_api.py", "dlt"),
            "floor": ("floor.py", "floor"),
            "empty dlt load": ("empty_load.py", "dlt"),
            "dlt, rows ready": ("ready_load.py", "dlt"),
        }[self.name]
        return f"{python(environment)} {CONTENDERS}/{script} {where}"


FTW, OPENAI, REST_API = Contender("ftw sync"), Contender("openai client", True), Contender("dlt rest_api", True)
SINGER, FLOOR = Contender("singer-sdk, target-duckdb", True), Contender("floor")
EMPTY, READY = Contender("empty dlt load"), Contender("dlt, rows ready")


def install(environments: Path) -> None:
    """Make every contender's environment."""
    for name, packages in ENVIRONMENTS.items():
        python = environments / name
        uv = ["uv", "--quiet", "--no-config"]
        subprocess.run([*uv, "venv", "--python", sys.executable, str(python)], check=True)
        options = ["--exclude-newer", EXCLUDE_NEWER, "--compile-bytecode", "--python", str(python)]
        subprocess.run([*uv, "pip", "install", *options, *packages], check=True)


# what is measured ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """One history and how it is read.

    Attributes:
        title: What is told of it.
        world: Its name in `worlds`.
        contenders: Who loads it.
        kind: What is loaded beside jobs: `checkpoints`, `events`, or `everything` that there is.
        latency: Seconds that each answer is held back.
        before: `same`: loaded once already, so that nothing is new. `less`: all but one new job. None: a first load.
    """

    title: str
    world: str
    contenders: tuple[Contender, ...]
    kind: str = "checkpoints"
    latency: float = 0.0
    before: str | None = None

    def ready(self, folder: Path) -> Path:
        """The file that the warm-up of this trial makes. No other: it has the trial's server build all pages."""
        return folder / f"{self.world}-{self.kind}-{self.before}.duckdb"


ALL = (FTW, OPENAI, REST_API, SINGER, FLOOR, READY)
TRIALS = {
    "rows": Trial("100,000 checkpoints in 20 jobs", "hundred-thousand-rows", ALL),
    "latency": Trial("600 jobs of 3 checkpoints, 60 ms an answer", "many-small-jobs", ALL, latency=0.06),
    "everything": Trial(
        "everything of 600 jobs, 60 ms an answer", "everything", (FTW, READY), kind="everything", latency=0.06
    ),
    "nothing": Trial("10,000 finished jobs, nothing new", "ten-thousand-jobs", (FTW, EMPTY), before="same"),
    "one-thousand": Trial("one new checkpoint against a thousand", "thousand-rows", (FTW,), before="less"),
    "one-million": Trial("one new checkpoint against a million", "million-rows", (FTW,), before="less"),
    "million": Trial("a million checkpoints in 200 jobs", "million-rows", (FTW, FLOOR, READY)),
    "events": Trial("a million events of 500 jobs", "million-events", (FTW, FLOOR, READY), kind="events"),
}


@dataclass
class Figures:
    """What a contender took: seconds and peak megabytes of each run, requests of the last."""

    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    requests: int = 0


@contextmanager
def page_server(world: str, latency: float) -> Iterator[str]:
    """A server of a world; gives its address."""
    command = [sys.executable, str(HERE / "page_server.py"), world, "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def ask(url: str) -> str:
    """The text at an address."""
    with urllib.request.urlopen(url) as answer:
        return str(answer.read(), "utf-8")


def timed(command: str) -> tuple[float, float]:
    """Run a shell command: seconds, and the largest megabytes that one of its processes held."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"OPENAI_API_KEY": KEY, "RUNTIME__DLTHUB_TELEMETRY": "false"}
    began = time.perf_counter()
    process = subprocess.Popen(["bash", "-o", "pipefail", "-c", command], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"This failed ({process.returncode}): {command}")
    return seconds, usage.ru_maxrss / 1024


def measure(trial: Trial, environments: Path, folder: Path, runs: int) -> dict[str, Figures]:
    """Let the contenders of a trial take turns."""
    figures = {contender.name: Figures() for contender in trial.contenders}
    with page_server(trial.world, trial.latency) as address:
        base_url = f"{address}/v1"
        # A warm-up for the server and the disk's cache, and what was there before.
        loaded = {
            contender.name: folder / f"before-{contender.name.split()[0]}.duckdb" for contender in trial.contenders
        }
        loaded[FTW.name] = trial.ready(folder)
        for contender in trial.contenders if trial.before else (FTW,):
            timed(contender.command(base_url, loaded[contender.name], trial, environments))
        if trial.before == "less":
            ask(f"{address}/grow")
        ask(f"{address}/requests")
        # The times of short trials vary more.
        for run in range(3 * runs if trial.before else runs):
            for contender in trial.contenders:
                if contender.is_slow and run:
                    continue
                database = folder / f"{trial.world}-{contender.name.split()[0]}-{run}.duckdb"
                if trial.before:
                    shutil.copy(loaded[contender.name], database)
                seconds, megabytes = timed(contender.command(base_url, database, trial, environments))
                one = figures[contender.name]
                one.seconds.append(seconds)
                one.megabytes.append(megabytes)
                one.requests = int(ask(f"{address}/requests"))
                print(f"  {trial.title}: {contender.name} {seconds:.2f} s, {megabytes:.0f} MB", file=sys.stderr)
                shutil.rmtree(f"{database}.pipelines", ignore_errors=True)
                database.unlink(missing_ok=True)
    return figures


# what comes of it ----------------------------------------------------------------------------------------------------

Results = dict[str, dict[str, Figures]]
"""By trial and contender."""


def median(results: Results, trial: str, contender: Contender) -> float:
    """Median seconds."""
    return statistics.median(results[trial][contender.name].seconds)


def least_work(results: Results, trial: str) -> float:
    """The seconds of the floor and of dlt with rows that are ready: what is possible where a host answers at once."""
    return median(results, trial, FLOOR) + median(results, trial, READY)


def least_wait(results: Results, trial: str) -> float:
    """The seconds that the answers are held back, and those of dlt with rows that are ready: a slow host's bound."""
    requests = results[trial][FTW.name].requests
    return requests * TRIALS[trial].latency / CONCURRENCY + median(results, trial, READY)


def peak(results: Results, trial: str, contender: Contender = FTW) -> float:
    """Median of the peak megabytes."""
    return statistics.median(results[trial][contender.name].megabytes)


def lines(results: Results) -> Iterator[str]:
    """The table, as text."""
    for name, figures in results.items():
        yield TRIALS[name].title
        ours = median(results, name, FTW)
        for contender, one in figures.items():
            seconds = statistics.median(one.seconds)
            yield (
                f"  {contender:<26} {seconds:8.2f} s {max(one.megabytes):7.0f} MB {one.requests:8,} requests"
                f"   ftw sync / it {ours / seconds:6.2f}   ({len(one.seconds)} runs)"
            )


def goals(results: Results) -> Iterator[tuple[str, float, float]]:
    """What was measured of each goal: its words, the figure, and the most that it may be."""
    if "rows" in results:
        ours = median(results, "rows", FTW)
        yield "100,000 rows: ftw sync / openai client in a loop", ours / median(results, "rows", OPENAI), 0.25
        yield "100,000 rows: ftw sync / dlt rest_api", ours / median(results, "rows", REST_API), 0.15
        yield "100,000 rows: ftw sync / (floor + dlt, rows ready)", ours / least_work(results, "rows"), 1.5
    if "latency" in results:
        ours = median(results, "latency", FTW)
        yield "600 jobs, 60 ms: ftw sync / openai client in a loop", ours / median(results, "latency", OPENAI), 0.12
        ratio = ours / least_wait(results, "latency")
        yield "600 jobs, 60 ms: ftw sync / (requests x latency / 16 + dlt, rows ready)", ratio, 1.5
    if "everything" in results:
        ratio = median(results, "everything", FTW) / least_wait(results, "everything")
        yield "everything of 600 jobs, 60 ms: ftw sync / (requests x latency / 16 + dlt, rows ready)", ratio, 1.2
    if "nothing" in results:
        yield "nothing new: requests", results["nothing"][FTW.name].requests, 1
        ours = median(results, "nothing", FTW)
        # A sync does all that an empty load does: it imports dlt, restores the state, loads a row, commits the state.
        yield "nothing new: ftw sync / empty dlt load", ours / median(results, "nothing", EMPTY), 1.2
    if "one-million" in results and "one-thousand" in results:
        ratio = median(results, "one-million", FTW) / median(results, "one-thousand", FTW)
        yield "one new row against a million / against a thousand", ratio, 1.3
    for name, most in (("million", 1.5), ("events", 2.0)):
        if name in results:
            ratio = median(results, name, FTW) / least_work(results, name)
            yield f"{TRIALS[name].title}: ftw sync / (floor + dlt, rows ready)", ratio, most
            yield f"{TRIALS[name].title}: peak memory, MB", peak(results, name), 350
    if "million" in results and "rows" in results:
        yield "peak memory: a million rows / 100,000", peak(results, "million") / peak(results, "rows"), 1.5
    if "million" in results:
        ratio = peak(results, "million") / peak(results, "million", READY)
        yield "peak memory of a million rows / that of dlt, rows ready", ratio, 1


def verdicts(results: Results) -> Iterator[str]:
    """The goals, as text."""
    for words, figure, most in goals(results):
        yield f"  {'met   ' if figure <= most else 'MISSED'} {figure:8.2f} (at most {most:g})  {words}"


def page(results: Results) -> str:
    """What stands between the marks in `docs/performance.md`."""
    head = "| history | loaded by | seconds | peak MB | requests | `ftw sync` takes of it |\n|---|---|--:|--:|--:|--:|"
    rows = [
        f"| {TRIALS[name].title if contender == FTW.name else ''} | {contender} | "
        f"{statistics.median(one.seconds):.2f} | {max(one.megabytes):,.0f} | {one.requests:,} | "
        f"{median(results, name, FTW) / statistics.median(one.seconds):.2f} |"
        for name, figures in results.items()
        for contender, one in figures.items()
    ]
    told = [f"| {words} | {figure:.2f} | {most:g} |" for words, figure, most in goals(results)]
    return "\n".join([head, *rows, "", "| goal | measured | at most |", "|---|--:|--:|", *told])


def picture(results: Results, file: Path) -> None:
    """How long each contender takes for the trials that all take part in."""
    import altair as alt  # noqa: PLC0415 - only a run that writes needs it

    values = [
        {"history": TRIALS[name].title, "contender": contender, "seconds": statistics.median(one.seconds)}
        for name in ("rows", "latency")
        for contender, one in results.get(name, {}).items()
    ]
    bars = alt.Chart(alt.InlineData(values=values)).encode(
        y=alt.Y("contender:N", sort="x", title=None),
        x=alt.X("seconds:Q", title="seconds", stack=None),
    )
    is_ours = alt.datum.contender == FTW.name
    drawn = bars.mark_bar().encode(color=alt.condition(is_ours, alt.value("#0f766e"), alt.value("#94a3b8")))
    told = bars.mark_text(align="left", dx=4).encode(text=alt.Text("seconds:Q", format=".1f"))
    head = alt.Header(labelAngle=0, labelAnchor="start", labelOrient="top", labelFontSize=12)
    row = alt.Row("history:N", title=None, header=head)
    chart = alt.layer(drawn, told).properties(width=420, height=150).facet(row=row)
    chart.resolve_scale(y="independent").configure(
        background="white", padding={"left": 50, "right": 30, "top": 10, "bottom": 10}
    ).save(str(file))


def write(results: Results) -> None:
    """Put the figures and the picture into the docs."""
    picture(results, PROJECT / "docs" / "images" / "performance.svg")
    document = PROJECT / "docs" / "performance.md"
    text = document.read_text(encoding="utf-8")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    document.write_text(f"{before}{MARKS[0]}\n\n{page(results)}\n\n{MARKS[1]}{after}", encoding="utf-8")


MARKS = ("<!-- figures -->", "<!-- end of figures -->")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--runs",
        type=int,
        default=5,
        help="how often each contender runs: slow ones once, short trials three times as often",
    )
    parser.add_argument("--only", action="append", choices=list(TRIALS), help="only this trial (repeatable)")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and its picture")
    options = parser.parse_args(arguments)
    results: Results = {}
    with tempfile.TemporaryDirectory() as folder:
        environments = Path(folder) / "environments"
        install(environments)
        for name in options.only or TRIALS:
            results[name] = measure(TRIALS[name], environments, Path(folder), options.runs)
    for line in (*lines(results), "", *verdicts(results)):
        print(line)
    if options.write:
        write(results)


if __name__ == "__main__":
    main()
