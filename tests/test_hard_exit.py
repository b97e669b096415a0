"""A process that is ended at once gives back what others wait for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("release", "written"), [("file.write_text('given back')", "given back"), ("threading.Event().wait()", "held")]
)
def test_leases_are_released_before_a_hard_exit_and_never_hold_it_up(
    tmp_path: Path, release: str, written: str
) -> None:
    file = tmp_path / "lease"
    code = (
        "import pathlib, sys, threading\n"
        "from fine_tuning_warehouse.hard_exit import exit_now, released_at_exit\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "file.write_text('held')\n"
        f"with released_at_exit(lambda: {release}):\n"
        "    with released_at_exit(lambda: 1 / 0):\n"
        "        exit_now(143)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", "")
    assert file.read_text() == written
