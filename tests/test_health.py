"""The health file tells the accounts apart, for people, for programs and for Prometheus."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from command import Command
from fine_tuning_simulator import ScriptedWorld, Simulator
from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.sync.health import Health, HealthFile, as_metrics, check_health, read_health
from fine_tuning_warehouse.sync.summary import AccountResult, SyncResult

HOUR = 3600.0


def result(**errors: str | None) -> SyncResult:
    """A sync of the accounts of these names, each with its error."""
    accounts = [
        AccountResult(
            label, "done" if error is None else "failed", error, rows={"jobs": 2}, jobs={"seen": 5, "open": 1}
        )
        for label, error in errors.items()
    ]
    failures = {label: CommandError(error) for label, error in errors.items() if error is not None}
    return SyncResult(None, accounts, failures=failures)


def aged(file: Path, **hours: float) -> None:
    """Make the last success of accounts older."""
    found = json.loads(file.read_text())
    for label, age in hours.items():
        time = datetime.now(timezone.utc) - timedelta(hours=age)
        found["accounts"][label]["last_success"] = time.isoformat()
    file.write_text(json.dumps(found))


def test_each_account_has_its_last_success_and_its_error(tmp_path: Path) -> None:
    file = tmp_path / "health.json"
    health = HealthFile(file, None)
    health.write(result(a=None, b="The key is refused.", c=None))
    accounts = read_health(file).accounts
    assert {label: one.last_success is not None for label, one in accounts.items()} == {
        "a": True,
        "b": False,
        "c": True,
    }
    assert accounts["b"].error == "The key is refused."
    assert accounts["a"].rows == {"jobs": 2}
    assert read_health(file).last_success is None
    aged(file, a=5, c=0.5)
    _, checked = check_health(file, HOUR)
    assert [(one.account, one.healthy) for one in checked] == [("a", False), ("b", False), ("c", True)]
    assert "The key is refused." in checked[1].sentence


def test_a_sync_of_one_account_keeps_what_is_known_of_others_and_one_of_all_drops_them(tmp_path: Path) -> None:
    file = tmp_path / "health.json"
    HealthFile(file, None).write(result(a=None))
    HealthFile(file, None).write(result(b=None))
    assert set(read_health(file).accounts) == {"a", "b"}
    HealthFile(file, None, is_whole=True).write(result(b=None, c=None))
    assert set(read_health(file).accounts) == {"b", "c"}


def test_a_failure_keeps_the_last_success_of_its_account(tmp_path: Path) -> None:
    file = tmp_path / "health.json"
    HealthFile(file, 900).write(result(a=None))
    before = read_health(file)
    HealthFile(file, 900).write(result(a="down"))
    after = read_health(file)
    assert (after.last_success, after.accounts["a"].last_success) == (before.last_success,) * 2
    assert after.accounts["a"].error == "down"
    assert after.last == before.last
    assert check_health(file, None)[1][0].healthy


def test_a_health_file_of_an_earlier_release_is_read_and_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "health.json"
    time = (datetime.now(timezone.utc) - timedelta(minutes=10)).isoformat(timespec="seconds")
    file.write_text(json.dumps({"last_success": time, "every_seconds": 900.0, "rows": {}, "skipped": 0}))
    limit, [one] = check_health(file, None)
    assert (limit, one.account, one.healthy) == (2700.0, None, True)
    HealthFile(file, 900).write(result(a="down"))
    assert json.loads(file.read_text())["last_success"] == time


def test_an_account_that_the_file_does_not_know_is_not_healthy(tmp_path: Path) -> None:
    file = tmp_path / "health.json"
    HealthFile(file, 900).write(result(a=None))
    assert [one.healthy for one in check_health(file, None, ["a", "b"])[1]] == [True, False]


def test_a_failure_leaves_the_open_jobs_that_are_known(tmp_path: Path) -> None:
    file, metrics = tmp_path / "health.json", tmp_path / "ftw.prom"
    health = HealthFile(file, None, metrics=metrics)
    health.write(result(a=None))
    failed = AccountResult("a", "failed", "The key is refused.")
    health.write(SyncResult(None, [failed], failures={"a": CommandError("The key is refused.")}))
    assert read_health(file).accounts["a"].jobs == {"seen": 5, "open": 1}
    assert 'fine_tuning_warehouse_jobs_open{account="a"} 1' in metrics.read_text().splitlines()


@pytest.mark.parametrize("content", ["[]", '{"last_success": null, "every_seconds": 1, "accounts": [1]}', '{"a": 1}'])
def test_what_is_not_a_health_file_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "health.json"
    file.write_text(content)
    with pytest.raises(CommandError, match="not a health file"):
        read_health(file)


def test_the_metrics_are_those_of_each_account_and_any_label_can_stand_there(tmp_path: Path) -> None:
    file, metrics = tmp_path / "health.json", tmp_path / "ftw.prom"
    odd: dict[str, Any] = {'a "b" \\c': None, "d": "down"}
    HealthFile(file, None, metrics=metrics).write(result(**odd))
    lines = metrics.read_text().splitlines()
    assert 'fine_tuning_warehouse_jobs_open{account="a \\"b\\" \\\\c"} 1' in lines
    assert 'fine_tuning_warehouse_last_attempt_succeeded{account="d"} 0' in lines
    assert 'fine_tuning_warehouse_rows_loaded{account="d",table="jobs"} 2' in lines
    assert not any(
        line.startswith('fine_tuning_warehouse_last_success_timestamp_seconds{account="d"}') for line in lines
    )
    values = [line.rpartition(" ")[2] for line in lines if not line.startswith("#")]
    assert all(float(value) >= 0 for value in values)
    assert as_metrics(Health()).count("\n") == 10


def test_metrics_without_a_health_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="metrics file"):
        HealthFile(tmp_path / "health.json", None, metrics=tmp_path)


@pytest.mark.thorough
def test_the_command_names_the_account_that_is_late(tmp_path: Path, host: Simulator, world: ScriptedWorld) -> None:
    ftw = Command(tmp_path, host.base_url)
    (ftw.folder / ".dlt").mkdir()
    lines = []
    for label in ("a", "b"):
        lines += [f"[sources.openai_fine_tuning.accounts.{label}]", f'openai_base_url = "{host.base_url}"']
        lines += [f'openai_api_key = "key-{label}"']
    (ftw.folder / ".dlt" / "secrets.toml").write_text("\n".join(lines))
    assert ftw("sync", "--metrics-file", "ftw.prom").code == 2
    env = {"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None}
    arguments = ("--health-file", "health.json", "--metrics-file", "ftw.prom")
    assert ftw("sync", "--quiet", *arguments, env=env).code == 0
    assert (ftw.folder / "ftw.prom").read_text().count('account="b"') > 3
    aged(ftw.folder / "health.json", b=5)
    assert ftw("health", "health.json", "--max-age", "1h", "--account", "a").code == 0
    assert ftw("health", "health.json", "--max-age", "1h", "--any").code == 0
    assert ftw("health", "health.json", "--max-age", "1h", "--account", "b", "--any").code == 1
    late = ftw("health", "health.json", "--max-age", "1h", "--output", "json")
    assert late.code == 1
    assert "account b" in late.err
    assert "account a" not in late.err
    assert late.json["status"] == "failed"
    assert {one["account"]: one["healthy"] for one in late.json["accounts"]} == {"a": True, "b": False}
    well = ftw("health", "health.json", "--max-age", "1d", "--output", "json")
    assert (well.code, well.json["status"], well.json["error"]) == (0, "done", None)
    assert list(well.json["accounts"][0]) == [
        *("account", "healthy", "age_seconds", "last_success", "last_attempt", "error", "rows", "jobs")
    ]
