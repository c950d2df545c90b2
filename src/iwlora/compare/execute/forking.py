"""What it takes to fork a process that has imported everything, and to end its forks."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn

WITHOUT_THREADS = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""The environment in which NumPy and Arrow start no thread when they are imported."""


def import_without_threads() -> None:
    """Let no library that this process imports from here on start a thread by that.

    What the user has set stays.
    """
    for name, value in WITHOUT_THREADS.items():
        os.environ.setdefault(name, value)


def can_fork() -> bool:
    """Whether this process has no second thread and no CUDA context: a fork would lose them."""
    torch = sys.modules.get("torch")
    return len(os.listdir("/proc/self/task")) == 1 and not (torch and torch.cuda.is_initialized())


def end_after(work: Callable[[], None]) -> NoReturn:
    """Execute ``work`` in a fork, and end it as Python ends a process.

    The fork has a copy of what its parent was doing, which must not go on here: no block that the
    parent has begun is left.
    """
    code = 1
    try:
        try:
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as trackers have
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
