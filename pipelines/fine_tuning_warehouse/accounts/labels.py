"""Labels of accounts: check them, and make them part of names."""

from __future__ import annotations

import hashlib
import re

from fine_tuning_warehouse.errors import UsageError

DEFAULT_LABEL = "default"


def checked_label(label: str) -> str:
    """Return a label without blanks around it. Raises `UsageError` if it is not 1 to 100 printable characters."""
    if not label.strip() or not label.isprintable() or len(label) > 100:
        raise UsageError("An account label is 1 to 100 printable characters, such as `production`.")
    return label.strip()


def label_in_names(label: str) -> str:
    """Return a label in the form that can be part of a pipeline's or schema's name; different labels stay different."""
    slug = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
    return slug if slug == label else f"{slug[:40]}_{hashlib.sha256(label.encode()).hexdigest()[:8]}"
