"""What dlt keeps for the whole process, and other pipelines in it rely on.

dlt promises neither its list of tracking modules nor how they are called; tests/test_process.py fails if they change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

import dlt
from dlt.common.configuration.container import Container
from dlt.common.pipeline import PipelineContext
from dlt.pipeline import trace

_silent: WeakSet[dlt.Pipeline] = WeakSet()


class _Tracking:
    """A tracking module of dlt that is not called for silent pipelines."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., None]:
        call = getattr(self._module, name)

        def call_unless_silent(*arguments: Any) -> None:
            if not any(isinstance(one, dlt.Pipeline) and one in _silent for one in arguments):
                call(*arguments)

        return call_unless_silent


def send_no_telemetry(pipeline: dlt.Pipeline) -> None:
    """Keep dlt from sending traces of a pipeline anywhere. Other pipelines of the process are tracked as before."""
    _silent.add(pipeline)
    modules: list[Any] = trace.TRACKING_MODULES
    modules[:] = [one if isinstance(one, _Tracking) else _Tracking(one) for one in modules]


@contextmanager
def active_pipeline_kept() -> Iterator[None]:
    """Restore at the end which pipeline `dlt.pipeline()` and `dlt.current.pipeline()` return."""
    context = Container()[PipelineContext]
    before = context.pipeline() if context.is_active() else None
    try:
        yield
    finally:
        context.deactivate()
        if before is not None:
            with suppress(OSError):  # its directory is gone
                context.activate(before)
