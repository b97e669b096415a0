"""Whether a warehouse can be written: asked before anything is requested from the host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .destinations import Warehouse
from .errors import CommandError, UsageError, root_cause

if TYPE_CHECKING:
    import dlt


def check_ready(warehouse: Warehouse, pipeline: dlt.Pipeline) -> None:
    """Connect to the destination once; a DuckDB file on this machine is looked at elsewhere.

    Raises:
        UsageError: A setting, or a package, is missing or cannot be right.
        CommandError: The destination refuses.
    """
    from dlt.common.configuration.exceptions import ConfigurationException  # noqa: PLC0415 - see accounts
    from dlt.common.exceptions import MissingDependencyException  # noqa: PLC0415

    if warehouse.is_duckdb_file:
        return
    name = warehouse.destination
    try:
        with pipeline.destination_client() as client:
            client.is_storage_initialized()
            _check_folder(client)
    except CommandError:
        raise
    except MissingDependencyException as error:
        needed = " ".join(f"'{package}'" for package in error.dependencies)
        raise UsageError(f"The destination {name} needs more to be installed: pip install {needed}.") from None
    except ConfigurationException as error:
        raise UsageError(_told_setting(name, error)) from None
    except Exception as error:
        raise CommandError(f"The destination {name} cannot be reached: {without_secrets(root_cause(error))}") from None


def merge_strategy(warehouse: Warehouse, pipeline: dlt.Pipeline) -> str:
    """The way of merging that the destination supports: `delete-insert`, which bears doubles, else `upsert`.

    Raises:
        UsageError: It supports neither, or not the table format.
    """
    capabilities = pipeline.destination.capabilities()
    formats = capabilities.supported_table_formats or ()
    if warehouse.table_format is not None and warehouse.table_format not in formats:
        known = f"it has {' and '.join(formats)}" if formats else "leave --table-format out"
        raise UsageError(f"The destination {warehouse.destination} has no tables in {warehouse.table_format}: {known}.")
    supported = list(capabilities.supported_merge_strategies or ())
    if capabilities.merge_strategies_selector is not None:
        table: Any = {"name": "jobs", "table_format": warehouse.table_format}
        supported = list(capabilities.merge_strategies_selector(supported, table_schema=table))
    for strategy in ("delete-insert", "upsert"):
        if strategy in supported:
            return strategy
    how = f" as it is set; with --table-format {' or '.join(formats)} it may" if formats else ""
    raise UsageError(
        f"The destination {warehouse.destination} cannot merge rows{how}: every sync would add what is there again."
    )


def without_secrets(error: BaseException) -> str:
    """The first line of an error of a destination, without what stands for a password in a URL or a setting."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else "no message"
    line = re.sub(r"(\w://[^/@\s:]*):[^/\s]*@", r"\1:...@", line)
    line = re.sub(r"(?i)((?:password|passwd|pwd|token|secret|key)\w*['\"]?\s*[=:]\s*)[^\s,;&]+", r"\1...", line)
    return f"{line} ({type(error).__name__})"


def _check_folder(client: Any) -> None:
    """Raise `CommandError` where the bucket of a lake is not there: dlt would make one."""
    files, path = getattr(client, "fs_client", None), str(getattr(client, "bucket_path", ""))
    if files is None or getattr(client, "is_local_filesystem", True):
        return
    bucket = path.strip("/").split("/")[0]
    if bucket and not files.exists(bucket):
        raise CommandError(f"There is no bucket {bucket}, or these credentials may not see it.")


def _told_setting(name: str, error: Exception) -> str:
    """What is missing or wrong, by the environment variables that dlt reads; values are never told."""
    from dlt.common.configuration.exceptions import (  # noqa: PLC0415 - see accounts
        ConfigFieldMissingException,
        InvalidNativeValue,
    )

    section = f"DESTINATION__{name}".upper()
    where = f"(or the same under [destination.{name}] in .dlt/secrets.toml)"
    if isinstance(error, ConfigFieldMissingException):
        missing = [f"{section}__{field}" for field in dict.fromkeys(_missing(error.traces))]
        first = missing[0].rpartition("__CREDENTIALS__")[0]
        whole = f", or all in one as {first}__CREDENTIALS" if first else ""
        return f"The destination {name} is not set up: set {', '.join(missing)}{whole} {where}."
    if isinstance(error, InvalidNativeValue):
        field = "__".join(error.embedded_sections[-1:] or ("credentials",)).upper()
        return f"{section}__{field} cannot be read as what the destination {name} takes {where}."
    return f"The destination {name} is not set up right: {without_secrets(error)}"


def _missing(traces: Any, path: str = "") -> Iterator[str]:
    """The settings that were looked for and not found."""
    for field, looked in traces.items():
        name = f"{path}{field}".upper()
        nested = [trace for trace in looked if hasattr(trace, "traces")]
        if nested:
            # Of several ways to give credentials, the first.
            yield from _missing(nested[0].traces, f"{name}__")
        else:
            yield name
