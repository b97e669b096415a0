"""A local API that behaves as the real fine-tuning hosts do: for a demo, for tests, for development without a network.

from fine_tuning_simulator import Clock, GeneratedWorld, Simulator

clock = Clock()
with Simulator(GeneratedWorld(seed=0, jobs=24, clock=clock)) as simulator:
    client = openai.OpenAI(base_url=simulator.base_url, api_key="any")
    clock.advance(7200)  # jobs move on
"""

from fine_tuning_simulator.app import FILES_SCOPE, JOBS_SCOPE, MODELS_SCOPE, World
from fine_tuning_simulator.clock import Clock
from fine_tuning_simulator.faults import Fault
from fine_tuning_simulator.generated import GeneratedWorld
from fine_tuning_simulator.messages import Request
from fine_tuning_simulator.profiles import PROFILES, Profile
from fine_tuning_simulator.scripted import ScriptedWorld
from fine_tuning_simulator.server import Simulator, serve

__all__ = [
    "FILES_SCOPE",
    "JOBS_SCOPE",
    "MODELS_SCOPE",
    "PROFILES",
    "Clock",
    "Fault",
    "GeneratedWorld",
    "Profile",
    "Request",
    "ScriptedWorld",
    "Simulator",
    "World",
    "serve",
]
