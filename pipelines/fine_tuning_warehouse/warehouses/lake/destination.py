"""dlt's destination `filesystem`, as a lake needs it: written under a lease, and read past files that are torn.

dlt writes its state, its schema and (in a folder) Iceberg's metadata as files, which a crash may cut off; it reads the
newest, and would fail on a torn one for ever. Here a torn file is set aside under a name that nobody reads, and the
newest whole one counts. An older state only means that what was loaded since is read and written once more.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import dlt
from dlt.common.schema import Schema
from dlt.destinations.impl.filesystem.factory import filesystem
from dlt.destinations.impl.filesystem.filesystem import FilesystemClient

from fine_tuning_warehouse.errors import CommandError

from .lease import Lease

logger = logging.getLogger(__name__)

Found = TypeVar("Found")


class Lake(filesystem):
    """dlt's destination `filesystem` under a lease.

    Attributes:
        lease: What each step of a load checks; None for those who only read.
    """

    lease: Lease | None = None  # no argument: dlt takes those of its own class for settings

    @property
    def destination_type(self) -> str:
        """dlt's own name of it: configuration and state go by it."""
        return "dlt.destinations.filesystem"

    @property
    def client_class(self) -> type[FilesystemClient]:
        """See dlt."""
        # Hugging Face's has no tables that merge.
        return super().client_class if self.is_hf else _Client

    def client(self, schema: Schema, initial_config: Any = None) -> Any:
        """A client for one step of a load. Raises `BusyError` where the lease is lost."""
        if self.lease is not None:
            self.lease.check()
        client = super().client(schema, initial_config)
        if isinstance(client, _Client):
            client.lease = self.lease
        return client


def lease_of(pipeline: dlt.Pipeline, shown: str) -> Lease:
    """The lease, not taken yet, of the dataset that a pipeline writes to."""
    with pipeline.destination_client() as client:
        if not isinstance(client, FilesystemClient):
            raise TypeError(f"{pipeline.destination.destination_name} is no lake")
        folder = client.pathlib.join(client.bucket_path, f"{client.dataset_name}.lease")
        return Lease(client.fs_client, str(folder), shown)


class _Client(FilesystemClient):
    """The client of one step of a load. Its methods are dlt's."""

    lease: Lease | None = None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._skipped: set[str] = set()

    def initialize_storage(self, truncate_tables: Iterable[str] | None = None) -> None:
        """The first step of a load."""
        self._renew()
        super().initialize_storage(truncate_tables)  # type: ignore[arg-type]

    def complete_load(self, load_id: str) -> None:
        """The last step of a load: it writes the state, when all tables are written."""
        if self.is_local_filesystem and self.lease is not None:
            self._flush(since=self.lease.since)
        self._renew()
        super().complete_load(load_id)

    def get_stored_state(self, pipeline_name: str) -> Any:
        """The newest whole state."""
        table = self.schema.state_table_name
        return self._past_torn(lambda: self._records(table), super().get_stored_state, pipeline_name)

    def _get_stored_schema_by_hash_or_newest(self, *arguments: Any, **named: Any) -> Any:
        table, read = self.schema.version_table_name, super()._get_stored_schema_by_hash_or_newest
        return self._past_torn(lambda: self._records(table), read, *arguments, **named)

    def load_open_table(self, table_format: Any, table_name: str, **arguments: Any) -> Any:
        """A table as of its newest whole metadata."""
        folder = self.pathlib.join(self.get_table_dir(table_name), "metadata")
        read = super().load_open_table
        return self._past_torn(lambda: self._metadata(folder), read, table_format, table_name, **arguments)

    @staticmethod
    def get_reference_followup_job_class(table: Any) -> Any:
        """What loads files into a table of a table format."""
        if table.get("table_format") == "iceberg":
            from .merge import IcebergJob  # noqa: PLC0415 - needs an extra of dlt

            return IcebergJob
        return FilesystemClient.get_reference_followup_job_class(table)

    def _records(self, table: str) -> list[str]:
        return [path for path, _ in super()._list_dlt_table_files(table)]

    def _metadata(self, folder: str) -> list[str]:
        try:
            return [str(path) for path in self.fs_client.ls(folder, detail=False) if str(path).endswith(".json")]
        except FileNotFoundError:
            return []

    def _list_dlt_table_files(
        self, table_name: str, pipeline_name: str | None = None
    ) -> Iterator[tuple[str, list[str]]]:
        for path, parts in super()._list_dlt_table_files(table_name, pipeline_name):  # type: ignore[arg-type]
            if path not in self._skipped:
                yield path, parts

    def _past_torn(
        self, files: Callable[[], Iterable[str]], read: Callable[..., Found], *arguments: Any, **named: Any
    ) -> Found:
        """Read; where that fails on a torn file, read again without it."""
        try:
            return read(*arguments, **named)
        except Exception:  # each library that reads them raises its own
            torn = [path for path in files() if self._is_torn(path)]
            if not torn:
                raise
            for path in torn:
                self._set_aside(path)
            return read(*arguments, **named)

    def _is_torn(self, path: str) -> bool:
        try:
            return not isinstance(json.loads(self.fs_client.read_text(path, encoding="utf-8")), dict)
        except ValueError:
            return True

    def _set_aside(self, path: str) -> None:
        if self.lease is None:  # who only reads moves nothing: it may be just being written
            if path.endswith(".metadata.json"):
                raise CommandError(f"{path} is being written, or was torn by a crash: `ftw sync` mends it.")
            self._skipped.add(path)
            return
        folder, name = self.pathlib.split(path)
        # dlt takes any file whose name has three parts with this sign between them.
        aside = self.pathlib.join(folder, name.replace("__", "-") + ".torn")
        self.fs_client.mv(path, aside)
        logger.warning(
            "%s was torn by a crash; it is set aside as %s. Nothing is lost: the one before it counts.", path, aside
        )

    def _write_to_json_file(self, filepath: str, data: Any) -> None:
        if not self.is_local_filesystem:
            super()._write_to_json_file(filepath, data)  # an object appears whole, or not at all
            return
        part = self.pathlib.join(self.pathlib.dirname(filepath), ".part")
        self.fs_client.makedirs(self.pathlib.dirname(filepath), exist_ok=True)
        super()._write_to_json_file(part, data)
        with open(part, "rb") as file:  # noqa: PTH123 - paths are texts here
            os.fsync(file.fileno())
        os.replace(part, filepath)  # noqa: PTH105

    def _flush(self, since: float) -> None:
        """Have the disk hold the tables' files before the state that tells of them."""
        for file in Path(self.dataset_path).rglob("*"):
            if file.is_file() and file.stat().st_mtime >= since - 1:
                with file.open("r+b") as written:
                    os.fsync(written.fileno())

    def _renew(self) -> None:
        if self.lease is not None:
            self.lease.renew()
