"""The interface that each kind of warehouse fills in, and how options name one.

A kind is a module beside this one: `duckdb` (one file), `ducklake`, `postgres`, `iceberg`, and `other` for every other
destination of dlt. Nothing outside this package asks which kind a warehouse is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from typing_extensions import Self

from fine_tuning_warehouse.accounts.labels import DEFAULT_LABEL, label_in_names
from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.text import named_path

from .locking import LOCK_WAIT_SECONDS

if TYPE_CHECKING:
    import dlt
    import pyarrow as pa
    from dlt.common.pipeline import LoadInfo

    from .rows import Rows

DEFAULT_DATABASE = "fine_tuning_warehouse.duckdb"
DEFAULT_DATASET = "fine_tuning"
PIPELINE_PREFIX = "fine_tuning_"

TableFormat = Literal["iceberg", "delta"]

Result = TypeVar("Result")


MARK = "Rows of the views of fine-tuning-warehouse, "
"""The beginning of the comment on each table that holds rows of large views: others are not ours."""


class MaterializationError(CommandError):
    """The rows of large views could not be kept in tables: the views compute them."""


@dataclass(frozen=True, kw_only=True)
class _Waits:
    lock_wait_seconds: float = field(default=LOCK_WAIT_SECONDS, compare=False)


class Warehouse(_Waits, ABC):
    """A place that holds the tables of fine-tuning histories.

    Attributes:
        destination: dlt's name of the destination.
        dataset: The schema (or folder) that holds the tables.
        table_format: The format of the tables if the destination has several; else None.
        lock_wait_seconds: How long to wait for another program that holds the database, or for another load.
    """

    destination: str
    dataset: str
    table_format: TableFormat | None = None

    table_comments: ClassVar[str | None] = None
    """Query for the tables' columns: (table, its comment, column, its comment). None if tables cannot be commented."""

    view_comments: ClassVar[str | None] = None
    """Query for the views: (view, its comment). None if views cannot be commented."""

    keeps_types: ClassVar[bool] = False
    """Whether the database has all types of dlt, so that a column has the type that dlt has declared."""

    comments_view_columns: ClassVar[bool] = True
    """Whether the columns of a view can be commented."""

    def view_options(self, sql: Any) -> str:
        """Return the SQL between the name of a view and AS, with a leading blank."""
        del sql
        return ""

    def view_grants(self, sql: Any) -> list[str]:
        """Return the statements that restore the rights on the views, for views that are dropped and made anew."""
        del sql
        return []

    def materialized_schema(self, sql: Any) -> str | None:
        """Return the schema of the tables that hold the rows of large views; None if the views compute all rows.

        Args:
            sql: dlt's SQL client of the warehouse.
        """
        del sql
        return None

    def materialized_tables(self, sql: Any) -> Mapping[str, Collection[str]]:
        """Return the tables that hold the rows of large views: qualified name to columns.

        Args:
            sql: dlt's SQL client of the warehouse.
        """
        del sql
        return {}

    def waiting(self, seconds: float) -> Self:
        """Return the same warehouse with another `lock_wait_seconds`."""
        return replace(self, lock_wait_seconds=seconds)

    @property
    def shown(self) -> str:
        """The name of the warehouse in messages."""
        return f"{self.destination} (dataset {self.dataset})"

    @property
    def option(self) -> str:
        """The option of `ftw copy` that copies into this warehouse."""
        return f"--destination {self.destination}"

    @property
    def duckdb_file(self) -> Path | None:
        """The DuckDB file that holds the tables and views; None if they lie elsewhere."""
        return None

    def exists(self) -> bool:
        """Return whether a sync has made it. True if only a connection can show that."""
        return True

    def require(self) -> None:
        """Raise `CommandError` if the warehouse does not exist."""
        if not self.exists():
            raise CommandError(f"There is no database {self.shown}: `ftw sync` makes it.")

    def discard_empty(self) -> None:
        """Remove what a sync that loaded nothing has just made."""

    def pipeline(self, directory: Path, *, label: str = DEFAULT_LABEL) -> dlt.Pipeline:
        """Return dlt's pipeline into it.

        Args:
            directory: A fresh directory for the pipeline to work in.
            label: The account that has its state kept under this pipeline's name.
        """
        import dlt  # noqa: PLC0415 - see accounts

        from .dlt_seam import send_no_telemetry  # noqa: PLC0415 - imports dlt

        pipeline = dlt.pipeline(
            f"{PIPELINE_PREFIX}{label_in_names(label)}",
            pipelines_dir=str(directory),
            destination=self.dlt_destination(label),
            dataset_name=self.dataset,
        )
        send_no_telemetry(pipeline)
        return pipeline

    @abstractmethod
    def dlt_destination(self, label: str) -> Any:
        """Return dlt's destination for an account's pipeline. Raises `UsageError` if dlt or a package lacks it."""

    @abstractmethod
    def lock(self, labels: Sequence[str]) -> AbstractContextManager[None]:
        """Check that it can be written, and hold it while some accounts are synced or copied into it.

        Args:
            labels: The accounts.

        Raises:
            BusyError: Another sync holds it.
            UsageError: A setting is missing, or the destination cannot merge.
            CommandError: The destination refuses.
        """

    @abstractmethod
    def preflight(self, pipeline: dlt.Pipeline) -> bool:
        """Check that a pipeline can load into it, before anything is requested from the host.

        Returns:
            Whether everything was tried that a load needs; False if the destination has only answered.

        Raises:
            UsageError: A setting or a package is missing, or the destination cannot merge.
            CommandError: The destination refuses.
        """

    def exclusive_load(self, pipeline: dlt.Pipeline) -> AbstractContextManager[None]:
        """Keep other loads out, if the destination itself does not keep them apart.

        Raises:
            BusyError: Another load took longer than `lock_wait_seconds`.
        """
        del pipeline
        return nullcontext()

    def attempt(self, step: Callable[[], Result]) -> Result:
        """Do a step, and repeat it while another program holds the database.

        Raises:
            CommandError: The database was held for too long.
        """
        return step()

    def session(self, pipeline: dlt.Pipeline) -> AbstractContextManager[None]:
        """Keep what is opened for one step of dlt open for the next.

        Raises:
            BusyError: Another session of a server held a table for longer than `lock_wait_seconds`.
        """
        del pipeline
        return nullcontext()

    def restore(self, pipeline: dlt.Pipeline) -> None:
        """Give a new pipeline the state and schema that the last load has left."""

        def restore() -> None:
            with self.session(pipeline):
                pipeline.sync_destination()

        self.attempt(restore)

    def load(
        self, pipeline: dlt.Pipeline, *, prepare: Callable[[], None] | None = None, largest_batch: int = 0
    ) -> LoadInfo:
        """Load what a pipeline has normalised, and make the tables and columns that are needed and missing.

        Args:
            pipeline: The pipeline.
            prepare: Called first, when no other load can begin any more. It may be called again.
            largest_batch: Bytes of the largest Arrow table in it.
        """
        del largest_batch

        def load() -> LoadInfo:
            with self.session(pipeline):
                return load_pending(pipeline, prepare)

        with self.exclusive_load(pipeline):
            return self.attempt(load)

    def describe(self, pipeline: dlt.Pipeline) -> list[str]:
        """Write comments and views after a load, if they are missing or have changed.

        Returns:
            Why a view stays as it was, if somebody has built on it what does not fit the new one.

        Raises:
            CommandError: A view could not be made for another reason. The tables are loaded all the same.
        """

        def describe() -> list[str]:
            with self.session(pipeline):
                return write_descriptions(pipeline, self)

        with self.exclusive_load(pipeline):
            return self.attempt(describe)

    @abstractmethod
    def read(self, wanted: Sequence[str], directory: Path, stack: ExitStack) -> Rows:
        """Open it for reading; `rows.open_rows` is what others call.

        Args:
            wanted: The tables and views.
            directory: A directory for temporary files.
            stack: Closes what is opened.
        """

    def maintain(self, directory: Path, keep_seconds: float) -> Iterator[str]:
        """Merge small files and let go of what is older than `keep_seconds`; yields what was done, a line each."""
        del directory, keep_seconds
        yield f"{self.shown} maintains itself: nothing to do."

    def rows_with(self, client: Any, name: str, conditions: Mapping[str, Sequence[Any]]) -> pa.Table | None:
        """Return the rows of a table that have one of some values in each of some columns.

        Args:
            client: dlt's client of the destination.
            name: The table.
            conditions: Column to its values.

        Returns:
            The rows; None if the table or a column is missing, or the destination cannot be asked.
        """
        from .dlt_seam import is_sql  # noqa: PLC0415 - see accounts
        from .rows.sql import rows_with  # noqa: PLC0415

        return rows_with(client, name, conditions) if is_sql(client) else None

    def columns(self, client: Any, names: Collection[str]) -> dict[str, dict[str, str]]:
        """Return the columns of tables that exist: table to column to dlt's type, all in lower case.

        Args:
            client: dlt's client of the destination.
            names: The tables to look at.
        """
        return {
            name: {str(column).lower(): str(hints.get("data_type")) for column, hints in columns.items()}
            for name, columns in client.get_storage_tables(names)
        }

    def locations(self, client: Any, names: Collection[str]) -> Mapping[str, tuple[str, str]]:
        """Return the location of each table's files: table to (format, URL). Empty for tables that have names."""
        del client, names
        return {}


def load_pending(pipeline: dlt.Pipeline, prepare: Callable[[], None] | None) -> LoadInfo:
    """Load what a pipeline has normalised; what an earlier call has loaded of it is not loaded again."""
    from .tables import make_lacking  # noqa: PLC0415 - imports dlt, and this module

    if prepare is not None:
        prepare()
    make_lacking(pipeline)
    return pipeline.load()


def write_descriptions(pipeline: dlt.Pipeline, warehouse: Warehouse) -> list[str]:
    """Write comments and views into a warehouse that is open; `Warehouse.describe` says more."""
    from fine_tuning_warehouse.views import write_views  # noqa: PLC0415 - see accounts

    from .comments import write_comments  # noqa: PLC0415

    write_comments(pipeline, warehouse)
    return write_views(pipeline, warehouse)


def find_warehouse(
    *,
    database: str | None = None,
    destination: str | None = None,
    dataset: str | None = None,
    table_format: TableFormat | None = None,
    default: str = DEFAULT_DATABASE,
) -> Warehouse:
    """Return the warehouse that the options name.

    Args:
        database: The path of a DuckDB file.
        destination: dlt's name of a destination; None for DuckDB.
        dataset: The schema; None for the usual one.
        table_format: For `filesystem` only.
        default: The DuckDB file if none is named.

    Raises:
        UsageError: The options do not go together.
        CommandError: The file system refuses to look for the database.
    """
    dataset = DEFAULT_DATASET if dataset is None else dataset
    if not dataset.isidentifier():
        raise UsageError(f"Invalid --dataset {dataset!r}: expected a name of letters, digits and underscores.")
    destination = destination or "duckdb"
    if table_format is not None and destination != "filesystem":
        raise UsageError("--table-format is for --destination filesystem.")
    if database is not None and destination != "duckdb":
        raise UsageError("--database is for DuckDB; other destinations take dlt's own credentials.")
    if destination == "duckdb":
        from .duckdb import DuckDb  # noqa: PLC0415 - a kind imports this module

        path = named_path(database or default, "The database").absolute()
        if path.stem.lower() == dataset.lower():
            raise UsageError(
                f"The database file {path.name} and the dataset {dataset} have the same name, which DuckDB cannot tell "
                "apart: choose another --database or --dataset."
            )
        return DuckDb(path, dataset)
    if destination == "postgres":
        from .postgres import PostgreSql  # noqa: PLC0415

        return PostgreSql(dataset=dataset)
    if destination == "ducklake":
        from .ducklake import DuckLake  # noqa: PLC0415

        return DuckLake(dataset)
    if destination == "filesystem":
        if table_format is None:
            raise UsageError(
                "--destination filesystem needs --table-format iceberg (or delta): plain files cannot merge."
            )
        from .iceberg import Iceberg  # noqa: PLC0415

        return Iceberg(dataset, table_format)
    from .other import OtherDestination  # noqa: PLC0415

    return OtherDestination(destination, dataset)


__all__ = ["DEFAULT_DATABASE", "DEFAULT_DATASET", "TableFormat", "Warehouse", "find_warehouse"]
