"""Ids that look like each host's own, and follow from the seed alone."""

import hashlib
import uuid

from fine_tuning_simulator.profiles import Profile

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Ids:
    """The names of things in one generated world."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self._host = profile.name
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
        what = f"job:{index}"
        return f"ftjob-{self.token(what, 24) if self._host == 'openai' else self._hex(what)}"

    def checkpoint(self, index: int, step: int) -> str:
        """A checkpoint's id: of job `index`, at `step`."""
        what = f"checkpoint:{index}:{step}"
        if self._host == "openai":
            return f"ftckpt_{self.token(what, 24)}"
        return f"ftchkpt-{self._hex(what)}" if self._host == "azure" else f"ftckpt_{self._uuid(what)}"

    def event(self, index: int, number: int) -> str:
        """An event's id: the `number`-th of job `index`."""
        what = f"event:{index}:{number}"
        return f"ftevent-{self.token(what, 24) if self._host == 'openai' else self._hex(what)}"

    def file(self, what: str) -> str:
        """A file's id."""
        what = f"file:{what}"
        if self._host == "openai":
            return f"file-{self.token(what, 22)}"
        return f"file-{self._hex(what) if self._host == 'azure' else self._uuid(what)}"

    def _digest(self, what: str) -> bytes:
        return hashlib.sha256((self._salt + what).encode()).digest()

    def _hex(self, what: str) -> str:
        return self._digest(what)[:16].hex()

    def _uuid(self, what: str) -> str:
        return str(uuid.UUID(bytes=self._digest(what)[:16], version=4))
