"""A stop that comes where Python cannot raise it."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def test_a_stop_inside_a_finalizer_ends_the_command_without_a_traceback() -> None:
    code = """
        import os, signal, time
        from fine_tuning_warehouse import cli

        class Finalized:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)

        def work():
            Finalized()
            time.sleep(30)

        cli.ftw.main = lambda **_: work()
        cli.main()
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=25, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", "Stopped.\n")
