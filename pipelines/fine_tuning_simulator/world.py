"""What a host shows: the protocol that the routes ask."""

from collections.abc import Sequence
from typing import Any, Protocol


class World(Protocol):
    """Records as they go on the wire, already in the host's order, as of the moment of the call."""

    page_limit: int | None
    """The most records that a page holds, whatever `limit` asks; `None` for no such cap."""

    def jobs(self) -> Sequence[Any]:
        """All jobs."""
        ...

    def job(self, job_id: str) -> dict[str, Any] | None:
        """One job, or `None` if there is none of that id."""
        ...

    def checkpoints(self, job_id: str) -> Sequence[Any] | None:
        """The checkpoints that the host shows for a job, or `None` if there is no such listing."""
        ...

    def events(self, job_id: str) -> Sequence[Any] | None:
        """The events of a job so far, or `None` if there is no such listing."""
        ...

    def files(self) -> Sequence[Any]:
        """All files, newest first."""
        ...

    def file(self, file_id: str) -> dict[str, Any] | None:
        """One file's description, or `None`."""
        ...

    def file_content(self, file_id: str) -> bytes | None:
        """One file's bytes as the host sends them, or `None`."""
        ...
