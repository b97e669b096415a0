"""A lake: Iceberg (or Delta) tables as files in a folder or a bucket, written under a lease."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from fine_tuning_warehouse.errors import UsageError

from .warehouse import DEFAULT_DATASET, TableFormat, Warehouse

if TYPE_CHECKING:
    import dlt

    from .lake import Lease
    from .rows import Rows


@dataclass
class Iceberg(Warehouse):
    """A lake.

    Attributes:
        dataset: The folder that holds the tables.
        table_format: The format of the tables.
    """

    dataset: str = DEFAULT_DATASET
    table_format: TableFormat | None = "iceberg"
    _lease: Lease | None = field(default=None, init=False, repr=False, compare=False)

    destination: ClassVar[str] = "filesystem"  # type: ignore[misc]

    @override
    def dlt_destination(self, label: str) -> Any:
        """Return dlt's destination, which writes under the lease where one is held."""
        # dlt finds out when all is read.
        needed, extra = {
            "iceberg": (("pyiceberg", "sqlalchemy"), "fine-tuning-warehouse[lake]"),
            "delta": (("deltalake",), "dlt[deltalake]"),
        }.get(str(self.table_format), ((), ""))
        if any(find_spec(module) is None for module in needed):
            raise UsageError(f"Tables in {self.table_format} need more to be installed: pip install '{extra}'.")
        from .lake import Lake  # noqa: PLC0415 - dlt's libraries for files

        lake = Lake()
        lake.lease = self._lease
        return lake

    @override
    @contextmanager
    def lock(self, labels: Sequence[str], lock_wait_seconds: float) -> Iterator[None]:
        """Hold the lease of the dataset."""
        from .lake import hold, lease_of  # noqa: PLC0415 - dlt's libraries for files
        from .working_directory import working_directory  # noqa: PLC0415

        with working_directory() as directory:
            pipeline = self.pipeline(directory)
            self.preflight(pipeline)
            with hold(lease_of(pipeline, self.shown)) as lease:
                self._lease = lease
                try:
                    yield
                finally:
                    self._lease = None

    @override
    def preflight(self, pipeline: dlt.Pipeline) -> bool:
        """Look at the folder or bucket once."""
        from .preflight import check_connection  # noqa: PLC0415 - see accounts

        check_connection(self, pipeline)
        return False

    @override
    def read(self, wanted: Sequence[str], directory: Path, stack: ExitStack, lock_wait_seconds: float) -> Rows:
        """Copy the tables into a DuckDB file, and compute the views there."""
        from .rows.computed import copied, needed_tables  # noqa: PLC0415 - see accounts
        from .rows.lake import lake_tables  # noqa: PLC0415

        destination: Any = self.pipeline(directory / "pipeline").destination_client()
        client = stack.enter_context(destination)
        return copied(lake_tables(client, self, needed_tables(wanted)), self, wanted, directory, stack)

    @override
    def columns(self, client: Any, names: Collection[str]) -> dict[str, dict[str, str]]:
        """Return what the schema that the last load has left beside the tables says of them."""
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
