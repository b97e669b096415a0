"""The files that jobs train on."""

import json
import random
from dataclasses import dataclass
from typing import Any, Literal

Method = Literal["supervised", "dpo", "reinforcement"]
Part = Literal["training", "validation"]

TOPICS = ("support-replies", "invoice-fields", "ticket-triage", "release-notes", "contract-clauses", "tone-of-voice")
"""What the imagined company trains its models for."""

_NOUNS = ("order", "invoice", "account", "delivery", "contract", "password", "refund", "subscription")
_TROUBLES = ("is late", "shows the wrong total", "cannot be found", "was charged twice", "needs a new owner")
_TONES = ("Thank you for writing.", "Good morning.", "I am sorry about that.", "Let me look into it.")


@dataclass(frozen=True)
class Dataset:
    """One version of the examples for one topic."""

    topic: str
    version: int
    method: Method
    seed: int

    @property
    def examples(self) -> int:
        """How many examples the training part has."""
        return self._random("size").randint(24, 96)

    def filename(self, part: Part) -> str:
        """What its uploader called the file."""
        return f"{self.topic}-{self.method}-v{self.version % 1000}{'' if part == 'training' else '-valid'}.jsonl"

    def content(self, part: Part) -> bytes:
        """The file: an example a line, as JSON."""
        rng = self._random(part)
        count = self.examples if part == "training" else max(10, self.examples // 5)
        return b"".join(json.dumps(self._example(rng)).encode() + b"\n" for _ in range(count))

    def _random(self, what: str) -> random.Random:
        return random.Random(f"{self.seed}:{self.topic}:{self.version}:{self.method}:{what}")  # noqa: S311

    def _example(self, rng: random.Random) -> dict[str, Any]:
        noun = rng.choice(_NOUNS)
        number = rng.randint(1000, 9999)
        question = {"role": "user", "content": f"My {noun} {number} {rng.choice(_TROUBLES)}."}
        good = {"role": "assistant", "content": f"{rng.choice(_TONES)} I have opened a case for {noun} {number}."}
        if self.method == "dpo":
            poor = {"role": "assistant", "content": f"Please wait for news of {noun} {number}."}
            return {"input": {"messages": [question]}, "preferred_output": [good], "non_preferred_output": [poor]}
        if self.method == "reinforcement":
            return {"messages": [question], "reference_answer": f"{noun}-{number}"}
        return {"messages": [{"role": "system", "content": f"You handle {self.topic}."}, question, good]}
