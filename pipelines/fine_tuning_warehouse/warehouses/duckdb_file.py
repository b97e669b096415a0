"""dlt's destination `duckdb`, as one sync needs it: set up once, and the file opened once for each step.

dlt 1.31 resolves a destination's configuration some twenty-five times a run, and opens and closes the file for each of
its clients: a third of what a sync without news takes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlt
from dlt.common.configuration import configspec
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration, DuckDbCredentials
from dlt.destinations.impl.duckdb.factory import duckdb

from fine_tuning_warehouse.errors import root_cause

if TYPE_CHECKING:
    from dlt.common.pipeline import LoadInfo

logger = logging.getLogger(__name__)

_LEAST_MEGABYTES = 64
"""Enough for a load of a million checkpoints or events, and for their merge into as many."""

_BATCHES_HELD = 8
"""Rows are read, staged and merged a batch at a time; wide ones (long texts) need more room for each."""


@configspec(init=False)
class _Configuration(DuckDbClientConfiguration):
    def __str__(self) -> str:
        return str(self.credentials.database)  # dlt's own makes a URL of it, by importing SQLAlchemy where it is


class DuckDbFile(duckdb):
    """dlt's destination `duckdb`, for one pipeline: what it resolves stays as it was resolved first.

    All its clients share one pool of connections, so that within `kept_open` they share one open file.
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
        """See dlt."""
        dataset = getattr(initial_config, "dataset_name", None), getattr(initial_config, "default_schema_name", None)
        key = (type(initial_config), *dataset, accept_partial)
        if key not in self._configurations:
            self._configurations[key] = super().configuration(initial_config, accept_partial=accept_partial)
        return self._configurations[key]

    def capabilities(self, config: Any = None, naming: Any = None) -> DestinationCapabilitiesContext:
        """See dlt; a copy for each caller, since dlt changes them."""
        key = (config is None, naming and (type(naming), naming.max_length))
        if key not in self._capabilities:
            self._capabilities[key] = super().capabilities(config, naming)
        return self._capabilities[key].copy()


_EMPTY_BYTES = 12_288
"""What DuckDB writes of a database that holds nothing."""


def remove_if_empty(file: Path) -> None:
    """Remove a file that holds nothing: left behind, it would be taken for a warehouse."""
    if file.is_file() and file.stat().st_size <= _EMPTY_BYTES and not file.with_name(f"{file.name}.wal").exists():
        file.unlink()


@contextmanager
def kept_open(pipeline: dlt.Pipeline, *, megabytes: int | None = None) -> Iterator[None]:
    """Keep a DuckDB file open between dlt's steps; of other destinations, nothing.

    Args:
        pipeline: Whose destination.
        megabytes: What DuckDB may take of memory; by default four fifths of the machine's. What dlt's configuration
            says comes first.
    """
    if not isinstance(pipeline.destination, DuckDbFile):
        yield
        return
    with pipeline.sql_client() as client:
        if megabytes is not None and "memory_limit" not in (client.credentials.global_config or {}):
            client.execute_sql(f"SET memory_limit = '{megabytes}MB'")
        yield


def load_in_bounds(pipeline: dlt.Pipeline, load: Callable[[], LoadInfo], *, largest_batch: int) -> LoadInfo:
    """Load with little memory, however much there is to load; what does not fit after all is loaded without a bound.

    Args:
        pipeline: Whose destination.
        load: Does it; may be done again where it left off.
        largest_batch: Bytes of the largest Arrow table that is loaded.
    """
    megabytes = _LEAST_MEGABYTES + largest_batch * _BATCHES_HELD // 1_000_000
    try:
        with kept_open(pipeline, megabytes=megabytes):
            return load()
    except Exception as error:
        if not str(root_cause(error)).startswith("Out of Memory Error"):
            raise
        logger.info("A load did not fit %d MB of memory: again, without a bound", megabytes)
    with kept_open(pipeline):
        return load()
