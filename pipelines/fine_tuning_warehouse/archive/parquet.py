"""Write rows to Parquet: the bytes of a file depend on its rows alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fine_tuning_warehouse.warehouses.rows import Relation

ROW_GROUP_ROWS = 100_000


def path_of(relation: Relation) -> str:
    """Return the path of a table or view in an archive."""
    return f"{relation.kind}s/{relation.name}.parquet"


def write(relation: Relation, batches: Iterable[pa.RecordBatch], file: Path) -> tuple[int, set[str]]:
    """Write rows, one row group at a time.

    Returns:
        The number of rows, and the values of the column `account`.
    """
    rows = 0
    accounts: set[str] = set()
    with pq.ParquetWriter(file, relation.schema, compression="zstd", compression_level=9) as writer:
        waiting: list[pa.RecordBatch] = []
        for batch in batches:
            rows += batch.num_rows
            if "account" in relation.schema.names:
                accounts.update(value for value in pc.unique(batch["account"]).to_pylist() if value is not None)
            waiting.append(batch)
            # The engine decides how rows are batched. A row group holds the same rows all the same.
            while sum(one.num_rows for one in waiting) >= ROW_GROUP_ROWS:
                table = pa.Table.from_batches(waiting, relation.schema)
                writer.write_table(table.slice(0, ROW_GROUP_ROWS), row_group_size=ROW_GROUP_ROWS)
                waiting = table.slice(ROW_GROUP_ROWS).to_batches()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, relation.schema), row_group_size=ROW_GROUP_ROWS)
    return rows, accounts


def lost_columns(before: Path, now: Path) -> list[str]:
    """Return the columns of an earlier file that hold a value and are not in the new file."""
    names, rows = pq.read_schema(now).names, pq.read_metadata(before).num_rows
    gone = [name for name in pq.read_schema(before).names if name not in names]
    return [name for name in gone if pq.read_table(before, columns=[name])[name].null_count < rows]


def lost_rows(relation: Relation, before: Path, now: Path) -> tuple[int, str]:
    """Return how many rows of an earlier file are not in the new one, and the key of one of them."""
    keys = ", ".join(f'"{key}"' for key in relation.keys)
    words = ", ".join(f"'{key} ' || \"{key}\"" for key in relation.keys)
    with duckdb.connect(config={"temp_directory": str(now.parent)}) as connection:
        count, example = connection.execute(
            f"SELECT count(*), min(concat_ws(', ', {words})) FROM "  # noqa: S608 - names of our own tables
            f"(SELECT {keys} FROM read_parquet(?) EXCEPT SELECT {keys} FROM read_parquet(?))",
            [str(before), str(now)],
        ).fetchall()[0]
    return int(count), str(example)
