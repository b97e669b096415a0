"""Checks of a destination before anything is requested from the host: can it be reached, and can it merge?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fine_tuning_warehouse.errors import CommandError, UsageError
from openai_fine_tuning.settings import MERGE

from .errors import destination_errors
from .warehouse import Warehouse

if TYPE_CHECKING:
    import dlt


def check_connection(warehouse: Warehouse, pipeline: dlt.Pipeline) -> None:
    """Connect to a destination once, and make sure that it can merge.

    Raises:
        UsageError: A setting, or a package, is missing or cannot be right; or it cannot merge.
        CommandError: The destination refuses.
    """
    unreached = f"The destination {warehouse.destination} cannot be reached"
    with destination_errors(warehouse, unreached), pipeline.destination_client() as client:
        client.is_storage_initialized()
        _check_folder(client)
    merge_hints(warehouse, pipeline)


def merge_hints(warehouse: Warehouse, pipeline: dlt.Pipeline) -> dict[str, Any]:
    """Return dlt's hints for merging: by `delete-insert`, which tolerates duplicates, else by `upsert`.

    Raises:
        UsageError: The destination supports neither, or not the table format.
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
            return {"table_format": warehouse.table_format, "write_disposition": {**MERGE, "strategy": strategy}}
    how = f" as it is set; with --table-format {' or '.join(formats)} it may" if formats else ""
    raise UsageError(
        f"The destination {warehouse.destination} cannot merge rows{how}: every sync would add what is there again."
    )


def _check_folder(client: Any) -> None:
    """Raise `CommandError` if the bucket of a lake does not exist: dlt would make one."""
    files, path = getattr(client, "fs_client", None), str(getattr(client, "bucket_path", ""))
    if files is None or getattr(client, "is_local_filesystem", True):
        return
    bucket = path.strip("/").split("/")[0]
    if bucket and not files.exists(bucket):
        raise CommandError(f"There is no bucket {bucket}, or these credentials may not see it.")
