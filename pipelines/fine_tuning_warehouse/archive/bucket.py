"""An archive at a URL that fsspec knows, such as one of S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.output import without_credentials
from fine_tuning_warehouse.warehouses.working_directory import working_directory

from .lock import only_run
from .store import Store


class Bucket(Store):
    """A URL, such as `s3://bucket/prefix`. Drafts lie in a folder of this machine; putting an object is atomic."""

    def __init__(self, url: str) -> None:
        import fsspec  # noqa: PLC0415 - only where it is needed

        self.shown = without_credentials(url).rstrip("/")
        scheme = url.split("://", 1)[0]
        try:
            self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError:
            how = "pip install 'fine-tuning-warehouse[s3]'" if scheme == "s3" else f"fsspec's library for {scheme}"
            raise UsageError(f"An archive at {scheme}:// needs more to be installed: {how}.") from None
        except Exception as error:  # noqa: BLE001 - each of fsspec's libraries has its own
            words = without_credentials(str(error)) or type(error).__name__
            raise UsageError(f"{self.shown!r} is no address for an archive: {words}.") from None
        self._root = str(root).rstrip("/")
        if not self._root:
            raise UsageError(f"{self.shown!r} names no bucket: an archive looks like s3://bucket/prefix.")
        self._work = ExitStack()
        self._local: Path | None = None

    def files(self) -> dict[str, int]:
        """See `Store`."""
        try:
            with self._telling():
                found = self._fs.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        if self._root in found:
            raise UsageError(f"{self.shown} is an object: an archive is a prefix.")
        # Consoles and other tools mark a "folder" by an empty object whose key ends in a slash.
        return {
            name[len(self._root) + 1 :]: int(info["size"] or 0)
            for name, info in found.items()
            if not name.endswith("/")
        }

    def open(self, path: str) -> BinaryIO:
        """See `Store`."""
        with self._telling():
            return self._fs.open(f"{self._root}/{path}", "rb")  # type: ignore[no-any-return]

    def draft(self, path: str) -> Path:
        """See `Store`."""
        draft = self._beside("drafts", path)
        draft.parent.mkdir(parents=True, exist_ok=True)
        return draft

    def publish(self, path: str) -> None:
        """See `Store`."""
        draft = self.draft(path)
        with self._telling():
            self._fs.put_file(str(draft), f"{self._root}/{path}")
        draft.unlink()

    def remove(self, path: str) -> None:
        """See `Store`."""
        with suppress(FileNotFoundError), self._telling():
            self._fs.rm_file(f"{self._root}/{path}")

    def local_copy(self, path: str) -> Path:
        """See `Store`."""
        copy = self._beside("copies", path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with self._telling():
            self._fs.get_file(f"{self._root}/{path}", str(copy))
        return copy

    def free_bytes(self) -> int | None:
        """See `Store`."""
        return None

    def clear_drafts(self, *, left: bool = False) -> None:  # noqa: ARG002 - a killed run leaves none in a bucket
        """See `Store`."""
        self._work.close()
        self._local = None

    @contextmanager
    def only_run(self) -> Iterator[None]:
        """See `Store`."""
        with only_run(self.shown, None):
            yield

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except Exception as error:  # each of fsspec's libraries has its own
            words = without_credentials(str(error)) or type(error).__name__
            raise CommandError(f"The archive {self.shown} cannot be written or read: {words}") from error

    def _beside(self, what: str, path: str) -> Path:
        if self._local is None:
            # What a killed run leaves there, of files that may hold what users wrote, the next command removes.
            self._local = self._work.enter_context(working_directory())
        return self._local / what / path
