"""DuckDB lets one process write to a file only while no other reads it: how that shows, and for how long one waits."""

from __future__ import annotations

from fine_tuning_warehouse.errors import root_cause

LOCK_WAIT_SECONDS = 60.0
"""How long a sync waits for a reader that holds the DuckDB file, and whatever runs as long as one for a sync."""

READ_WAIT_SECONDS = 10.0
"""How long a quick look into a DuckDB file waits for a sync that holds it."""


def is_locked(error: BaseException) -> bool:
    """Whether a file could not be opened because another program holds it."""
    return "Could not set lock on file" in str(root_cause(error))
