"""The warehouse holds what the official `openai` client reads from the same host at the same moment."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import openai
import pytest

from command import Command
from fine_tuning_simulator import PROFILES, Clock, GeneratedWorld, Simulator


def same(stored: Any, read: Any) -> bool:
    """Whether a stored number is the one that was read: to the last bit, and NaN is NaN."""
    if read is None or stored is None:
        return stored is read
    return float(stored) == float(read) or (math.isnan(stored) and math.isnan(read))


def seconds(column: str) -> str:
    """SQL for a time as the API writes it."""
    return f"epoch_us({column}) / 1000000"


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_ids_times_and_metrics_are_those_that_the_official_client_reads(tmp_path: Path, profile: str) -> None:
    clock = Clock(speed=0)
    with Simulator(GeneratedWorld(seed=5, jobs=14, profile=profile, clock=clock)) as host:
        ftw = Command(tmp_path, host.base_url)
        ended = ftw("sync", "--strict", "--output", "json")
        assert ended.code == 0, ended.err
        with openai.OpenAI(base_url=host.base_url, api_key="x", max_retries=0) as client:
            jobs = list(client.fine_tuning.jobs.list(limit=5))
            checkpoints = [
                checkpoint for job in jobs for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id, limit=2)
            ]
            events = {job.id: list(client.fine_tuning.jobs.list_events(job.id, limit=100)) for job in jobs}
            files = {
                (job.id, file): client.files.content(file).read() for job in jobs for file in job.result_files or ()
            }
    assert len(jobs) == 14
    assert checkpoints

    stored_jobs = {
        row[0]: row[1:]
        for row in ftw.rows(
            f"SELECT id, {seconds('created_at')}, {seconds('finished_at')}, status, model, fine_tuned_model, "
            "trained_tokens, training_file, validation_file, seed, result_files FROM jobs"
        )
    }
    assert stored_jobs.keys() == {job.id for job in jobs}
    for job in jobs:
        *values, result_files = stored_jobs[job.id]
        assert values == [
            job.created_at,
            job.finished_at,
            job.status,
            job.model,
            job.fine_tuned_model,
            job.trained_tokens,
            job.training_file,
            job.validation_file,
            job.seed,
        ]
        assert json.loads(result_files or "[]") == (job.result_files or [])

    metrics = sorted({name for checkpoint in checkpoints for name in checkpoint.metrics.model_dump()})
    columns = ", ".join(f"metrics__{name}" for name in metrics)
    stored = {
        row[0]: row[1:]
        for row in ftw.rows(
            f"SELECT id, {seconds('created_at')}, step_number, fine_tuning_job_id, fine_tuned_model_checkpoint, "
            f"{columns} FROM checkpoints"
        )
    }
    assert stored.keys() == {checkpoint.id for checkpoint in checkpoints}
    assert len(checkpoints) == len(stored)
    for checkpoint in checkpoints:
        created_at, step, job_id, model, *numbers = stored[checkpoint.id]
        assert (created_at, step) == (checkpoint.created_at, checkpoint.step_number)
        assert (job_id, model) == (checkpoint.fine_tuning_job_id, checkpoint.fine_tuned_model_checkpoint)
        read = checkpoint.metrics.model_dump()
        assert all(same(number, read.get(name)) for name, number in zip(metrics, numbers, strict=True)), checkpoint

    told = {
        row[0]: row[1:]
        for row in ftw.rows(
            f"SELECT id, fine_tuning_job_id, {seconds('created_at')}, level, message, data, data__step, "
            "data__train_loss, data__valid_loss, data__full_valid_loss FROM events"
        )
    }
    assert told.keys() == {event.id for of_job in events.values() for event in of_job}
    for job_id, of_job in events.items():
        for event in of_job:
            owner, created_at, level, message, data, *numbers = told[event.id]
            assert (owner, created_at, level, message) == (job_id, event.created_at, event.level, event.message)
            read = dict(event.data) if isinstance(event.data, dict) else {}
            assert (json.loads(data) if data is not None else {}) == read
            for name, number in zip(("step", "train_loss", "valid_loss", "full_valid_loss"), numbers, strict=True):
                assert same(number, read.get(name))

    steps = {
        (job_id, file, step): (train, valid)
        for job_id, file, step, train, valid in ftw.rows(
            "SELECT fine_tuning_job_id, file_id, step, train_loss, valid_loss FROM result_metrics"
        )
    }
    from_files = {}
    for (job_id, file), content in files.items():
        text = content.decode() if b"," in content else base64.b64decode(content).decode()
        if not text.startswith("step"):
            continue  # weights and the like, which some hosts list beside the metrics
        for row in csv.DictReader(io.StringIO(text)):
            numbers = [float(row[name]) if row.get(name) else None for name in ("train_loss", "valid_loss")]
            from_files[job_id, file, int(float(row["step"]))] = tuple(numbers)
    assert steps.keys() == from_files.keys()
    for key, numbers_read in from_files.items():
        assert all(same(a, b) for a, b in zip(steps[key], numbers_read, strict=True)), key
