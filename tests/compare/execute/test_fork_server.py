"""Runs forked from a warm process: processes of their own, with codes, logs, cores and the lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from iwlora.compare.execute.fork_server import ForkedProcess, ForkServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux alone")


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warm") / "lock"


@pytest.fixture(scope="module")
def warm(lock: Path) -> Iterator[ForkServer]:
    with lock.open("w") as stream:
        made = ForkServer(stream, modules=["iwlora.cli"])
    yield made
    made.close()


def begin(
    warm: ForkServer, log: Path, *arguments: str, cores: list[int] | None = None
) -> ForkedProcess:
    with log.open("ab") as words:
        run = warm.fork(arguments, words, cores)
    assert run is not None
    return run


def blocked(warm: ForkServer, tmp_path: Path, cores: list[int] | None = None) -> ForkedProcess:
    """A run that waits for its recipe for ever."""
    recipe = tmp_path / "recipe.yaml"
    os.mkfifo(recipe)
    arguments = ("train", str(recipe), "--out", str(tmp_path))
    return begin(warm, tmp_path / "log.txt", *arguments, cores=cores)


def test_codes_and_words_are_those_of_the_command(warm: ForkServer, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    good, bad = begin(warm, log, "--version"), begin(warm, log, "--frobnicate")
    assert (good.wait(60), bad.wait(60)) == (0, 2)
    assert good.pid != bad.pid
    told = log.read_text()
    assert "iwlora 0" in told
    assert "error: " in told


def test_a_run_is_a_process_that_is_pinned_and_can_be_ended(
    warm: ForkServer, lock: Path, tmp_path: Path
) -> None:
    core = max(os.sched_getaffinity(0))
    run = blocked(warm, tmp_path, cores=[core])
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(0.01)
    assert run.poll() is None
    held = [os.readlink(fd) for fd in Path(f"/proc/{run.pid}/fd").iterdir()]
    assert str(lock) in held, "the next start waits for it"
    for _ in range(600):
        if os.sched_getaffinity(run.pid) == {core}:
            break
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(0.05)
    else:
        pytest.fail("it is not pinned")
    run.terminate()
    assert run.wait(20) == -signal.SIGTERM
    run.kill()
    assert run.poll() == -signal.SIGTERM, "what has ended stays so"


def test_a_run_outlives_a_comparison_that_was_killed(tmp_path: Path) -> None:
    warm = ForkServer(modules=["iwlora.cli"])
    run = blocked(warm, tmp_path)
    warm._requests.close()  # as the end of the comparison would
    with pytest.raises(subprocess.TimeoutExpired):
        warm._process.wait(0.5)
    run.kill()
    assert warm._process.wait(20) == 0
    assert run.wait(20) == -signal.SIGKILL


def test_without_the_warm_process_its_runs_are_ended_and_no_more_are_forked(
    tmp_path: Path,
) -> None:
    warm = ForkServer(modules=["iwlora.cli"])
    run = blocked(warm, tmp_path)
    watched = psutil.Process(run.pid)
    warm._process.kill()
    assert run.wait(20) == -signal.SIGKILL
    watched.wait(20)
    with (tmp_path / "log.txt").open("ab") as words:
        assert warm.fork(["--version"], words) is None
    warm.close()


def test_what_starts_a_thread_is_not_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "busy.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    warm = ForkServer(modules=["iwlora.cli", "busy"])
    with (tmp_path / "log.txt").open("ab") as words:
        assert warm.fork(["--version"], words) is None
    warm.close()
