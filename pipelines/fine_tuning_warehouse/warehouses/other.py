"""Every other destination of dlt. dlt says how it is loaded, and nothing keeps two syncs at once apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from fine_tuning_warehouse.accounts.labels import DEFAULT_LABEL, label_in_names
from fine_tuning_warehouse.errors import UsageError

from .warehouse import DEFAULT_DATASET, Warehouse

if TYPE_CHECKING:
    import dlt

    from .rows import Rows


@dataclass(frozen=True)
class OtherDestination(Warehouse):
    """A destination of dlt that has no module of its own here, a SQL database as a rule.

    Attributes:
        destination: dlt's name of it.
        dataset: The schema that holds the tables.
    """

    destination: str
    dataset: str = DEFAULT_DATASET

    @override
    def dlt_destination(self, label: str) -> Any:
        """Return dlt's destination, with a staging schema for each account: two may load at once."""
        import dlt  # noqa: PLC0415 - see accounts
        from dlt.common.destination.client import DestinationClientDwhConfiguration  # noqa: PLC0415
        from dlt.common.destination.exceptions import UnknownDestinationModule  # noqa: PLC0415

        from .dlt_seam import set_staging_layout  # noqa: PLC0415

        try:
            destination: Any = dlt.common.destination.Destination.from_reference(self.destination)
        except (UnknownDestinationModule, ImportError):
            known = ", ".join(sorted(name for name in dlt.destinations.__all__ if name != "destination"))
            raise UsageError(f"dlt has no destination {self.destination!r}. It has {known}.") from None
        if label != DEFAULT_LABEL and issubclass(destination.spec, DestinationClientDwhConfiguration):
            set_staging_layout(destination, f"%s_staging_{label_in_names(label)}")
        return destination

    @override
    @contextmanager
    def lock(self, labels: Sequence[str]) -> Iterator[None]:
        """Check that it can be written; nothing keeps a second sync out."""
        from .working_directory import working_directory  # noqa: PLC0415

        with working_directory() as directory:
            self.preflight(self.pipeline(directory))
            yield

    @override
    def preflight(self, pipeline: dlt.Pipeline) -> bool:
        """Connect once, and check that rows can be merged."""
        from .preflight import check_connection  # noqa: PLC0415 - see accounts

        check_connection(self, pipeline)
        return False

    @override
    def read(self, wanted: Sequence[str], directory: Path, stack: ExitStack) -> Rows:
        """Open it through dlt's client. If it has no views, they are computed over a copy of the tables."""
        from .rows.computed import copied, needed_tables  # noqa: PLC0415 - see accounts
        from .rows.sql import SqlRows, supports_views  # noqa: PLC0415

        destination: Any = self.pipeline(directory / "pipeline").destination_client()
        client = stack.enter_context(destination)
        has_views = supports_views(client)
        asked = wanted if has_views else needed_tables(wanted)
        stored = {name: columns for name, columns in client.get_storage_tables(asked) if columns}
        rows = SqlRows(client.sql_client, stored, self, asked)
        if has_views:
            return rows
        return copied({one.name: rows.reader(one) for one in rows.relations}, self, wanted, directory, stack)
