"""Ids that look like each host's own, and follow from the seed alone."""

import hashlib
import uuid

from fine_tuning_simulator.profiles import IdForm, Profile

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Ids:
    """The names of things in one generated world."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self._profile = profile
        self._salt = f"{profile.name}:{seed}:"

    def token(self, what: str, length: int) -> str:
        """`length` letters and digits."""
        number = int.from_bytes(self._digest(what), "big")
        letters = []
        for _ in range(length):
            number, digit = divmod(number, 62)
            letters.append(_BASE62[digit])
        return "".join(letters)

    def job(self, index: int) -> str:
        """A job's id."""
        return self._formed(self._profile.job_ids, f"job:{index}")

    def checkpoint(self, index: int, step: int) -> str:
        """A checkpoint's id: of job `index`, at `step`."""
        return self._formed(self._profile.checkpoint_ids, f"checkpoint:{index}:{step}")

    def event(self, index: int, number: int) -> str:
        """An event's id: the `number`-th of job `index`."""
        return self._formed(self._profile.event_ids, f"event:{index}:{number}")

    def file(self, what: str) -> str:
        """A file's id."""
        return self._formed(self._profile.file_ids, f"file:{what}")

    def _formed(self, form: IdForm, what: str) -> str:
        beginning, rest = form
        if isinstance(rest, int):
            return beginning + self.token(what, rest)
        digest = self._digest(what)[:16]
        return beginning + (digest.hex() if rest == "hex" else str(uuid.UUID(bytes=digest, version=4)))

    def _digest(self, what: str) -> bytes:
        return hashlib.sha256((self._salt + what).encode()).digest()
