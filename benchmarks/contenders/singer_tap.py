"""A Singer tap written with `singer-sdk`; its output goes to a Singer target. `python singer_tap.py BASE_URL KIND`."""

import sys
from typing import Any

from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.pagination import BaseAPIPaginator

base_url, kind = sys.argv[1:3]

NUMBERS = ["step", "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy"]
NUMBERS += ["full_valid_loss", "full_valid_mean_token_accuracy", "total_steps"]
TEXTS = ["object", "fine_tuned_model_checkpoint", "fine_tuning_job_id", "level", "message", "type"]


class LastId(BaseAPIPaginator):
    """The next page is after the last record."""

    def __init__(self) -> None:
        super().__init__(None)

    def has_more(self, response: Any) -> bool:
        """Whether there is a next page."""
        return response.json()["has_more"]

    def get_next(self, response: Any) -> str:
        """The cursor."""
        return response.json()["data"][-1]["id"]


class Listing(RESTStream):
    """What both streams share."""

    url_base = base_url
    records_jsonpath = "$.data[*]"
    primary_keys = ("id",)
    http_headers = {"Authorization": "Bearer key"}  # noqa: RUF012

    def get_new_paginator(self) -> LastId:
        """A paginator for each listing."""
        return LastId()

    def get_url_params(self, context: Any, next_page_token: Any) -> dict:
        """The query of the next page."""
        return {"limit": 100, **({"after": next_page_token} if next_page_token else {})}


class Jobs(Listing):
    """The jobs."""

    name = "jobs"
    path = "/fine_tuning/jobs"
    schema = th.PropertiesList(
        th.Property("id", th.StringType, required=True),
        th.Property("created_at", th.IntegerType),
        th.Property("finished_at", th.IntegerType),
        *(th.Property(name, th.StringType) for name in ("status", "model", "fine_tuned_model", "training_file")),
        th.Property("trained_tokens", th.IntegerType),
        th.Property("seed", th.IntegerType),
    ).to_dict()

    def get_child_context(self, record: dict, context: Any) -> dict:
        """What the children of a job need."""
        return {"job_id": record["id"]}


class Children(Listing):
    """The checkpoints, or the events, of each job."""

    name = kind
    path = "/fine_tuning/jobs/{job_id}/" + kind
    parent_stream_type = Jobs
    state_partitioning_keys = ()
    schema = th.PropertiesList(
        th.Property("id", th.StringType, required=True),
        th.Property("created_at", th.IntegerType),
        th.Property("step_number", th.IntegerType),
        *(th.Property(name, th.StringType) for name in TEXTS),
        *(th.Property(name, th.NumberType) for name in NUMBERS),
    ).to_dict()

    def post_process(self, row: dict, context: Any = None) -> dict:
        """The nested numbers as columns."""
        return {**row, **row.pop("metrics", {}), **(row.pop("data", None) or {})}


class FineTuning(Tap):
    """The tap."""

    name = "tap-fine-tuning"
    config_jsonschema = th.PropertiesList().to_dict()

    def discover_streams(self) -> list:
        """Jobs, and what hangs on them."""
        return [Jobs(self), Children(self)]


FineTuning(config={}).sync_all()
