"""SIGTERM: what is printed, and how the process ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from iwlora.cli.terminal.termination import ending_by_sigterm

pytestmark = pytest.mark.quick
COMMAND = """
import signal, sys
from iwlora.cli import main, methods
def run(parsed):
    print("half of the result")
    signal.raise_signal(signal.SIGTERM)
methods.run = run
sys.exit(main(["methods"]))
"""


def test_a_command_says_how_to_go_on_and_ends_by_the_signal() -> None:
    done = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True)
    assert done.stderr == "interrupted\nto go on: iwlora methods\n"
    assert done.stdout == "half of the result\n", "nothing that was printed is lost"
    assert done.returncode == -signal.SIGTERM, "a shell says 143"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_other_handlers_and_several_processes_are_left_alone(
    processes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", processes)
    mine = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with ending_by_sigterm():
            is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert is_default == (processes == "2")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with ending_by_sigterm():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, mine)


def test_outside_of_the_main_thread_nothing_is_caught() -> None:
    entered: list[bool] = []

    def enter() -> None:
        with ending_by_sigterm():
            entered.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered
