"""The column `_dlt_load_id`: the load that brought a row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dlt
import pyarrow as pa

LOAD_ID = "_dlt_load_id"


def add_load_ids(resources: Iterable[Any]) -> None:
    """Add `_dlt_load_id` to every Arrow table that dlt resources yield.

    The column can be null. dlt's own setting for Arrow tables (`add_dlt_load_id`) makes it NOT NULL, and no database
    adds such a column to a table with rows; it also holds for every other pipeline of the process.
    """
    for resource in resources:
        resource.add_map(_with_load_id)


def _with_load_id(table: pa.Table) -> pa.Table:
    load_id = dlt.current.load_package_state()["load_id"]
    if LOAD_ID in table.column_names:
        table = table.drop_columns([LOAD_ID])
    return table.append_column(LOAD_ID, pa.repeat(load_id, table.num_rows))
