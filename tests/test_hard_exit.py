"""A process that is ended at once."""

from __future__ import annotations

import subprocess
import sys


def test_a_hard_exit_writes_out_what_was_printed_and_waits_for_no_thread() -> None:
    code = (
        "import threading\n"
        "from fine_tuning_warehouse.errors import exit_now\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "print('printed', end='')\n"
        "exit_now(143)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "printed", "")
