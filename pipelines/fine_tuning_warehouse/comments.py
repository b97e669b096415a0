"""Comments on the tables and columns of a DuckDB file: what the schema says of them, for anyone who looks there."""

from __future__ import annotations

import dlt


def write_comments(pipeline: dlt.Pipeline) -> None:
    """Write the descriptions of the schema onto the tables that exist, where they are not there yet."""
    if pipeline.destination.destination_name != "duckdb":
        return
    described = pipeline.default_schema.tables  # a property that reads the schema anew each time
    with pipeline.sql_client() as client:
        dataset = client.dataset_name
        present = client.execute_sql(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE schema_name = %s", dataset
        )
        tables = "SELECT table_name, comment FROM duckdb_tables() WHERE schema_name = %s"
        commented = {str(table): comment for table, comment in client.execute_sql(tables, dataset) or ()}
        statements = []
        for table, hints in described.items():
            description = hints.get("description")
            if description and table in commented and commented[table] != description:
                statements.append(f"COMMENT ON TABLE {_name(dataset, table)} IS {_text(description)}")
        for table, column, comment in present or ():
            hints = described.get(table, {})
            description = hints.get("columns", {}).get(column, {}).get("description")
            if description and comment != description:
                statements.append(f"COMMENT ON COLUMN {_name(dataset, table, column)} IS {_text(description)}")
        if statements:
            client.execute_many(statements)


def _name(*parts: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
