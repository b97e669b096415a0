"""The listing of models: what jobs have made, for as long as it can be called."""

from collections.abc import Callable

import openai
import pytest
import requests

from fine_tuning_simulator import FILES_SCOPE, MODELS_SCOPE, Clock, GeneratedWorld, ScriptedWorld, Simulator

Get = Callable[..., requests.Response]


def test_the_official_client_lists_base_models_fine_tuned_models_and_checkpoints() -> None:
    world = GeneratedWorld(seed=3, jobs=30)
    with Simulator(world) as host, openai.OpenAI(base_url=host.base_url, api_key="x", max_retries=0) as client:
        names = [model.id for model in client.models.list()]
    jobs = [job for job in world.jobs() if job["fine_tuned_model"]]
    kept = [job for job in jobs if job["fine_tuned_model"] in names]
    assert 0 < len(kept) < len(jobs), "some are deleted, but their jobs stay"
    checkpoints = {one["fine_tuned_model_checkpoint"] for job in kept for one in world.checkpoints(job["id"]) or []}
    assert {*checkpoints, *(job["model"] for job in jobs)} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("profile", "final", "others"), [("azure", True, False), ("nebius", False, False)])
def test_some_hosts_list_fewer_kinds_of_models(profile: str, final: bool, others: bool) -> None:
    world = GeneratedWorld(seed=3, jobs=30, profile=profile)
    names = {model["id"] for model in world.models()}
    jobs = world.jobs()
    finals = {job["fine_tuned_model"] for job in jobs} - {None}
    checkpoints = {one["fine_tuned_model_checkpoint"] for job in jobs for one in world.checkpoints(job["id"]) or []}
    assert bool(names & finals) == final
    assert bool(names & (checkpoints - finals)) == others
    assert {job["model"] for job in jobs} <= names


def test_a_model_is_listed_once_its_job_has_succeeded() -> None:
    clock = Clock()
    world = GeneratedWorld(seed=3, jobs=30, clock=clock)
    before = {model["id"] for model in world.models()}
    clock.advance(6 * 3600)
    new = {model["id"] for model in world.models()} - before
    assert new
    assert {job["finished_at"] > clock.start for job in world.jobs() if job["fine_tuned_model"] in new} == {True}


def test_a_test_deletes_and_retires_models(get: Get) -> None:
    world = ScriptedWorld()
    one, two = (world.add_job(id=name, model=base) for name, base in (("one", "base-1"), ("two", "base-2")))
    world.add_raw_job("not a job")
    world.add_checkpoint("two", step_number=5)

    def names() -> list[str]:
        return [model["id"] for model in get(host, "/models").json()["data"]]

    with Simulator(world) as host:
        assert set(names()) == {
            *("base-1", "base-2", one["fine_tuned_model"], two["fine_tuned_model"]),
            f"{two['fine_tuned_model']}:ckpt-step-5".replace("base-2", "gpt-4o-mini-2024-07-18"),
        }
        world.remove_model(one["fine_tuned_model"])
        world.retire_model("base-2")
        assert names() == ["base-1"]
        world.list_models([{"id": "only"}])
        assert names() == ["only"]
        world.list_models(None)
        assert get(host, "/models").status_code == 404


@pytest.mark.parametrize(("lacked", "status"), [(MODELS_SCOPE, 401), (FILES_SCOPE, 200)])
def test_a_key_may_lack_the_scope(get: Get, lacked: str, status: int) -> None:
    with Simulator(ScriptedWorld(), api_keys={"a-key": frozenset({lacked})}) as host:
        assert get(host, "/models").status_code == status
