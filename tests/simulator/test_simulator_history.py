"""A generated world is a function of the seed and the clock, and its runs look like training."""

import base64
import csv
import io
import json
from collections import Counter
from typing import Any

import pytest

from fine_tuning_simulator import Clock, GeneratedWorld
from fine_tuning_simulator.clock import DEFAULT_START

TERMINAL = {"succeeded", "failed", "cancelled"}


def everything(world: GeneratedWorld) -> str:
    jobs = [(job, world.checkpoints(job["id"]), world.events(job["id"])) for job in world.jobs()]
    files = [(file, repr(world.file_content(file["id"]))) for file in world.files()]
    return json.dumps([jobs, files])


def checkpoints(world: GeneratedWorld, job: dict[str, Any]) -> list[dict[str, Any]]:
    return list(world.checkpoints(job["id"]) or [])


def metric_events(world: GeneratedWorld, job: dict[str, Any]) -> dict[int, dict[str, Any]]:
    events = world.events(job["id"]) or []
    return {event["data"]["step"]: event["data"] for event in events if event["type"] == "metrics"}


def job_of(world: GeneratedWorld, job_id: str) -> dict[str, Any]:
    job = world.job(job_id)
    assert job is not None
    return job


def test_one_seed_makes_one_world(profile: str) -> None:
    one, two = (GeneratedWorld(seed=5, jobs=15, profile=profile) for _ in range(2))
    assert everything(one) == everything(two)


def test_another_seed_makes_another_world(profile: str) -> None:
    one, two = (GeneratedWorld(seed=seed, jobs=15, profile=profile) for seed in (5, 6))
    assert {job["id"] for job in one.jobs()}.isdisjoint(job["id"] for job in two.jobs())


@pytest.mark.thorough
def test_a_world_does_not_depend_on_when_it_was_looked_at(profile: str) -> None:
    watched, unwatched = (GeneratedWorld(jobs=15, profile=profile, clock=Clock()) for _ in range(2))
    for _ in range(10):
        watched.clock.advance(5_000)
        everything(watched)
    unwatched.clock.advance(50_000)
    assert everything(watched) == everything(unwatched)


@pytest.mark.parametrize("jobs", [0, 1, 2, 3, 24, 100])
def test_as_many_jobs_as_asked_for_exist_at_the_start(profile: str, jobs: int) -> None:
    assert len(GeneratedWorld(jobs=jobs, profile=profile).jobs()) == jobs


@pytest.mark.thorough
def test_ten_thousand_jobs_are_quick() -> None:
    world = GeneratedWorld(jobs=10_000)
    assert len({job["id"] for job in world.jobs()}) == 10_000


@pytest.mark.parametrize("seed", range(4))
def test_work_is_under_way_as_the_clock_starts(profile: str, seed: int) -> None:
    statuses = Counter(job["status"] for job in GeneratedWorld(seed=seed, profile=profile).jobs())
    assert statuses["running"] == 2
    assert statuses["queued"] == 1
    assert statuses["failed"] >= 1
    assert statuses["cancelled"] >= 1


def test_two_hours_move_jobs_on(world: GeneratedWorld, clock: Clock) -> None:
    before = {job["id"]: job["status"] for job in world.jobs()}
    clock.advance(7_200)
    after = {job["id"]: job["status"] for job in world.jobs()}
    changed = {(before[job_id], after[job_id]) for job_id in before if before[job_id] != after[job_id]}
    assert changed == {("queued", "running"), ("running", "succeeded")}


def test_new_jobs_come_about_every_two_and_a_half_hours(world: GeneratedWorld, clock: Clock) -> None:
    before = len(world.jobs())
    clock.advance(10 * 86_400)
    assert 90 <= len(world.jobs()) - before <= 100


def test_a_status_never_goes_back(world: GeneratedWorld, clock: Clock) -> None:
    ranks = {"validating_files": 0, "queued": 1, "running": 2, "succeeded": 3, "failed": 3, "cancelled": 3}
    seen: dict[str, int] = {}
    met = set()
    for _ in range(300):
        for job in world.jobs():
            met.add(job["status"])
            rank = ranks[job["status"]]
            assert rank >= seen.get(job["id"], 0)
            seen[job["id"]] = rank
        clock.advance(300)
    assert met == set(ranks)


def test_the_result_of_a_closed_job_never_changes(world: GeneratedWorld, clock: Clock) -> None:
    closed = [job["id"] for job in world.jobs() if job["status"] in TERMINAL]
    before = [(world.job(i), world.checkpoints(i), world.events(i)) for i in closed]
    clock.advance(5 * 86_400)
    assert [(world.job(i), world.checkpoints(i), world.events(i)) for i in closed] == before


def test_a_job_that_ends_later_brings_older_checkpoints() -> None:
    world = GeneratedWorld()
    older, newer = (job["id"] for job in reversed(world.jobs()) if job["status"] == "running")
    world.clock.advance(4_000)
    assert not world.checkpoints(older)
    newest_seen = max(c["created_at"] for c in world.checkpoints(newer) or [])
    world.clock.advance(3_000)
    assert min(c["created_at"] for c in world.checkpoints(older) or []) < newest_seen


def test_checkpoints_stay_out_of_sight_until_the_job_has_ended() -> None:
    world = GeneratedWorld()
    job_id = next(job["id"] for job in world.jobs() if job["status"] == "running")
    while job_of(world, job_id)["status"] == "running":
        assert world.checkpoints(job_id) == []
        world.clock.advance(1)
    assert world.checkpoints(job_id) == []  # the job has ended, and they still take two seconds
    world.clock.advance(2)
    shown = world.checkpoints(job_id) or []
    assert len(shown) == 3
    assert all(c["created_at"] < job_of(world, job_id)["finished_at"] for c in shown)


def test_checkpoint_events_come_after_the_job_has_finished() -> None:
    world = GeneratedWorld()
    for job in world.jobs():
        created = [e for e in world.events(job["id"]) or [] if e["message"].startswith("Checkpoint created")]
        assert all(event["created_at"] == job["finished_at"] + 2 for event in created)
        assert len(created) == max(0, len(checkpoints(world, job)) - 1)


def test_hyperparameters_are_auto_until_the_job_has_succeeded() -> None:
    world = GeneratedWorld(jobs=60)
    for job in world.jobs():
        automatic = "auto" in job["hyperparameters"].values()
        assert automatic == (job["status"] != "succeeded")


def test_only_failed_jobs_have_an_error(world: GeneratedWorld, profile: str) -> None:
    for job in world.jobs():
        if job["status"] == "failed":
            assert job["error"]["code"]
            assert job["error"]["message"]
        else:
            assert job["error"] == ({} if profile == "openai" else None)


def test_events_tell_the_same_metrics_as_checkpoints(world: GeneratedWorld) -> None:
    compared = 0
    for job in world.jobs():
        events = metric_events(world, job)
        for checkpoint in checkpoints(world, job):
            event = events[checkpoint["step_number"]]
            for name, value in checkpoint["metrics"].items():
                if value is not None and name in event:
                    assert value == event[name]
                    compared += 1
    assert compared > 50


def test_the_result_file_tells_the_same_metrics_as_the_events() -> None:
    world = GeneratedWorld(jobs=40)
    compared = 0
    for job in world.jobs():
        for file_id in job["result_files"]:
            content = world.file_content(file_id)
            assert content is not None
            text = content if content.startswith(b"step,") else base64.b64decode(content, validate=True)
            rows = list(csv.DictReader(io.StringIO(text.decode())))
            events = metric_events(world, job)
            assert [int(row["step"]) for row in rows] == list(range(1, events[1]["total_steps"] + 1))
            for row in rows:
                for column, cell in row.items():
                    metric = "train_mean_token_accuracy" if column == "train_accuracy" else column
                    expected = events[int(row["step"])].get(metric)
                    assert cell == "" if expected is None else float(cell) == round(expected, 5)
                    compared += 1
    assert compared > 5_000


def test_losses_fall_and_some_runs_overfit() -> None:
    world = GeneratedWorld(jobs=60)
    overfitted = 0
    for job in world.jobs():
        curve = metric_events(world, job)
        if job["status"] != "succeeded" or "train_loss" not in curve[1]:
            continue
        last = max(curve)
        assert curve[last]["train_loss"] < curve[1]["train_loss"] / 2
        whole = [data["full_valid_loss"] for _, data in sorted(curve.items()) if "full_valid_loss" in data]
        overfitted += bool(whole) and whole[-1] > 1.2 * min(whole)
    assert overfitted >= 5


def test_reinforcement_runs_carry_rewards_and_lists_of_graders() -> None:
    world = GeneratedWorld(jobs=40)
    runs = [j for j in world.jobs() if j.get("method", {}).get("type") == "reinforcement" and j["result_files"]]
    assert runs
    for job in runs:
        assert all("train_mean_reward" in c["metrics"] for c in checkpoints(world, job))
        assert not any("train_loss" in c["metrics"] for c in checkpoints(world, job))
        assert all(data["scores"]["graders"] for data in metric_events(world, job).values())


def test_training_files_are_jsonl(world: GeneratedWorld) -> None:
    for job in world.jobs():
        content = world.file_content(job["training_file"])
        assert content is not None
        assert all(isinstance(json.loads(line), dict) for line in content.splitlines())


def test_every_file_that_a_job_names_is_listed(world: GeneratedWorld) -> None:
    listed = {file["id"] for file in world.files()}
    for job in world.jobs():
        named = {job["training_file"], job["validation_file"], *job["result_files"]} - {None}
        assert named <= listed
        assert all(world.file(name) is not None for name in named)


def test_some_jobs_have_no_validation_file_and_then_no_validation_metrics(world: GeneratedWorld) -> None:
    without = [job for job in world.jobs() if job["validation_file"] is None]
    assert without
    for job in without:
        for data in metric_events(world, job).values():
            assert not any(name.startswith(("valid_", "full_valid_")) for name in data)


def test_some_jobs_are_created_within_one_second() -> None:
    times = Counter(job["created_at"] for job in GeneratedWorld(jobs=30).jobs())
    assert max(times.values()) == 2


def test_nothing_comes_from_the_future(world: GeneratedWorld) -> None:
    for job in world.jobs():
        assert job["created_at"] <= DEFAULT_START
        assert (job["finished_at"] or 0) <= DEFAULT_START
        for record in [*(world.checkpoints(job["id"]) or []), *(world.events(job["id"]) or [])]:
            assert job["created_at"] <= record["created_at"] <= DEFAULT_START
