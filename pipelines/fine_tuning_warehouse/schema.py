"""The tables of a warehouse: those that the source fills, and `syncs`, into which the warehouse writes what it did."""

from __future__ import annotations

import dlt

from openai_fine_tuning.schema import ACCOUNT, SCHEMA, SYNCED_AT, Column, Table
from openai_fine_tuning.schema import TABLES as SOURCE_TABLES
from openai_fine_tuning.schema import schema as source_schema

__all__ = ["SCHEMA", "SYNCS", "TABLES", "schema"]

SYNCS = Table(
    "syncs",
    "Syncs: how fresh the data is, and what each sync did.",
    (
        ACCOUNT,
        Column("id", "text", "Id of the sync.", key=True),
        Column("started_at", "timestamp", "When it started."),
        Column("finished_at", "timestamp", "When it had read everything that this load holds, or failed."),
        Column("requests", "bigint", "Requests sent, retries included."),
        Column("retries", "bigint", "Requests that were sent again."),
        Column("jobs_seen", "bigint", "Jobs that the host showed."),
        Column("jobs_known", "bigint", "Jobs of the account that this sync and those before it have read."),
        Column("jobs_open", "bigint", "Jobs that the next sync will read again."),
        Column("skipped", "json", "What was skipped and why, as a JSON array."),
        Column("rejected", "bigint", "Records that do not fit, as a whole or in a value."),
        Column("version", "text", "Release that did it."),
        Column("host", "text", "Host that was read: its base URL."),
        Column("status", "text", "done or failed; null for those of earlier releases, which are done."),
        Column("error", "text", "Why it failed."),
        Column("rows_loaded", "json", "Rows that were new or changed, by table, as a JSON object."),
        Column("newest_job_at", "timestamp", "When the newest job was created that the host showed."),
        SYNCED_AT,
    ),
)

TABLES: dict[str, Table] = {**SOURCE_TABLES, SYNCS.name: SYNCS}
"""The tables of a warehouse, by name."""


def schema() -> dlt.Schema:
    """Return the dlt schema of a warehouse: columns, types, keys, descriptions."""
    return source_schema(TABLES.values())
