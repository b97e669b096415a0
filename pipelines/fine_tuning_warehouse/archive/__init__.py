"""Make an archive of a warehouse: a folder that outlives the host, the database and this software.

A run syncs, exports every table and view as of one moment, fetches the files that jobs name, and writes the manifest
last. A file appears whole or not at all. What the archive once has of the host, it keeps.
"""

from __future__ import annotations

from .check import Checked, Damage, check
from .manifest import Manifest, Missing
from .plan import Archived, Plan
from .rewrite import accounts_of, open_archives, rewrite
from .run import archive
from .store import open_store

__all__ = [
    "Archived",
    "Checked",
    "Damage",
    "Manifest",
    "Missing",
    "Plan",
    "accounts_of",
    "archive",
    "check",
    "open_archives",
    "open_store",
    "rewrite",
]
