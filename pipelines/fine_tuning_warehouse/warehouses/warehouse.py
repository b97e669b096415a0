"""Where the rows go: a DuckDB file, or any destination that dlt knows."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fine_tuning_warehouse.accounts.labels import DEFAULT_LABEL, label_in_names
from fine_tuning_warehouse.errors import UsageError
from fine_tuning_warehouse.paths import named_path
from fine_tuning_warehouse.text import shown_path

if TYPE_CHECKING:
    import dlt

    from .lake import Lease

DEFAULT_DATABASE = "fine_tuning_warehouse.duckdb"
DEFAULT_DATASET = "fine_tuning"
PIPELINE_PREFIX = "fine_tuning_"

TableFormat = Literal["iceberg", "delta"]


@dataclass(frozen=True)
class Warehouse:
    """The destination of a sync.

    Attributes:
        destination: dlt's name of it.
        database: The DuckDB file, for `duckdb` only.
        dataset: The schema (or folder) that holds the tables.
        table_format: `iceberg` or `delta`, for `filesystem`.
    """

    destination: str = "duckdb"
    database: Path | None = None
    dataset: str = DEFAULT_DATASET
    table_format: TableFormat | None = None

    @property
    def is_duckdb_file(self) -> bool:
        """Whether it is a DuckDB file on this machine."""
        return self.destination == "duckdb"

    @property
    def shown(self) -> str:
        """What people call it."""
        if self.database is not None:
            return shown_path(self.database)
        return f"{self.destination} (dataset {self.dataset})"

    @property
    def is_lake(self) -> bool:
        """Whether its tables are files, in a folder or a bucket."""
        return self.destination == "filesystem"

    def pipeline(self, directory: Path, *, label: str = DEFAULT_LABEL, lease: Lease | None = None) -> dlt.Pipeline:
        """dlt's pipeline into it.

        Args:
            directory: Where it works.
            label: The account whose state it keeps; any where none is read or written.
            lease: Under which it writes, for a lake.
        """
        import dlt  # noqa: PLC0415 - see accounts

        return dlt.pipeline(
            f"{PIPELINE_PREFIX}{label_in_names(label)}",
            pipelines_dir=str(directory),
            destination=self._dlt_destination(label, lease),
            dataset_name=self.dataset,
        )

    def _dlt_destination(self, label: str, lease: Lease | None) -> Any:
        import dlt  # noqa: PLC0415 - see accounts
        from dlt.common.destination.client import DestinationClientDwhConfiguration  # noqa: PLC0415
        from dlt.common.destination.exceptions import UnknownDestinationModule  # noqa: PLC0415

        if self.database is not None:
            from .duckdb_file import DuckDbFile  # noqa: PLC0415 - imports dlt

            return DuckDbFile(self.database)
        if self.is_lake:
            self._check_table_format()
            from .lake import Lake  # noqa: PLC0415 - dlt's libraries for files

            lake = Lake()
            lake.lease = lease
            return lake
        try:
            destination: Any = dlt.common.destination.Destination.from_reference(self.destination)
        except (UnknownDestinationModule, ImportError):
            known = ", ".join(sorted(name for name in dlt.destinations.__all__ if name != "destination"))
            raise UsageError(f"dlt has no destination {self.destination!r}. It has {known}.") from None
        if issubclass(destination.spec, DestinationClientDwhConfiguration):
            # Tables that dlt empties and fills for a merge: two accounts that sync at once must not share them.
            layout = "%s_staging" if label == DEFAULT_LABEL else f"%s_staging_{label_in_names(label)}"
            destination.config_params["staging_dataset_name_layout"] = layout
        return destination

    def _check_table_format(self) -> None:
        # dlt finds out when all is read.
        needed, extra = {
            "iceberg": (("pyiceberg", "sqlalchemy"), "fine-tuning-warehouse[lake]"),
            "delta": (("deltalake",), "dlt[deltalake]"),
        }.get(str(self.table_format), ((), ""))
        if any(find_spec(module) is None for module in needed):
            raise UsageError(f"Tables in {self.table_format} need more to be installed: pip install '{extra}'.")


def find_warehouse(
    *,
    database: str | None,
    destination: str | None,
    dataset: str | None,
    table_format: TableFormat | None,
    default: str,
) -> Warehouse:
    """The warehouse that the options name.

    Raises:
        UsageError: The options do not go together.
        CommandError: The database cannot even be looked for.
    """
    dataset = DEFAULT_DATASET if dataset is None else dataset
    if not dataset.isidentifier():
        raise UsageError(f"The dataset {dataset!r} is no plain name: letters, digits and underscores.")
    destination = destination or "duckdb"
    if destination != "duckdb":
        if database is not None:
            raise UsageError("--database is for DuckDB; other destinations take dlt's own credentials.")
        if destination == "filesystem" and table_format is None:
            raise UsageError(
                "--destination filesystem needs --table-format iceberg (or delta): plain files cannot merge."
            )
        return Warehouse(destination, None, dataset, table_format)
    if table_format is not None:
        raise UsageError("--table-format is for --destination filesystem.")
    path = named_path(database or default, "The database").absolute()
    if path.stem.lower() == dataset.lower():
        raise UsageError(
            f"The database file {path.name} and the dataset {dataset} have the same name, which DuckDB cannot tell "
            "apart: choose another --database or --dataset."
        )
    return Warehouse("duckdb", path, dataset)
