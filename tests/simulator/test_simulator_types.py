"""Every record validates, strictly, against the types of the official package, but for the quirks named here."""

from collections.abc import Callable
from typing import Any

import pytest
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from fine_tuning_simulator import Clock, GeneratedWorld, ScriptedWorld

Record = dict[str, Any]
Quirk = tuple[str, Callable[[Record], bool], Record]

ERROR_IS_EMPTY: Quirk = ("error", lambda job: job["error"] == {}, {"error": None})
ORGANIZATION_IS_NULL: Quirk = ("organization_id", lambda job: job["organization_id"] is None, {"organization_id": ""})

QUIRKS: dict[str, list[Quirk]] = {"openai": [ERROR_IS_EMPTY], "azure": [ORGANIZATION_IS_NULL]}
"""What a host sends that the types do not allow."""

MOMENTS = (0, 3_950, 7_200, 30_000, 200_000)
"""Seconds after the clock's start at which the world is looked at."""


def without_quirks(profile: str, job: Record) -> Record:
    for _, present, instead in QUIRKS.get(profile, []):
        if present(job):
            job = {**job, **instead}
    return job


@pytest.mark.parametrize("seconds", MOMENTS)
def test_jobs_validate(world: GeneratedWorld, clock: Clock, profile: str, seconds: int) -> None:
    clock.advance(seconds)
    for job in world.jobs():
        FineTuningJob.model_validate(without_quirks(profile, job), strict=True)


@pytest.mark.parametrize("seconds", MOMENTS)
def test_checkpoints_and_events_validate(world: GeneratedWorld, clock: Clock, seconds: int) -> None:
    clock.advance(seconds)
    for job in world.jobs():
        for checkpoint in world.checkpoints(job["id"]) or []:
            FineTuningJobCheckpoint.model_validate(checkpoint, strict=True)
        for event in world.events(job["id"]) or []:
            FineTuningJobEvent.model_validate(event, strict=True)


def test_files_validate(world: GeneratedWorld) -> None:
    assert world.files()
    for file in world.files():
        FileObject.model_validate(file, strict=True)


def test_every_named_quirk_occurs(world: GeneratedWorld, profile: str) -> None:
    for name, present, _ in QUIRKS.get(profile, []):
        assert any(present(job) for job in world.jobs()), name


def test_records_of_a_scripted_world_validate_by_default() -> None:
    world = ScriptedWorld()
    for status in ("validating_files", "queued", "running", "succeeded", "failed", "cancelled"):
        job = world.add_job(status=status)
        FineTuningJob.model_validate(without_quirks("openai", job), strict=True)
    FineTuningJobCheckpoint.model_validate(world.add_checkpoint(job["id"]), strict=True)
    FineTuningJobEvent.model_validate(world.add_event(job["id"]), strict=True)
    FileObject.model_validate(world.add_file("file-1", b"step\n1\n"), strict=True)
