"""Comments on the tables and columns of a database: the descriptions of the schema, for anyone who looks there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import dlt

from .sql_text import literal, quoted
from .warehouse import Warehouse

logger = logging.getLogger(__name__)


def write_comments(pipeline: dlt.Pipeline, warehouse: Warehouse) -> None:
    """Write the descriptions of the schema as comments on the tables, if they are missing or differ.

    If the tables belong to another role the database refuses. They stay without comments, and no data is lacking.
    """
    from dlt.destinations.exceptions import DatabaseTerminalException  # noqa: PLC0415 - see accounts

    query = warehouse.table_comments
    if query is None:
        return
    described = pipeline.default_schema.tables  # a property that reads the schema anew each time
    with pipeline.sql_client() as client:
        statements = list(_statements(described, client.dataset_name, client.execute_sql(query, client.dataset_name)))
        try:
            if statements:
                with client.begin_transaction():
                    client.execute_many(statements)
        except DatabaseTerminalException as error:
            logger.info("The tables could not be commented: %s", error)


def _statements(described: Mapping[str, Any], dataset: str, present: Any) -> Iterator[str]:
    seen = set()
    for table, comment, column, column_comment in present or ():
        hints = described.get(table, {})
        description = hints.get("description")
        if table not in seen and description and comment != description:
            yield f"COMMENT ON TABLE {quoted(dataset, table)} IS {literal(description)}"
        seen.add(table)
        description = hints.get("columns", {}).get(column, {}).get("description")
        if description and column_comment != description:
            yield f"COMMENT ON COLUMN {quoted(dataset, table, column)} IS {literal(description)}"
