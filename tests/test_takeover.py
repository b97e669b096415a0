"""A rotated key and a changed host: what was read is not read again where it is the same history, and else all is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dlt
import pytest

from command import Command
from fine_tuning_simulator import FILES_SCOPE, Clock, Fault, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.errors import CommandError, UsageError, root_cause
from fine_tuning_warehouse.sync.run import AccountResult, SyncOptions, run_sync
from fine_tuning_warehouse.verify import Comparison, verify
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.working_directory import working_directory
from harness import DAY, HOUR, NOW, Database
from histories import add_history, assert_holds, truth_of
from openai_fine_tuning import Report, StateTooNewError, settings
from openai_fine_tuning.api.client import FineTuningApi
from openai_fine_tuning.settings import JOB_RESOURCES, RESOURCES
from openai_fine_tuning.state.takeover import Candidate, take_over
from openai_fine_tuning.state.watermark import other_hosts, watermark_state

JOBS = 5


@pytest.fixture(autouse=True)
def _history(world: ScriptedWorld) -> None:
    """Five jobs that ended long ago, on three pages."""
    world.page_limit = 2
    add_history(world, range(JOBS))


def children(database: Database) -> list[str]:
    """What was requested below single jobs and files since the last sync began."""
    return [path for path in database.paths() if path not in ("/fine_tuning/jobs", "/files")]


def states(database: Database) -> dict[str, Any]:
    """The states that the warehouse keeps: resource to fingerprint to the state of a watermark."""
    with working_directory() as directory:
        pipeline = DuckDb(database.path).pipeline(directory)
        pipeline.sync_destination()
        (source,) = pipeline.state["sources"].values()
        return {name: one["frontiers"]["default"] for name, one in source["resources"].items() if "frontiers" in one}


def compared(database: Database, key: str) -> Comparison:
    """A verification with a key."""
    return verify(Account("default", key, database.host.base_url), DuckDb(database.path))


def test_a_rotated_key_costs_the_job_listing_and_nothing_else(world: ScriptedWorld, database: Database) -> None:
    database.sync(key="old")
    summary = database.sync(key="new")
    assert children(database) == []
    assert summary.requests == 3 + 1, "the listing once in whole, and its first page for what is new"
    assert sum(summary.rows.values()) == 0
    (note,) = summary.notes
    assert "not read again" in note
    assert all(name in note for name in JOB_RESOURCES)
    assert_holds(database.rows, truth_of(world))
    again = database.sync(key="new")
    assert (again.requests, again.notes) == (1, [])


@pytest.mark.thorough
def test_what_is_new_or_open_since_is_read_by_the_new_key(
    world: ScriptedWorld, clock: Clock, database: Database
) -> None:
    world.add_job(id="ftjob-open", created_at=NOW - HOUR, status="running", finished_at=None)
    world.add_event("ftjob-open", id="ftevent-early", created_at=NOW - HOUR + 60)
    database.begin(key="old")
    clock.advance(DAY)
    world.add_event("ftjob-open", id="ftevent-late", created_at=NOW + 60)
    world.update_job("ftjob-open", status="succeeded", finished_at=NOW + 120)
    world.add_job(id="ftjob-new", created_at=NOW + HOUR, finished_at=NOW + 2 * HOUR)
    world.add_checkpoint("ftjob-new", id="ftckpt-new")
    summary = database.sync(key="new")
    assert summary.rows["jobs"] == 2
    assert {path.split("/")[3] for path in children(database) if path.startswith("/fine_tuning")} == {
        "ftjob-open",
        "ftjob-new",
    }
    truth = truth_of(world)
    assert_holds(database.rows, truth.only("jobs", "checkpoints", "events"))
    assert not compared(database, "new").findings


def test_a_key_of_other_jobs_takes_nothing_over(world: ScriptedWorld, database: Database, clock: Clock) -> None:
    database.begin(key="old")
    kept = states(database)
    for kind in ("the same", "one older", "one fewer", "one for another", "one of another time"):
        other = ScriptedWorld()
        add_history(other, range(-1 if kind == "one older" else 1 if kind == "one fewer" else 0, JOBS))
        job = other.jobs()[2]
        if kind == "one for another":
            job["id"] = "ftjob-stranger"
        elif kind == "one of another time":
            job["created_at"] += 1
        candidates = {name: Candidate({}, tuple(earlier.values())) for name, earlier in kept.items()}
        report = Report()
        with Simulator(other, clock=clock) as host:
            api = FineTuningApi(host.base_url, "new")
            take_over(api, "default", candidates, report)
            api.close()
        (note,) = report.notes
        for candidate in candidates.values():
            assert ("newest" in candidate.state) == (kind == "the same"), kind
            assert not candidate.is_new, "it is decided"
        assert ("not read again" in note) == (kind == "the same")
        assert ("label of its own" in note) == (kind != "the same")


@pytest.mark.nightly
def test_what_is_not_taken_over_is_read_in_whole_and_the_old_watermark_stays(
    world: ScriptedWorld, database: Database, clock: Clock
) -> None:
    database.begin(key="old")
    other = ScriptedWorld()
    add_history(other, range(-1, JOBS))
    with Simulator(other, clock=clock) as host:
        assert Database(database.path, host).sync(key="new").rows["jobs"] == 1, "of the others nothing has changed"
        assert sum(request.path.endswith("/checkpoints") for request in host.requests) == JOBS + 1
    assert database.sync(key="old").requests == 1


@pytest.mark.nightly
def test_a_changed_host_takes_over_as_a_rotated_key_does(tmp_path: Path, world: ScriptedWorld, clock: Clock) -> None:
    with Simulator(world, profile="azure", clock=clock) as host:
        ftw = Command(tmp_path)
        ftw.env.pop("OPENAI_API_KEY")
        endpoint = host.base_url.removesuffix("/openai/v1")
        ftw.env.update(AZURE_OPENAI_API_KEY="k", AZURE_OPENAI_ENDPOINT=endpoint)
        assert ftw("sync", "--strict").code == 0
        host.requests.clear()
        moved = ftw("sync", env={"AZURE_OPENAI_ENDPOINT": f"{endpoint}/api/projects/mine"})
        assert moved.code == 0, moved.err
        assert "not read again" in moved.err
        assert len(host.requests) == 4
        host.requests.clear()
        quiet = ftw("sync", "--quiet", "--output", "json", env={"AZURE_OPENAI_API_KEY": "another"})
        assert (quiet.code, quiet.err) == (0, "")
        assert quiet.json["requests"] == 4


@pytest.mark.nightly
def test_an_unfinished_first_sync_is_not_taken_over(world: ScriptedWorld, clock: Clock, database: Database) -> None:
    def first_part(key: str) -> Report:
        report = Report()
        with working_directory() as directory:
            pipeline = DuckDb(database.path).pipeline(directory)
            source = Account("default", key, database.host.base_url).source(
                RESOURCES,
                fine_tuning_concurrency=1,
                fine_tuning_stop_after_seconds=0,
                fine_tuning_report=report,
            )
            pipeline.run(source)
        return report

    add_history(world, range(JOBS, 4 * JOBS))
    assert not first_part("old").is_complete
    assert all(one["cut"] for kept in states(database).values() for one in kept.values())
    part = first_part("new")
    assert "not yet complete" in part.notes[0]
    assert not part.is_complete
    summary = database.sync(key="new")
    assert summary.notes == [], "it goes on with what it has begun"
    assert_holds(database.rows, truth_of(world))
    assert database.sync(key="third").rows["jobs"] == 0


@pytest.mark.nightly
def test_a_resource_that_the_old_key_could_not_read_is_read(tmp_path: Path, world: ScriptedWorld, clock: Clock) -> None:
    keys = {"old": frozenset({FILES_SCOPE}), "new": frozenset[str](), "last": frozenset({FILES_SCOPE})}
    with Simulator(world, clock=clock, api_keys=keys) as host:
        database = Database(tmp_path / "warehouse.duckdb", host)
        database.sync(key="old")
        assert database.rows("SELECT count(*) FROM result_metrics") == [(0,)]
        summary = database.sync(key="new")
        assert summary.rows["result_metrics"] == 3 * JOBS
        assert summary.rows["files"] > 0
        assert summary.rows["checkpoints"] == 0
        assert_holds(database.rows, truth_of(world))
        # Without the scope again: nothing is owed, so that nothing fails.
        assert database.sync(key="last").skipped == []


@pytest.mark.nightly
def test_a_bounded_read_decides_nothing(database: Database) -> None:
    database.begin(key="old")
    before = states(database)
    bounds: tuple[dict[str, Any], ...] = ({"job_ids": ["ftjob-001"]}, {"since": "2020-01-01"})
    for bounded in bounds:
        summary = database.sync(key="new", **bounded)
        assert summary.notes == []
        assert any(path.endswith("/checkpoints") for path in database.paths())
    assert states(database) == before
    assert "not read again" in database.sync(key="new").notes[0]


@pytest.mark.thorough
def test_a_full_refresh_with_a_new_key_reads_everything(database: Database) -> None:
    database.begin(key="old")
    summary = database.sync(key="new", full_refresh=True)
    assert summary.rows["jobs"] == JOBS
    assert summary.rows["checkpoints"] == 3 * JOBS
    assert database.sync(key="third").rows["checkpoints"] == 0, "its state can be taken over"


@pytest.mark.thorough
def test_what_an_earlier_release_has_closed_is_read_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from openai_fine_tuning.state import watermark

    with monkeypatch.context() as patch:
        patch.setattr(watermark, "has_begun", lambda _: True)  # as before checksums were kept
        database.sync(key="old")
    assert all("tally" not in one for kept in states(database).values() for one in kept.values())
    assert database.sync(key="old").requests == 1, "with its own key it goes on"
    summary = database.sync(key="new")
    assert len({path for path in database.paths() if path.endswith("/checkpoints")}) == JOBS
    assert "earlier release" in summary.notes[0]


@pytest.mark.thorough
def test_a_host_that_fails_while_it_is_to_be_decided_leaves_it_open(database: Database) -> None:
    database.begin(key="old")
    database.host.faults.append(Fault("status", path="/jobs$", times=None, status=403))
    summary = AccountResult("default")
    with pytest.raises(CommandError, match="403"):
        run_sync(
            Account("default", "new", database.host.base_url),
            DuckDb(database.path),
            SyncOptions(),
            result=summary,
        )
    assert summary.requests == 1
    database.host.faults.clear()
    assert "not read again" in database.sync(key="new").notes[0]


@pytest.mark.nightly
def test_a_verification_with_a_rotated_key_knows_what_was_read(database: Database) -> None:
    database.begin(key="old")
    with_old = compared(database, "old")
    assert not with_old.findings
    import duckdb

    with duckdb.connect(str(database.path)) as connection:
        connection.execute("DELETE FROM fine_tuning.checkpoints WHERE fine_tuning_job_id = 'ftjob-002'")
    assert {finding.verdict for finding in compared(database, "old").findings} == {"missing"}
    assert {finding.verdict for finding in compared(database, "new").findings} == {"missing"}


def test_the_last_few_fingerprints_are_kept() -> None:
    state: dict[str, Any] = {}
    for number in range(settings.KEPT_IDENTITIES + 2):
        watermark_state(state, "default", f"{number}", now=number)
    watermark_state(state, "default", "2", now=100)
    watermark_state(state, "default", "new", now=101)
    assert set(state["frontiers"]["default"]) == {"2", "4", "5", "6", "new"}, (
        "the one that was not used for longest goes"
    )


@pytest.mark.nightly
def test_a_key_whose_fingerprint_is_gone_takes_over_from_the_newest(
    database: Database,
) -> None:
    keys = [f"key-{number}" for number in range(settings.KEPT_IDENTITIES + 1)]
    for number, key in enumerate([*keys, keys[0]]):
        assert database.sync(key=key).rows["jobs"] == (0 if number else JOBS)
    for kept in states(database).values():
        assert [state["tally"]["count"] for state in kept.values()] == [JOBS] * settings.KEPT_IDENTITIES


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_state_of_a_later_release_is_refused(database: Database, resource: str) -> None:
    state = {"version": settings.STATE_VERSION + 1, "frontiers": {"default": {"x": {"newest": 1.0}}}}
    pipeline = dlt.pipeline("later", destination=dlt.destinations.duckdb("later.duckdb"), dataset_name="tuning")
    source = Account("default", "key", database.host.base_url).source([resource])
    with pipeline.managed_state() as kept:
        kept["sources"] = {source.name: {"resources": {resource: state}}}
    with pytest.raises(Exception, match="Upgrade fine-tuning-warehouse") as raised:
        pipeline.extract(source)
    assert isinstance(root_cause(raised.value), StateTooNewError)
    assert database.host.requests == []


@pytest.mark.nightly
def test_a_verification_of_a_state_of_a_later_release_is_refused(database: Database, tmp_path: Path) -> None:
    database.sync()
    warehouse = DuckDb(database.path)
    pipeline = warehouse.pipeline(tmp_path / "later")
    warehouse.restore(pipeline)
    with pipeline.managed_state(extract_state=True) as state:
        for resource in state["sources"][str(pipeline.default_schema_name)]["resources"].values():
            resource["version"] = settings.STATE_VERSION + 1
    pipeline.normalize()
    warehouse.load(pipeline)
    database.host.requests.clear()
    with pytest.raises(CommandError, match="Upgrade fine-tuning-warehouse"):
        compared(database, "key")
    assert database.host.requests == []


def elsewhere(database: Database, host: Simulator, label: str = "default", **reading: Any) -> AccountResult:
    """Sync from a host by another name than the database's own."""
    url = host.base_url.replace("127.0.0.1", "localhost")
    return run_sync(Account(label, "key", url), DuckDb(database.path), SyncOptions(**reading))


@pytest.mark.nightly
def test_another_host_with_other_jobs_is_refused_until_a_full_refresh(database: Database, clock: Clock) -> None:
    database.begin()
    before = database.ids("jobs")
    other = ScriptedWorld()
    add_history(other, range(100, 103))
    with Simulator(other, clock=clock) as host:
        for reading in ({}, {"job_ids": ["ftjob-101"]}, {"since": "2020-01-01"}):
            with pytest.raises(
                UsageError, match=r"was read from 127\.0\.0\.1, and its host is localhost now"
            ) as refused:
                elsewhere(database, host, **reading)
            assert "--full-refresh" in str(refused.value)
        assert {request.path for request in host.requests} == {"/v1/fine_tuning/jobs"}
        assert database.ids("jobs") == before
        assert elsewhere(database, host, label="beside").rows["jobs"] == 3
        assert elsewhere(database, host, full_refresh=True).rows["jobs"] == 3
        assert elsewhere(database, host).requests == 1
    with pytest.raises(UsageError, match="was read from localhost"):
        database.sync()


@pytest.mark.nightly
def test_another_host_with_the_same_jobs_is_taken_over(database: Database, host: Simulator) -> None:
    database.begin()
    assert "not read again" in elsewhere(database, host).notes[0]
    assert elsewhere(database, host).requests == 1
    assert database.sync().requests == 1, "both are known now"


@pytest.mark.parametrize(
    ("states", "others"),
    [
        ([], []),
        ([{"newest": 1.0, "host": "here"}], []),
        ([{"newest": 1.0, "host": "there"}], ["there"]),
        ([{"own": True, "host": "there"}, {"newest": 1.0, "host": "yonder"}], ["there", "yonder"]),
        ([{"newest": 1.0, "host": "there"}, {"newest": 1.0, "host": "here"}], []),
        ([{"newest": 1.0, "host": "there"}, {"newest": 1.0}], []),
        ([{"host": "there", "newest": None}], []),
    ],
)
def test_an_account_is_of_another_host_if_all_that_was_read_is(states: list[dict[str, Any]], others: list[str]) -> None:
    kept = {"frontiers": {"mine": dict(enumerate(states)), "other": {"0": {"newest": 1.0, "host": "far"}}}}
    assert other_hosts([kept], "mine", "here") == others
