"""Waiting for a program that holds the DuckDB file: DuckDB lets one process write only while no other reads."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from fine_tuning_warehouse.errors import CommandError, root_cause

from .duckdb_lock import is_locked
from .warehouse import Warehouse

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.2

Result = TypeVar("Result")


class Patience:
    """Tries a step again while another program holds the database.

    Args:
        warehouse: Whose file it is.
        seconds: How long to wait, each time.
    """

    def __init__(self, warehouse: Warehouse, seconds: float) -> None:
        self._warehouse = warehouse
        self._seconds = seconds

    def apply(self, step: Callable[[], Result]) -> Result:
        """Do a step that may be done again where it left off.

        Raises:
            CommandError: The file was held for too long.
        """
        until = time.monotonic() + self._seconds
        told = False
        while True:
            try:
                return step()
            except Exception as error:
                if not is_locked(error):
                    raise
                holder = _holder(error)
                if time.monotonic() >= until:
                    raise CommandError(
                        f"Another program{holder} holds {self._warehouse.shown} for longer than {self._seconds:g} s. "
                        "Nothing is lost: close it, and sync again."
                    ) from None
            if not told:
                logger.warning("Waiting for another program%s that holds %s ...", holder, self._warehouse.shown)
                told = True
            time.sleep(_PAUSE_SECONDS)


def _holder(error: Exception) -> str:
    """Who holds the file, in words, as far as DuckDB knows."""
    process = re.search(r"held in (\S+) \(PID (\d+)\)", str(root_cause(error)))
    return f" ({process[1]}, process {process[2]})" if process else ""
