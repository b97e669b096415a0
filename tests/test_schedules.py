"""What is shown for schedulers that are no Python, and the page about all of them: linted and run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from command import FTW, NOW, Command, wait_until
from fine_tuning_simulator import Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.sync.scheduled import sync_configured
from fine_tuning_warehouse.sync.summary import AccountResult, SyncResult
from test_readme import console_sessions

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["postgres"]

ROOT = Path(__file__).parent.parent
SCHEDULES = ROOT / "pipelines/schedules"
PAGE = (ROOT / "docs/schedules.md").read_text(encoding="utf-8")
WORKFLOW = SCHEDULES / "github-actions/fine-tuning-sync.yml"


@pytest.fixture
def ftw(tmp_path: Path, world: ScriptedWorld, host: Simulator) -> Command:
    """The command, with a key for a host that has one job."""
    world.add_job(id="ftjob-1", created_at=NOW - 100_000)
    return Command(tmp_path, host.base_url)


def tool(name: str) -> str:
    """A program of the dependency group `schedulers`."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"needs {name}: uv run --group schedulers pytest")
    return found


def is_well(*command: str | Path) -> bool:
    """Assert that a linter has nothing to say."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return True


def comparable(text: str) -> str:
    """What was printed, without what differs from run to run."""
    return re.sub(r"\d+", "N", text).strip()


def test_a_sync_that_fails_is_raised_to_its_scheduler(
    host: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-any")
    monkeypatch.setenv("OPENAI_BASE_URL", host.base_url)
    host.faults.append(Fault("status", times=None, status=401, message="Not yours."))
    with pytest.raises(CommandError, match=r"401.*Not yours"):
        sync_configured(database=str(tmp_path / "warehouse.duckdb"))
    assert not (tmp_path / "warehouse.duckdb").exists()


def test_of_several_accounts_a_scheduler_is_told_what_went_wrong_of_each() -> None:
    totals = SyncResult(
        accounts=[AccountResult("support"), AccountResult("research")], failures={"support": CommandError("No host.")}
    )
    failure = totals.failure_with_reasons
    assert (str(failure), str(totals.failure)) == (
        "1 of 2 accounts failed: support. Account support: No host.",
        "1 of 2 accounts failed: support.",
    )
    assert failure is not None
    assert (failure.exit_code, failure.is_lasting) == (1, False)


# the page -------------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_the_page_shows_what_its_commands_print(ftw: Command) -> None:
    sessions = console_sessions(PAGE)
    assert len(sessions) == 3
    for command, shown in sessions:
        ended = ftw(*shlex.split(command)[1:])
        assert (ended.code, ended.err) == (0, ""), command
        assert comparable(ended.out) == comparable(shown), command


def test_the_line_that_the_page_shows_is_that_of_one_that_stays(world: ScriptedWorld, ftw: Command) -> None:
    world.add_job(id="ftjob-2", created_at=NOW - 100_000)
    ((shown,),) = [block.splitlines() for block in re.findall(r"```log\n(.*?)```", PAGE, flags=re.DOTALL)]
    with ftw.start("sync", "--every", "1h", "--health-file", "health.json") as running:
        wait_until((ftw.folder / "health.json").exists)
        running.signal(signal.SIGTERM)
        assert comparable(running.end().out) == comparable(shown)


@pytest.mark.thorough
def test_the_python_of_the_page_runs_and_tells_a_failure_in_a_line(ftw: Command) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)

    def run(**env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "default", "-c", code],
            cwd=ftw.folder,
            env={**ftw.env, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    ran = run()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "Jobs new or changed: 1\n", "")
    assert ftw.rows("SELECT count(*) FROM sync_history") == [(1,)]
    failed = run(OPENAI_API_KEY="")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("The sync failed: There is no API key")


def test_everything_that_is_shown_is_named_on_the_page() -> None:
    for file in SCHEDULES.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert f"](../{file.relative_to(ROOT).as_posix()})" in PAGE, file


# cron and systemd -----------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_the_commands_of_cron_run_and_print_nothing(ftw: Command) -> None:
    *_, sync, maintain = (SCHEDULES / "cron/fine-tuning-sync").read_text().splitlines()
    assert f"{sync}\n{maintain}\n" in PAGE
    (ftw.folder / ".dlt").mkdir()
    ((secrets),) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    (ftw.folder / ".dlt/secrets.toml").write_text(secrets)
    env = {name: value for name, value in ftw.env.items() if name != "OPENAI_API_KEY"}
    for line in (sync, maintain):
        *times, user, command = line.split(maxsplit=6)
        assert (len(times), user) == (5, "fine-tuning")
        here = command.replace("/srv/fine-tuning/.venv/bin/ftw", str(FTW)).replace("/srv/fine-tuning", str(ftw.folder))
        ran = subprocess.run(["/bin/sh", "-c", here], env=env, capture_output=True, text=True, check=False, cwd="/")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert ftw.rows("SELECT id FROM jobs") == [("ftjob-1",)]


@pytest.mark.thorough
def test_systemd_takes_the_units_and_finds_them_tight(ftw: Command) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    units = []
    for unit in (SCHEDULES / "systemd").iterdir():
        units.append(ftw.folder / unit.name)
        units[-1].write_text(unit.read_text().replace("/opt/ftw/bin/ftw", str(FTW)))
    assert is_well(analyze, "verify", "--man=no", *units)
    service = ftw.folder / "fine-tuning-sync.service"
    assert is_well(analyze, "security", "--offline=true", "--threshold=20", service)  # of 100, where less is tighter
    (command,) = re.findall(r"^ExecStart=(.*)", service.read_text(), re.MULTILINE)
    assert ftw(*shlex.split(command)[1:]).code == 0
    assert ftw("health", "health.json", "--max-age", "1h").code == 0


# a container ----------------------------------------------------------------------------------------------------------


@pytest.mark.scheduler
def test_the_dockerfile_is_well_formed() -> None:
    assert is_well(tool("hadolint"), "--failure-threshold", "style", ROOT / "Dockerfile")


@pytest.mark.thorough
def test_what_a_container_starts_runs_and_its_health_check_says_so(ftw: Command) -> None:
    last = (ROOT / "Dockerfile").read_text().split("\nFROM ")[-1]
    assert re.search(r"^USER 65534:65534$", last, re.MULTILINE)

    def words(instruction: str) -> list[str]:
        (found,) = re.findall(rf"{instruction} (\[.*\])", last)
        return [word.replace("/tmp/", f"{ftw.temporary}/") for word in json.loads(found)]

    entry, check = words("ENTRYPOINT"), words("HEALTHCHECK .* CMD")
    assert (entry, check[0]) == (["ftw"], "ftw")
    with ftw.start(*words("\nCMD")) as running:
        assert ftw(*check[1:]).code == 1
        wait_until(lambda: ftw(*check[1:]).code == 0)
        running.signal(signal.SIGTERM)
        running.end(5)
    assert ftw.rows("SELECT id FROM jobs") == [("ftjob-1",)]


# GitHub Actions -------------------------------------------------------------------------------------------------------


@pytest.mark.scheduler
@pytest.mark.parametrize("workflow", [WORKFLOW, *(ROOT / ".github/workflows").iterdir()], ids=lambda path: path.name)
def test_the_workflows_are_well_formed_and_safe(workflow: Path) -> None:
    assert is_well(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", workflow)
    assert is_well(tool("zizmor"), "--quiet", "--offline", "--persona", "pedantic", workflow)


def test_the_workflow_syncs_into_postgresql(ftw: Command, postgres: Postgres) -> None:
    workflow: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())
    (step,) = [step for step in workflow["jobs"]["sync"]["steps"] if step.get("name") == "Sync"]
    secrets = {"OPENAI_API_KEY": "any", "WAREHOUSE_CREDENTIALS": postgres.credentials}
    for name, value in step["env"].items():
        ftw.env[name] = secrets[re.fullmatch(r"\$\{\{ secrets\.(\w+) \}\}", value)[1]]  # type: ignore[index]
    ended = ftw(*shlex.split(step["run"])[1:])
    assert ended.code == 0, ended.all
    assert postgres.rows("SELECT id FROM jobs") == [("ftjob-1",)]
