"""What was done to syncs, and what was lost: `uv run benchmarks/reliability.py [--rounds N]`.

Kills: `ftw sync` is killed (SIGKILL) at a random instant; then the next one must complete, with every row once.
Faults: 15 % of all answers fail, in ten ways; a sync must still load every row, once.
Bad inputs: random JSON in place of records; each must become a row, or be kept with the reason why not.
Worlds: random changes, syncs, failures and bounded reads; at the end the tables must equal the world.
Attacks: redirects to another host, SQL that leaves its file, answers without end; none may get anything.

Exits 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_tuning_warehouse.warehouses.duckdb import DuckDb

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from command import Command
from fine_tuning_simulator import Clock, ScriptedWorld, Simulator
from fine_tuning_warehouse.accounts.account import Account
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync
from histories import NOW, add_history, assert_holds, mixed_faults, truth_of
from openai_fine_tuning.errors import RequestError
from openai_fine_tuning.schema import TABLES
from openai_fine_tuning.settings import RequestPolicy
from raw_host import EMPTY_PAGE, RawHost, answer_with
from test_answer_bounds import BOMBS, asked, bomb
from test_command_query import REFUSED, broken_out, furnished
from test_hostile_data import RECORDS, check_any_json
from test_redirects import ELSEWHERE, sent_to
from test_sequences_property import run_worlds


@dataclass
class Result:
    """A line of the table."""

    what: str
    tried: int
    lost: int
    note: str


def kills(tries: int, randomness: random.Random) -> Result:
    """Kill real commands at random instants."""
    world = ScriptedWorld()
    world.page_limit = 5
    add_history(world, range(10))
    survived = killed = attempts = jobs = 0
    with tempfile.TemporaryDirectory() as folder, Simulator(world, clock=Clock(start=NOW, speed=0)) as host:
        ftw = Command(Path(folder), host.base_url)
        host.latency = 0.005
        usual = 2.0
        while killed < tries and attempts < 4 * tries:
            attempts += 1
            with ftw.start("sync", "--quiet") as running:
                time.sleep(randomness.uniform(0.2, 1.0) * usual)
                running.signal(signal.SIGKILL)
                was_killed = running.end().code == -signal.SIGKILL
            killed += was_killed
            ended = ftw("sync", "--strict", within=300)
            usual = 0.7 * usual + 0.3 * ended.seconds
            survived += was_killed and ended.code == 0 and _is_whole(ftw.rows, world)
            jobs += 1
            add_history(world, [100 + 2 * jobs, 101 + 2 * jobs])
        left = len(list(ftw.temporary.glob("*/sync-*")))
    return Result("kills", killed, killed - survived, f"{survived} survived; {left} directories left behind")


def faults(rounds: int) -> Result:
    """Sync from a host whose answers fail in 15 of 100 cases."""
    quick = RequestPolicy(backoff=0.01)
    injected = answers = lost = 0
    for number in range(rounds):
        world = ScriptedWorld()
        world.page_limit = 10
        add_history(world, range(60))
        with tempfile.TemporaryDirectory() as folder, Simulator(world, clock=Clock(start=NOW, speed=0)) as host:
            host.faults.extend(mixed_faults(0.15, number + 1000))
            ftw = Command(Path(folder), host.base_url)
            run_sync(Account("default", "key", host.base_url, policy=quick), DuckDb(ftw.database), SyncOptions())
            injected += sum(fault.hits for fault in host.faults)
            answers += len(host.requests)
            lost += not _is_whole(ftw.rows, world)
    share = 100 * injected / max(1, answers)
    return Result("faulty answers", injected, lost, f"{share:.1f} % of {answers:,} answers in {rounds} syncs")


def bad_inputs(tries: int, randomness: random.Random) -> Result:
    """Convert random JSON."""
    loaded = rejected = sent = 0

    @seed(randomness.getrandbits(32))
    @settings(
        max_examples=max(1, tries // 4),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(sorted(TABLES.keys() - {"rejected_records"})), st.lists(RECORDS, max_size=12))
    def convert(table: str, records: list[Any]) -> None:
        nonlocal loaded, rejected, sent
        rows, others = check_any_json(table, records)
        loaded, rejected, sent = loaded + rows, rejected + others, sent + len(records)

    convert()
    return Result("bad inputs", sent, sent - loaded - rejected, f"{loaded:,} loaded, {rejected:,} kept with the reason")


def worlds(tries: int) -> Result:
    """Random worlds, syncs and failures."""
    lost = 0
    try:
        run_worlds(tries, 20, derandomize=False)
    except AssertionError as error:
        print(error, file=sys.stderr)
        lost = 1
    return Result("random worlds", tries, lost, "20 steps each")


def attacks() -> Result:
    """Try what the tests try, and count it: what reaches a stranger, another file, or the memory."""
    with RawHost(lambda *_: [answer_with(EMPTY_PAGE)]) as stranger:
        for location in ELSEWHERE:
            for downloads in (False, True):
                sent_to(location, stranger, downloads=downloads)
        reached = stranger.connections
    with tempfile.TemporaryDirectory() as folder, furnished(Path(folder)) as place:
        os.environ["HOME"], before, here = folder, place.files(), Path.cwd()
        os.chdir(folder)
        escaped = len(list(broken_out(place))) + (place.files() != before)
        os.chdir(here)
    swallowed = 0
    for name in BOMBS:
        head = f"content-encoding: {name.split(' of ', maxsplit=1)[0]}"
        answer = [answer_with(bomb(name), head)]
        with RawHost(lambda *_, answer=answer: answer) as host:
            swallowed += not isinstance(asked(host, max_answer_megabytes=5), RequestError)
    tried = 2 * len(ELSEWHERE) + len(REFUSED) + len(BOMBS)
    note = f"{2 * len(ELSEWHERE)} redirects, {len(REFUSED)} statements, {len(BOMBS)} bombs"
    return Result("attacks", tried, reached + escaped + swallowed, note)


def _is_whole(rows: Callable[[str], list[tuple[Any, ...]]], world: ScriptedWorld) -> bool:
    try:
        assert_holds(rows, truth_of(world))
    except AssertionError as error:
        print(error, file=sys.stderr)
        return False
    return True


def main() -> int:
    """Run everything, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="multiplies all of the following (1)")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--syncs", type=int, default=10, help="syncs from a faulty host (10)")
    parser.add_argument("--inputs", type=int, default=4000, help="bad inputs, about (4000)")
    parser.add_argument("--worlds", type=int, default=10, help="random worlds (10)")
    parser.add_argument("--attacks", type=int, default=1, help="0 leaves the attacks out (1)")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    randomness = random.Random(chosen.seed)
    parts: list[Callable[[], Result]] = [
        lambda: kills(chosen.kills * chosen.rounds, randomness),
        lambda: faults(chosen.syncs * chosen.rounds),
        lambda: bad_inputs(chosen.inputs * chosen.rounds, randomness),
        lambda: worlds(chosen.worlds * chosen.rounds),
        attacks,
    ]
    print(f"{'':<15} {'tried':>7} {'lost':>5} {'seconds':>8}")
    lost = 0
    wanted = (chosen.kills, chosen.syncs, chosen.inputs, chosen.worlds, chosen.attacks)
    for number, part in zip(wanted, parts, strict=True):
        if not number:
            continue
        began = time.monotonic()
        result = part()
        lost += result.lost
        seconds = time.monotonic() - began
        print(f"{result.what:<15} {result.tried:>7,} {result.lost:>5,} {seconds:>8.1f}  {result.note}", flush=True)
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
