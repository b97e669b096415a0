"""Whether a warehouse can be written: asked before anything is requested from the host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.text import shown_path

from .errors import destination_errors
from .grants import missing_grants
from .warehouse import DEFAULT_DATABASE, Warehouse

if TYPE_CHECKING:
    import dlt


def check_ready(warehouse: Warehouse, pipeline: dlt.Pipeline) -> None:
    """Look at a DuckDB file; connect to any other destination once, and make sure that it can merge.

    Raises:
        UsageError: A setting, or a package, is missing or cannot be right; or it cannot merge.
        CommandError: The destination refuses.
    """
    if warehouse.database is not None:
        check_database_file(warehouse.database)
        return
    unreached = f"The destination {warehouse.destination} cannot be reached"
    with destination_errors(warehouse, unreached), pipeline.destination_client() as client:
        client.is_storage_initialized()
        _check_folder(client)
    merge_strategy(warehouse, pipeline)


def check_grants(warehouse: Warehouse, pipeline: dlt.Pipeline) -> None:
    """Make sure that a role of PostgreSQL may load what a pipeline loads; other destinations are not asked.

    Raises:
        CommandError: It may not: the GRANTs that it lacks are named.
    """
    if warehouse.destination != "postgres":
        return
    from openai_fine_tuning.schema import TABLES  # noqa: PLC0415 - imports dlt

    unreached = f"The destination {warehouse.destination} cannot be reached"
    with destination_errors(warehouse, unreached), pipeline.sql_client() as client:
        role, grants = missing_grants(client, TABLES)
    if grants:
        raise CommandError(
            f"The role {role} may not load into {warehouse.shown}. As an owner of the database: {' '.join(grants)}"
        )


def check_database_file(path: Path) -> None:
    """Raise `CommandError` where the file can hold no database, before anything is requested."""
    shown = shown_path(path)
    if path.is_dir():
        example = shown_path(path / DEFAULT_DATABASE)
        raise CommandError(f"The database {shown} is a folder: name a file, such as {example}.")
    if not path.parent.is_dir():
        raise CommandError(f"The database {shown} cannot be made: there is no folder {path.parent}.")
    if not path.exists():
        if not os.access(path.parent, os.W_OK):
            raise CommandError(f"The database {shown} cannot be made: the folder {path.parent} cannot be written to.")
        return
    try:
        with path.open("r+b") as file:
            start = file.read(12)
    except OSError as error:
        raise CommandError(f"The database {shown} cannot be written: {error.strerror or error}.") from None
    if start and start[8:12] != b"DUCK":
        raise CommandError(f"{shown} is no DuckDB database. It was left as it is: choose another --database.")


def merge_strategy(warehouse: Warehouse, pipeline: dlt.Pipeline) -> str:
    """The way of merging that the destination supports: `delete-insert`, which bears doubles, else `upsert`.

    Raises:
        UsageError: It supports neither, or not the table format.
    """
    capabilities = pipeline.destination.capabilities()
    formats = capabilities.supported_table_formats or ()
    if warehouse.table_format is not None and warehouse.table_format not in formats:
        known = f"it has {' and '.join(formats)}" if formats else "leave --table-format out"
        raise UsageError(f"The destination {warehouse.destination} has no tables in {warehouse.table_format}: {known}.")
    supported = list(capabilities.supported_merge_strategies or ())
    if capabilities.merge_strategies_selector is not None:
        table: Any = {"name": "jobs", "table_format": warehouse.table_format}
        supported = list(capabilities.merge_strategies_selector(supported, table_schema=table))
    for strategy in ("delete-insert", "upsert"):
        if strategy in supported:
            return strategy
    how = f" as it is set; with --table-format {' or '.join(formats)} it may" if formats else ""
    raise UsageError(
        f"The destination {warehouse.destination} cannot merge rows{how}: every sync would add what is there again."
    )


def _check_folder(client: Any) -> None:
    """Raise `CommandError` where the bucket of a lake is not there: dlt would make one."""
    files, path = getattr(client, "fs_client", None), str(getattr(client, "bucket_path", ""))
    if files is None or getattr(client, "is_local_filesystem", True):
        return
    bucket = path.strip("/").split("/")[0]
    if bucket and not files.exists(bucket):
        raise CommandError(f"There is no bucket {bucket}, or these credentials may not see it.")
