"""Rows to Parquet: a file whose bytes depend on the rows alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fine_tuning_warehouse.warehouses.rows import Relation

ROW_GROUP_ROWS = 100_000


@dataclass
class Written:
    """What a file holds: how many rows, and of which accounts."""

    rows: int = 0
    accounts: set[str] = field(default_factory=set)


def path_of(relation: Relation) -> str:
    """The file of a table or view in an archive."""
    return f"{relation.kind}s/{relation.name}.parquet"


def write(relation: Relation, batches: Iterable[pa.RecordBatch], file: Path) -> Written:
    """Write rows, a row group at a time, however they come."""
    written = Written()
    with pq.ParquetWriter(file, relation.schema, compression="zstd", compression_level=9) as writer:
        waiting: list[pa.RecordBatch] = []
        for batch in batches:
            written.rows += batch.num_rows
            if "account" in relation.schema.names:
                written.accounts.update(value for value in pc.unique(batch["account"]).to_pylist() if value is not None)
            waiting.append(batch)
            # The host of the rows decides how they are batched; a row group has the same rows all the same.
            while sum(one.num_rows for one in waiting) >= ROW_GROUP_ROWS:
                rows = pa.Table.from_batches(waiting, relation.schema)
                writer.write_table(rows.slice(0, ROW_GROUP_ROWS), row_group_size=ROW_GROUP_ROWS)
                waiting = rows.slice(ROW_GROUP_ROWS).to_batches()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, relation.schema), row_group_size=ROW_GROUP_ROWS)
    return written


def lost_columns(before: Path, now: Path) -> list[str]:
    """The columns of an earlier file that hold a value and are not in the new one."""
    there = pq.read_schema(now).names
    gone = [name for name in pq.read_schema(before).names if name not in there]
    return [
        name
        for name in gone
        if pq.read_table(before, columns=[name])[name].null_count < pq.read_metadata(before).num_rows
    ]


def lost(relation: Relation, before: Path, now: Path) -> tuple[int, str]:
    """How many rows of a table stand in an earlier file and not in the new one, and the key of one of them."""
    keys = ", ".join(f'"{key}"' for key in relation.keys)
    words = ", ".join(f"'{key} ' || \"{key}\"" for key in relation.keys)
    with duckdb.connect(config={"temp_directory": str(now.parent)}) as connection:
        count, example = connection.execute(
            f"SELECT count(*), min(concat_ws(', ', {words})) FROM "  # noqa: S608 - names of our own tables
            f"(SELECT {keys} FROM read_parquet(?) EXCEPT SELECT {keys} FROM read_parquet(?))",
            [str(before), str(now)],
        ).fetchall()[0]
    return int(count), str(example)
