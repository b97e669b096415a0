"""The logging of the command: warnings on stderr, and what dlt does with `--verbose`."""

from __future__ import annotations

import logging
import os
from typing import Any

from fine_tuning_warehouse.text import safe_lines

from .lines import LineFormatter


class SafeRecord(logging.LogRecord):
    """A log record with control characters as escapes: messages of dlt too may hold a text of the host."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info:
            # A formatter takes the text that is there already.
            self.exc_text = safe_lines(logging.Formatter().formatException(self.exc_info))

    def getMessage(self) -> str:  # noqa: N802 - the name that logging calls
        """Return the message, with each line made safe."""
        return safe_lines(super().getMessage())


def set_up_logging(*, quiet: bool, verbose: bool) -> None:
    """Log our own warnings to stderr, and what dlt does only with `verbose`."""
    os.environ["RUNTIME__LOG_LEVEL"] = "INFO" if verbose else "CRITICAL"
    logging.setLogRecordFactory(SafeRecord)
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(message)s"))
    ours = logging.getLogger("fine_tuning_warehouse")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
    # azure-identity logs every way to a token that it tries; an error of ours says when none has worked.
    azure = logging.getLogger("azure")
    azure.handlers, azure.propagate = [logging.NullHandler()], False
    # What the source skips is printed at the end, all together.
    source = logging.getLogger("openai_fine_tuning")
    source.handlers, source.propagate = [handler if verbose else logging.NullHandler()], False
