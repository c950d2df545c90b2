"""Locks exclude other processes, end with their process, and pass to children that inherit them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from iwlora.results.locks import exclusive, exclusive_with_children

pytestmark = pytest.mark.quick

HOLD = """
import sys, time
from iwlora.results.locks import exclusive
with exclusive(sys.argv[1]) as held:
    print(held, flush=True)
    time.sleep(60)
"""
WITH_CHILD = """
import subprocess, sys, time
from iwlora.results.locks import exclusive_with_children
with exclusive_with_children(sys.argv[1], lambda: None) as lock:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    child = subprocess.Popen(sleep, stdout=subprocess.DEVNULL, pass_fds=[lock.fileno()])
    print(child.pid, flush=True)
    time.sleep(60)
"""


def start(code: str, lock: Path) -> tuple[subprocess.Popen[str], str]:
    """A process that runs the code, and the first line that it prints."""
    command = [sys.executable, "-c", code, str(lock)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def is_held(lock: Path) -> bool:
    with exclusive(lock) as held:
        return not held


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    process, held = start(HOLD, lock)
    assert held == "True"
    assert is_held(lock)
    process.kill()
    process.communicate()
    assert not is_held(lock)
    assert lock.exists(), "the file stays"


def test_a_lock_is_held_for_its_block_only(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with exclusive(lock) as first, exclusive(lock) as second:
        assert (first, second) == (True, False)
    assert not is_held(lock)


@pytest.mark.skipif(sys.platform == "win32", reason="children do not inherit locks on Windows")
def test_a_child_keeps_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    process, child = start(WITH_CHILD, lock)
    process.kill()
    process.communicate()
    assert is_held(lock), "its child still runs"
    waited: list[str] = []
    acquired: list[float] = []

    def wait() -> None:
        with exclusive_with_children(lock, lambda: waited.append("yes")):
            acquired.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.2)
    assert not acquired
    ended = time.monotonic()
    subprocess.run(["kill", f"-{signal.SIGKILL.value}", child], check=True)
    waiting.join(10)
    assert waited == ["yes"]
    assert acquired[0] >= ended
