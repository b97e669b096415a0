"""A host that refuses every file is asked for a few of them, and the archive says why the others are missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from command import Command
from fine_tuning_simulator import FILES_SCOPE, Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.archive import Missing, open_store
from fine_tuning_warehouse.archive.fetch import FEW, MANY, Fetcher
from fine_tuning_warehouse.archive.manifest import Entry
from fine_tuning_warehouse.archive.originals import Original
from histories import add_history
from openai_fine_tuning.api.client import FineTuningApi

NUMBER = 20

FREE_ACCOUNT = "downloading of fine-tune training files is disabled for free accounts"


class Fetching:
    """Fetches result files and training files of one host into a folder."""

    def __init__(self, folder: Path, host: Simulator) -> None:
        self.host = host
        self.store = open_store(str(folder))
        folder.mkdir()

    def __call__(self, *, concurrency: int = 16) -> dict[str, Entry | Missing]:
        """Return what became of each file, by its id."""
        originals = []
        for number in range(NUMBER):
            kind: Any = "validation_file" if number % 5 == 4 else "training_file"
            name = f"training_files/train-{number:02}.jsonl"
            originals.append(Original("default", f"train-{number:02}", kind, ("job",), name, filename="train.jsonl"))
            name = f"result_files/result-{number:02}.csv"
            originals.append(Original("default", f"result-{number:02}", "result_file", ("job",), name))
        self.host.requests.clear()
        with closing(FineTuningApi(self.host.base_url, "key", concurrency=concurrency)) as api:
            return {one.id: became for one, became in Fetcher(api, self.store, lambda _: None).fetch(originals)}

    def requested(self, kind: str) -> int:
        """Return how many contents of files were requested."""
        return sum(f"/files/{kind}" in one.path for one in self.host.requests)


@pytest.fixture
def fetching(tmp_path: Path, host: Simulator, world: ScriptedWorld) -> Iterator[Fetching]:
    for number in range(NUMBER):
        world.add_file(f"train-{number:02}", b"{}\n" * 9, purpose="fine-tune")
        world.add_file(f"result-{number:02}", b"step\n1\n")
    fetching = Fetching(tmp_path / "kept", host)
    yield fetching
    fetching.store.clear_drafts()


def reasons(became: dict[str, Entry | Missing]) -> dict[str, str]:
    return {file_id: one.reason for file_id, one in became.items() if isinstance(one, Missing)}


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (400, {"message": FREE_ACCOUNT}, f"400: {FREE_ACCOUNT}"),
        (402, {"message": "Pay first."}, "402: Pay first."),
        (403, {"message": "Not allowed.", "code": "no_access"}, "403 (no_access): Not allowed."),
        (403, {"body": b""}, "the host answered 403"),
        (404, {"body": {"detail": "Not Found"}}, "404: Not Found"),
        (405, {"message": "Method not allowed"}, "405: Method not allowed"),
    ],
)
@pytest.mark.parametrize("refused", ["train-", "result-"])
def test_a_refusal_of_all_files_of_a_kind_costs_a_few_requests(
    fetching: Fetching, status: int, answer: dict[str, Any], reason: str, refused: str
) -> None:
    fault = Fault("status", path=f"/{refused}.*/content$", times=None, status=status, **answer)
    fetching.host.faults.append(fault)
    missing = reasons(fetching())
    assert fetching.requested(refused) == FEW
    assert len(fetching.host.requests) == FEW + NUMBER, "the other kind comes all the same"
    assert missing == {f"{refused}{number:02}": reason for number in range(NUMBER)}
    fetching.host.faults.clear()
    assert reasons(fetching()) == {}, "what is allowed later comes with the next run"


def test_a_missing_scope_holds_for_files_of_every_kind(tmp_path: Path, world: ScriptedWorld, clock: Clock) -> None:
    with Simulator(world, clock=clock, api_keys={"key": frozenset({FILES_SCOPE})}) as host:
        fetching = Fetching(tmp_path / "kept", host)
        missing = reasons(fetching())
        assert len(missing) == 2 * NUMBER
        assert "Missing scopes: api.files.read" in missing["train-00"]
        assert len(set(missing.values())) == 1
        assert len(host.requests) == 1


def test_request_ids_in_a_refusal_do_not_make_it_another(fetching: Fetching) -> None:
    for number in range(NUMBER):
        words = f"Disabled (request req_{number:x}abc, {number:08}-1234-1234-1234-123456789abc)"
        path = f"/train-{number:02}/content$"
        fetching.host.faults.append(Fault("status", path=path, times=None, status=400, message=words))
    fetching()
    assert fetching.requested("train-") == FEW


@pytest.mark.parametrize(
    ("status", "words"), [(400, "File train-{number:02} was deleted."), (404, "No such file."), (410, "Expired.")]
)
def test_a_refusal_that_is_about_one_file_says_nothing_of_the_others(
    fetching: Fetching, status: int, words: str
) -> None:
    for number in range(NUMBER - 1):
        message, path = words.format(number=number), f"/train-{number:02}/content$"
        fetching.host.faults.append(Fault("status", path=path, times=None, status=status, message=message))
    missing = reasons(fetching())
    assert fetching.requested("train-") == NUMBER
    assert set(missing) == {f"train-{number:02}" for number in range(NUMBER - 1)}


def test_the_same_refusal_of_some_files_does_not_keep_the_others_away(fetching: Fetching) -> None:
    refused = Fault("status", path="/train-0[12]/content$", times=None, status=403, message="Not allowed.")
    fetching.host.faults.append(refused)
    assert set(reasons(fetching())) == {"train-01", "train-02"}


def test_a_host_that_stops_to_serve_files_is_not_asked_for_every_one(fetching: Fetching) -> None:
    refused = Fault("status", path="/train-(?!00).*/content$", times=None, status=403, message="No more.")
    fetching.host.faults.append(refused)
    fetching(concurrency=1)
    assert FEW <= fetching.requested("train-") <= MANY + FEW


@pytest.mark.thorough
def test_the_command_says_the_reason_once(tmp_path: Path, host: Simulator, world: ScriptedWorld) -> None:
    add_history(world, range(8), children=1)
    for number in range(8):
        world.add_file(f"train-{number}", b"{}\n", purpose="fine-tune")
        world.add_file(f"valid-{number}", b"{}\n", purpose="fine-tune")
        world.update_job(f"ftjob-{number:03}", training_file=f"train-{number}", validation_file=f"valid-{number}")
    host.faults.append(Fault("status", path="/(train|valid)-.*/content$", times=None, status=400, message=FREE_ACCOUNT))
    ftw = Command(tmp_path, host.base_url)
    ended = ftw("archive", "kept", "--training-files")
    assert ended.code == 0, ended.err
    assert sum("/content" in one.path and "file-" not in one.path for one in host.requests) == FEW
    lines = [line for line in ended.err.splitlines() if line.startswith("Missing ")]
    assert lines == [f"Missing 16 files, such as train-0 of ftjob-000: 400: {FREE_ACCOUNT}"]
    manifest = json.loads((ftw.folder / "kept/manifest.json").read_text())
    assert {one["reason"] for one in manifest["missing"]} == {f"400: {FREE_ACCOUNT}"}
    assert ftw("archive", "--check", "kept", "--strict").code == 3
