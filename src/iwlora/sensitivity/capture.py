"""Reading the gradients of frozen weights in a backward pass, with hooks.

A layer that is called gives its inputs and output gradients. Autograd gives the gradient of a
weight that the model uses directly, without calling its layer, as ``nn.MultiheadAttention`` uses
that of ``out_proj``: the weight requires a gradient, except while its own layer computes. The
gradients of experts, routers and convolutions are read by
``iwlora.sensitivity.parameter_gradients``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from iwlora.sensitivity.estimators import gradient_norms
from iwlora.sensitivity.parameter_gradients import ParameterGradients, ReadGradient, in_backward
from iwlora.sites import Site, plain_weight

Read = Callable[[Site, Tensor, Tensor], Tensor]


class Captured:
    """The readings of the backward passes so far inside one :func:`capture`."""

    def __init__(self, sites: Sequence[Site], read: Read, parameters: ParameterGradients) -> None:
        self._read = read
        self._parameters = parameters
        self._calls: dict[int, int] = defaultdict(int)
        self._parts: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self._readings: dict[int, Tensor] = {}
        # Sites that share a weight, such as tied layers, are read once: {weight: its sites}
        self._sites: dict[int, list[Site]] = defaultdict(list)
        for site in sites:
            self._sites[_weight(site)].append(site)
        self._direct_gradients: dict[int, Tensor] = {}
        self._called: set[int] = set()
        self._used_directly: set[int] = set()

    @property
    def called(self) -> set[str]:
        """Names of the sites whose layer was called so far."""
        layers = {site.name for key in self._called for site in self._sites[key]}
        return layers | self._parameters.called

    @property
    def used_directly(self) -> set[str]:
        """Names of the sites whose weight had a gradient without a call of its layer so far."""
        direct = {site.name for key in self._used_directly for site in self._sites[key]}
        return direct | self._parameters.used

    @property
    def routed_tokens(self) -> dict[str, Tensor]:
        """{site name: how many tokens each expert got} in the pass that was taken last."""
        return self._parameters.routed_tokens

    def take(self) -> dict[str, Tensor] | None:
        """{site name: reading} since the last call; a site without a gradient has no entry.

        None if the pass was not read completely: the model used a weight directly for the first
        time, and called its layer too. Later passes are read completely.
        """
        complete = self._direct_gradients.keys().isdisjoint({*self._readings, *self._parts})
        for key in [key for key, parts in self._parts.items() if parts]:
            self._finish(key)  # some outputs of the layer did not reach the loss
        for key, gradient in self._direct_gradients.items():
            # With the unit vectors as tokens, G = Σ_i (the i-th column of G) e_iᵀ.
            unit = torch.eye(gradient.shape[1], dtype=gradient.dtype, device=gradient.device)
            self._read_tokens(key, unit, gradient.mT)
        readings, self._readings = self._readings, {}
        self._direct_gradients.clear()
        self._calls.clear()
        by_name = {site.name: v for key, v in readings.items() for site in self._sites[key]}
        by_name |= self._parameters.take()
        return by_name if complete else None

    def watch(self, key: int, x: Tensor, y: Tensor) -> Tensor:
        """Count one use of a layer; its output's gradient is read in the backward pass."""
        self._called.add(key)
        if key in self._used_directly:
            return y  # autograd has the gradient of all uses
        if not in_backward():
            self._calls[key] += 1
        if not torch.is_grad_enabled():
            return y  # re-entrant checkpointing runs each block once more, with gradients
        start = torch.empty(0, requires_grad=True)  # starts the graph if nothing below is trained
        watched: Tensor = _Watched.apply(y, x, start, partial(self._receive, key))  # type: ignore[no-untyped-call]
        return watched

    @contextmanager
    def watching_direct_uses(self, site: Site, weight: nn.Parameter) -> Iterator[None]:
        """Read the gradient of a frozen weight from its uses other than by calling its layer."""
        key, former = _weight(site), weight.grad

        def begin(_layer: nn.Module, _inputs: object) -> None:
            weight.requires_grad = key in self._used_directly

        def end(_layer: nn.Module, _inputs: object, _output: object) -> None:
            weight.requires_grad = True

        def receive(weight: Any) -> None:
            self._used_directly.add(key)
            G = weight.grad if isinstance(site.layer, nn.Linear) else weight.grad.mT
            so_far = self._direct_gradients.get(key)  # of other checkpointed blocks
            self._direct_gradients[key] = G if so_far is None else so_far + G
            weight.grad = None

        weight.grad, weight.requires_grad = None, True
        with ExitStack() as hooks:
            for layer in {site.layer for site in self._sites[key]}:
                hooks.callback(layer.register_forward_pre_hook(begin).remove)
                hooks.callback(layer.register_forward_hook(end, always_call=True).remove)
            hooks.callback(weight.register_post_accumulate_grad_hook(receive).remove)
            hooks.callback(setattr, weight, "requires_grad", False)
            hooks.callback(setattr, weight, "grad", former)
            yield

    def _receive(self, key: int, x: Tensor, delta: Tensor) -> None:
        # The gradient of a weight that is used several times is the sum over its uses, so the
        # tokens of all uses are joined before they are read.
        self._parts[key].append((x, delta))
        if len(self._parts[key]) == self._calls[key]:
            self._finish(key)

    def _finish(self, key: int) -> None:
        parts = self._parts.pop(key)
        self._calls.pop(key, None)
        self._read_tokens(key, *(parts[0] if len(parts) == 1 else _joined(parts)))

    def _read_tokens(self, key: int, x: Tensor, delta: Tensor) -> None:
        # Autocast is for the model; the readings are computed in full precision.
        with torch.autocast(delta.device.type, enabled=False):
            self._readings[key] = self._read(self._sites[key][0], x, delta)


class _Watched(torch.autograd.Function):
    """A layer's output y; its backward pass calls ``receive`` with the input x and ∂L/∂y.

    x is saved as autograd saves tensors. So it shares memory with what LoRA saves, checkpointing
    recomputes it, and it is freed after it was read. y is copied because a model may change it
    in place.
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
def capture(
    sites: Sequence[Site],
    read: Read,
    read_gradient: ReadGradient = lambda _site, G: gradient_norms(G),
) -> Iterator[Captured]:
    """Read the weight gradient of every site in each backward pass inside the block.

    Weights can stay frozen. It works with padding, reused layers, both kinds of gradient
    checkpointing, and frozen weights that are used without calling their layer. All hooks are
    removed when the block ends, also by an exception.

    Args:
        sites: the sites to read.
        read: ``read(site, x, delta)`` is called once per backward pass for each weight, with the
            inputs x and output gradients delta of all its uses. The gradient is deltaᵀ x.
        read_gradient: ``read_gradient(site, G)`` is called instead for convolutions and for the
            sites with a ``parameter``; G is the gradient, (d_out, d_in) or (experts, d_out, d_in).
            By default it is ‖G‖_F, of each expert.

    Example:
        >>> from iwlora.sensitivity.estimators import exact
        >>> layer = nn.Linear(2, 1, bias=False).requires_grad_(False)
        >>> site = Site("w", layer, "w", 2, 1, 0)
        >>> with capture([site], lambda site, x, delta: exact(x, delta)) as captured:
        ...     layer(torch.tensor([[3.0, 4.0]])).sum().backward()
        ...     captured.take()
        {'w': tensor(5.)}
    """
    layers = [site for site in sites if not _by_autograd(site)]
    parameters = ParameterGradients([site for site in sites if _by_autograd(site)], read_gradient)
    captured = Captured(layers, read, parameters)
    with ExitStack() as hooks:
        hooks.enter_context(parameters)
        for site in layers:
            hooks.callback(site.layer.register_forward_hook(_hook(captured, _weight(site))).remove)
        for site in {_weight(site): site for site in layers}.values():
            weight = plain_weight(site)
            if weight is not None and not weight.requires_grad:
                hooks.enter_context(captured.watching_direct_uses(site, weight))
        yield captured


def _by_autograd(site: Site) -> bool:
    return site.parameter is not None or site.is_convolution


def _hook(captured: Captured, key: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda _layer, inputs, output: captured.watch(key, inputs[0], output)


def _weight(site: Site) -> int:
    """The identity of a layer's weight; layers that share a weight have the same."""
    return id(getattr(site.layer, "weight", site.layer))


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The joined uses of one weight; the example dimension stays if all uses have the same."""
    examples = {x.shape[:1] if x.dim() > 2 else None for x, _ in parts}
    if len(examples) == 1 and None not in examples:
        x = torch.cat([x.flatten(1, -2) for x, _ in parts], dim=1)
        return x, torch.cat([delta.flatten(1, -2) for _, delta in parts], dim=1)
    x = torch.cat([x.flatten(0, -2) for x, _ in parts])
    return x, torch.cat([delta.flatten(0, -2) for _, delta in parts])
