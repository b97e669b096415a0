"""Bring the files that jobs name into an archive, and into its manifest: as files, or as missing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from rich.filesize import decimal

from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.text import counted

from .fetch import Fetcher
from .manifest import Entry, Manifest, Missing
from .originals import Original
from .plan import Context

logger = logging.getLogger(__name__)

_NOT_REQUESTED = "not in the archive yet, and --no-sync makes no request"


def add_host_files(context: Context, manifest: Manifest, wanted: Sequence[Original]) -> None:
    """Add every file that jobs name to the manifest: as a file, or as missing."""
    plan, before, archived = context.plan, context.before, context.archived
    failed = dict(archived.failures)
    # A file that came once stays, whatever the jobs name now.
    manifest.files.update({path: entry for path, entry in before.files.items() if entry.is_original})
    lacking = []
    for one in wanted:
        if (entry := _held(context, one)) is None:
            lacking.append(one)
        else:
            manifest.files[one.path] = entry
    archived.unchanged += len(manifest.files)
    asked = {account.label: account for account in plan.accounts if account.label not in failed}
    reasons = {(one.account, one.id): one.reason for one in before.missing}
    manifest.missing += [_not_requested(context, one, failed, reasons) for one in lacking if one.account not in asked]
    for label, account in asked.items():
        if own := [one for one in lacking if one.account == label]:
            _fetch(context, manifest, account, own)
    if not plan.training_files:
        held_ids = {(entry.account, entry.id) for entry in manifest.files.values() if entry.is_original}
        manifest.missing += [
            one for one in before.missing if one.kind != "result_file" and (one.account, one.id) not in held_ids
        ]
    manifest.missing.sort()


def _held(context: Context, original: Original) -> Entry | None:
    """Return the entry of a file that the archive holds; None if it must be fetched."""
    entry, size = context.before.files.get(original.path), context.found.get(original.path)
    if entry is not None:
        if not entry.is_in(context.store, original.path, size):
            return None
        original = replace(original, filename=original.filename or entry.filename, kind=entry.kind)
        return original.entry(entry.bytes, entry.sha256)
    # A killed run has left a file that is not in the manifest. It is whole: no file appears half.
    if size is not None and (not original.is_training or original.bytes in (size, None)):
        return original.entry(size, context.store.digest(original.path))
    return None


def _not_requested(
    context: Context, original: Original, failed: dict[str, str], reasons: dict[tuple[str, str], str]
) -> Missing:
    """Return why a file was not requested, or what the host said when it was (one of `reasons`, by account and id)."""
    label = original.account
    belongs = f"belongs to the account {label}: archive with --account {label}"
    if not context.plan.accounts:
        reason = _NOT_REQUESTED
    elif label in failed:
        reason = f"the account {label} could not be read: {failed[label]}"
    else:
        reason = belongs
    earlier = reasons.get((label, original.id), reason)
    return original.missing(reason if earlier in (_NOT_REQUESTED, belongs) else earlier)


def _fetch(context: Context, manifest: Manifest, account: Account, lacking: Sequence[Original]) -> None:
    training = [one for one in lacking if one.is_training]
    size = sum(one.bytes or 0 for one in training)
    if training:
        unknown = sum(one.bytes is None for one in training)
        logger.warning(
            "Fetching %s: %s (%s)%s.",
            counted(len(training), "training and validation file"),
            counted(size, "byte"),
            decimal(size),
            f", and {unknown:,} of unknown size" if unknown else "",
        )
    if (free := context.store.free_bytes()) is not None and size > free:
        raise CommandError(
            f"The files take {counted(size, 'byte')}, and {context.store.shown} has {free:,} bytes free. "
            "Nothing was fetched."
        )
    with (
        closing(account.api(context.plan.options.concurrency)) as api,
        context.progress("Fetching files", size or None) as watch,
    ):
        fetcher = Fetcher(api, context.store, watch)
        for original, result in fetcher.fetch(lacking):
            if isinstance(result, Missing):
                manifest.missing.append(result)
                continue
            context.archived.unchanged -= original.path in manifest.files
            context.archived.written += 1
            manifest.files[original.path] = result
    if fetcher.failure is not None:
        context.archived.failures[account.label] = fetcher.failure
