"""What sets one host apart from another."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

ProfileName = Literal["openai", "azure", "nebius"]

IdForm = tuple[str, Literal["hex", "uuid"] | int]
"""How ids of one kind begin, and what follows: hexadecimal digits, a UUID, or so many letters and digits."""


@dataclass(frozen=True)
class Profile:
    """The ways of one host."""

    name: ProfileName
    base_path: str
    newest_first: bool
    """Order of jobs, checkpoints and events. No host documents its own."""
    job_ids: IdForm
    checkpoint_ids: IdForm
    event_ids: IdForm
    file_ids: IdForm
    refuses_as_azure: bool
    """Whether it tells of an unknown key or path in Azure's words; else in OpenAI's."""
    lists_name_their_ends: bool
    """Whether listings of checkpoints and files carry `first_id` and `last_id`."""
    accepts_api_key_header: bool
    shows_checkpoints_while_training: bool
    keeps_all_checkpoints: bool
    shows_checkpoints_of_cancelled_jobs: bool
    supervised_models: tuple[str, ...]
    other_paths: tuple[str, ...] = ()
    """Base paths that the same API answers at as well."""
    classic_path: str | None = None
    """One more, where each request has to say a dated `api-version`."""
    reinforcement_models: tuple[str, ...] = ()
    """Empty where the host offers supervised training only."""

    @property
    def has_other_methods(self) -> bool:
        """Whether preference and reinforcement runs exist on this host."""
        return bool(self.reinforcement_models)


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "openai": Profile(
            name="openai",
            base_path="/v1",
            newest_first=True,
            job_ids=("ftjob-", 24),
            checkpoint_ids=("ftckpt_", 24),
            event_ids=("ftevent-", 24),
            file_ids=("file-", 22),
            refuses_as_azure=False,
            lists_name_their_ends=True,
            accepts_api_key_header=False,
            shows_checkpoints_while_training=False,
            keeps_all_checkpoints=False,
            shows_checkpoints_of_cancelled_jobs=False,
            supervised_models=(
                "gpt-4o-mini-2024-07-18",
                "gpt-4.1-mini-2025-04-14",
                "gpt-4.1-nano-2025-04-14",
                "gpt-4o-2024-08-06",
            ),
            reinforcement_models=("o4-mini-2025-04-16",),
        ),
        "azure": Profile(
            name="azure",
            base_path="/openai/v1",
            newest_first=True,
            job_ids=("ftjob-", "hex"),
            checkpoint_ids=("ftchkpt-", "hex"),
            event_ids=("ftevent-", "hex"),
            file_ids=("file-", "hex"),
            refuses_as_azure=True,
            lists_name_their_ends=False,
            accepts_api_key_header=True,
            shows_checkpoints_while_training=False,
            keeps_all_checkpoints=False,
            shows_checkpoints_of_cancelled_jobs=True,
            supervised_models=("gpt-4o-mini-2024-07-18", "gpt-4.1-mini-2025-04-14", "gpt-4o-2024-08-06"),
            other_paths=("/api/projects/{project}/openai/v1",),
            classic_path="/openai",
        ),
        "nebius": Profile(
            name="nebius",
            base_path="/v1",
            newest_first=False,
            job_ids=("ftjob-", "hex"),
            checkpoint_ids=("ftckpt_", "uuid"),
            event_ids=("ftevent-", "hex"),
            file_ids=("file-", "uuid"),
            refuses_as_azure=False,
            lists_name_their_ends=False,
            accepts_api_key_header=False,
            shows_checkpoints_while_training=True,
            keeps_all_checkpoints=True,
            shows_checkpoints_of_cancelled_jobs=True,
            supervised_models=(
                "Qwen/Qwen3-4B",
                "Qwen/Qwen2.5-7B-Instruct",
                "meta-llama/Llama-3.1-8B-Instruct",
                "meta-llama/Llama-3.3-70B-Instruct",
            ),
        ),
    }
)
"""The hosts that the simulator can be."""


def profile_named(name: str) -> Profile:
    """The profile called `name`; `ValueError` names those that exist."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}") from None
