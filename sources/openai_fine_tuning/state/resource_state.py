"""The source's part of dlt's state: what is loaded from it before a read, and stored in it after one."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator
from typing import Any

import dlt

from openai_fine_tuning import settings
from openai_fine_tuning.schema import MODELS, REJECTED_RECORDS, TABLES

from .takeover import Candidate
from .watermark import check_version, watermark_state, watermark_states


def load(resource: str, account: str, identity: str, *, is_partial: bool) -> Candidate:
    """Return a copy of a watermark's state, with the states of the account's earlier keys and hosts.

    The read changes the copy. For a partial read, the copy has the open jobs only, and is thrown away at the end.
    """
    states = watermark_states(dlt.current.resource_state(resource), account)
    if is_partial:
        return Candidate({"open": copy.deepcopy(states.get(identity, {}).get("open", {}))}, ())
    state = watermark_state(dlt.current.resource_state(resource), account, identity, now=time.time())
    return Candidate(copy.deepcopy(state), tuple(other for key, other in states.items() if key != identity))


def store(resource: str, account: str, identity: str, state: dict[str, Any], *, alone: bool = False) -> None:
    """Make a state the one that dlt commits with the rows; `alone`, without those of the account's other identities.

    Call it when all rows were handed over: dlt commits the state of a run that it ends early (`add_limit`) too.
    """
    states = watermark_states(dlt.current.resource_state(resource), account)
    kept = {} if alone else dict(states)
    states.clear()
    states.update({**kept, identity: state})


def load_listings(account: str) -> dict[str, dict[str, Any]]:
    """Return a copy of what is known of an account's listings of models, by the fingerprint of host and key.

    Raises:
        StateTooNewError: A later release wrote it.
    """
    state = dlt.current.resource_state(MODELS.name)
    check_version(state)
    return copy.deepcopy(state.get("listings", {}).get(account, {}))


def store_listings(account: str, known: dict[str, dict[str, Any]]) -> None:
    """Make it what dlt commits with the rows; of the keys, those that were used last are kept."""
    latest = sorted(known, key=lambda key: float(known[key]["tried_at"]), reverse=True)[: settings.KEPT_IDENTITIES]
    state = dlt.current.resource_state(MODELS.name)
    state.setdefault("version", settings.STATE_VERSION)
    state.setdefault("listings", {})[account] = {key: known[key] for key in latest}


def tables_to_make(resources: Iterable[str]) -> Iterator[str]:
    """Yield the tables that the destination lacks, or has as an earlier release declared them.

    An empty Arrow table makes one. But each table of a load costs dlt some 30 ms, which a sync without news need not
    pay. So the state of a resource says which tables it has made: state and tables are committed together.
    """
    made_with = {resource: resource for resource in resources}
    made_with[REJECTED_RECORDS.name] = next(iter(made_with))
    for table, resource in made_with.items():
        made = dlt.current.resource_state(resource).setdefault("tables", {})
        if made.get(table) != TABLES[table].digest:
            made[table] = TABLES[table].digest
            yield table
