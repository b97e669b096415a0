"""The earlier name of `fine_tuning_warehouse.sync.scheduled`, which scripts and schedules may still import."""

from .sync.scheduled import sync_configured

__all__ = ["sync_configured"]
