"""Write rows to Parquet: the bytes of a file depend on its rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fine_tuning_warehouse.warehouses.rows import Relation

from .manifest import Tombstone


def path_of(relation: Relation) -> str:
    """Return the path of a table or view in an archive."""
    return f"{relation.kind}s/{relation.name}.parquet"


def write(
    relation: Relation, batches: Iterable[pa.RecordBatch], file: Path, *, group_rows: int = 100_000
) -> tuple[int, set[str]]:
    """Write rows, one row group of `group_rows` at a time.

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
            while sum(one.num_rows for one in waiting) >= group_rows:
                table = pa.Table.from_batches(waiting, relation.schema)
                writer.write_table(table.slice(0, group_rows), row_group_size=group_rows)
                waiting = table.slice(group_rows).to_batches()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, relation.schema), row_group_size=group_rows)
    return rows, accounts


def lost_columns(before: Path, now: Path) -> list[str]:
    """Return the columns of an earlier file that hold a value and are not in the new file."""
    names, rows = pq.read_schema(now).names, pq.read_metadata(before).num_rows
    gone = [name for name in pq.read_schema(before).names if name not in names]
    return [name for name in gone if pq.read_table(before, columns=[name])[name].null_count < rows]


def lost_rows(relation: Relation, before: Path, now: Path, removed: Sequence[Tombstone] = ()) -> tuple[int, str]:
    """Return how many rows of an earlier file are not in the new one, and the key of one of them.

    Rows that tombstones name are not lost.
    """
    keys = ", ".join(f'"{key}"' for key in relation.keys)
    words = ", ".join(f"'{key} ' || \"{key}\"" for key in relation.keys)
    earlier, values = "FROM read_parquet(?)", [str(before)]
    for tombstone in removed:
        earlier, values = _without(relation, earlier, values, tombstone)
    with duckdb.connect(config={"temp_directory": str(now.parent)}) as connection:
        count, example = connection.execute(
            f"SELECT count(*), min(concat_ws(', ', {words})) FROM "  # noqa: S608 - names of our own tables
            f"(SELECT {keys} FROM ({earlier}) EXCEPT SELECT {keys} FROM read_parquet(?))",
            [*values, str(now)],
        ).fetchall()[0]
    return int(count), str(example)


def _without(relation: Relation, earlier: str, values: list[str], removed: Tombstone) -> tuple[str, list[str]]:
    """Return a query for the rows of another query as they are after a removal, and its values."""
    if removed.renamed_to is not None:
        label = "CASE account WHEN ? THEN ? ELSE account END AS account"
        query = f"SELECT * REPLACE ({label}) FROM ({earlier})"  # noqa: S608 - no names
        return query, [removed.account, removed.renamed_to, *values]
    if removed.job is None:
        return f"FROM ({earlier}) WHERE account <> ?", [*values, removed.account]
    ids = {"jobs": [removed.job], "files": [*removed.files]}.get(relation.name)
    column = "id" if ids is not None else "fine_tuning_job_id"
    if column not in relation.schema.names or ids == []:
        return earlier, values
    ids = ids or [removed.job]
    marks = ", ".join("?" * len(ids))
    where = f"account = ? AND {column} IN ({marks})"
    return f"FROM ({earlier}) WHERE ({where}) IS NOT TRUE", [*values, removed.account, *ids]
