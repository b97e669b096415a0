"""The SQL views: answers over the tables. Each is a `.sql` file, whose comments say what it and its columns hold."""

from __future__ import annotations

from .create import write_views
from .files import VIEWS, View

__all__ = ["VIEWS", "View", "write_views"]
