"""The result file of a run: a CSV, one row a step."""

import base64
from collections.abc import Iterable

from fine_tuning_simulator.datasets import Method
from fine_tuning_simulator.training import Point

_LOSS_COLUMNS = {
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}
_REWARD_COLUMNS = {
    name: name
    for name in ("train_mean_reward", "valid_mean_reward", "full_valid_mean_reward", "completion_tokens_mean")
}


def result_file(points: Iterable[Point], method: Method, as_base64: bool) -> bytes:
    """The bytes as the host sends them; a cell without a measurement is blank."""
    columns = _REWARD_COLUMNS if method == "reinforcement" else _LOSS_COLUMNS
    lines = [",".join(("step", *columns))]
    for point in points:
        cells = (point.metrics.get(metric) for metric in columns.values())
        texts = ("" if cell is None else repr(round(float(cell), 5)) for cell in cells)
        lines.append(",".join((str(point.step), *texts)))
    text = ("\n".join(lines) + "\n").encode()
    return base64.b64encode(text) if as_base64 else text
