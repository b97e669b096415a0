"""A scripted world shows what a test puts into it, verbatim and at once."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import requests

from fine_tuning_simulator import ScriptedWorld, Simulator

Get = Callable[..., requests.Response]
JOBS = "/fine_tuning/jobs"


@pytest.fixture
def script() -> ScriptedWorld:
    return ScriptedWorld()


@pytest.fixture
def simulator(script: ScriptedWorld) -> Iterator[Simulator]:
    with Simulator(script) as running:
        yield running


def ids(records: Any) -> list[Any]:
    return [record["id"] for record in records]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("newest_first", ["c", "tie-2", "tie-1", "a"]),
        ("oldest_first", ["a", "tie-1", "tie-2", "c"]),
        ("as_added", ["c", "tie-1", "a", "tie-2"]),
    ],
)
def test_the_order_is_as_asked(order: Any, expected: list[str]) -> None:
    world = ScriptedWorld(order=order)
    for name, created in (("c", 30), ("tie-1", 20), ("a", 10), ("tie-2", 20)):
        world.add_job(id=name, created_at=created)
    assert ids(world.jobs()) == expected


def test_a_record_without_a_time_stays_beside_the_one_added_before_it(script: ScriptedWorld) -> None:
    script.add_job(id="a", created_at=10)
    for time_of_no_use in (None, "soon", math.nan, True):
        script.add_raw_job({"id": time_of_no_use, "created_at": time_of_no_use})
    script.add_job(id="b", created_at=20)
    assert [record["id"] for record in script.jobs()][0::5] == ["b", "a"]


def test_changes_show_in_the_next_answer(simulator: Simulator, script: ScriptedWorld, get: Get) -> None:
    script.add_job(id="ftjob-1", status="running")
    assert get(simulator, f"{JOBS}/ftjob-1").json()["status"] == "running"
    script.update_job("ftjob-1", status="succeeded", finished_at=1_780_000_000)
    assert get(simulator, JOBS).json()["data"][0]["status"] == "succeeded"
    script.remove_job("ftjob-1")
    assert get(simulator, JOBS).json()["data"] == []
    assert get(simulator, f"{JOBS}/ftjob-1").status_code == 404


def test_checkpoints_come_and_go(simulator: Simulator, script: ScriptedWorld, get: Get) -> None:
    script.add_job(id="ftjob-1")
    script.add_checkpoint("ftjob-1", id="one", created_at=1)
    script.add_checkpoint("ftjob-1", id="two", created_at=2, metrics={"train_loss": 0.25}, extra=[1])
    page = get(simulator, f"{JOBS}/ftjob-1/checkpoints").json()
    assert ids(page["data"]) == ["two", "one"]
    assert page["data"][0]["metrics"] == {"train_loss": 0.25}
    assert (page["first_id"], page["last_id"]) == ("two", "one")
    script.update_checkpoint("one", step_number=77)
    script.remove_checkpoint("two")
    page = get(simulator, f"{JOBS}/ftjob-1/checkpoints").json()
    assert [c["step_number"] for c in page["data"]] == [77]


def test_what_is_not_there_cannot_be_changed(script: ScriptedWorld) -> None:
    for change in (
        *(script.update_job, script.remove_job),
        *(script.update_checkpoint, script.remove_checkpoint),
        script.remove_file,
    ):
        with pytest.raises(KeyError):
            change("nothing")


@pytest.mark.parametrize("kind", ["checkpoints", "events"])
def test_a_hidden_child_is_404_while_its_job_stays(
    simulator: Simulator, script: ScriptedWorld, get: Get, kind: Any
) -> None:
    script.add_job(id="ftjob-1")
    script.hide("ftjob-1", kind)
    assert get(simulator, f"{JOBS}/ftjob-1/{kind}").status_code == 404
    assert get(simulator, f"{JOBS}/ftjob-1").status_code == 200
    script.show("ftjob-1", kind)
    assert get(simulator, f"{JOBS}/ftjob-1/{kind}").status_code == 200


def test_anything_goes_over_the_wire(simulator: Simulator, script: ScriptedWorld, get: Get) -> None:
    script.add_job(id="ftjob-1")
    odd: list[Any] = [None, 7, "text", [], {}, {"id": None}, {"x": "\ud800 \x00 é"}, {"n": 10**30}]
    for record in odd:
        script.add_raw_job(record)
        script.add_raw_checkpoint("ftjob-1", record)
        script.add_raw_event("ftjob-1", record)
    for path in (JOBS, f"{JOBS}/ftjob-1/checkpoints", f"{JOBS}/ftjob-1/events"):
        answer = get(simulator, path, params={"limit": "50"})
        assert [r for r in answer.json()["data"] if not (isinstance(r, dict) and "status" in r)] == odd[::-1]
        assert answer.content.isascii()


def test_not_a_number_goes_over_the_wire(simulator: Simulator, script: ScriptedWorld, get: Get) -> None:
    script.add_raw_job({"id": "x", "loss": math.nan, "peak": math.inf})
    content = get(simulator, JOBS).content
    assert b'"loss":NaN,"peak":Infinity' in content
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(content)


def test_an_after_that_stands_there_twice_moves_on(simulator: Simulator, script: ScriptedWorld, get: Get) -> None:
    for name in ("a", "double", "double", "b"):
        script.add_job(id=name, created_at=1)
    assert ids(get(simulator, JOBS, params={"after": "double"}).json()["data"]) == ["a"]


def test_pages_are_no_larger_than_the_host_allows(simulator: Simulator, script: ScriptedWorld, get: Get) -> None:
    for _ in range(5):
        script.add_job()
    script.page_limit = 2
    page = get(simulator, JOBS, params={"limit": "100"}).json()
    assert len(page["data"]) == 2
    assert page["has_more"] is True


@pytest.mark.parametrize(("child", "usual"), [("", 20), ("/ftjob-1/checkpoints", 10), ("/ftjob-1/events", 20)])
def test_pages_have_the_usual_size(
    simulator: Simulator, script: ScriptedWorld, get: Get, child: str, usual: int
) -> None:
    script.add_job(id="ftjob-1")
    for _ in range(30):
        script.add_job()
        script.add_checkpoint("ftjob-1")
        script.add_event("ftjob-1")
    assert len(get(simulator, JOBS + child).json()["data"]) == usual


def test_jobs_can_be_asked_for_by_metadata(simulator: Simulator, script: ScriptedWorld, get: Get) -> None:
    script.add_job(id="a", metadata={"team": "x", "n": "1"})
    script.add_job(id="b", metadata={"team": "y"})
    script.add_job(id="c")
    assert ids(get(simulator, JOBS, params={"metadata[team]": "x"}).json()["data"]) == ["a"]
    assert ids(get(simulator, JOBS, params={"metadata": "null"}).json()["data"]) == ["c"]


def test_files_are_sent_as_given(simulator: Simulator, script: ScriptedWorld, get: Get) -> None:
    script.add_file("file-1", b"\x00\xffabc", purpose="fine-tune", filename="x.bin")
    assert get(simulator, "/files/file-1/content").content == b"\x00\xffabc"
    assert get(simulator, "/files/file-1").json()["bytes"] == 5
    assert ids(get(simulator, "/files", params={"purpose": "fine-tune-results"}).json()["data"]) == []
    script.remove_file("file-1")
    assert get(simulator, "/files/file-1").status_code == 404


def test_a_page_of_ten_thousand_jobs_is_quick(simulator: Simulator, script: ScriptedWorld, get: Get) -> None:
    for number in range(10_000):
        script.add_job(id=f"ftjob-{number}", created_at=1_700_000_000 + number)
    get(simulator, JOBS)
    began = time.monotonic()
    for number in range(9_900, 0, -1_000):
        assert len(get(simulator, JOBS, params={"limit": "100", "after": f"ftjob-{number}"}).json()["data"]) == 100
    assert time.monotonic() - began < 2
