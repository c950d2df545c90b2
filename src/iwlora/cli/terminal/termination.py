"""SIGTERM ends a command as Ctrl-C does: it says what is safe, and then ends by the signal."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def ending_by_sigterm() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` for SIGTERM in the block, and end the process after the block.

    Another handler than the default one stays. So does the default where a launcher started
    several processes: one that waits for the others in a library would not end.
    """
    in_main = threading.current_thread() is threading.main_thread()
    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not in_main or not is_default or os.environ.get("WORLD_SIZE", "1") != "1":
        yield
        return
    caught = False

    def catch(_number: int, _frame: Any) -> None:
        nonlocal caught
        caught = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, catch)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if caught:
            signal.raise_signal(signal.SIGTERM)
