"""The hosts that the simulator can be, and how they differ."""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

ProfileName = Literal["openai", "azure", "nebius"]

IdKind = Literal["job", "checkpoint", "event", "file"]

ModelKind = Literal["base", "fine_tuned", "checkpoint"]

IdForm = tuple[str, Literal["hex", "uuid"] | int]
"""The prefix of an id, and what follows: hexadecimal digits, a UUID, or this many letters and digits."""

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The behaviour of one host.

    Attributes:
        name: `openai`, `azure` or `nebius`.
        base_path: The path of the API, below the host's name.
        other_paths: Patterns of base paths at which the same API answers too.
        classic_path: One more base path, at which each request must have a dated `api-version`.
        newest_first: The order of jobs, checkpoints and events. No host documents its own.
        ids: The form of each kind of id.
        has_azure_errors: Errors for an unknown key or path have Azure's form, not OpenAI's.
        accepts_api_key_header: The key may come in the header `api-key`.
        lists_name_their_ends: Listings of checkpoints and files have `first_id` and `last_id`.
        shows_checkpoints_while_training: Checkpoints are listed before the job ends.
        keeps_all_checkpoints: Every epoch's checkpoint is kept, not only three.
        shows_checkpoints_of: The host lists the checkpoints of jobs with these final statuses.
        lists_models_of: The listing of models has base models, fine-tuned models, and their checkpoints, or some.
        supervised_models: Base models.
        reinforcement_models: Base models of reinforcement runs; empty if the host only has supervised training.
    """

    name: ProfileName
    base_path: str = "/v1"
    other_paths: tuple[str, ...] = ()
    classic_path: str | None = None
    newest_first: bool = True
    ids: Mapping[IdKind, IdForm]
    has_azure_errors: bool = False
    accepts_api_key_header: bool = False
    lists_name_their_ends: bool = False
    shows_checkpoints_while_training: bool = False
    keeps_all_checkpoints: bool = False
    shows_checkpoints_of: frozenset[str] = frozenset({"succeeded", "cancelled"})
    lists_models_of: frozenset[ModelKind]
    supervised_models: tuple[str, ...]
    reinforcement_models: tuple[str, ...] = ()


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "openai": Profile(
            name="openai",
            ids={
                "job": ("ftjob-", 24),
                "checkpoint": ("ftckpt_", 24),
                "event": ("ftevent-", 24),
                "file": ("file-", 22),
            },
            lists_name_their_ends=True,
            shows_checkpoints_of=frozenset({"succeeded"}),
            lists_models_of=frozenset({"base", "fine_tuned", "checkpoint"}),
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
            other_paths=("/api/projects/[^/]+/openai/v1",),
            classic_path="/openai",
            ids={
                "job": ("ftjob-", "hex"),
                "checkpoint": ("ftchkpt-", "hex"),
                "event": ("ftevent-", "hex"),
                "file": ("file-", "hex"),
            },
            has_azure_errors=True,
            accepts_api_key_header=True,
            lists_models_of=frozenset({"base", "fine_tuned"}),
            supervised_models=("gpt-4o-mini-2024-07-18", "gpt-4.1-mini-2025-04-14", "gpt-4o-2024-08-06"),
        ),
        "nebius": Profile(
            name="nebius",
            newest_first=False,
            ids={
                "job": ("ftjob-", "hex"),
                "checkpoint": ("ftckpt_", "uuid"),
                "event": ("ftevent-", "hex"),
                "file": ("file-", "uuid"),
            },
            shows_checkpoints_while_training=True,
            keeps_all_checkpoints=True,
            lists_models_of=frozenset({"base"}),
            supervised_models=(
                "Qwen/Qwen3-4B",
                "Qwen/Qwen2.5-7B-Instruct",
                "meta-llama/Llama-3.1-8B-Instruct",
                "meta-llama/Llama-3.3-70B-Instruct",
            ),
        ),
    }
)
"""The hosts by name."""


def profile_named(name: str) -> Profile:
    """Return the profile with this name. Raises ValueError, which lists the names, if there is none."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}") from None


class Ids:
    """Make ids in the form of a host. They depend only on the seed and on what they name."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self._profile = profile
        self._salt = f"{profile.name}:{seed}:"

    def token(self, what: str, length: int) -> str:
        """Return `length` letters and digits."""
        number = int.from_bytes(self._digest(what), "big")
        letters = []
        for _ in range(length):
            number, digit = divmod(number, 62)
            letters.append(_BASE62[digit])
        return "".join(letters)

    def of(self, kind: IdKind, what: str) -> str:
        """Return the id of a thing, in the form of its kind."""
        prefix, rest = self._profile.ids[kind]
        what = f"{kind}:{what}"
        if isinstance(rest, int):
            return prefix + self.token(what, rest)
        digest = self._digest(what)[:16]
        return prefix + (digest.hex() if rest == "hex" else str(uuid.UUID(bytes=digest, version=4)))

    def _digest(self, what: str) -> bytes:
        return hashlib.sha256((self._salt + what).encode()).digest()
