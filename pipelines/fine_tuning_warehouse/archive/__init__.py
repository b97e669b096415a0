"""An archive of a warehouse: a folder that stands alone and outlives the host, the database and this software.

One run syncs, exports every table and view as they stand at one moment, brings the files that jobs name from the host,
and last of all writes the manifest. Nothing is replaced before everything that is to replace it is there, a file
appears whole or not at all, and what the archive once has of the host it keeps.
"""

from __future__ import annotations

from .check import Checked, Damage, check
from .manifest import Missing
from .run import Archived, Plan, archive
from .store import open_store

__all__ = ["Archived", "Checked", "Damage", "Missing", "Plan", "archive", "check", "open_store"]
