"""Load the jobs, checkpoints, events and result files of an OpenAI-compatible fine-tuning API, only what is new.

    pipeline = dlt.pipeline("my_fine_tuning", destination="duckdb", dataset_name="fine_tuning")
    pipeline.run(openai_fine_tuning())

How a run goes, from the top:

1. dlt fills the arguments of `openai_fine_tuning` and extracts the selected resources. All of them are transformers of
   one hidden resource, `account`, which reads for all: the jobs are listed once, whatever is selected.
2. `account` loads the state (`state`): for each resource a watermark, below which all jobs were read but the open ones.
3. `Reader` (`extract`) lists the jobs back to the watermarks. Worker threads read what is due of each job through
   `FineTuningApi` (`api`).
4. `Batches` (`convert`) makes Arrow tables of the records. `account` yields them; each resource passes on its own.
5. At the end the state is stored, and dlt commits it with the rows. So a run that fails at any point loses nothing, and
   the next one reads nothing again that was loaded.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Annotated, Any

import dlt
import pyarrow as pa
from dlt.common.configuration import with_config
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
from .extract.bounds import Bounds
from .extract.models import ModelListing
from .extract.reader import Reader
from .report import Report, Skipped
from .schema import MODELS, REJECTED_RECORDS, TABLES, schema
from .state.resource_state import load, load_listings, store, store_listings, tables_to_make
from .state.run import Run
from .state.takeover import take_over
from .state.watermark import Watermark, known_jobs, other_hosts

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
    "request_policy",
]

logger = logging.getLogger("openai_fine_tuning")


@with_config(sections=("sources", "openai_fine_tuning"))
def request_policy(
    fine_tuning_timeout_seconds: float = settings.READ_TIMEOUT_SECONDS,
    fine_tuning_answer_seconds: float = settings.ANSWER_SECONDS,
    fine_tuning_max_answer_megabytes: float = settings.MAX_ANSWER_MEGABYTES,
    fine_tuning_policy: settings.RequestPolicy | None = None,
) -> settings.RequestPolicy:
    """Return how requests are bounded. dlt's configuration fills in what is left out, as it does for the source."""
    return replace(
        fine_tuning_policy or settings.RequestPolicy(),
        read_timeout=fine_tuning_timeout_seconds,
        answer_seconds=fine_tuning_answer_seconds,
        max_answer_megabytes=fine_tuning_max_answer_megabytes,
    )


# dlt looks for an argument that is left out in the bare environment too, where BASE_URL, ACCOUNT or SINCE may belong to
# another program. So all of them have long names.
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
    fine_tuning_policy: settings.RequestPolicy | None = None,
) -> Any:
    """Read the fine-tuning history of one account.

    Args:
        openai_api_key: The key (`OPENAI_API_KEY`, or dlt's secrets). Or a function that returns the bearer token to
            send, such as azure-identity's `get_bearer_token_provider(...)`; it is called for each request.
        openai_base_url: The host, with its version path (`OPENAI_BASE_URL`).
        openai_org_id: Sent as `OpenAI-Organization`, for a key of several organisations (`OPENAI_ORG_ID`).
        openai_project_id: Sent as `OpenAI-Project` (`OPENAI_PROJECT_ID`).
        openai_auth: How the key is sent: `bearer`, or `api-key` for a header of that name. By default as the host
            takes it: `api-key` on Azure, bearer elsewhere.
        openai_extra_headers: Sent to the host with every request, as secrets (`OPENAI_EXTRA_HEADERS`, a JSON object).
        openai_allow_http: Whether plain http may go to another machine (`OPENAI_ALLOW_HTTP`): it shows the key.
        account_label: The value of the column `account` in every row: the API does not say to whom the rows belong.
        fine_tuning_job_ids: Read only these jobs, all of each. Moves no watermark.
        fine_tuning_since: Read only jobs created at or after this date or ISO time (UTC). Moves no watermark.
        fine_tuning_full_refresh: Read everything once more, into the same rows.
        fine_tuning_concurrency: The highest number of requests in flight.
        fine_tuning_grace_seconds: How long after its end a job is read again, since hosts show some records late.
        fine_tuning_timeout_seconds: How long the host may stay silent within an answer.
        fine_tuning_answer_seconds: How long one page or result file may take as a whole.
        fine_tuning_max_answer_megabytes: The largest page or result file that is read, decompressed.
        fine_tuning_stop_after_seconds: Begin no further job after this time, so that what was read can be committed.
            Run the same source again until the report's `is_complete`; it goes on there. None for no limit.
        fine_tuning_stop_after_rows: The same after this number of rows, which bounds the memory of one run's load.
        fine_tuning_report: The figures of the run, updated as it goes on.
        fine_tuning_policy: How requests are sent again. Its timeout and bounds are those of the arguments above.

    Returns:
        A dlt source with the resources `jobs`, `checkpoints`, `events`, `result_metrics`, `files` and `models`. What
        does not fit its column goes to the table `rejected_records`, whatever is selected.

    Raises:
        ConfigurationError: An argument cannot be right.
    """
    report = fine_tuning_report if fine_tuning_report is not None else Report()
    run = Run()
    bounds = Bounds.parse(fine_tuning_job_ids, fine_tuning_since)
    if bounds.is_partial and fine_tuning_full_refresh:
        raise ConfigurationError(
            "Invalid fine_tuning_full_refresh: it reads everything, so leave out fine_tuning_job_ids and "
            "fine_tuning_since."
        )

    def open_api() -> FineTuningApi:
        return FineTuningApi(
            openai_base_url,
            openai_api_key,
            auth=openai_auth,
            org_id=openai_org_id,
            project_id=openai_project_id,
            extra_headers=_headers(openai_extra_headers),
            allow_http=openai_allow_http,
            concurrency=fine_tuning_concurrency,
            policy=request_policy(
                fine_tuning_timeout_seconds,
                fine_tuning_answer_seconds,
                fine_tuning_max_answer_megabytes,
                fine_tuning_policy,
            ),
        )

    open_api().close()  # a wrong address or key shows here, before a pipeline begins

    def read(api: FineTuningApi) -> Iterator[dict[str, pa.Table]]:
        """Load the state, read what is due, and store the state."""
        selected, identity = _selected_resources(is_partial=bounds.is_partial), api.identity
        resources = [name for name in selected if name in settings.JOB_RESOURCES]
        reads_models = MODELS.name in selected and not bounds.is_partial
        listings = load_listings(account_label) if reads_models else {}
        models = ModelListing(api, listings, is_asked_for=fine_tuning_full_refresh or not resources)
        loaded = {name: load(name, account_label, identity, is_partial=bounds.is_partial) for name in resources}
        states = [candidate.state for candidate in loaded.values()]
        is_continued = run.begin(states)
        resource_states = dlt.current.source_state().get("resources", {}).values()
        known = known_jobs(resource_states, account_label)
        others = other_hosts(resource_states, account_label, api.host)
        if fine_tuning_full_refresh:
            for state in [] if is_continued else states:
                state.clear()
                state.update(used_at=time.time(), own=True)
        else:
            take_over(api, account_label, loaded, report, others=others)
        batches = Batches(account_label, dlt.current.source_schema())
        yield batches.empty(tables_to_make(selected))
        reader = Reader(
            api,
            account_label,
            {
                name: Watermark(candidate.state, overlap=settings.OVERLAP_SECONDS, grace=fine_tuning_grace_seconds)
                for name, candidate in loaded.items()
            },
            batches,
            report,
            run=run,
            bounds=bounds,
            models=models if reads_models else None,
            known_jobs=known,
            stop_after=fine_tuning_stop_after_seconds,
            stop_after_rows=fine_tuning_stop_after_rows,
        )
        yield from reader.read()
        run.end(states, is_complete=report.is_complete)
        if not bounds.is_partial:
            for name, candidate in loaded.items():
                state = {**candidate.state, "host": api.host}
                store(name, account_label, identity, state, alone=fine_tuning_full_refresh)
        if reads_models:
            store_listings(account_label, listings)

    @dlt.resource(name="account", selected=False)
    def account() -> Iterator[dict[str, pa.Table]]:
        """Yield everything that is due of the selected resources, as Arrow tables."""
        notes, warnings, skipped = len(report.notes), len(report.warnings), len(report.skipped)
        try:
            with open_api() as api:
                yield from read(api)
        finally:
            for note in (*report.notes[notes:], *report.warnings[warnings:]):
                logger.warning(note)
            for skip in report.skipped[skipped:]:
                logger.warning("Skipped %s of %s: %s", skip.resource, skip.job or "all jobs", skip.reason)

    return [account, *(_table_resource(name, account) for name in settings.RESOURCES)]


def _table_resource(name: str, account: DltResource) -> DltResource:
    """Make the resource that passes on the rows of one table. They are merged by their keys, since they may change."""

    def rows(tables: dict[str, pa.Table]) -> Iterator[Any]:
        """Yield the rows of the table. Rejected records go with the first resource that is loaded."""
        if name in tables:
            yield tables[name]
        if REJECTED_RECORDS.name in tables and name == _selected_resources()[0]:
            hints = dlt.mark.make_hints(
                table_name=REJECTED_RECORDS.name, primary_key=REJECTED_RECORDS.keys, write_disposition=settings.MERGE
            )
            yield dlt.mark.with_hints(tables[REJECTED_RECORDS.name], hints, create_table_variant=True)

    resource = dlt.transformer(rows, data_from=account, name=name)
    return resource.apply_hints(primary_key=TABLES[name].keys, write_disposition=settings.MERGE)


def _selected_resources(*, is_partial: bool = False) -> list[str]:
    """Return the resources that this run reads: the selected ones, and those that feed another selected resource.

    Raises:
        ConfigurationError: None of them is selected, or only some jobs of a resource that has no jobs are to be read.
    """
    extracted = {resource.name for resource in dlt.current.source().resources.extracted}
    selected = [name for name in settings.RESOURCES if name in extracted]
    if not selected:
        raise ConfigurationError(
            f"No resource is selected that has rows: select at least one of {', '.join(settings.RESOURCES)}, under "
            "these names. `account` only reads for them."
        )
    if is_partial and selected == [MODELS.name]:
        raise ConfigurationError(
            "Invalid fine_tuning_job_ids or fine_tuning_since: models have no jobs. Leave them out, or select one of "
            f"{', '.join(settings.JOB_RESOURCES)} too."
        )
    return selected


def _headers(given: Any) -> dict[str, str] | None:
    """Return headers that are given as a mapping or as the text of a JSON object. Errors do not repeat the text."""
    try:
        headers = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        headers = ()
    if headers is None or isinstance(headers, Mapping):
        return None if headers is None else dict(headers)
    words = 'expected a mapping or a JSON object, such as {"x-portkey-config": "pc-1"}'
    raise ConfigurationError(f"Invalid openai_extra_headers: {words}.", setting="extra_headers")
