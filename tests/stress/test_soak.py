"""Many runs in one process: what they leave behind is noticed, and they leave nothing."""

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

LEAKED: list[Any] = []
RUNS = 7


def leak(name: str, cleanup: ExitStack) -> None:
    """Leave something behind, until ``cleanup`` is closed."""
    match name:
        case "memory, KiB":
            fresh = mmap.mmap(-1, 2**20)  # malloc may give memory that this process had before
            fresh.write(bytes(2**20))
            LEAKED.append(fresh)
        case "objects":
            LEAKED.extend([number] for number in range(20))
        case "tensors":
            LEAKED.append(torch.ones(1))
        case "hooks":
            hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
            cleanup.callback(hook.remove)
        case "files":
            cleanup.enter_context(socket.socket())
        case "threads":
            end = threading.Event()
            thread = threading.Thread(target=end.wait)
            thread.start()
            cleanup.callback(thread.join)
            cleanup.callback(end.set)


def growing(work: Callable[[], Any]) -> set[str]:
    """The names of what grows by more than its bound, twice: once the process itself may grow."""
    found = []
    for _ in range(2):
        slopes = soak.growth(soak.soak(itertools.repeat(work), RUNS, 1, lambda _: None), 1)
        found.append({name for name, slope in slopes.items() if slope > soak.BOUNDS[name]})
    return set.intersection(*found)


@pytest.mark.slow
@pytest.mark.parametrize("name", soak.BOUNDS)
def test_a_leak_is_noticed(name: str) -> None:
    with ExitStack() as cleanup:
        cleanup.callback(LEAKED.clear)
        assert name in growing(lambda: leak(name, cleanup))


@pytest.mark.slow
def test_work_that_leaves_nothing_does_not_grow() -> None:
    assert growing(lambda: torch.ones(2**18).sum()) == set()


@pytest.mark.slow
def test_short_runs_leave_nothing(tmp_path: Path) -> None:
    work = soak.short_runs(tmp_path, extras_every=3)
    for run in itertools.islice(work, 3):  # the third measures, exports and predicts too
        run()
    before = soak.count_resources()
    for run in itertools.islice(work, 3):
        run()
    after = soak.count_resources()
    for name in ("tensors", "hooks", "files", "threads"):
        assert after[name] <= before[name], name
