"""Describe a warehouse for dbt: a `sources.yml` of the tables and views that it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fine_tuning_warehouse.schema import SYNCS
from openai_fine_tuning.schema import CHECKPOINTS, EVENTS, JOBS, RESULT_METRICS

from .errors import CommandError
from .warehouses.rows import Relation, open_rows
from .warehouses.sql_text import literal
from .warehouses.warehouse import Warehouse

_OF_JOBS = (CHECKPOINTS.name, EVENTS.name, RESULT_METRICS.name)


def dbt_sources(warehouse: Warehouse, *, name: str = "fine_tuning", warn_hours: int = 24) -> str:
    """Return the text of a `sources.yml` of what a warehouse holds.

    Each table and view has its columns with their descriptions. The keys of a table are tested to be unique together,
    and the job of a row to exist. The freshness of each account is that of its syncs that succeeded, as a source of its
    own. dbt 1.10.5 or later reads the text.

    Args:
        warehouse: The warehouse.
        name: The name of the source.
        warn_hours: How old the last sync of an account may be; at twice that, the freshness is an error.

    Raises:
        CommandError: There is no such warehouse, it cannot be read, or it holds nothing.
    """
    warehouse.require()
    with open_rows(warehouse) as rows:
        if not rows.relations:
            raise CommandError(f"{warehouse.shown} holds no dataset {warehouse.dataset} yet: `ftw sync` makes it.")
        syncs = rows.relation(SYNCS.name)
        labels = sorted(rows.counts(syncs)) if syncs is not None else []
        lines = [*_source(name, warehouse.dataset, rows.relations)]
        if syncs is not None and labels:
            is_done = "status = 'done' or status is null" if "status" in syncs.schema.names else "true"
            lines += _freshness(name, warehouse.dataset, {one: _condition(one, is_done) for one in labels}, warn_hours)
    return "\n".join(["version: 2", "sources:", *lines, ""])


def _source(name: str, dataset: str, relations: list[Relation]) -> Iterator[str]:
    yield f"  - name: {_text(name)}"
    yield f"    schema: {_text(dataset)}"
    yield "    tables:"
    names = {one.name for one in relations}
    for one in relations:
        yield f"      - name: {_text(one.name)}"
        yield f"        description: {_text(_metadata(one.schema.metadata))}"
        if one.keys:
            together = " || ' ' || ".join(f"cast({key} as varchar)" for key in one.keys)
            yield "        data_tests:"
            yield "          - unique:"
            yield f"              column_name: {_text(together)}"
        yield "        columns:"
        for field in one.schema:
            yield f"          - name: {_text(field.name)}"
            if words := _metadata(field.metadata):
                yield f"            description: {_text(words)}"
            tests = ["not_null"] if field.name in one.keys else []
            of_job = field.name == "fine_tuning_job_id" and one.name in _OF_JOBS and JOBS.name in names
            if tests or of_job:
                yield "            data_tests:"
                yield from (f"              - {test}" for test in tests)
            if of_job:
                of_jobs = f"source('{name}', 'jobs')"
                yield "              - relationships:"
                yield "                  arguments:"  # dbt 1.10.5 and later know it, and warn where it is missing
                yield f"                    to: {_text(of_jobs)}"
                yield "                    field: id"


def _condition(label: str, is_done: str) -> str:
    """Return the condition of the syncs of an account that succeeded. Failed ones stand in the table too."""
    return f"account = {literal(label)} and ({is_done})"


def _freshness(name: str, dataset: str, accounts: dict[str, str], warn_hours: int) -> Iterator[str]:
    """Yield a source with a table for each account, given with the condition of its rows: its syncs."""
    yield f"  - name: {_text(f'{name}_accounts')}"
    yield f"    schema: {_text(dataset)}"
    yield "    tables:"
    for label, condition in accounts.items():
        yield f"      - name: {_text(f'syncs of {label}')}"
        yield f"        identifier: {SYNCS.name}"
        yield f"        description: {_text(f'The syncs of account {label} that succeeded: how fresh its rows are.')}"
        yield "        config:"
        yield "          loaded_at_field: finished_at"
        yield "          freshness:"
        yield f"            warn_after: {{count: {warn_hours}, period: hour}}"
        yield f"            error_after: {{count: {2 * warn_hours}, period: hour}}"
        yield f"            filter: {_text(condition)}"


def _metadata(metadata: dict[bytes, bytes] | None) -> str:
    return (metadata or {}).get(b"description", b"").decode()


def _text(value: Any) -> str:
    """Return a text in YAML, of which JSON is a part. Break up double braces, since dbt would run what they hold."""
    return json.dumps(str(value).replace("{{", "{ {").replace("{%", "{ %"))
