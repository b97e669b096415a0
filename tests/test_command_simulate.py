"""`ftw simulate`: starts, answers as its options say, and ends when asked."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
import requests

from command import Command, Running, is_told_well
from fine_tuning_simulator.profiles import PROFILES
from fine_tuning_warehouse.cli.simulate import simulate


@pytest.fixture
def ftw(tmp_path: Path) -> Command:
    """The command."""
    return Command(tmp_path)


@contextmanager
def simulator(ftw: Command, *options: str) -> Iterator[tuple[Running, str]]:
    """A running simulator and its base URL, as it prints it."""
    with ftw.start("simulate", "--port", "0", *options) as running:
        assert running.process.stderr is not None
        line = running.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\S*", line)
        assert found, line
        yield running, found[0]


def get(base_url: str, path: str = "/fine_tuning/jobs", key: str = "any", **query: Any) -> requests.Response:
    return requests.get(base_url + path, headers={"Authorization": f"Bearer {key}"}, params=query, timeout=10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_and_ends_when_asked(ftw: Command, number: int) -> None:
    with simulator(ftw, "--jobs", "5", "--speed", "0") as (running, base_url), requests.Session() as session:
        session.headers["Authorization"] = "Bearer any"
        listing = session.get(f"{base_url}/fine_tuning/jobs", timeout=10)  # and the connection stays open
        assert listing.status_code == 200
        assert len(listing.json()["data"]) == 5
        assert listing.json()["has_more"] is False
        assert requests.get(f"{base_url}/fine_tuning/jobs", timeout=10).status_code == 401
        time.sleep(1.1)
        assert get(base_url).headers["date"] == listing.headers["date"]
        began = time.monotonic()
        running.signal(number)
        ended = running.end()
        assert time.monotonic() - began < 2
        assert ended.code in (0, 128 + number)
        assert "Traceback" not in ended.err
        assert ended.out == ""


@pytest.mark.thorough
def test_seed_profile_and_speed_decide_what_it_shows(ftw: Command) -> None:
    def ids(base_url: str) -> list[str]:
        return [job["id"] for job in get(base_url, limit=100).json()["data"]]

    with (
        simulator(ftw, "--seed", "1", "--speed", "0") as (_, first),
        simulator(ftw, "--seed", "1", "--speed", "0") as (_, same),
        simulator(ftw, "--seed", "2", "--speed", "100000") as (_, other),
        simulator(ftw, "--profile", "azure") as (_, azure),
        simulator(ftw, "--profile", "nebius", "--jobs", "3") as (_, nebius),
    ):
        assert ids(first) == ids(same)
        assert len(ids(first)) == 24
        early = ids(other)
        assert not set(early) & set(ids(first))
        time.sleep(0.5)
        assert len(ids(other)) > len(early)  # half a day has passed there
        assert azure.endswith("/openai/v1")
        answer = requests.get(f"{azure}/fine_tuning/jobs", headers={"api-key": "any"}, timeout=10)
        assert answer.status_code == 200
        assert len(ids(nebius)) == 3
        synced = ftw("sync", "--strict", "--base-url", nebius, env={"OPENAI_API_KEY": "any"})
        assert synced.code == 0, synced.err


def test_a_port_that_is_taken_is_exit_1(ftw: Command) -> None:
    with simulator(ftw) as (_, base_url):
        port = base_url.split(":")[2].split("/")[0]
        ended = ftw("simulate", "--port", port)
    assert ended.code == 1
    assert is_told_well(ended, port, "--port")


def test_every_profile_can_be_chosen() -> None:
    """The command says them itself, so that `--help` need not import the simulator."""
    (choice,) = [option.type for option in simulate.params if option.name == "profile"]
    assert isinstance(choice, click.Choice)
    assert tuple(choice.choices) == tuple(PROFILES)


@pytest.mark.parametrize("wrong", ["--profile other", "--port 70000", "--jobs -1", "--speed -1", "--seed x"])
def test_wrong_usage_is_exit_2(ftw: Command, wrong: str) -> None:
    ended = ftw("simulate", *wrong.split())
    assert ended.code == 2
    assert is_told_well(ended, wrong.split(maxsplit=1)[0])
