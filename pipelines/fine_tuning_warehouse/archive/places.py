"""Where an archive may lie, and what is told where it cannot be reached."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from fine_tuning_warehouse.errors import CommandError, UsageError
from fine_tuning_warehouse.paths import named_path
from openai_fine_tuning import ConfigurationError

from .bucket import Bucket
from .folder import Folder
from .store import Store


def open_store(where: str) -> Store:
    """The archive at a folder or a URL.

    Raises:
        UsageError: It can be neither.
        CommandError: The folder cannot even be looked for.
    """
    if not where.strip():
        raise UsageError("Name a folder for the archive, or a URL such as s3://bucket/prefix.")
    for scheme in ("file://", "local://"):
        where = where.removeprefix(scheme)
    if "://" in where:
        return Bucket(where)
    if found := re.match(r"(\w{2,}):/", where):  # one letter is a drive
        raise UsageError(f"{where!r} is neither a folder nor a URL: {found[1]}:// begins with two slashes.")
    return Folder(named_path(where, "The archive").absolute())


@contextmanager
def archive_errors(store: Store) -> Iterator[None]:
    """Tell what the disk or the bucket says in a line."""
    try:
        yield
    except (CommandError, ConfigurationError):
        raise
    except OSError as error:
        raise CommandError(
            f"The archive {store.shown} cannot be written or read: {error.strerror or error}."
        ) from error
