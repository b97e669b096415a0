"""The official client reads the same world that the simulator holds."""

from collections.abc import Iterator

import openai
import pytest

from fine_tuning_simulator import GeneratedWorld, Simulator


@pytest.fixture
def client(simulator: Simulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=simulator.base_url, api_key="x", max_retries=0) as client:
        yield client


def test_it_pages_through_jobs(client: openai.OpenAI, world: GeneratedWorld, simulator: Simulator) -> None:
    assert [job.id for job in client.fine_tuning.jobs.list(limit=7)] == [job["id"] for job in world.jobs()]
    assert len(simulator.requests) == 5


def test_it_pages_through_checkpoints(client: openai.OpenAI, world: GeneratedWorld) -> None:
    for job in world.jobs():
        read = [c.id for c in client.fine_tuning.jobs.checkpoints.list(job["id"], limit=2)]
        assert read == [c["id"] for c in world.checkpoints(job["id"]) or []]


def test_it_pages_through_events(client: openai.OpenAI, world: GeneratedWorld) -> None:
    for job in world.jobs()[:4]:
        read = [event.id for event in client.fine_tuning.jobs.list_events(job["id"])]
        assert read == [event["id"] for event in world.events(job["id"]) or []]


def test_it_reads_one_job(client: openai.OpenAI, world: GeneratedWorld) -> None:
    wanted = world.jobs()[0]
    assert client.fine_tuning.jobs.retrieve(wanted["id"]).created_at == wanted["created_at"]


@pytest.mark.first_only
@pytest.mark.parametrize("purpose", ["fine-tune", "fine-tune-results"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_it_pages_through_files(client: openai.OpenAI, world: GeneratedWorld, purpose: str, order: str) -> None:
    wanted = [file["id"] for file in world.files() if file["purpose"] == purpose]
    if order == "asc":
        wanted.reverse()
    read = client.files.list(purpose=purpose, order="asc" if order == "asc" else "desc", limit=5)
    assert [file.id for file in read] == wanted


def test_it_reads_the_content_of_files(client: openai.OpenAI, world: GeneratedWorld) -> None:
    for file in world.files()[:5]:
        content = client.files.content(file["id"]).read()
        assert content == world.file_content(file["id"])
        assert len(content) == client.files.retrieve(file["id"]).bytes


def test_it_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.fine_tuning.jobs.retrieve("ftjob-none")
    assert raised.value.code == "fine_tune_not_found"
    assert raised.value.param == "fine_tune_id"
