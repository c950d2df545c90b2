"""The calibration loop: batches in, a :class:`Sensitivity` out, the model as it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from accelerate.utils import find_batch_size, send_to_device  # type: ignore[import-untyped]
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from iwlora import distributed
from iwlora.errors import IwloraError
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.capture import Captured, capture
from iwlora.sensitivity.running_estimate import Tally
from iwlora.sensitivity.statistics import Means, choose
from iwlora.sites import Site, differentiable_weight
from iwlora.sites import sites as find_sites

Loss = Callable[[nn.Module, Any], Tensor]

# Loss scales, tried in turn: powers of two, which change no digit of what a number format holds,
# and keep small float16 gradients from vanishing.
_LOSS_SCALES = (2.0**15, 2.0**10, 2.0**5, 1.0)


def measure(
    model: nn.Module,
    batches: Iterable[Any],
    estimator: str = "exact",
    max_batches: int = 200,
    tolerance: float = 0.02,
    sites: str | Sequence[str] | Sequence[Site] | None = None,
    loss: Loss | None = None,
    statistic: str = "norm",
) -> Sensitivity:
    """Measure how sensitive the loss is to every weight matrix of a frozen model.

    ``statistic`` names the score, ``norm`` being s_k = E‖∂L/∂W_k‖_F; ``STATISTICS`` has all.
    ``estimator`` is ``exact``, ``ghost``, ``sketch`` or ``auto``, the cheapest for each site.
    The expectation is over ``batches``, such as a DataLoader gives: mappings that the model accepts
    as keyword arguments, or whatever ``loss(model, batch)`` makes a scalar from, by default
    ``model(**batch).loss``. Their tensors are moved to the model's device. ``sites`` are kinds
    (``["query", "value"]``) or names of matrices, by default all; see ``iwlora.sites.sites``.
    Dropout is off.

    Measuring ends after ``max_batches``, or once ``share_error``, the part of the total
    importance expected to sit on the wrong matrices, is at most ``tolerance`` (from the eighth
    batch on; 0 turns the rule off). Where ``torch.distributed`` is initialised, every process
    measures batches of its own and all get the result of all, by one small all-reduce a batch.
    The model's modes, ``requires_grad`` flags, gradients and random state are left as they were.

    Raises ``IwloraError`` for unknown estimators and statistics or a pair that does not fit, no
    batches or sites, batches without a scalar loss, and gradients that are zero or not finite.

    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    ...                     intermediate_size=16, vocab_size=10)
    >>> model = BertForSequenceClassification(config)
    >>> batch = {"input_ids": torch.tensor([[1, 2], [3, 4]]), "labels": torch.tensor([0, 1])}
    >>> sensitivity = measure(model, [batch] * 8)
    >>> sensitivity.batches, len(sensitivity.values)
    (8, 6)
    """
    started = time.perf_counter()
    score = choose(statistic, estimator)
    chosen = _chosen(model, sites)
    tally = Tally(chosen, tolerance, max_batches)
    tally.scale[:] = [score.scale(site) for site in chosen]
    read = score.reader(estimator)
    means = Means(estimator) if statistic == "mean" else None
    device = next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))
    number = distributed.rank()  # of the batch, over all processes: a sketch draws by it

    def reading(site: Site, x: Tensor, delta: Tensor) -> Tensor:
        return read(site, x, delta, f"{site.name}/{number}")

    source, scales = _each(batches), list(_LOSS_SCALES)
    with _frozen(model), capture(chosen, reading) as captured:
        while not tally.enough:
            row, weight = None, 0.0
            batch = next(source, None)
            if batch is not None:
                inputs = send_to_device(batch, device)
                weight = float(find_batch_size(inputs)) if score.per_example else 1.0
                readings = _readings(model, inputs, loss or _model_loss, captured, scales)
                row = _row(readings, chosen, means, weight)
            if not tally.add(row, weight, device):
                break
            number += distributed.world_size()
    values = None
    if means is not None:
        values = [means.norm(site, tally.total, device) for site in chosen]
    return tally.result(estimator, statistic, time.perf_counter() - started, values)


def _chosen(model: nn.Module, sites: str | Sequence[str] | Sequence[Site] | None) -> Sequence[Site]:
    if sites is None or isinstance(sites, str):
        return find_sites(model, sites or "all")
    if not sites:
        raise IwloraError("sites=[] was given; accepted are kinds, names, or none given for all")
    places = [site for site in sites if isinstance(site, Site)]
    return places or find_sites(model, [str(site) for site in sites])


def _each(batches: Iterable[Any]) -> Iterator[Any]:
    if isinstance(batches, (Mapping, Tensor)):
        raise IwloraError(
            f"batches is a single {type(batches).__name__}; accepted is an iterable of batches, "
            "such as a DataLoader or [batch]"
        )
    return iter(batches)


def _readings(
    model: nn.Module, batch: Any, loss: Loss, captured: Captured, scales: list[float]
) -> dict[str, Tensor]:
    """Forward and backward at the first loss scale; one that overflows makes way for the next."""
    while True:
        value = loss(model, batch)
        if not isinstance(value, Tensor) or value.numel() != 1:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise IwloraError(
                f"loss(model, batch) gave a {given}; accepted is a tensor with one number"
            )
        if not value.requires_grad:
            return {}  # the loss depends on no site
        value.backward(torch.full_like(value, scales[0]))  # type: ignore[no-untyped-call]
        readings = {name: reading / scales[0] for name, reading in captured.take().items()}
        finite = all(bool(reading.isfinite().all()) for reading in readings.values())
        if finite or len(scales) == 1:
            return readings
        scales.pop(0)


def _row(
    readings: Mapping[str, Tensor], sites: Sequence[Site], means: Means | None, weight: float
) -> list[float]:
    """One number a site; 0 where the loss does not depend on it."""
    if means is not None:
        found = {name: means.add(name, value, weight) for name, value in readings.items()}
        return [found.get(site.name, 0.0) for site in sites]
    device = next(iter(readings.values())).device if readings else torch.device("cpu")
    zero = torch.zeros((), device=device)
    row = [readings.get(site.name, zero).to(device).double() for site in sites]
    return [float(value) for value in torch.stack(row).cpu()]


def _model_loss(model: nn.Module, batch: Any) -> Tensor:
    if not isinstance(batch, Mapping):
        raise IwloraError(
            f"a batch is a {type(batch).__name__}; accepted are mappings that the model takes as "
            "keyword arguments, or anything together with loss=f, where f(model, batch) is a scalar"
        )
    output = model(**batch)
    value = getattr(output, "loss", None)
    if not isinstance(value, Tensor):
        raise IwloraError(
            f"the model gave no loss for a batch with the keys {', '.join(batch)}: "
            "add 'labels' to the batches, or pass loss=f with f(model, batch) a scalar"
        )
    return value


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no trainable parameter inside; everything as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with ExitStack() as after:
        for module, mode in modes.items():
            after.callback(setattr, module, "training", mode)
        for parameter, flag in flags.items():
            after.callback(parameter.requires_grad_, flag)
        for module in modes:
            # The graph starts at the embeddings: re-entrant checkpointing runs backward only
            # through blocks whose inputs require a gradient.
            if isinstance(module, nn.Embedding):
                after.callback(module.register_forward_hook(_root).remove)
        for config in (getattr(module, "config", None) for module in modes):
            if config is not None and getattr(config, "use_cache", False):
                after.callback(setattr, config, "use_cache", config.use_cache)
                config.use_cache = False  # a cache would grow by every recomputed block
        after.enter_context(torch.random.fork_rng(devices))
        after.enter_context(torch.inference_mode(False))
        after.enter_context(torch.enable_grad())
        for module in modes:
            module.training = _checkpoints(module)
            after.enter_context(differentiable_weight(module))
        for parameter in flags:
            parameter.requires_grad_(False)
        yield


def _root(_layer: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
    if not torch.is_grad_enabled():
        return None
    return output + output.new_zeros((), requires_grad=True)


def _checkpoints(module: nn.Module) -> bool:
    """Whether the module saves memory in training mode, and nothing else changes by that mode.

    The layers of transformers look at their own mode before they checkpoint; some of them also
    apply dropout themselves, at a rate that is a plain number.
    """
    if not (isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing):
        return False
    rates = [rate for name, rate in vars(module).items() if "drop" in name]
    return not any(isinstance(rate, float) and rate > 0 for rate in rates)
