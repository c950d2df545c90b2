"""Reading the gradients of the weights that are no linear layer's: experts, routers, convolutions.

The gradient is autograd's own, so it does not depend on how the model computes its experts
(``experts_implementation``: in a loop, batched or grouped), nor on a convolution's kernel, stride,
padding, dilation and groups.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from iwlora.errors import IwloraError
from iwlora.mixture_of_experts import count_routed_tokens
from iwlora.sites import Site, outputs_first, plain_weight

ReadGradient = Callable[[Site, Tensor], Tensor]


class ParameterGradients(ExitStack):
    """Inside the block, the weights require a gradient; backward reads and frees each of them.

    Raises:
        IwloraError: on entering, if a weight is quantized, offloaded or sharded.
    """

    def __init__(self, sites: Sequence[Site], read: ReadGradient) -> None:
        super().__init__()
        self.used: set[str] = set()
        self.called: set[str] = set()
        self.routed_tokens: dict[str, Tensor] = {}
        self._read = read
        self._readings: dict[str, Tensor] = {}
        self._tokens: dict[str, Tensor] = {}
        self._calls: dict[nn.Parameter, int] = defaultdict(int)
        self._sums: dict[nn.Parameter, Tensor] = {}
        # Sites that share a weight are read once.
        self._sites: dict[nn.Parameter, list[Site]] = defaultdict(list)
        for site in sites:
            weight = plain_weight(site)
            if weight is None:
                raise IwloraError(
                    f"the gradient of {site.name} cannot be read, because the weight is quantized, "
                    "offloaded or sharded; load it in float32 or bfloat16, or leave it out"
                )
            self._sites[weight].append(site)

    def __enter__(self) -> ParameterGradients:
        for weight, sites in self._sites.items():
            self.callback(setattr, weight, "grad", weight.grad)
            self.callback(setattr, weight, "requires_grad", weight.requires_grad)
            weight.grad, weight.requires_grad = None, True
            self.callback(weight.register_post_accumulate_grad_hook(self._receive).remove)
            for site in sites:
                hook = partial(self._count, site, weight)
                self.callback(site.layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        return self

    def take(self) -> dict[str, Tensor]:
        """{site name: reading} since the last call; a site without a gradient has no entry."""
        for weight, gradient in self._sums.items():
            self._finish(weight, gradient)
        readings, self._readings = self._readings, {}
        self.routed_tokens, self._tokens = self._tokens, {}
        self._sums.clear()
        self._calls.clear()
        return readings

    def _count(
        self,
        site: Site,
        weight: nn.Parameter,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if in_backward():
            return
        self._calls[weight] += 1
        self.called.add(site.name)
        if site.experts > 1:
            tokens = count_routed_tokens(module, site.experts, args, kwargs)
            before = self._tokens.get(site.name)
            self._tokens[site.name] = tokens if before is None else before + tokens

    @torch.no_grad()
    def _receive(self, weight: Any) -> None:
        gradient = weight.grad
        weight.grad = None
        if self._calls[weight] == 1:
            self._finish(weight, gradient)
        else:  # checkpointed blocks that share the weight give several parts
            so_far = self._sums.get(weight)
            self._sums[weight] = gradient if so_far is None else so_far + gradient

    @torch.no_grad()
    def _finish(self, weight: nn.Parameter, gradient: Tensor) -> None:
        sites = self._sites[weight]
        with torch.autocast(gradient.device.type, enabled=False):
            reading = self._read(sites[0], outputs_first(sites[0], gradient))
        for site in sites:
            self.used.add(site.name)
            self._readings[site.name] = reading


def in_backward() -> bool:
    """Whether autograd runs now; a forward pass is then a checkpointed block that is recomputed."""
    return bool(torch._C._current_graph_task_id() != -1)
