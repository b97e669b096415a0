"""The command `ftw archive`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fine_tuning_warehouse.errors import DONE, FAILED, INCOMPLETE, CommandError, UsageError
from fine_tuning_warehouse.text import counted
from fine_tuning_warehouse.warehouses.warehouse import DEFAULT_DATABASE

from .failures import json_on_failure
from .options import (
    AccountOptions,
    WarehouseOptions,
    account_options,
    concurrency_option,
    existing_database,
    prepare,
    warehouse_options,
)
from .terminal import output

if TYPE_CHECKING:
    from fine_tuning_warehouse.archive import Archived, Missing

_SHOWN = 20

_WITHOUT_KEY = "None is needed with --no-sync, for what the warehouse has, nor with --demo."


@click.command()
@click.argument("where", metavar="DIR")
@click.option("--demo", is_flag=True, help="Do what `ftw sync --demo` does, and archive that: no key, no network.")
@click.option(
    "--check", "only_check", is_flag=True, help="Find damage: compare every file with the manifest. Asks no host."
)
@click.option("--no-sync", is_flag=True, help="Archive what the warehouse has; no request is made.")
@click.option("--training-files", is_flag=True, help="Fetch the training and validation files too.")
@warehouse_options
@account_options
@concurrency_option
@output.format_option("text", "json")
@click.option("--strict", is_flag=True, help="Exit 3 if something is missing, or was rejected or skipped.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def archive(
    *,
    where: str,
    demo: bool,
    only_check: bool,
    no_sync: bool,
    training_files: bool,
    target: WarehouseOptions,
    chosen_accounts: AccountOptions,
    concurrency: int,
    output_format: str,
    strict: bool,
    quiet: bool,
) -> int:
    """Make a copy that outlives the host, in DIR or at a URL such as s3://bucket/prefix.

    Syncs, then writes every table and view as Parquet, the original result files, and a manifest with checksums. Run
    it again to add what is new. With --demo it syncs from a simulated host first, into fine_tuning_demo.duckdb; on
    that host two hours pass between runs.
    """
    archived: Archived | None = None

    def done() -> dict[str, Any]:
        from fine_tuning_warehouse.archive import Archived  # noqa: PLC0415

        return _as_json(archived or Archived(output.without_credentials(where), chosen_accounts.label))

    with json_on_failure(output_format, done):
        prepare(quiet=quiet)
        if only_check:
            if demo or no_sync or training_files:
                raise UsageError("--check asks no host: leave out --demo, --no-sync and --training-files.")
            return _check(where, output_format=output_format, strict=strict, quiet=quiet)
        if no_sync and training_files:
            raise UsageError("--training-files come from the host, and --no-sync makes no request: leave one out.")
        label = chosen_accounts.demo_label() if demo else None
        from fine_tuning_warehouse import archive as library  # noqa: PLC0415
        from fine_tuning_warehouse.cli.terminal.progress import bytes_bar, progress_bar  # noqa: PLC0415
        from fine_tuning_warehouse.sync.demo import DEMO_DATABASE, demo_account  # noqa: PLC0415
        from fine_tuning_warehouse.sync.run import SyncOptions  # noqa: PLC0415

        store = library.open_store(where)
        warehouse = target.find(DEMO_DATABASE if demo else existing_database() if no_sync else DEFAULT_DATABASE)
        options = SyncOptions(concurrency=concurrency)
        with ExitStack() as stack:
            if label is not None:
                accounts = [stack.enter_context(demo_account(label, warehouse))]
            else:
                accounts = [] if no_sync else chosen_accounts.find(without_key=_WITHOUT_KEY)
            host = "a simulated host" if demo else None
            plan = library.Plan(warehouse, accounts, host, training_files=training_files, options=options)
            archived = library.Archived(store.shown, plan.account)
            shows = sys.stderr.isatty() and not quiet
            watch, progress = (progress_bar, bytes_bar) if shows else (None, None)
            try:
                library.archive(store, plan, watch=watch, progress=progress, archived=archived)
            except CommandError:
                if output_format == "text":
                    _print(archived, output_format=output_format, quiet=quiet)
                raise
        _print(archived, output_format=output_format, quiet=quiet)
        return INCOMPLETE if strict and archived.is_incomplete else DONE


def _as_json(archived: Archived, files: dict[str, Any] | None = None, error: str | None = None) -> dict[str, Any]:
    """Return the fields of `--output json`; `files` are the counts of a check."""
    manifest = archived.manifest
    files = files or {"written": archived.written, "unchanged": archived.unchanged}
    return {
        "status": "failed" if error else "done",
        "error": error,
        "archive": archived.archive,
        "account": archived.account,
        "sync": archived.sync.as_json() if archived.sync else None,
        "tables": manifest.rows("table") if manifest else {},
        "views": manifest.rows("view") if manifest else {},
        "files": {**files, "missing": [asdict(one) for one in manifest.missing] if manifest else []},
        "bytes": manifest.size if manifest else 0,
        "manifest_sha256": manifest.digest if manifest else None,
        "seconds": round(archived.seconds, 3),
    }


def _print(archived: Archived, *, output_format: str, quiet: bool) -> None:
    manifest = archived.manifest
    if output_format == "json":
        output.print_result(_as_json(archived))
    if quiet or manifest is None:
        return
    results = archived.sync.accounts if archived.sync else []
    skipped = [line for one in results for line in output.skip_lines(one, several=len(results) > 1)]
    for line in (*map(output.safe, missing_lines(manifest.missing)), *skipped):
        click.echo(line, err=True)
    if output_format == "json":
        return
    labels = ", ".join(str(one.account) for one in results)
    accounts = f"{'account' if len(results) == 1 else 'accounts'} {labels} " if results else ""
    click.echo(f"Archived {accounts}to {archived.archive} in {archived.seconds:.1f} s.")
    counts = {**manifest.rows("table"), **manifest.rows("view")}
    for name, rows in counts.items():
        click.echo(output.table_line(name, rows, max(map(len, counts))))
    kinds = [entry.kind for entry in manifest.files.values() if entry.is_original]
    result_files = kinds.count("result_file")
    training = counted(len(kinds) - result_files, "training and validation file")
    click.echo(
        f"{counted(result_files, 'result file')}, {training}, {len(manifest.missing):,} missing; "
        f"{counted(manifest.size, 'byte')} in all."
    )
    click.echo(f"{counted(archived.written, 'file')} written, {archived.unchanged:,} left as they were.")
    click.echo(f"SHA-256 of manifest.json: {manifest.digest}")
    click.echo("Keep it elsewhere: it shows later whether somebody has changed the archive.")


def missing_lines(missing: Sequence[Missing]) -> Iterator[str]:
    """Yield a line for each reason for which files are missing."""
    reasons: dict[str, list[Missing]] = {}
    for one in missing:
        reasons.setdefault(one.reason, []).append(one)
    shown = list(reasons.items())[:_SHOWN]
    for reason, same in shown:
        kinds = {one.kind.replace("_", " ") for one in same}
        kind = kinds.pop() if len(kinds) == 1 else "file"
        first = f"{same[0].id} of {same[0].job}"
        what = f"{kind} {first}" if len(same) == 1 else f"{counted(len(same), kind)}, such as {first}"
        yield f"Missing {what}: {reason}"
    left = len(missing) - sum(len(same) for _, same in shown)
    if left:
        yield f"Missing {left:,} more (all of them: manifest.json)."


def _check(where: str, *, output_format: str, strict: bool, quiet: bool) -> int:
    from fine_tuning_warehouse import archive as library  # noqa: PLC0415

    began = time.monotonic()
    store = library.open_store(where)
    with store.errors():
        checked = library.check(store)
    manifest, number = checked.manifest, len(checked.damaged)
    error = f"{counted(number, 'thing is', 'things are')} wrong with {store.shown}." if number else None
    if output_format == "json":
        files = {"checked": checked.files, "damaged": [asdict(damage) for damage in checked.damaged]}
        result = library.Archived(store.shown, manifest.account, manifest=manifest, seconds=time.monotonic() - began)
        output.print_result(_as_json(result, files, error))
    for damage in checked.damaged:
        click.echo(output.safe(f"{damage.path}: {damage.reason}"), err=True)
    if error is not None:
        click.echo(f"Error: {output.safe(error)}", err=True)
        return FAILED
    if not quiet and output_format == "text":
        tables = manifest.rows("table")
        click.echo(
            f"{store.shown} is whole: {counted(checked.files, 'file')}, {counted(manifest.size, 'byte')}, "
            f"{counted(sum(tables.values()), 'row')} in {counted(len(tables), 'table')}, "
            f"archived {manifest.archived_at}."
        )
        click.echo(f"SHA-256 of manifest.json: {manifest.digest}")
        click.echo(
            "The check finds damage, not forgery: whoever can write here can change files and manifest together. "
            "Compare the SHA-256 with the one that you kept elsewhere."
        )
        if manifest.missing:
            files_missing = counted(len(manifest.missing), "file")
            click.echo(f"{files_missing} could not be fetched when it was made: see missing in manifest.json.")
    return INCOMPLETE if strict and manifest.missing else DONE
