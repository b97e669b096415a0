"""Which models can still be called: the listing of models, and the view that reads it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from command import Command
from fine_tuning_simulator import MODELS_SCOPE, Clock, Fault, GeneratedWorld, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.verify import verify
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from harness import DAY, HOUR, MODELS, NOW, QUICK, Database
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.errors import EndlessListingError, RequestError
from openai_fine_tuning.extract.models import ModelListing
from openai_fine_tuning.settings import JOB_RESOURCES

BASE = "gpt-4o-mini-2024-07-18"


def add_job(world: ScriptedWorld, job: str = "one", **fields: Any) -> str:
    """A job that has ended with two checkpoints, the second of which is its model. Returns the name of the model."""
    made = world.add_job(**{"id": job, "created_at": NOW - 3 * DAY, "finished_at": NOW - 2 * DAY, **fields})
    model = str(made["fine_tuned_model"])
    for step, name in ((10, f"{model}:ckpt-step-10"), (20, model)):
        metrics = {"full_valid_loss": 1 / step}
        world.add_checkpoint(job, step_number=step, fine_tuned_model_checkpoint=name, metrics=metrics)
    return model


def callable_models(database: Database) -> dict[str, bool | None]:
    """Whether each final model and checkpoint can be called."""
    return dict(database.rows("SELECT model, is_callable FROM model_status"))


# the listing ----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_day_passes_between_two_listings_of_models_and_each_comes_after_everything_else(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    model = add_job(world)
    asked = []
    for step in (0, DAY - 1, 1, 60):
        clock.advance(step)
        database.sync()
        asked.append(database.all_paths().index(MODELS) + 1 if MODELS in database.all_paths() else 0)
        assert MODELS not in database.all_paths()[:-1]
    assert [place > 0 for place in asked] == [True, False, True, False]
    assert asked[2] == 2, "one request for the jobs, and one for the models"
    assert database.ids("models") == sorted([model, f"{model}:ckpt-step-10", BASE])


@pytest.mark.thorough
def test_a_model_that_vanishes_stays_with_the_time_when_it_was_last_seen(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    model, kept = add_job(world), add_job(world, "two", model="other-base")
    database.sync()
    seen = database.rows("SELECT DISTINCT last_listed_at FROM models")
    world.retire_model(BASE)
    clock.advance(DAY)
    summary = database.sync()
    assert summary.rows["models"] == 3, "what is listed again is written again"
    assert database.rows(f"SELECT last_listed_at FROM models WHERE id = '{model}'") == seen
    assert callable_models(database) == {
        model: False,
        f"{model}:ckpt-step-10": False,
        kept: True,
        f"{kept}:ckpt-step-10": True,
    }
    status = "SELECT is_final, step_number, last_seen_at = listed_at, last_seen_at < listed_at FROM model_status"
    assert database.rows(f"{status} WHERE model = '{model}'") == [(True, 20, False, True)]
    assert database.rows(f"{status} WHERE model = '{kept}:ckpt-step-10'") == [(False, 10, True, False)]


@pytest.mark.thorough
def test_the_models_are_listed_when_they_are_asked_for_and_for_no_part_of_the_jobs(
    world: ScriptedWorld, database: Database
) -> None:
    add_job(world)
    database.begin()
    for reading, times in (
        ({"resources": ("models",)}, 1),
        ({"resources": JOB_RESOURCES}, 0),
        ({"full_refresh": True}, 1),
        ({"job_ids": ("one",)}, 0),
        ({"since": "2020-01-01"}, 0),
    ):
        summary = database.sync(**reading)
        assert database.all_paths().count(MODELS) == times, reading
        if reading == {"resources": ("models",)}:
            assert (summary.requests, summary.rows["models"]) == (1, 3)
    with pytest.raises(CommandError, match="Leave them out"):
        database.sync(resources=("models",), since="2020-01-01")


@pytest.mark.nightly
def test_a_first_sync_of_models_alone_reads_no_job(world: ScriptedWorld, database: Database) -> None:
    model = add_job(world)
    assert database.sync(resources=("models",)).requests == 1
    assert callable_models(database) == {}
    assert database.sync().rows["jobs"] == 1, "what was not read is read by the next sync"
    assert MODELS not in database.all_paths()
    assert callable_models(database)[model] is True


@pytest.mark.thorough
@pytest.mark.first_only
@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", path=MODELS, times=None, status=404, message="Invalid URL (GET /v1/models)"),
        Fault("status", path=MODELS, times=None, status=403, message="Missing scopes: api.model.read"),
        *(Fault("status", path=MODELS, times=None, status=status) for status in (401, 405, 429, 500, 501)),
        Fault("html", path=MODELS, times=None),
        Fault("reset", path=MODELS, times=None),
        Fault("status", path=MODELS, times=None, status=200, body={"models": []}),
        Fault("status", path=MODELS, times=None, status=429, code="insufficient_quota"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.details.get('status')}-{fault.details.get('code')}",
)
def test_a_host_that_lists_no_models_costs_nothing_but_the_table(
    fault: Fault, world: ScriptedWorld, clock: Clock, host: Simulator, database: Database
) -> None:
    model = add_job(world)
    fault.hits = 0
    host.faults.append(fault)
    summary = database.sync()
    assert (summary.status, summary.skipped, summary.rejected, summary.warnings) == ("done", [], 0, [])
    assert (summary.rows["checkpoints"], summary.rows["models"]) == (2, 0)
    assert database.rows("SELECT count(*) FROM models") == [(0,)]
    assert callable_models(database) == {model: None, f"{model}:ckpt-step-10": None}
    clock.advance(DAY - 1)
    assert database.sync().requests == 1, "a host that does not answer is asked once a day, too"
    host.faults.clear()
    clock.advance(1)
    database.sync()
    assert callable_models(database)[model] is True


@pytest.mark.thorough
def test_a_host_that_fails_on_the_listing_of_models_delays_no_sync(
    world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    add_job(world)
    host.faults.append(Fault("status", path=MODELS, times=None, status=502))
    assert database.sync().status == "done"
    assert database.all_paths().count(MODELS) == 2


@pytest.mark.nightly
def test_models_alone_fail_with_the_host_and_say_what_the_host_lacks(
    world: ScriptedWorld, host: Simulator, database: Database
) -> None:
    add_job(world)
    world.list_models(None)
    summary = database.sync(resources=("models",))
    assert (summary.status, summary.skipped) == ("done", [])
    assert "404" in summary.notes[0]
    host.faults.append(Fault("status", times=None, status=401))
    with pytest.raises(CommandError, match="key"):
        database.sync(resources=("models",))


def test_a_listing_that_breaks_off_is_as_none(world: ScriptedWorld, host: Simulator, database: Database) -> None:
    model = add_job(world)
    database.begin()
    listed = [{"id": BASE, "object": "model"}]
    host.faults.append(Fault("status", path=MODELS, status=200, body={"data": listed, "has_more": True}))
    host.faults.append(Fault("status", path=MODELS, times=None, status=500))
    database.sync(resources=("models",))
    assert callable_models(database)[model] is True, "else all that the first page lacks would be gone"


@pytest.mark.thorough
def test_a_warehouse_without_the_table_gets_it_with_the_next_sync(world: ScriptedWorld, database: Database) -> None:
    model = add_job(world)
    database.sync(resources=JOB_RESOURCES)  # as every sync of an earlier release
    assert "models" not in [name for (name,) in database.rows("SELECT table_name FROM duckdb_tables()")]
    assert callable_models(database)[model] is None
    assert database.sync().requests == 2
    assert callable_models(database)[model] is True


def test_a_record_without_an_id_is_rejected_and_the_others_are_kept(world: ScriptedWorld, database: Database) -> None:
    add_job(world)
    odd = {"id": "odd", "created": 1_700_000_000, "deprecation": {"inference": "soon"}, "pricing": {"input": 1}}
    world.list_models([odd, {"id": None}, "text", {"id": "odd"}])
    summary = database.sync()
    assert summary.rejected == 2
    (row,) = database.rows("SELECT id, epoch(created_at), deprecation, deprecation__inference, pricing FROM models")
    assert row == ("odd", 1_700_000_000, '{"inference": "soon"}', None, '{"input": 1}')


class Reading:
    """Listings that one state is kept of."""

    def __init__(self, host: Simulator) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.host = host

    def read(self, now: float = NOW, key: str = "key") -> tuple[list[Any], Any]:
        """The records, and the time that they get in seconds."""
        with FineTuningApi(self.host.base_url, key, policy=QUICK) as api:
            found = ModelListing(api, self.known, is_asked_for=False).read(now)
            return list(found.records), found.own["last_listed_at"] / 1_000_000

    def is_due(self, now: float, key: str = "key") -> bool:
        """Whether a sync at this time reads it."""
        with FineTuningApi(self.host.base_url, key) as api:
            return ModelListing(api, self.known, is_asked_for=False).is_due(now)


def test_a_later_listing_has_a_later_time_whatever_the_clock_of_the_host_says(
    world: ScriptedWorld, clock: Clock, host: Simulator
) -> None:
    add_job(world)
    reading = Reading(host)
    times = []
    for step in (0, 0, 100 * DAY, -100 * DAY):
        clock.advance(step)
        times.append(reading.read()[1])
    assert reading.is_due(NOW - 2 * DAY), "a clock that was put back counts as time that has passed"
    times.append(reading.read(key="another")[1])
    assert times == sorted(set(times))


def test_what_one_key_has_listed_counts_for_all_and_what_it_was_refused_does_not(
    world: ScriptedWorld, host: Simulator
) -> None:
    add_job(world)
    reading = Reading(host)
    host.faults.append(Fault("status", path=MODELS, status=403))
    with pytest.raises(RequestError):
        reading.read()
    assert [reading.is_due(NOW, "key"), reading.is_due(NOW, "new"), reading.is_due(NOW + DAY)] == [False, True, True]
    reading.read()
    assert not reading.is_due(NOW, "new")


def test_an_empty_listing_is_not_one_that_says_that_all_is_gone(world: ScriptedWorld, host: Simulator) -> None:
    add_job(world)
    reading = Reading(host)
    _, listed_at = reading.read()
    world.list_models([])
    assert reading.read()[0] == []
    (state,) = reading.known.values()
    assert state["listed_at"] == listed_at


def test_a_listing_may_come_in_pages_and_an_endless_one_is_an_error(world: ScriptedWorld, host: Simulator) -> None:
    pages = [{"data": [{"id": "a", "created": 5}], "has_more": True}, {"data": [{"id": "b", "created_at": 6}]}]
    host.faults += [Fault("status", path=MODELS, status=200, body=page) for page in pages]
    assert Reading(host).read()[0] == [{"id": "a", "created_at": 5}, {"id": "b", "created_at": 6}]
    assert [request.query for request in host.requests] == [{}, {"after": "a"}]
    host.faults.append(Fault("status", path=MODELS, times=None, status=200, body=pages[0]))
    with pytest.raises(EndlessListingError):
        Reading(host).read()


# what the view says ---------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_what_a_listing_cannot_tell_is_null(world: ScriptedWorld, clock: Clock, database: Database) -> None:
    model = add_job(world)
    checkpoint = f"{model}:ckpt-step-10"
    for listed, expected in (
        ([BASE], {model: None, checkpoint: None}),  # a host that lists base models only
        ([BASE, model.upper()], {model: True, checkpoint: None}),  # one that lists no checkpoints
        ([BASE, checkpoint], {model: False, checkpoint: True}),
        ([], {model: False, checkpoint: True}),  # as of the listing before
        ([BASE], {model: False, checkpoint: False}),
    ):
        world.list_models([{"id": name, "object": "model"} for name in listed])
        clock.advance(DAY)
        database.sync()
        assert callable_models(database) == expected, listed


@pytest.mark.thorough
def test_the_advice_says_that_a_model_cannot_be_called(world: ScriptedWorld, clock: Clock, database: Database) -> None:
    model, kept = add_job(world), add_job(world, "two", model="other-base")
    best = (
        "SELECT checkpoint_to_deploy, is_callable, reason LIKE '%deleted or retired.' FROM best_checkpoints ORDER BY 1"
    )
    database.sync()
    assert {row[1:] for row in database.rows(best)} == {(True, False)}
    world.retire_model(BASE)
    clock.advance(DAY)
    database.sync()
    assert database.rows(best) == sorted([(model, False, True), (kept, True, False)])
    database.execute("DELETE FROM fine_tuning.models")
    assert {row[1:] for row in database.rows(best)} == {(None, False)}


@pytest.mark.nightly
def test_a_model_of_a_job_that_has_just_ended_may_not_be_listed_yet(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    old, new = add_job(world), add_job(world, "new", finished_at=NOW - HOUR + 60)
    world.remove_model(new)
    database.sync()
    assert callable_models(database)[new] is None
    clock.advance(DAY)
    database.sync()
    assert (callable_models(database)[new], callable_models(database)[old]) == (False, True)


@pytest.mark.nightly
def test_a_retirement_touches_what_was_tuned_from_the_model(world: ScriptedWorld, database: Database) -> None:
    of_base = add_job(world)
    tuned_twice = add_job(world, "two", model=of_base, fine_tuned_model=f"ft:{BASE}:example-org::two")
    on_azure = add_job(world, "azure", model="gpt-4o", fine_tuned_model=f"gpt-4o.ft-{'a' * 32}-mine")
    named = add_job(world, "named", fine_tuned_model="FT:named")
    other = add_job(world, "other", model=f"{BASE}-preview")
    database.sync()
    database.execute(
        "CREATE TABLE fine_tuning.retirements (model VARCHAR, retires_at DATE, replacement VARCHAR, note VARCHAR)"
    )
    database.execute(
        f"""
        INSERT INTO fine_tuning.retirements VALUES
            ('{BASE.upper()}', '2027-06-01', 'later', NULL), ('{BASE}', '2027-01-06', 'gpt-5-mini', 'announced'),
            ('ft:named', NULL, NULL, 'kept for us'), ('gpt-4', '2026-01-01', 'gpt-4o', NULL)
        """
    )
    database.sync()
    retirements = "SELECT model, retires_at, replacement, note FROM model_status WHERE is_final"
    base = (date(2027, 1, 6), "gpt-5-mini", "announced")
    nothing = (None, None, None)
    assert {model: tuple(rest) for model, *rest in database.rows(retirements)} == {
        of_base: base,
        tuned_twice: base,
        on_azure: nothing,
        named: (date(2027, 1, 6), None, "kept for us"),
        other: nothing,
    }
    database.execute("ALTER TABLE fine_tuning.retirements ALTER retires_at TYPE VARCHAR")
    database.sync()
    assert database.rows("SELECT count(*), count(retires_at) FROM model_status") == [(10, 0)]


@pytest.mark.thorough
def test_azure_says_itself_when_a_model_is_retired(tmp_path: Path) -> None:
    world = GeneratedWorld(jobs=12, profile="azure", clock=Clock(start=NOW))
    with Simulator(world) as azure:
        database = Database(tmp_path / "azure.duckdb", azure)
        database.sync()
    found = database.rows(
        "SELECT s.is_callable, s.retires_at = CAST(m.deprecation__inference AS DATE), m.fine_tune = "
        "s.fine_tuning_job_id FROM model_status AS s JOIN models AS m ON m.id = s.model WHERE s.is_final"
    )
    assert set(found) == {(True, True, True)}


# other commands -------------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_verify_waits_for_the_next_listing_of_models(world: ScriptedWorld, host: Simulator, database: Database) -> None:
    model = add_job(world)
    database.sync()
    account, warehouse = Account("default", "key", host.base_url, policy=QUICK), DuckDb(database.path)
    names = [f"{model}:ckpt-step-10", BASE, "new"]
    world.list_models([{"id": name, "object": "model", "owned_by": "us"} for name in names])
    found = verify(account, warehouse)
    assert not found.differs
    verdicts = {finding.key: finding.verdict for finding in found.findings if finding.table == "models"}
    assert verdicts == {"new": "pending", BASE: "pending", names[0]: "pending", model: "unlisted"}
    world.list_models(None)
    found = verify(account, warehouse)
    assert (found.differs, found.skipped, found.count("models", "unreadable")) == (False, [], 3)


@pytest.mark.thorough
@pytest.mark.parametrize("lacked", [frozenset[str](), frozenset({MODELS_SCOPE})])
def test_check_says_whether_models_are_listed_and_a_sync_is_strict_without(
    lacked: frozenset[str], world: ScriptedWorld, clock: Clock, tmp_path: Path
) -> None:
    add_job(world)
    with Simulator(world, clock=clock, api_keys={"sk-key": lacked}) as host:
        ftw = Command(tmp_path, host.base_url)
        ftw.env["OPENAI_API_KEY"] = "sk-key"
        checked = ftw("check")
        assert checked.code == 0
        (line,) = [line for line in checked.out.splitlines() if " models " in line]
        assert line.startswith("-" if lacked else "ok")
        assert (MODELS_SCOPE in line) == bool(lacked)
        assert ftw("sync", "--strict").code == 0
