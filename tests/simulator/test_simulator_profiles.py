"""Each host has its own ways."""

from collections.abc import Callable
from typing import Any

import pytest
import requests

from fine_tuning_simulator import Clock, GeneratedWorld, Simulator

Get = Callable[..., requests.Response]


def finished(profile: str) -> tuple[GeneratedWorld, list[dict[str, Any]]]:
    world = GeneratedWorld(jobs=40, profile=profile)
    return world, [job for job in world.jobs() if job["status"] == "succeeded"]


def test_openai_and_azure_list_newest_first_and_nebius_oldest_first(world: GeneratedWorld, profile: str) -> None:
    def ordered(records: Any) -> bool:
        times = [record["created_at"] for record in records]
        return times == sorted(times, reverse=profile != "nebius")

    assert ordered(world.jobs())
    for job in world.jobs():
        assert ordered(world.checkpoints(job["id"]))
        assert ordered(world.events(job["id"]))


def test_the_base_path(simulator: Simulator, profile: str) -> None:
    assert simulator.base_url.endswith("/openai/v1" if profile == "azure" else "/v1")


def test_only_openai_names_the_ends_of_a_listing(simulator: Simulator, world: GeneratedWorld, get: Get) -> None:
    ids = {"first_id", "last_id"} if simulator.profile.name == "openai" else set()
    envelope = {"object", "data", "has_more"}
    job = next(job["id"] for job in world.jobs() if world.checkpoints(job["id"]))
    assert get(simulator, "/fine_tuning/jobs").json().keys() == envelope
    assert get(simulator, f"/fine_tuning/jobs/{job}/events").json().keys() == envelope
    assert get(simulator, f"/fine_tuning/jobs/{job}/checkpoints").json().keys() == envelope | ids
    assert get(simulator, "/files").json().keys() == envelope | ids


def test_openai_keeps_three_checkpoints_without_full_validation_losses() -> None:
    world, jobs = finished("openai")
    for job in jobs:
        shown = world.checkpoints(job["id"]) or []
        assert len(shown) == 3
        for checkpoint in shown:
            assert "full_valid_loss" not in checkpoint["metrics"]
            assert None not in checkpoint["metrics"].values()


def test_the_final_checkpoint_of_openai_and_azure_is_the_fine_tuned_model() -> None:
    for profile in ("openai", "azure"):
        world, jobs = finished(profile)
        for job in jobs:
            final, *others = world.checkpoints(job["id"]) or []
            assert final["fine_tuned_model_checkpoint"] == job["fine_tuned_model"]
            for other in others:
                assert other["fine_tuned_model_checkpoint"].endswith(f":ckpt-step-{other['step_number']}")


def test_azure_measures_full_validation_at_each_checkpoint() -> None:
    world, jobs = finished("azure")
    metrics = [c["metrics"] for job in jobs if job["validation_file"] for c in world.checkpoints(job["id"]) or []]
    assert metrics
    for one in metrics:
        assert len(one) == 7
        assert all(isinstance(value, float) for value in one.values())


def test_azure_sends_null_where_openai_sends_something_empty() -> None:
    world, jobs = finished("azure")
    for job in jobs:
        assert {job[name] for name in ("error", "integrations", "metadata", "method", "organization_id")} == {None}
        assert f".ft-{job['id'].removeprefix('ftjob-')}" in job["fine_tuned_model"]
        messages = [event for event in world.events(job["id"]) or [] if event["type"] == "message"]
        assert {event["data"] for event in messages} == {None}


def test_nebius_keeps_every_epoch_and_shows_it_as_it_is_trained() -> None:
    world = GeneratedWorld(profile="nebius")
    job_id = next(job["id"] for job in world.jobs() if job["status"] == "running")
    counts = set()
    for _ in range(40):
        counts.add(len(world.checkpoints(job_id) or []))
        world.clock.advance(600)
    job = world.job(job_id)
    assert job is not None
    assert job["status"] == "succeeded"
    assert max(counts) == job["hyperparameters"]["n_epochs"]
    assert len(counts) >= 3


def test_nebius_has_fields_of_its_own() -> None:
    world, jobs = finished("nebius")
    for job in jobs:
        assert job["fine_tuned_model"] is None
        assert job["organization_id"] == ""
        assert job["trained_steps"] == job["total_steps"]
        assert job["hyperparameters"]["lora"] is True
        for checkpoint in world.checkpoints(job["id"]) or []:
            assert checkpoint["metrics"]["train_mean_token_accuracy"] is None
            assert all(world.file_content(file_id) for file_id in checkpoint["result_files"])


def test_result_files_are_base64_on_newer_openai_jobs_only() -> None:
    plain: dict[str, list[bool]] = {}
    for profile in ("openai", "azure", "nebius"):
        world, jobs = finished(profile)
        contents = [world.file_content(job["result_files"][0]) or b"" for job in sorted(jobs, key=_created)]
        plain[profile] = [content.startswith(b"step,") for content in contents]
    assert all(plain["azure"])
    assert all(plain["nebius"])
    assert set(plain["openai"]) == {True, False}
    assert plain["openai"] == sorted(plain["openai"], reverse=True)


def test_some_whole_numbers_are_integers_where_a_float_is_meant() -> None:
    world, jobs = finished("openai")
    kinds = {
        type(event["data"]["train_mean_token_accuracy"])
        for job in jobs
        for event in world.events(job["id"]) or []
        if event["data"] and event["data"].get("train_mean_token_accuracy") == 1
    }
    assert kinds == {int, float}


def test_an_unknown_profile_is_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match="openai, azure, nebius"):
        GeneratedWorld(profile="another", clock=clock)


def _created(job: dict[str, Any]) -> int:
    return int(job["created_at"])
