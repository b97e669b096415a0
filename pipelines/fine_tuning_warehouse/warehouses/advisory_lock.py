"""Taking turns: on a warehouse that many can write to, one sync loads at a time.

dlt merges through staging tables that all pipelines of a dataset share, and by deleting and inserting, which two
transactions at once would do twice.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dlt

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.2


@contextmanager
def turn(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Hold the dataset for loading, where its database has locks that a dead holder does not keep (PostgreSQL)."""
    if pipeline.destination is None or pipeline.destination.destination_name != "postgres":
        yield
        return
    digest = hashlib.sha256(f"fine_tuning_warehouse {pipeline.dataset_name}".encode()).digest()
    key = int.from_bytes(digest[:8], "big", signed=True)
    with pipeline.sql_client() as client:
        told = False
        # Asked again and again, and not waited for: Ctrl-C would not reach a wait inside the database.
        while not (client.execute_sql("SELECT pg_try_advisory_lock(%s)", key) or [[False]])[0][0]:
            if not told:
                logger.warning("Waiting for another sync that is loading into dataset %s ...", pipeline.dataset_name)
                told = True
            time.sleep(_PAUSE_SECONDS)
        try:
            yield
        finally:
            client.execute_sql("SELECT pg_advisory_unlock(%s)", key)
