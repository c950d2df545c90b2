"""Reading what a backward pass says about frozen weights, and leaving nothing behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from iwlora.sites import Site

Read = Callable[[Site, Tensor, Tensor], Tensor]


class Captured:
    """The readings of the backward passes run so far inside one :func:`capture`."""

    def __init__(self, sites: Sequence[Site], read: Read) -> None:
        self._read = read
        self._calls: dict[int, int] = defaultdict(int)
        self._parts: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self._readings: dict[int, Tensor] = {}
        # Sites of one weight, such as tied layers, are one: {weight: its sites}
        self._sites: dict[int, list[Site]] = defaultdict(list)
        for site in sites:
            self._sites[_weight(site)].append(site)

    def take(self) -> dict[str, Tensor]:
        """{site name: reading} since the last call, then forget them.

        A site that the loss does not depend on has no entry.
        """
        for key in [key for key, parts in self._parts.items() if parts]:
            self._finish(key)  # some of the layer's outputs did not reach the loss
        readings, self._readings = self._readings, {}
        self._calls.clear()
        return {site.name: value for key, value in readings.items() for site in self._sites[key]}

    def forget(self) -> None:
        """Drop what an unfinished pass left."""
        self._parts.clear()
        self._readings.clear()
        self._calls.clear()

    def watch(self, key: int, x: Tensor, y: Tensor) -> Tensor:
        """Count one use of a layer and wait for the gradient of its output."""
        if not _in_backward():
            self._calls[key] += 1
        if not torch.is_grad_enabled():
            return y  # re-entrant checkpointing runs each block once more, with gradients
        start = torch.empty(0, requires_grad=True)  # of the graph, where nothing below is trained
        watched: Tensor = _Watched.apply(y, x, start, partial(self._receive, key))  # type: ignore[no-untyped-call]
        return watched

    def _receive(self, key: int, x: Tensor, delta: Tensor) -> None:
        # A weight that is used several times has the sum of its uses as gradient, so its
        # tokens are put together before anything is read.
        self._parts[key].append((x, delta))
        if len(self._parts[key]) == self._calls[key]:
            self._finish(key)

    def _finish(self, key: int) -> None:
        parts = self._parts.pop(key)
        self._calls.pop(key, None)
        x, delta = parts[0] if len(parts) == 1 else _joined(parts)
        # Mixed precision is for the model; what is read here keeps its digits.
        with torch.autocast(delta.device.type, enabled=False):
            self._readings[key] = self._read(self._sites[key][0], x, delta)


class _Watched(torch.autograd.Function):
    """A layer's output y, whose backward pass gives away the layer's input x and ∂L/∂y.

    x is saved as autograd saves tensors: what LoRA saves too is kept once, checkpointing drops it
    and computes it again, and it is free as soon as it was read. y is copied, since a model may
    go on with it in place.
    """

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, _start: Tensor, receive: Callable[[Tensor, Tensor], None]
    ) -> Tensor:
        ctx.receive = receive
        ctx.save_for_backward(x)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.receive(ctx.saved_tensors[0].detach(), delta.detach())
        return delta, None, None, None


@contextmanager
def capture(sites: Sequence[Site], read: Read) -> Iterator[Captured]:
    """Read every site's inputs and output gradients during each backward pass inside the block.

    ``read(site, x, delta)`` is called once a backward pass for each weight, with all its uses
    joined; weights stay frozen. All hooks are gone when the block ends, exceptions included.
    Works with padding, reused layers and gradient checkpointing of both kinds.

    >>> from iwlora.sensitivity.estimators import exact
    >>> layer = nn.Linear(2, 1, bias=False).requires_grad_(False)
    >>> site = Site("w", layer, "w", 2, 1, 0)
    >>> with capture([site], lambda site, x, delta: exact(x, delta)) as captured:
    ...     layer(torch.tensor([[3.0, 4.0]])).sum().backward()
    ...     captured.take()
    {'w': tensor(5.)}
    """
    captured = Captured(sites, read)
    with ExitStack() as hooks:
        for site in sites:
            hooks.callback(site.layer.register_forward_hook(_hook(captured, _weight(site))).remove)
        yield captured


def _hook(captured: Captured, key: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda _layer, inputs, output: captured.watch(key, inputs[0], output)


def _weight(site: Site) -> int:
    """What tells weights apart: layers that share one count as one."""
    return id(getattr(site.layer, "weight", site.layer))


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The uses of one weight in one pass: examples stay apart where every use has as many."""
    rows = {x.shape[:1] if x.dim() > 2 else None for x, _ in parts}
    if len(rows) == 1 and None not in rows:
        x = torch.cat([x.flatten(1, -2) for x, _ in parts], dim=1)
        return x, torch.cat([delta.flatten(1, -2) for _, delta in parts], dim=1)
    x = torch.cat([x.flatten(0, -2) for x, _ in parts])
    return x, torch.cat([delta.flatten(0, -2) for _, delta in parts])


def _in_backward() -> bool:
    """Whether autograd runs now: what runs forward then is a checkpointed block, once more."""
    return bool(torch._C._current_graph_task_id() != -1)
