"""What this package uses of dlt without dlt's promise; each part has a test that fails on a dlt that changed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration import configspec
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.schema import Schema
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration, DuckDbCredentials
from dlt.destinations.impl.duckdb.factory import duckdb
from dlt.destinations.job_client_impl import SqlJobClientBase

from openai_fine_tuning.schema import SCHEMA


@configspec(init=False)
class _Configuration(DuckDbClientConfiguration):
    def __str__(self) -> str:
        return str(self.credentials.database)  # dlt's own makes a URL of it, by importing SQLAlchemy where it is


class DuckDbFile(duckdb):
    """dlt's destination `duckdb` for one pipeline, which is set up once.

    dlt 1.31 resolves a destination's configuration some twenty-five times a run, and opens and closes the file for each
    of its clients: a third of the time of a sync that finds nothing new. All clients share one pool of connections.
    """

    spec: type[DuckDbClientConfiguration] = _Configuration

    def __init__(self, file: Path) -> None:
        credentials = DuckDbCredentials()
        credentials.database = str(file)  # given as text it is parsed as a URL, with SQLAlchemy too
        super().__init__(credentials)
        self._configurations: dict[Any, Any] = {}
        self._capabilities: dict[Any, DestinationCapabilitiesContext] = {}

    @property
    def destination_type(self) -> str:
        """dlt's own name of it: configuration and state go by it."""
        return "dlt.destinations.duckdb"

    def configuration(self, initial_config: Any, accept_partial: bool = False) -> Any:
        """Resolve it once for each dataset."""
        dataset = getattr(initial_config, "dataset_name", None), getattr(initial_config, "default_schema_name", None)
        key = (type(initial_config), *dataset, accept_partial)
        if key not in self._configurations:
            self._configurations[key] = super().configuration(initial_config, accept_partial=accept_partial)
        return self._configurations[key]

    def capabilities(self, config: Any = None, naming: Any = None) -> DestinationCapabilitiesContext:
        """Make them once, and a copy for each caller, since dlt changes them."""
        key = (config is None, naming and (type(naming), naming.max_length))
        if key not in self._capabilities:
            self._capabilities[key] = super().capabilities(config, naming)
        return self._capabilities[key].copy()


def set_staging_layout(destination: Any, layout: str) -> None:
    """Name the schema in which a destination stages what it merges; `%s` is the dataset."""
    destination.config_params["staging_dataset_name_layout"] = layout


def source_state(pipeline: dlt.Pipeline) -> dict[str, Any] | None:
    """Return the state that the source has in a pipeline; None where it has no schema there."""
    if SCHEMA not in pipeline.schema_names:
        return None
    state: dict[str, Any] = pipeline.state.get("sources", {}).get(SCHEMA, {})
    return state


def is_sql(client: Any) -> bool:
    """Return whether a client of dlt speaks SQL."""
    return isinstance(client, SqlJobClientBase)


def read_stored_schema(client: Any) -> Schema | None:
    """Give a client of files the schema that the last load has left beside them; None where there is none."""
    stored = client.get_stored_schema(SCHEMA)
    if stored is None:
        return None
    client.schema = Schema.from_stored_schema(json.loads(stored.schema))
    schema: Schema = client.schema
    return schema


def stored_tables(client: Any) -> dict[str, dict[str, str]]:
    """Return the columns of tables that are files: table to column to dlt's type."""
    schema = read_stored_schema(client)
    if schema is None:
        return {}
    present = {*schema.data_table_names(), schema.loads_table_name}
    return {
        name: {
            column: str(hints.get("data_type")) for column, hints in table["columns"].items() if hints.get("data_type")
        }
        for name, table in schema.tables.items()
        if name in present
    }
