"""The earlier name of `fine_tuning_warehouse.sync`, which scripts and schedules may still import."""

from .sync.scheduled import sync as sync_configured

__all__ = ["sync_configured"]
