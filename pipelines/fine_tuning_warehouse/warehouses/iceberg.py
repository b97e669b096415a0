"""Iceberg tables in a folder or a bucket, each change committed by a catalog; Delta tables as dlt writes them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from fine_tuning_warehouse.accounts.labels import label_in_names
from fine_tuning_warehouse.errors import UsageError

from .locking import READ_WAIT_SECONDS, file_lock, retried
from .warehouse import DEFAULT_DATASET, TableFormat, Warehouse

if TYPE_CHECKING:
    import dlt
    import pyarrow as pa

    from .rows import Rows

_SMALL_BYTES = 256_000_000
"""A table with fewer bytes is rewritten as a whole if it has several files."""

_IS_BEING_MADE = re.compile(
    r"(?i)table \S+ already exists|database is locked|pg_type_typname_nsp_index|iceberg_namespace_properties"
)
"""Errors of a SQL catalog that two syncs make at once.

pyiceberg looks for its tables, and for the dataset's namespace, before it makes them.
"""


@dataclass(frozen=True)
class Iceberg(Warehouse):
    """Iceberg or Delta tables in a folder or bucket.

    Attributes:
        dataset: The folder that holds the tables.
        table_format: The format of the tables.
    """

    dataset: str = DEFAULT_DATASET
    table_format: TableFormat | None = "iceberg"

    destination: ClassVar[str] = "filesystem"  # type: ignore[misc]

    @override
    def dlt_destination(self, label: str) -> Any:
        # dlt finds out when all is read.
        needed, extra = {
            "iceberg": (("pyiceberg", "sqlalchemy"), "fine-tuning-warehouse[lake]"),
            "delta": (("deltalake",), "dlt[deltalake]"),
        }.get(str(self.table_format), ((), ""))
        if any(find_spec(module) is None for module in needed):
            raise UsageError(f"Tables in {self.table_format} need more to be installed: pip install '{extra}'.")
        from .dlt_seam import Files  # noqa: PLC0415 - dlt's libraries for files

        return Files()

    @override
    @contextmanager
    def lock(self, labels: Sequence[str]) -> Iterator[None]:
        """Check that it can be written; hold a file for each account beside a dataset that is a folder."""
        from .dlt_seam import local_folder  # noqa: PLC0415 - see accounts
        from .working_directory import working_directory  # noqa: PLC0415

        with working_directory() as directory, ExitStack() as stack:
            pipeline = self.pipeline(directory)
            self.preflight(pipeline)
            folder = local_folder(pipeline.destination_client())
            for label in sorted(set(labels)):
                if folder is None:
                    break  # a bucket
                folder.mkdir(parents=True, exist_ok=True)
                lock_file = folder / f"{self.dataset}.{label_in_names(label)}.lock"
                what = f"Another sync of account {label} is running on {self.shown}"
                stack.enter_context(file_lock(lock_file, self.shown, what=what, wait_seconds=self.lock_wait_seconds))
            yield

    @override
    def preflight(self, pipeline: dlt.Pipeline) -> bool:
        """Look at the folder or bucket once, and open the catalog."""
        from .errors import destination_errors  # noqa: PLC0415 - see accounts
        from .preflight import check_connection  # noqa: PLC0415

        check_connection(self, pipeline)
        with destination_errors(self, "The catalog cannot be reached"), pipeline.destination_client() as client:
            self._check_catalog(client)
        return False

    @override
    def read(self, wanted: Sequence[str], directory: Path, stack: ExitStack) -> Rows:
        """Copy the tables into a DuckDB file, and compute the views there."""
        from .rows.computed import copied, needed_tables  # noqa: PLC0415 - see accounts
        from .rows.lake import lake_tables  # noqa: PLC0415

        destination: Any = self.pipeline(directory / "pipeline").destination_client()
        client = stack.enter_context(destination)
        self._check_catalog(client)
        return copied(lake_tables(client, self, needed_tables(wanted)), self, wanted, directory, stack)

    @override
    def rows_with(self, client: Any, name: str, conditions: Mapping[str, Sequence[Any]]) -> pa.Table | None:
        """Return the rows of an Iceberg table; None for Delta."""
        from .dlt_seam import read_stored_schema  # noqa: PLC0415 - see accounts
        from .rows.lake import open_tables  # noqa: PLC0415

        if self.table_format != "iceberg" or read_stored_schema(client) is None:
            return None
        from .iceberg_merge import rows_with  # noqa: PLC0415 - needs pyiceberg

        return next((rows_with(table, conditions) for _, table in open_tables(client, self, [name])), None)

    @override
    def columns(self, client: Any, names: Collection[str]) -> dict[str, dict[str, str]]:
        from .dlt_seam import stored_tables  # noqa: PLC0415 - see accounts

        return stored_tables(client)

    @override
    def locations(self, client: Any, names: Collection[str]) -> Mapping[str, tuple[str, str]]:
        """Return the folder of each table; dlt's own tables are JSON files."""
        return {
            name: (
                "json" if name.startswith("_dlt") else str(self.table_format),
                client.get_table_dir(name, remote=True).rstrip("/"),
            )
            for name in names
        }

    @override
    def maintain(self, directory: Path, keep_seconds: float) -> Iterator[str]:
        from .dlt_seam import read_stored_schema  # noqa: PLC0415 - see accounts
        from .rows.lake import open_tables  # noqa: PLC0415

        if self.table_format != "iceberg":
            raise UsageError("ftw maintain does not know Delta tables: use the tools of Delta (OPTIMIZE, VACUUM).")
        destination: Any = self.pipeline(directory / "pipeline").destination_client()
        with destination as client:
            self._check_catalog(client)
            schema = read_stored_schema(client)
            names = schema.data_table_names() if schema is not None else []
            for name, table in open_tables(client, self, names):
                yield f"{self.shown}: {name}: {_merge_files(table)}, {_expire(table, keep_seconds)}."

    def _check_catalog(self, client: Any) -> None:
        """Raise `UsageError` if no catalog is set: dlt would make one in memory, which cannot keep two syncs apart."""
        if self.table_format != "iceberg":
            return
        from .dlt_seam import has_catalog  # noqa: PLC0415 - see accounts

        (is_set,) = retried(
            lambda: (has_catalog(client),),
            READ_WAIT_SECONDS,
            is_held=lambda error: _IS_BEING_MADE.search(str(error)) is not None,
            waiting=lambda _: "Another sync is making the catalog: opening it again ...",
        )
        if not is_set:
            raise UsageError(
                "Iceberg tables need a catalog: set ICEBERG_CATALOG__ICEBERG_CATALOG_TYPE (sql or rest) and "
                "ICEBERG_CATALOG__ICEBERG_CATALOG_CONFIG, such as "
                '{"type": "sql", "uri": "sqlite:///catalog.db", "warehouse": "lake"}. Tables that are there are '
                "taken into it when they are next read or written."
            )


def _merge_files(table: Any) -> str:
    """Rewrite a small table of several files as one; return what was done."""
    from .iceberg_merge import without_retries  # noqa: PLC0415 - needs pyiceberg

    files = [task.file for task in table.scan().plan_files()]
    if len(files) < 2 or sum(file.file_size_in_bytes for file in files) > _SMALL_BYTES:
        return f"{len(files)} files kept"
    without_retries(table).overwrite(table.scan().to_arrow())
    return f"{len(files)} files merged"


def _expire(table: Any, keep_seconds: float) -> str:
    """Expire snapshots of a table; return what was done."""
    before = len(table.refresh().snapshots())
    limit = datetime.now(timezone.utc) - timedelta(seconds=keep_seconds)
    table.maintenance.expire_snapshots().older_than(limit.replace(tzinfo=None)).commit()
    return f"{before - len(table.refresh().snapshots())} snapshots expired"
