"""What starts and ranks read from the layers: weights, their mean gradients, moments of inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from iwlora.errors import Diverged, IwloraError


def lora_layers(peft_model: Any) -> dict[str, Any]:
    """{site name: PEFT's layer}."""
    modules = peft_model.get_base_model().named_modules()
    return {name: layer for name, layer in modules if isinstance(layer, LoraLayer)}


def frozen_weight(layer: Any) -> nn.Parameter:
    """The frozen weight under a LoRA layer, in the layout in which it is stored."""
    weight = layer.get_base_layer().weight
    assert isinstance(weight, nn.Parameter)
    return weight


def batch_gradients(
    peft_model: Any,
    batches: Iterable[Mapping[str, Tensor]],
    loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    max_batches: int,
) -> Iterator[dict[str, Tensor]]:
    """{site name: ∂L/∂W_k} of each of the first batches, without dropout.

    Args:
        peft_model: the model with LoRA that does not change it yet, because B = 0.
        batches: of training rows.
        loss: ``loss(model, batch)``, the mean loss of a batch.
        max_batches: the largest number of batches.

    Yields:
        of the shape (d_out, d_in); a weight that the loss does not depend on has no entry.

    Raises:
        IwloraError: there are no batches.
    """
    layers = lora_layers(peft_model)
    weights = [frozen_weight(layer) for layer in layers.values()]
    none = True
    for batch in on_device(peft_model, islice(batches, max_batches)):
        with _only(weights, peft_model), without_dropout(peft_model), torch.enable_grad():
            found = torch.autograd.grad(loss(peft_model, batch), weights, allow_unused=True)
        none = False
        yield {
            name: gradient.mT if layer.fan_in_fan_out else gradient
            for (name, layer), gradient in zip(layers.items(), found, strict=True)
            if gradient is not None
        }
    if none:
        raise IwloraError("there are no training rows to compute the initial values from")


def mean_gradients(
    peft_model: Any,
    batches: Iterable[Mapping[str, Tensor]],
    loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    max_batches: int,
) -> dict[str, Tensor]:
    """{site name: mean of ∂L/∂W_k over the first batches}, see :func:`batch_gradients`.

    Returns:
        float32, or float64 for weights in float64, of the shape (d_out, d_in); 0 for a weight that
        the loss does not depend on.

    Raises:
        Diverged: a gradient is NaN or infinite.
        IwloraError: there are no batches.
    """
    sums = {
        name: torch.zeros_like(
            weight.mT if layer.fan_in_fan_out else weight, dtype=_wide(weight.dtype)
        )
        for name, layer in lora_layers(peft_model).items()
        for weight in [frozen_weight(layer)]
    }
    count = 0
    for gradients in batch_gradients(peft_model, batches, loss, max_batches):
        for name, gradient in gradients.items():
            sums[name].add_(gradient)
        count += 1
    means = {name: total / count for name, total in sums.items()}
    check_finite(means)
    return means


def check_finite(gradients: Mapping[str, Tensor]) -> None:
    """Raise ``Diverged`` if a gradient {site name: of any shape} is NaN or infinite."""
    if broken := [name for name, found in gradients.items() if not found.isfinite().all()]:
        raise Diverged(
            f"the gradients of {len(broken)} matrices at the pretrained weights are NaN or "
            f"infinite, the first is {broken[0]}; check the model's weights and the training rows"
        )


def token_vectors(x: Tensor, mask: Tensor | None) -> Tensor:
    """A layer's input vectors, one per row, without padding if the layer's inputs are tokens.

    Args:
        x: (..., d_in).
        mask: the batch's ``attention_mask``, (rows, tokens).
    """
    if mask is not None and x.shape[:-1] == mask.shape:
        return x[mask.bool()]
    return x.reshape(-1, x.shape[-1])


@contextmanager
def input_moments(peft_model: Any) -> Iterator[dict[str, Tensor]]:
    """Inside the block, the passes of the model are read; after it, the result has E[x xᵀ] by site.

    The mean is over the tokens whose output the loss depends on, so there is no padding in it. The
    passes must be backward too, as those of :func:`mean_gradients` are.

    Args:
        peft_model: the model with LoRA that does not change it yet, because B = 0.

    Returns:
        {site name: E[x xᵀ]}, of the shape (d_in, d_in), in float64; 0 for a site whose output the
        loss does not depend on.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> model = get_peft_model(nn.Sequential(nn.Linear(2, 3)), LoraConfig(target_modules=["0"]))
        >>> batch = {"x": torch.tensor([[1.0, 2.0], [3.0, 0.0]])}
        >>> with input_moments(model) as moments:
        ...     _ = mean_gradients(model, [batch], lambda model, b: model(b["x"]).sum(), 1)
        >>> moments["0"]
        tensor([[5., 1.],
                [1., 2.]], dtype=torch.float64)
    """
    layers = lora_layers(peft_model)
    sums = {
        name: torch.zeros(layer.in_features, layer.in_features, dtype=torch.float64)
        for name, layer in layers.items()
    }
    tokens = dict.fromkeys(layers, 0)

    def watch(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def read(x: Tensor, delta: Tensor) -> None:
            x = x.flatten(0, -2)[delta.flatten(0, -2).ne(0).any(-1)]  # (tokens, d_in)
            x = x.to(_wide(x.dtype))
            sums[name] = sums[name].to(x.device).add_(x.mT @ x)
            tokens[name] += len(x)

        def called(_layer: nn.Module, inputs: Any, output: Tensor) -> None:
            if output.requires_grad:  # not in the first of two passes with checkpointing
                x = inputs[0].detach()
                output.register_hook(lambda delta: read(x, delta))

        return called

    moments: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, layer in layers.items():
            base = layer.get_base_layer()
            hooks.callback(base.register_forward_hook(watch(name)).remove)
        yield moments
    moments.update({name: total / max(tokens[name], 1) for name, total in sums.items()})


def _wide(dtype: torch.dtype) -> torch.dtype:
    """float32 for lower precisions."""
    return torch.promote_types(dtype, torch.float32)


def on_device(
    model: Any, batches: Iterable[Mapping[str, Tensor]]
) -> Iterator[Mapping[str, Tensor]]:
    """The batches on the device of the model."""
    device = next(model.parameters()).device
    for batch in batches:
        yield {name: tensor.to(device) for name, tensor in batch.items()}


@contextmanager
def _only(weights: Iterable[nn.Parameter], model: nn.Module) -> Iterator[None]:
    """Inside the block, these and no other parameters of the model require a gradient."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Inside the block, the model is in evaluation mode."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was


def set_rank(peft_model: Any, name: str, layer: Any, rank: int) -> None:
    """Give a layer another rank, with the same scaling: A drawn anew as by PEFT, and B = 0.

    The parameters stay the same objects, and the saved configuration has the rank. With rank 0 they
    are empty; PEFT does not load such a rank, so ``save_as_lora`` must save the others only.
    """
    A, B, config = (
        layer.lora_A["default"],
        layer.lora_B["default"],
        peft_model.peft_config["default"],
    )
    drawn = torch.empty(rank, A.in_features)
    if rank:
        nn.init.kaiming_uniform_(drawn, a=5**0.5)
    A.weight.data = drawn.to(A.weight)
    B.weight.data = B.weight.new_zeros(B.out_features, rank)
    A.out_features = B.in_features = layer.r["default"] = rank
    layer.lora_alpha["default"] = layer.scaling["default"] * rank
    # PEFT takes the first pattern that matches the end of a name, so each site has one.
    ranks = {**config.rank_pattern, name: rank}
    alphas = {**config.alpha_pattern, name: layer.lora_alpha["default"]}
    order = sorted(ranks, key=len, reverse=True)
    config.rank_pattern = {name: ranks[name] for name in order}
    config.alpha_pattern = {name: alphas[name] for name in order}
