"""Locks on folders, so that two processes never write into the same one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from filelock import lock_descriptor


@contextmanager
def exclusive(path: str | os.PathLike[str]) -> Iterator[bool]:
    """Whether this process alone holds the lock in the file ``path``, until the block ends.

    The operating system releases it when the process dies. The file stays.
    """
    with open(path, "a", encoding="ascii") as stream:
        yield lock_descriptor(stream.fileno(), blocking=False)


@contextmanager
def exclusive_with_children(
    path: str | os.PathLike[str], on_wait: Callable[[], None]
) -> Iterator[IO[str]]:
    """Wait for the lock in the file ``path``, and hold it until the block ends.

    Gives the open file. A child process that inherits its descriptor (``pass_fds`` of
    ``subprocess.Popen``) holds the lock too: it stays locked until the last of them has ended,
    even if this process is killed. Windows has no such locks; there only this process holds it.

    Args:
        path: The lock file; it stays.
        on_wait: Called once if another process holds the lock.
    """
    with open(path, "a", encoding="ascii") as stream:
        if not lock_descriptor(stream.fileno(), blocking=False):
            on_wait()
            lock_descriptor(stream.fileno())
        yield stream
