"""What is logged, and to whom."""

from __future__ import annotations

import logging
import os


def set_up_logging(*, quiet: bool, verbose: bool) -> None:
    """Our own warnings for people on stderr; what dlt does only on request."""
    os.environ["RUNTIME__LOG_LEVEL"] = "INFO" if verbose else "CRITICAL"
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("fine_tuning_warehouse")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
    # What the source skips is told at the end, all together.
    source = logging.getLogger("openai_fine_tuning")
    source.handlers, source.propagate = [handler if verbose else logging.NullHandler()], False
