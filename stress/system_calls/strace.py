"""Forks of this process under strace: which system calls they make, and one of them failing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ERRORS = {
    **dict.fromkeys(("open", "openat"), ("EACCES", "EIO", "ENOSPC")),
    **dict.fromkeys(("write", "pwrite64", "ftruncate", "fallocate"), ("ENOSPC", "EIO")),
    **dict.fromkeys(("fsync", "fdatasync"), ("EIO", "ENOSPC")),
    **dict.fromkeys(("sendfile", "copy_file_range"), ("EIO", "ENOSPC")),
    **dict.fromkeys(("rename", "renameat", "renameat2"), ("EACCES", "ENOSPC", "EIO")),
    **dict.fromkeys(("mkdir", "mkdirat", "link", "linkat", "symlink"), ("ENOSPC", "EACCES")),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), ("EACCES", "EIO")),
    **dict.fromkeys(("chmod", "fchmod", "fchmodat"), ("EACCES", "EIO")),
}
"""{system call that opens, writes, flushes, renames or removes: the errors with which it fails}."""
OUTPUTS = ("out", "err")
SECONDS = 120.0
"""After which a command counts as hanging and is killed."""
_RANDOM = (
    r"(?<=\.)[0-9a-f]{8}(?=\.iwlora-part)|(?<=\.)[a-z0-9_]{8}(?=/|$)|(?<=\.tmp)\w{6}"
    r"|(?<=file-digests/)\.?[0-9a-f]{64}|(?<=#)\d+"
)
"""Parts of names that vary: of temporary files (ours, of tempfile, of safetensors) and digests."""


@dataclass(frozen=True)
class Call:
    """A system call on a file.

    Args:
        name: Of the system call.
        number: Counts the calls of this name on ``file``, from 1; without it, all of this name.
        path: The file, or the first of two, without the random parts of its name.
        writes: Whether a file is opened to write.
        file: The whole path, of two the one that is always the same; None if neither is.
    """

    name: str
    number: int
    path: str
    writes: bool
    file: str | None

    def failing(self, error: str) -> list[str]:
        """The options with which strace lets this call fail.

        Other files may be opened more often or less, as long as a command waits for its children.
        """
        only = ["-P", self.file] if self.file else []
        return [*only, "-e", f"inject={self.name}:error={error}:when={self.number}"]


@dataclass(frozen=True)
class Ending:
    """How a command ended: its exit code (negative: a signal), and what it printed."""

    code: int
    out: str
    err: str


def unavailable() -> str | None:
    """Why no process can be traced on this machine; None if one can."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        return "strace is not installed"
    command = ["strace", "-qq", "-o", os.devnull, "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"strace cannot trace: {done.stderr.strip()}" if done.returncode else None


def run_fork(
    work: Callable[[], int], logs: Path, injection: Sequence[str] = (), trace: bool = False
) -> Ending:
    """Execute ``work`` in a fork of this process, and wait for all processes that it leaves.

    Args:
        work: Returns an exit code.
        logs: The folder for what it prints (``out``, ``err``) and for its system calls (``calls``).
        injection: The failure of a call of its first thread, as :meth:`Call.failing` gives it.
        trace: Whether to record the calls of its first thread without one that fails.
    """
    told_end, tell_end = os.pipe()
    alive_end, ended_end = os.pipe()
    # Opened here: strace may count the fork's calls before it has opened them.
    outputs = [os.open(logs / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in OUTPUTS]
    pid = os.fork()
    if pid == 0:
        os.close(tell_end)
        os._exit(_work_when_told(work, outputs, told_end))
    for descriptor in (told_end, *outputs):
        os.close(descriptor)
    os.close(ended_end)  # only the fork and what it forks has this end now
    tracer = _attach(pid, logs / "calls", injection) if trace or injection else None
    os.close(tell_end)
    code = _exit_code(pid)
    if tracer:
        tracer.wait()
    os.read(alive_end, 1)
    os.close(alive_end)
    texts = ((logs / name).read_text(encoding="utf-8", errors="replace") for name in OUTPUTS)
    return Ending(code, *texts)


def _work_when_told(work: Callable[[], int], outputs: Sequence[int], told_end: int) -> int:
    for number, descriptor in enumerate(outputs, start=1):
        os.dup2(descriptor, number)
    os.read(told_end, 1)  # until the other end is closed
    try:
        return work()
    except SystemExit as end:  # argparse ends this way
        return int(str(end.code or 0))
    except BaseException:
        traceback.print_exc()
        return 1


def _attach(pid: int, log: Path, injection: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start strace on a process that waits; returns once it traces."""
    calls = ",".join(f"?{name}" for name in ERRORS)  # not every processor has each of them
    command = ["strace", "-qqq", "-y", "-s", "0", "-e", f"trace={calls}", *injection]
    tracer = subprocess.Popen([*command, "-o", str(log), "-p", str(pid)])
    status = Path(f"/proc/{pid}/status")
    while "\nTracerPid:\t0\n" in status.read_text(encoding="ascii"):
        if tracer.poll() is not None:
            raise SystemExit(f"strace ended with {tracer.returncode}")
        time.sleep(0.001)
    return tracer


def _exit_code(pid: int) -> int:
    deadline = time.monotonic() + SECONDS
    while True:
        ended, state = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(state)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def recorded_calls(log: Path, root: Path) -> list[Call]:
    """The calls that strace recorded on paths below ``root``, in their order."""
    return [call for call, _ in _parsed(log, root)]


def failed_call(log: Path, root: Path) -> Call | None:
    """The call below ``root`` that was made to fail; None if there was none."""
    return next((call for call, line in _parsed(log, root) if line.endswith("(INJECTED)")), None)


def _parsed(log: Path, root: Path) -> Iterator[tuple[Call, str]]:
    """(call, its line) of each call below ``root``."""
    counts: Counter[str | tuple[str, str]] = Counter()
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.match(r"(\w+)\(", line)
        if match is None:
            continue
        name = match[1]
        counts[name] += 1
        arguments = line.rsplit(" = ", 1)[0]
        paths = [one or other for one, other in re.findall(r'<(/[^>]*)>|"(/[^"]*)"', arguments)]
        # strace takes a path that ends in / for the one without it too, and not the other way.
        counts.update(
            (name, path) for path in {*paths, *(f"{path.rstrip('/')}/" for path in paths)}
        )
        below = [path for path in paths if root in Path(path).parents]
        if below:
            names = [Path(path).relative_to(root).as_posix() for path in below]
            same = (
                path for path, named in zip(below, names, strict=True) if _general(named) == named
            )
            file = next(same, None)
            number = counts[(name, file) if file else name]
            writes = "O_WRONLY" in line or "O_RDWR" in line
            yield Call(name, number, _general(names[0]), writes, file), line


def _general(path: str) -> str:
    """A path without the parts that vary."""
    return re.sub(_RANDOM, "*", path)
