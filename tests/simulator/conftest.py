"""What the tests of the simulator share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from fine_tuning_simulator import PROFILES, Clock, GeneratedWorld, Simulator

Get = Callable[..., requests.Response]


@pytest.fixture(params=sorted(PROFILES))
def profile(request: pytest.FixtureRequest) -> str:
    """Each host in turn."""
    return str(request.param)


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def world(profile: str, clock: Clock) -> GeneratedWorld:
    """A generated world of each host."""
    return GeneratedWorld(seed=3, jobs=30, profile=profile, clock=clock)


@pytest.fixture
def simulator(world: GeneratedWorld) -> Iterator[Simulator]:
    """That world, behind a real socket."""
    with Simulator(world) as running:
        yield running


@pytest.fixture
def get() -> Iterator[Get]:
    """Ask a simulator for a path under its base URL, with a key unless the headers say otherwise."""
    with requests.Session() as session:
        session.trust_env = False

        def ask(simulator: Simulator, path: str, **options: Any) -> requests.Response:
            options.setdefault("headers", {"Authorization": "Bearer a-key"})
            options.setdefault("timeout", 10)
            options.setdefault("allow_redirects", False)
            return session.get(simulator.base_url + path, **options)

        yield ask
