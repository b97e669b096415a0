"""`ftw archive`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fine_tuning_warehouse.errors import DONE, FAILED, INCOMPLETE, UsageError
from fine_tuning_warehouse.text import counted

from . import output
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

if TYPE_CHECKING:
    from fine_tuning_warehouse.accounts.account import Account
    from fine_tuning_warehouse.archive import Archived, Checked, Missing

_SHOWN = 20

_WITHOUT_KEY = "None is needed with --no-sync, for what the warehouse has, nor with --demo."


@click.command()
@click.argument("where", metavar="DIR")
@click.option("--demo", is_flag=True, help="Do what `ftw sync --demo` does, and archive that: no key, no network.")
@click.option(
    "--check", "only_check", is_flag=True, help="Find damage: compare every file with the manifest. Asks no host."
)
@click.option("--no-sync", is_flag=True, help="Archive what the warehouse has; no request is made.")
@click.option("--training-files", is_flag=True, help="Bring the training and validation files too.")
@warehouse_options
@account_options
@concurrency_option
@click.option("--output", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--strict", is_flag=True, help="Exit 3 where something is missing, or was rejected or skipped.")
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
    form: str,
    strict: bool,
    quiet: bool,
) -> int:
    """Make a copy that outlives the host, in DIR or at a URL such as s3://bucket/prefix.

    Syncs, then writes every table and view as Parquet, the original result files, and a manifest with checksums. Run
    it again, and it adds what is new. With --demo too it syncs first: from a simulated host, on which it is two hours
    later each time, into fine_tuning_demo.duckdb.
    """
    archived: Archived | None = None

    def done() -> dict[str, Any]:
        return (
            _as_json(archived) if archived else _nothing_done(output.without_credentials(where), chosen_accounts.label)
        )

    with json_on_failure(form, done):
        prepare(quiet=quiet)
        if only_check:
            if demo or no_sync or training_files:
                raise UsageError(
                    "--check looks at an archive: it goes with none of --demo, --no-sync, --training-files."
                )
            return _check(where, form=form, strict=strict, quiet=quiet)
        if no_sync and training_files:
            raise UsageError("--training-files come from the host, and --no-sync makes no request: leave one out.")
        label = chosen_accounts.demo_label() if demo else None
        from fine_tuning_warehouse import archive as archiving  # noqa: PLC0415
        from fine_tuning_warehouse.cli.progress import bytes_bar, progress_bar  # noqa: PLC0415
        from fine_tuning_warehouse.sync.demo import DEMO_DATABASE, demo_account  # noqa: PLC0415
        from fine_tuning_warehouse.sync.run import SyncOptions  # noqa: PLC0415

        store = archiving.open_store(where)
        warehouse = target.find(DEMO_DATABASE if demo else str(existing_database(None)) if no_sync else None)
        with ExitStack() as stack:
            accounts: list[Account] = []
            if not no_sync:
                accounts = [] if demo else chosen_accounts.find(without_key=_WITHOUT_KEY)
            reading = SyncOptions(concurrency=concurrency)
            if demo:
                lock_wait = reading.lock_wait_seconds
                accounts = [stack.enter_context(demo_account(str(label), warehouse, lock_wait_seconds=lock_wait))]
            plan = archiving.Plan(
                warehouse,
                accounts,
                host="a simulated host" if demo else None,
                training_files=training_files,
                reading=reading,
            )
            archived = archiving.Archived(store.shown, plan.account)
            shows = sys.stderr.isatty() and not quiet
            archiving.archive(
                store,
                plan,
                watch=progress_bar if shows else None,
                progress=bytes_bar if shows else None,
                archived=archived,
            )
        _show(archived, form=form, quiet=quiet)
        return INCOMPLETE if strict and archived.is_incomplete else DONE


def _nothing_done(where: str, label: str | None) -> dict[str, Any]:
    """The fields of a run that has not begun."""
    files = {"written": 0, "unchanged": 0, "missing": []}
    of_manifest = {"tables": {}, "views": {}, "files": files, "bytes": 0, "manifest_sha256": None}
    return {
        "status": "",
        "error": None,
        "archive": where,
        "account": label,
        "sync": None,
        **of_manifest,
        "seconds": 0.0,
    }


def _as_json(archived: Archived) -> dict[str, Any]:
    manifest = archived.manifest
    return {
        "status": "done",
        "error": None,
        "archive": archived.archive,
        "account": archived.account,
        "sync": archived.sync.as_json() if archived.sync else None,
        "tables": manifest.rows("table") if manifest else {},
        "views": manifest.rows("view") if manifest else {},
        "files": {
            "written": archived.written,
            "unchanged": archived.unchanged,
            "missing": [asdict(one) for one in manifest.missing] if manifest else [],
        },
        "bytes": manifest.size if manifest else 0,
        "manifest_sha256": manifest.digest if manifest else None,
        "seconds": round(archived.seconds, 3),
    }


def _show(archived: Archived, *, form: str, quiet: bool) -> None:
    manifest = archived.manifest
    if form == "json":
        click.echo(output.as_json(_as_json(archived)))
    if quiet or manifest is None:
        return
    for line in missing_lines(manifest.missing):
        click.echo(output.safe(line), err=True)
    summaries = archived.sync.accounts if archived.sync else []
    for summary in summaries:
        for line in output.skip_lines(summary, several=len(summaries) > 1):
            click.echo(line, err=True)
    if form == "json":
        return
    labels = [str(summary.account) for summary in summaries]
    what = f"{'account' if len(labels) == 1 else 'accounts'} {', '.join(labels)} " if labels else ""
    click.echo(f"Archived {what}to {archived.archive} in {archived.seconds:.1f} s.")
    counts = {**manifest.rows("table"), **manifest.rows("view")}
    width = max(map(len, counts))
    for name, rows in counts.items():
        click.echo(output.table_line(name, rows, width))
    originals = [entry.kind for entry in manifest.files.values() if entry.is_original]
    results = originals.count("result_file")
    training = counted(len(originals) - results, "training and validation file")
    click.echo(
        f"{counted(results, 'result file')}, {training}, {len(manifest.missing):,} missing; "
        f"{counted(manifest.size, 'byte')} in all."
    )
    click.echo(f"{counted(archived.written, 'file')} written, {archived.unchanged:,} left as they were.")
    click.echo(f"SHA-256 of manifest.json: {manifest.digest}")
    click.echo("Keep it elsewhere: with it you can tell later whether somebody changed the archive.")


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


def _check(where: str, *, form: str, strict: bool, quiet: bool) -> int:
    import time  # noqa: PLC0415

    from fine_tuning_warehouse import archive as archiving  # noqa: PLC0415

    began = time.monotonic()
    store = archiving.open_store(where)
    with store.errors():
        checked = archiving.check(store)
    seconds = time.monotonic() - began
    number = len(checked.damaged)
    error = f"{counted(number, 'thing is', 'things are')} wrong with {store.shown}." if number else None
    if form == "json":
        click.echo(output.as_json(_checked_as_json(checked, store.shown, error, seconds)))
    for damage in checked.damaged:
        click.echo(output.safe(f"{damage.path}: {damage.reason}"), err=True)
    missing = checked.manifest.missing
    if error is not None:
        click.echo(f"Error: {output.safe(error)}", err=True)
        return FAILED
    if not quiet and form == "text":
        rows = sum(checked.manifest.rows("table").values())
        click.echo(
            f"{store.shown} is whole: {counted(checked.files, 'file')}, {counted(checked.manifest.size, 'byte')}, "
            f"{counted(rows, 'row')} in {counted(len(checked.manifest.rows('table')), 'table')}, "
            f"archived {checked.manifest.archived_at}."
        )
        click.echo(f"SHA-256 of manifest.json: {checked.manifest.digest}")
        click.echo(
            "The check finds damage, not forgery: whoever can write here can change files and manifest together. "
            "Compare the SHA-256 with the one that you kept elsewhere."
        )
        if missing:
            files = counted(len(missing), "file")
            click.echo(f"{files} could not be had when it was made: see missing in manifest.json.")
    return INCOMPLETE if strict and missing else DONE


def _checked_as_json(checked: Checked, where: str, error: str | None, seconds: float) -> dict[str, Any]:
    manifest = checked.manifest
    return {
        "status": "failed" if error else "done",
        "error": error,
        "archive": where,
        "account": manifest.account,
        "sync": None,
        "tables": manifest.rows("table"),
        "views": manifest.rows("view"),
        "files": {
            "checked": checked.files,
            "damaged": [asdict(damage) for damage in checked.damaged],
            "missing": [asdict(one) for one in manifest.missing],
        },
        "bytes": manifest.size,
        "manifest_sha256": manifest.digest,
        "seconds": round(seconds, 3),
    }
