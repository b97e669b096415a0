"""Every job, checkpoint, event and result file of an OpenAI-compatible fine-tuning API, only what is new.

    pipeline = dlt.pipeline("my_fine_tuning", destination="duckdb", dataset_name="fine_tuning")
    pipeline.run(openai_fine_tuning())

One reader lists the jobs once and reads what the selected resources owe (`reader`, `frontier`); the resources below
are the doors through which its tables leave. What is owed is kept in dlt's state and committed with the rows, so a
run that fails at any point loses nothing and repeats nothing that was loaded.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import date, datetime, timezone
from typing import Annotated, Any

import dlt
import pyarrow as pa
from dlt.common.typing import SecretSentinel
from dlt.extract import DltResource

from . import settings
from .api.auth import ApiKey
from .api.client import FineTuningApi
from .convert.table_builder import Batches
from .errors import (
    CancelledError,
    ConfigurationError,
    EndlessListingError,
    FineTuningSourceError,
    HostError,
    RequestError,
    StateTooNewError,
)
from .extract.reader import Bounds, Reader
from .report import Report, Skipped
from .schema import REJECTED_RECORDS, TABLES, schema
from .state.run import Parts
from .state.takeover import Heir, hand_over
from .state.watermark import Frontier, frontier_state, frontier_states

__all__ = [
    "CancelledError",
    "ConfigurationError",
    "EndlessListingError",
    "FineTuningSourceError",
    "HostError",
    "Report",
    "RequestError",
    "Skipped",
    "StateTooNewError",
    "openai_fine_tuning",
]

logger = logging.getLogger("openai_fine_tuning")


# The arguments have long names on purpose: dlt looks for one that is left out in the bare environment too, where
# BASE_URL, ACCOUNT or SINCE may be a stranger's.
@dlt.source(section="openai_fine_tuning", schema=schema())
def openai_fine_tuning(
    openai_api_key: ApiKey = dlt.secrets.value,
    openai_base_url: str = settings.DEFAULT_BASE_URL,
    *,
    openai_org_id: str | None = None,
    openai_project_id: str | None = None,
    openai_auth: str | None = None,
    openai_extra_headers: Annotated[dict[str, str], SecretSentinel] | None = None,
    openai_allow_http: bool = False,
    account_label: str = "default",
    fine_tuning_job_ids: Sequence[str] | None = None,
    fine_tuning_since: str | date | None = None,
    fine_tuning_full_refresh: bool = False,
    fine_tuning_concurrency: int = settings.CONCURRENCY,
    fine_tuning_grace_seconds: float = settings.GRACE_SECONDS,
    fine_tuning_timeout_seconds: float = settings.READ_TIMEOUT_SECONDS,
    fine_tuning_answer_seconds: float = settings.ANSWER_SECONDS,
    fine_tuning_max_answer_megabytes: float = settings.MAX_ANSWER_MEGABYTES,
    fine_tuning_stop_after_seconds: float | None = None,
    fine_tuning_stop_after_rows: int | None = None,
    fine_tuning_report: Report | None = None,
) -> Any:
    """The history of one account's fine-tuning.

    Args:
        openai_api_key: The key (`OPENAI_API_KEY`, or dlt's secrets); or a function that returns the bearer token to
            send, such as azure-identity's `get_bearer_token_provider(...)`. It is called for each request.
        openai_base_url: The host (`OPENAI_BASE_URL`), with its version path.
        openai_org_id: Sent as `OpenAI-Organization`, for a key of several organisations (`OPENAI_ORG_ID`).
        openai_project_id: Sent as `OpenAI-Project` (`OPENAI_PROJECT_ID`).
        openai_auth: How the key is sent: `bearer`, or `api-key` for a header of that name. By default what the host
            takes: `api-key` on Azure, bearer elsewhere.
        openai_extra_headers: Sent to the host with every request, as secrets (`OPENAI_EXTRA_HEADERS`, a JSON object).
        openai_allow_http: Whether plain http may go to another machine (`OPENAI_ALLOW_HTTP`): it shows the key.
        account_label: Written into every row: the API does not tell whose rows they are.
        fine_tuning_job_ids: Read only these jobs, all of each. Moves no frontier.
        fine_tuning_since: Read only jobs created on or after this date or ISO time (UTC). Moves no frontier.
        fine_tuning_full_refresh: Forget what was read, and read everything once more, into the same rows.
        fine_tuning_concurrency: The highest number of requests in flight.
        fine_tuning_grace_seconds: How long after its end a job is read again, for what the host shows late.
        fine_tuning_timeout_seconds: How long the host may stay silent within an answer.
        fine_tuning_answer_seconds: How long one page or result file may take as a whole.
        fine_tuning_max_answer_megabytes: The largest page or result file that is read, decompressed.
        fine_tuning_stop_after_seconds: Begin no further job after this time, so that what was read can be committed;
            run the same source again until the report's `is_complete`, and it goes on there. None for no end.
        fine_tuning_stop_after_rows: The same after so many rows: what one run reads, and the memory of its load, are
            bounded by it.
        fine_tuning_report: Figures of the run, updated as it goes.

    Returns:
        A dlt source with the resources `jobs`, `checkpoints`, `events`, `result_metrics` and `files`. Records that
        cannot be typed go to the table `rejected_records`, whatever is selected.

    Raises:
        ConfigurationError: An argument cannot be right.
    """
    report = fine_tuning_report if fine_tuning_report is not None else Report()
    parts = Parts()
    job_ids = [fine_tuning_job_ids] if isinstance(fine_tuning_job_ids, str) else fine_tuning_job_ids or ()
    bounds = Bounds(tuple(dict.fromkeys(job_ids)), _since(fine_tuning_since))
    if bounds.is_partial and fine_tuning_full_refresh:
        raise ConfigurationError("A full refresh reads everything: it goes neither with jobs nor with a date.")

    def make_api() -> FineTuningApi:
        return FineTuningApi(
            openai_base_url,
            openai_api_key,
            auth=openai_auth,
            org_id=openai_org_id,
            project_id=openai_project_id,
            extra_headers=openai_extra_headers,
            allow_http=openai_allow_http,
            concurrency=fine_tuning_concurrency,
            policy=settings.RequestPolicy(
                read_timeout=fine_tuning_timeout_seconds,
                max_answer_megabytes=fine_tuning_max_answer_megabytes,
                answer_seconds=fine_tuning_answer_seconds,
            ),
        )

    make_api().close()  # a wrong address or key shows here, before a pipeline begins

    def read(api: FineTuningApi) -> Iterator[dict[str, pa.Table]]:
        heirs = {
            resource: _heir(resource, account_label, api.identity, is_partial=bounds.is_partial)
            for resource in _wanted()
        }
        states = [heir.state for heir in heirs.values()]
        goes_on = parts.begin(states)
        notes = len(report.notes)
        if fine_tuning_full_refresh:
            for state in [] if goes_on else states:
                state.clear()
                state.update(used_at=time.time(), own=True)
        elif not bounds.is_partial:
            hand_over(api, account_label, heirs, report)
        for note in report.notes[notes:]:
            logger.warning(note)
        frontiers = {
            resource: Frontier(heir.state, overlap=settings.OVERLAP_SECONDS, grace=fine_tuning_grace_seconds)
            for resource, heir in heirs.items()
        }
        batches = Batches(account_label, dlt.current.source_schema())
        yield batches.empty(_tables_to_make(frontiers))
        reader = Reader(
            api,
            account_label,
            frontiers,
            batches,
            report,
            parts=parts,
            bounds=bounds,
            stop_after=fine_tuning_stop_after_seconds,
            stop_after_rows=fine_tuning_stop_after_rows,
        )
        skipped = len(report.skipped)
        yield from reader.read()
        parts.end(states, is_complete=report.is_complete)
        if not bounds.is_partial:
            for resource, heir in heirs.items():
                _keep(resource, account_label, api.identity, heir.state)
        for skip in report.skipped[skipped:]:
            logger.warning("Skipped %s of %s: %s", skip.resource, skip.job or "all jobs", skip.reason)

    @dlt.resource(name="account", selected=False)
    def account() -> Iterator[dict[str, pa.Table]]:
        """Everything that the selected resources owe: Arrow tables by table name."""
        with closing(make_api()) as api:
            yield from read(api)

    return [account, *(_door(resource, account) for resource in settings.RESOURCES)]


def _door(resource: str, account: DltResource) -> DltResource:
    """The resource through which a table's rows leave, merged by its keys: what may change yet is read again."""

    def rows(tables: dict[str, pa.Table]) -> Iterator[Any]:
        """Its part of what was read; rejected records leave through the first resource that is loaded."""
        if resource in tables:
            yield tables[resource]
        if REJECTED_RECORDS.name in tables and resource == _wanted()[0]:
            hints = dlt.mark.make_hints(
                table_name=REJECTED_RECORDS.name, primary_key=REJECTED_RECORDS.keys, write_disposition=settings.MERGE
            )
            yield dlt.mark.with_hints(tables[REJECTED_RECORDS.name], hints, create_table_variant=True)

    door = dlt.transformer(rows, data_from=account, name=resource)
    return door.apply_hints(primary_key=TABLES[resource].keys, write_disposition=settings.MERGE)


def _wanted() -> list[str]:
    """The resources that this run reads: the selected ones, and those that a transformer of somebody else's reads.

    Raises:
        ConfigurationError: There is none.
    """
    pulled = {resource.name for resource in dlt.current.source().resources.extracted}
    wanted = [name for name in settings.RESOURCES if name in pulled]
    if not wanted:
        raise ConfigurationError(
            f"No resource is selected that could be read: select some of {', '.join(settings.RESOURCES)}, under these "
            "names. `account` reads for them, and has no rows of its own."
        )
    return wanted


def _tables_to_make(selected: Iterable[str]) -> Iterator[str]:
    """Tables that the destination lacks, or has as an earlier release declared them.

    An empty Arrow table makes one; but each table of a load costs dlt some 30 ms, which a sync without news need not
    pay for all of them. So the state of a resource says which it has made: state and tables are committed together.
    """
    made_with = {resource: resource for resource in selected}
    made_with[REJECTED_RECORDS.name] = next(iter(made_with))
    for table, resource in made_with.items():
        made = dlt.current.resource_state(resource).setdefault("tables", {})
        if made.get(table) != TABLES[table].digest:
            made[table] = TABLES[table].digest
            yield table


def _heir(resource: str, account: str, identity: str, *, is_partial: bool) -> Heir:
    """A copy of the frontier, with those of the account's earlier keys and hosts; what is read changes the copy.

    For a bounded read it knows the open jobs only, and is thrown away.
    """
    states = frontier_states(dlt.current.resource_state(resource), account)
    if is_partial:
        return Heir({"open": copy.deepcopy(states.get(identity, {}).get("open", {}))}, ())
    state = frontier_state(dlt.current.resource_state(resource), account, identity, now=time.time())
    return Heir(copy.deepcopy(state), tuple(other for key, other in states.items() if key != identity))


def _keep(resource: str, account: str, identity: str, state: dict[str, Any]) -> None:
    """Make a frontier the one that is committed with the rows.

    Only when all of them were handed over: dlt commits the state of a run that it ends early (`add_limit`) too.
    """
    kept = frontier_states(dlt.current.resource_state(resource), account)[identity]
    kept.clear()
    kept.update(state)


def _since(value: str | date | None) -> float | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(str(value).strip().replace("Z", "+00:00"))
    except ValueError:
        raise ConfigurationError(f"{value!r} is no date: it looks like 2026-01-31 or 2026-01-31T12:00.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
