"""From a job's plan to the records that a host shows of it: what all hosts share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fine_tuning_simulator.identity import Ids
from fine_tuning_simulator.plan import JobPlan
from fine_tuning_simulator.profiles import Profile
from fine_tuning_simulator.training import Point

Record = dict[str, Any]

KEPT = 3
"""How many checkpoints of a job a host keeps that does not keep all."""

SETTLES_AFTER = 2
"""Seconds from `finished_at` until a host that holds checkpoints back shows them, and says so in an event."""


class Records(ABC):
    """How one host writes jobs, checkpoints and events. Listings come oldest first."""

    def __init__(self, profile: Profile, ids: Ids) -> None:
        self.profile = profile
        self.ids = ids

    @abstractmethod
    def job(self, plan: JobPlan, now: int) -> Record:
        """The job as of `now`."""

    @abstractmethod
    def checkpoint(self, plan: JobPlan, point: Point) -> Record:
        """The checkpoint of a step."""

    @abstractmethod
    def events(self, plan: JobPlan, points: Sequence[Point]) -> Iterator[Record]:
        """All events of the job's whole life."""

    def checkpoints(self, plan: JobPlan, points: Sequence[Point], now: int) -> list[Record]:
        """The checkpoints that the host shows at `now`."""
        if not self.profile.shows_checkpoints_while_training:
            outcomes = (
                ("succeeded", "cancelled") if self.profile.shows_checkpoints_of_cancelled_jobs else ("succeeded",)
            )
            if now < plan.finished_at + SETTLES_AFTER or plan.kind.outcome not in outcomes:
                return []
        return [self.checkpoint(plan, point) for point in self.kept(plan, points, now)]

    def kept(self, plan: JobPlan, points: Sequence[Point], now: int) -> Sequence[Point]:
        """The steps whose checkpoints the host has kept by `now`: the ends of the epochs, or of the last three."""
        ends = [points[step - 1] for step in plan.epoch_ends(plan.steps_by(now))]
        return ends if self.profile.keeps_all_checkpoints else self.choose(ends)

    def choose(self, ends: Sequence[Point]) -> Sequence[Point]:
        """The checkpoints to keep where not all are kept."""
        return ends[-KEPT:]

    # -- names of files --------------------------------------------------------------------------------------------

    def training_file(self, plan: JobPlan) -> str:
        """The id of the job's training file."""
        return self.ids.file(f"training:{plan.dataset}")

    def validation_file(self, plan: JobPlan) -> str | None:
        """The id of the job's validation file, if it has one."""
        return self.ids.file(f"validation:{plan.dataset}") if plan.kind.has_validation_file else None

    def result_file(self, plan: JobPlan) -> str | None:
        """The id of the result file that the job ends with, if it gets that far."""
        return self.ids.file(f"results:{plan.index}") if plan.kind.outcome == "succeeded" else None

    def encodes_result_file(self, _plan: JobPlan) -> bool:
        """Whether the host sends the job's result file in base64."""
        return False

    def weight_files(self, _plan: JobPlan, _step: int) -> dict[str, str]:
        """The files of a checkpoint, where the host lets them be downloaded: id to file name."""
        return {}

    # -- for those who inherit -------------------------------------------------------------------------------------

    def result_files(self, plan: JobPlan, now: int) -> list[str]:
        """The job's `result_files`."""
        name = self.result_file(plan)
        return [name] if name is not None and now >= plan.finished_at else []

    def event(
        self,
        plan: JobPlan,
        number: int,
        at: int,
        message: str,
        data: Mapping[str, Any] | None,
        *,
        level: str = "info",
    ) -> Record:
        """One event."""
        return {
            "object": "fine_tuning.job.event",
            "id": self.ids.event(plan.index, number),
            "created_at": at,
            "level": level,
            "message": message,
            "data": data,
            "type": "metrics" if data and "step" in data else "message",
        }


def failure(plan: JobPlan) -> Record:
    """The `error` of a failed job."""
    if plan.kind.fails_validation:
        return {
            "code": "invalid_training_file",
            "message": f"The training file cannot be used: example {plan.seed % 20 + 1} has a message without a role.",
            "param": "training_file",
        }
    return {
        "code": "server_error",
        "message": "Training stopped because of an error on our side. You have not been billed for it.",
        "param": None,
    }


def settled(plan: JobPlan) -> int:
    """When nothing about an ended job changes any more."""
    return plan.finished_at + 10
