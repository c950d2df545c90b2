"""What a timed command costs: each process once."""

from __future__ import annotations

from timed_commands import run_command

COMPUTE = "import time\nwhile time.process_time() < 1.0:\n    pass\n"


def test_the_time_of_a_process_below_the_command_counts_once() -> None:
    waits = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {COMPUTE!r}])"
    assert 1.0 <= run_command(["-c", waits], threads=1).processor_seconds < 1.5
