"""Many runs in one process: nothing of theirs stays, and what stays is noticed."""

from __future__ import annotations

import itertools
import mmap
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

import soak

KEPT: list[Any] = []


def _leak(name: str, after: ExitStack) -> None:
    """Leave something behind, till ``after`` ends."""
    match name:
        case "memory, KiB":
            fresh = mmap.mmap(-1, 2**20)  # what malloc gives may have been this process's before
            fresh.write(bytes(2**20))
            KEPT.append(fresh)
        case "objects":
            KEPT.extend([number] for number in range(20))
        case "tensors":
            KEPT.append(torch.ones(1))
        case "hooks":
            hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
            after.callback(hook.remove)
        case "files":
            after.enter_context(socket.socket())
        case "threads":
            end = threading.Event()
            thread = threading.Thread(target=end.wait)
            thread.start()
            after.callback(thread.join)
            after.callback(end.set)


def grown(work: Callable[[], Any], runs: int) -> set[str]:
    """The names of what grows by more than its bound."""
    seen = soak.soaked(itertools.repeat(work), runs, 1, lambda _: None)
    return {name for name, slope in soak.slopes(seen, 1).items() if slope > soak.BOUNDS[name]}


@pytest.mark.parametrize("name", soak.BOUNDS)
def test_a_leak_is_noticed(name: str) -> None:
    with ExitStack() as after:
        after.callback(KEPT.clear)
        assert name in grown(lambda: _leak(name, after), 9)


def test_work_that_leaves_nothing_does_not_grow() -> None:
    assert grown(lambda: torch.ones(2**18).sum(), 9) == set()


def test_short_runs_leave_nothing(tmp_path: Path) -> None:
    work = soak.short_runs(tmp_path)
    for one in itertools.islice(work, 5):  # the fifth measures, exports and predicts too
        one()
    left = soak.counts()
    for one in itertools.islice(work, 5):
        one()
    now = soak.counts()
    for name in ("tensors", "hooks", "files", "threads"):
        assert now[name] <= left[name], name
