"""What the benchmarks share: timed commands, Markdown tables, the name of the machine."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

MEBI = 2**20


@dataclass(frozen=True)
class Cost:
    """Cost of a whole process: wall and processor time in seconds, peak resident memory in bytes.

    On Linux the peak is at least that of the process that started it.
    """

    seconds: float
    processor_seconds: float
    peak_memory: int


def run_command(command: Sequence[str], threads: int, limit: float | None = None) -> Cost:
    """Run ``python COMMAND`` in a process of its own.

    Its processor time has that of all processes that it waited for, such as a comparison's runs.

    Args:
        command: What follows ``python``.
        threads: Of its matrix products.
        limit: The most seconds that it gets; None: as many as it takes.

    Raises:
        RuntimeError: It fails.
        TimeoutError: It was ended after ``limit`` seconds.
    """
    if limit is not None and limit <= 0:
        raise TimeoutError(f"{' '.join(command)} was not started: no time is left")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=output, stderr=output
        )
        ended = threading.Timer(limit or threading.TIMEOUT_MAX, process.kill)
        ended.daemon = True
        ended.start()
        _, status, usage = os.wait4(process.pid, 0)
        ended.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if limit is not None and process.returncode == -signal.SIGKILL and seconds >= limit:
            raise TimeoutError(f"{' '.join(command)} was ended after {limit:.0f} s")
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{output.read()[-3000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def count_processor_time() -> None:
    """Let this process count its processor time wherever it would count wall time.

    On a machine with other work only processor time can be compared.
    """
    time.perf_counter = time.process_time


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    >>> print(table(["a", "b"], [["1", "2"]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def machine() -> str:
    """The processor or GPU, its threads, and torch's version."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}; torch {torch.__version__}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor()
    return f"{os.cpu_count()} cores of an {name}; torch {torch.__version__}"
