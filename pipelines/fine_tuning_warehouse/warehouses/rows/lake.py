"""Open the tables of a lake (Iceberg, Delta) for DuckDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.warehouses.dlt_seam import read_stored_schema
from fine_tuning_warehouse.warehouses.warehouse import Warehouse
from openai_fine_tuning.schema import SCHEMA

LOADS = "_dlt_loads"
"""dlt's table of the loads that are complete."""


def lake_tables(client: Any, warehouse: Warehouse, names: Sequence[str]) -> dict[str, Any]:
    """Return each table that exists in a form that DuckDB can scan; DuckDB's own readers would be a download."""
    # The schema that the last sync left beside the tables says which there are.
    if read_stored_schema(client) is None:
        return {}
    tables: dict[str, Any] = {}
    for name in names:
        if name == LOADS:
            # One file a load, which is written at its end.
            files = [Path(file).stem for file in client.list_table_files(client.schema.loads_table_name)]
            ids = [file.partition("__")[2] for file in files if file.startswith(f"{SCHEMA}__")]
            tables[name] = pa.table({"load_id": pa.array(ids, pa.string()), "status": pa.array([0] * len(ids))})
            continue
        for _, table in open_tables(client, warehouse, [name]):
            is_delta = warehouse.table_format == "delta"
            tables[name] = table.to_pyarrow_dataset() if is_delta else table.scan().to_arrow_batch_reader()
    return tables


def open_tables(client: Any, warehouse: Warehouse, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Open the tables that are there, of a client that has the schema that the last load left.

    Raises:
        CommandError: A table is in another format.
    """
    from dlt.common.destination.exceptions import (  # noqa: PLC0415 - see accounts
        DestinationUndefinedEntity,
        OpenTableFormatNotSupported,
    )

    for name in names:
        if client.schema.tables.get(name, {}).get("table_format") is None:
            continue  # it was never loaded
        try:
            yield name, client.load_open_table(warehouse.table_format, name)
        except OpenTableFormatNotSupported as error:
            raise CommandError(
                f"{warehouse.shown} does not hold {name} in the format {warehouse.table_format}: "
                "say with --table-format which one it is."
            ) from error
        except DestinationUndefinedEntity:
            continue  # it was removed
