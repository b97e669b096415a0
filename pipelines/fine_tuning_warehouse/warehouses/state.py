"""What syncs have left in a warehouse beside the rows: the schema of the tables, and each account's state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dlt

from fine_tuning_warehouse.errors import CommandError
from openai_fine_tuning import StateTooNewError
from openai_fine_tuning.state.watermark import check_version

from .dlt_seam import source_state
from .errors import destination_errors
from .tables import ADDED
from .warehouse import Warehouse

_HINTS = ("name", "data_type", "nullable", "description", "primary_key", "precision", "scale", "timezone")


@dataclass(frozen=True)
class Stored:
    """The state and the schema that the syncs of one account have left.

    Attributes:
        state: The state of the source: what was read, and what is still due. Empty if no sync completed.
        schema: The schema of the tables; None if no sync of this account completed.
    """

    state: dict[str, Any]
    schema: dlt.Schema | None

    def is_added(self, table: str, column: str) -> bool:
        """Return whether somebody has added a column to a table: no sync has made it."""
        columns = {} if self.schema is None else self.schema.tables.get(table, {}).get("columns", {})
        return column not in columns or ADDED in columns[column]

    def columns_into(self, schema: dlt.Schema, tables: Iterable[str]) -> None:
        """Add the columns of the stored tables, with their types, to the tables of another schema."""
        for name in tables:
            known = self.schema.tables.get(name) if self.schema is not None else None
            if known is not None:
                columns: Any = {
                    column: {hint: value for hint, value in hints.items() if hint in _HINTS}
                    for column, hints in known["columns"].items()
                    if hints.get("data_type") and not column.startswith("_dlt_")
                }
                schema.update_table({"name": name, "columns": columns})


def find_stored(label: str, warehouse: Warehouse, directory: Path) -> Stored:
    """Read what the syncs of an account have left in a warehouse.

    Args:
        label: The label of the account.
        warehouse: The warehouse.
        directory: A fresh directory to work in.

    Raises:
        CommandError: The warehouse does not exist or cannot be read, or a later release has synced into it.
    """
    warehouse.require()
    pipeline = warehouse.pipeline(directory, label=label)
    with destination_errors(warehouse, f"{warehouse.shown} cannot be read"):
        warehouse.restore(pipeline)
    return stored_by(pipeline)


def stored_by(pipeline: dlt.Pipeline) -> Stored:
    """Return what the syncs of an account have left, for a pipeline that has read the state of its destination.

    Raises:
        CommandError: A later release has synced into it.
    """
    state = source_state(pipeline)
    if state is None:
        return Stored({}, None)
    try:
        for resource in state.get("resources", {}).values():
            check_version(resource)
    except StateTooNewError as error:
        raise CommandError(str(error)) from None
    return Stored(state, pipeline.default_schema)
