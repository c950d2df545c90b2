"""Reading what a backward pass says about frozen weights, and leaving nothing behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from iwlora.sites import Site

Estimator = Callable[[Tensor, Tensor], Tensor]


class Captured:
    """The estimates of the backward passes run so far inside one :func:`capture`."""

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator
        self._calls: dict[str, int] = defaultdict(int)
        self._parts: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self._estimates: dict[str, Tensor] = {}

    def take(self) -> dict[str, Tensor]:
        """{site name: estimate} since the last call, then forget them.

        A site that the loss does not depend on has no entry.
        """
        for name in [name for name, parts in self._parts.items() if parts]:
            self._finish(name)  # some of the layer's outputs did not reach the loss
        estimates, self._estimates = self._estimates, {}
        self._calls.clear()
        return estimates

    def _watch(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Count one use of a layer and wait for the gradient of its output."""
        if not _in_backward():
            self._calls[site.name] += 1
        if not torch.is_grad_enabled():
            return y  # re-entrant checkpointing runs each block once more, with gradients
        if not y.requires_grad:
            # Nothing below this layer is trained: the graph may start here. The clone keeps
            # in-place operations of the model away from the leaf.
            y = y.requires_grad_().clone()
        x = x.detach()
        y.register_hook(lambda delta: self._receive(site.name, x, delta.detach()))  # type: ignore[no-untyped-call]
        return y

    def _receive(self, name: str, x: Tensor, delta: Tensor) -> None:
        # A layer that is used several times has the sum of its uses as gradient, so its
        # tokens are put together before the norm is taken.
        self._parts[name].append((x, delta))
        if len(self._parts[name]) == self._calls[name]:
            self._finish(name)

    def _finish(self, name: str) -> None:
        parts = self._parts.pop(name)
        if len(parts) == 1:
            x, delta = parts[0]
        else:
            x = torch.cat([x.flatten(0, -2) for x, _ in parts])
            delta = torch.cat([delta.flatten(0, -2) for _, delta in parts])
        self._estimates[name] = self._estimator(x, delta)


@contextmanager
def capture(sites: Sequence[Site], estimator: Estimator) -> Iterator[Captured]:
    """Estimate ‖∂L/∂W‖_F of every site during each backward pass inside the block.

    Weights stay frozen and one estimate is formed at a time. All hooks are gone when the block
    ends, exceptions included. Works with padding (padded tokens carry no gradient), reused
    layers and gradient checkpointing of both kinds.

    >>> from iwlora.sensitivity.estimators import exact
    >>> layer = nn.Linear(2, 1, bias=False).requires_grad_(False)
    >>> with capture([Site("w", layer, "w", 2, 1, 0)], exact) as captured:
    ...     layer(torch.tensor([[3.0, 4.0]])).sum().backward()
    ...     captured.take()
    {'w': tensor(5.)}
    """
    captured = Captured(estimator)
    with ExitStack() as hooks:
        for site in sites:
            hooks.callback(site.layer.register_forward_hook(_hook(captured, site)).remove)
        yield captured


def _hook(captured: Captured, site: Site) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda _layer, inputs, output: captured._watch(site, inputs[0], output)


def _in_backward() -> bool:
    """Whether autograd runs now: what runs forward then is a checkpointed block, once more."""
    return bool(torch._C._current_graph_task_id() != -1)
