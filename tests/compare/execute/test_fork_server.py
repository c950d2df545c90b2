"""Runs forked by the server: processes with their own exit code, log and cores, and the lock."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from iwlora.compare.execute.fork_server import ForkedProcess, ForkServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux only")


# What the server imports: commands that only wait, or only compute, are added to those of iwlora.
MODULES = ("iwlora.cli", "waiting")
WAITING = """
import time
import iwlora.cli

main = iwlora.cli.main

def called(arguments):
    if arguments == ["compute"]:
        end = time.process_time() + 1.0
        while time.process_time() < end:
            pass
        return 0
    return time.sleep(600) if arguments == ["wait"] else main(arguments)

iwlora.cli.main = called
"""


@pytest.fixture(scope="module", autouse=True)
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "waiting.py").write_text(WAITING, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        yield


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "lock"


@pytest.fixture(scope="module")
def server(lock: Path, waiting: None) -> Iterator[ForkServer]:
    with lock.open("w") as stream:
        made = ForkServer(stream, modules=MODULES)
        yield made
        made.close()


def fork(
    server: ForkServer, log: Path, *arguments: str, cores: list[int] | None = None
) -> ForkedProcess:
    with log.open("ab") as output:
        run = server.fork(arguments, output, cores)
    assert run is not None
    return run


def blocked(server: ForkServer, tmp_path: Path, cores: list[int] | None = None) -> ForkedProcess:
    """A run that goes on for ever."""
    return fork(server, tmp_path / "log.txt", "wait", cores=cores)


def open_files(pid: int) -> list[str]:
    names = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the process has closed it since
            names.append(os.readlink(descriptor))
    return names


@pytest.mark.quick
def test_exit_codes_and_output_are_those_of_the_command(server: ForkServer, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    good, bad = fork(server, log, "--version"), fork(server, log, "--frobnicate")
    assert (good.wait(60), bad.wait(60)) == (0, 2)
    assert good.pid != bad.pid
    printed = log.read_text()
    assert "iwlora 0" in printed
    assert "error: " in printed


def test_a_run_is_a_process_that_is_pinned_and_can_be_ended(
    server: ForkServer, lock: Path, tmp_path: Path
) -> None:
    core = max(os.sched_getaffinity(0))
    run = blocked(server, tmp_path, cores=[core])
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(0.01)
    assert run.poll() is None
    assert str(lock) in open_files(run.pid), "the next start waits for it"
    assert str(lock) not in open_files(server._process.pid), "it may be the server of the next"
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
    server = ForkServer(modules=MODULES)
    run = blocked(server, tmp_path)
    server._requests.close()  # as the end of the comparison would
    assert server._process.wait(20) == 0
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(0.5)
    run.kill()
    assert run.wait(20) == -signal.SIGKILL


def test_if_the_server_dies_its_runs_go_on_and_no_more_are_forked(tmp_path: Path) -> None:
    server = ForkServer(modules=MODULES)
    run = blocked(server, tmp_path)
    server._process.kill()
    server._process.wait(20)
    with (tmp_path / "log.txt").open("ab") as output:
        assert server.fork(["--version"], output) is None
    server.close()
    assert run.poll() is None
    run.terminate()
    assert run.wait(20) == -signal.SIGTERM


def test_a_run_whose_end_nobody_can_report_is_ended(server: ForkServer, tmp_path: Path) -> None:
    run = blocked(server, tmp_path)
    watched = psutil.Process(run.pid)
    watcher = watched.parent()
    assert watcher is not None
    watcher.kill()
    assert run.wait(20) == -signal.SIGKILL
    # Its locks are released: a run that is tried again would else find another one at work.
    assert not watched.is_running() or watched.status() == psutil.STATUS_ZOMBIE


def test_a_server_with_a_second_thread_is_not_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "busy.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    server = ForkServer(modules=["iwlora.cli", "busy"])
    with (tmp_path / "log.txt").open("ab") as output:
        assert server.fork(["--version"], output) is None
    server.close()


FORKED_FROM = """
import atexit, os, sys
from iwlora.compare.execute.forking import import_without_threads

import_without_threads()
from iwlora.compare.execute.fork_server import ForkServer

mark, log = sys.argv[1:]
print("printed once", flush=False)
with open(mark + ".lock", "w") as lock, open(log, "ab") as output:
    try:
        server = ForkServer(lock, modules=["iwlora.cli"], from_here=True)
        atexit.register(lambda: open(mark, "a").write(f"exit of {os.getpid()}\\n"))
        command = open(f"/proc/{server._process.pid}/cmdline").read()
        assert command == open("/proc/self/cmdline").read(), "it is no fork"
        good, bad = (server.fork([name], output) for name in ("--version", "--frobnicate"))
        held = [os.readlink(f"/proc/{server._process.pid}/fd/{n}") for n in (0, 1, 2)]
        names = os.listdir(f"/proc/{server._process.pid}/fd")
        files = [os.readlink(f"/proc/{server._process.pid}/fd/{n}") for n in names]
        assert held[0].startswith("socket:") and held[1:] == ["/dev/null"] * 2, held
        assert lock.name not in files, "it may be the server of the next"
        print("codes", good.wait(60), bad.wait(60), flush=False)
    finally:  # neither the server nor a run gets here
        open(mark, "a").write(f"left by {os.getpid()}\\n")
    server.close()
print("pid", os.getpid())
"""


def test_a_process_without_threads_forks_the_server_and_neither_returns_into_it(
    tmp_path: Path,
) -> None:
    mark, log = tmp_path / "mark", tmp_path / "log.txt"
    command = [sys.executable, "-c", FORKED_FROM, str(mark), str(log)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    once, codes, pid = done.stdout.splitlines()
    assert (once, codes) == ("printed once", "codes 0 2")
    number = pid.removeprefix("pid ")
    assert mark.read_text() == f"left by {number}\nexit of {number}\n"
    assert "iwlora 0" in log.read_text()
    assert "error: " in log.read_text()


def test_the_processor_time_of_a_run_counts_as_the_comparisons(tmp_path: Path) -> None:
    def children() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = children()
    server = ForkServer(modules=MODULES)
    fork(server, tmp_path / "log", "compute").wait()
    process = psutil.Process(server._process.pid)
    while process.children():
        time.sleep(0.01)
    own = process.cpu_times()
    server.close()
    assert children() - before - own.user - own.system > 0.9, "the run used a second"
