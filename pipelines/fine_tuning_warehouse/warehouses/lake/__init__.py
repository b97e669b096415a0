"""A lake: tables as files in a folder or a bucket, where no database keeps syncs apart, or state and rows together."""

from __future__ import annotations

from .destination import Lake, lease_of
from .lease import Lease, hold

__all__ = ["Lake", "Lease", "hold", "lease_of"]
