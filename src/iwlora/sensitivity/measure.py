"""The calibration loop: it measures a frozen model on batches and leaves the model unchanged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accelerate.utils import find_batch_size, send_to_device
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from iwlora import distributed
from iwlora.errors import IwloraError
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.capture import Captured, capture
from iwlora.sensitivity.estimators import ESTIMATORS
from iwlora.sensitivity.options import DEFAULTS, MeasureOptions
from iwlora.sensitivity.running_estimate import RunningEstimate
from iwlora.sensitivity.statistics import MeanGradients, choose_statistic
from iwlora.sites import Site, abbreviate_names, coverage, differentiable_weight
from iwlora.sites import sites as find_sites

logger = logging.getLogger("iwlora")

Loss = Callable[[nn.Module, Any], Tensor]

# Loss scales that keep small float16 gradients from becoming 0; the next one is used after an
# overflow. Powers of two do not change the digits of a number.
_LOSS_SCALES = (2.0**15, 2.0**10, 2.0**5, 1.0)


def measure(
    model: nn.Module,
    batches: Iterable[Any],
    estimator: str = DEFAULTS.estimator,
    max_batches: int = DEFAULTS.max_batches,
    tolerance: float = DEFAULTS.tolerance,
    sites: str | Sequence[str] | Sequence[Site] | None = None,
    loss: Loss | None = None,
    statistic: str = "norm",
) -> Sensitivity:
    """Measure how sensitive the loss is to every weight matrix of a frozen or trainable model.

    With the default statistic, s_k = E‖∂L/∂W_k‖_F, where the expectation is over batches. Measuring
    ends after ``max_batches``, or after at least 8 batches when ``share_error`` is at most
    ``tolerance``; ``share_error`` is the part of the total importance that is expected to be on the
    wrong matrices: half the sum of the absolute errors of the shares. Dropout is off. The modes,
    ``requires_grad`` flags and gradients of the model and the global random state are restored when
    the function returns. If ``torch.distributed`` is initialized, every process measures its own
    batches, and all get the result of all batches.

    The sensitivity of a matrix that no batch used is 0, and ``iwlora.Importance`` leaves it out; a
    warning and ``Sensitivity.excluded`` name it.

    Args:
        model: a frozen or trainable model; adapters may be attached.
        batches: for instance a DataLoader. A batch is a mapping that the model accepts as keyword
            arguments, or whatever ``loss`` accepts. Tensors are moved to the model's device.
        estimator: ``exact``, ``ghost``, ``sketch``, or ``auto``: for each site the cheaper of
            ``exact`` and ``ghost``, or ``sketch`` if it costs less than an eighth of that.
        max_batches: the largest number of batches.
        tolerance: the accepted ``share_error``, from 0 to 1; 0 means that all batches are measured.
        sites: kinds of matrices (``["query", "value"]``) or their names; by default all, see
            ``iwlora.sites.sites``.
        loss: ``loss(model, batch)`` is a scalar tensor; by default ``model(**batch).loss``.
        statistic: a key of ``iwlora.sensitivity.statistics.STATISTICS``.

    Returns:
        The sensitivity of every site, with its standard error over batches.

    Raises:
        IwloraError: an estimator or statistic is unknown or the two do not fit; there are no
            batches or no sites; the loss is not a scalar; or all gradients are zero.
        Diverged: a gradient is infinite or NaN.

    Example:
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
    options = MeasureOptions.checked(estimator, max_batches, tolerance, ESTIMATORS)
    chosen = choose_statistic(statistic, estimator)
    measured_sites = _resolve_sites(model, sites)
    running = RunningEstimate(measured_sites, options)
    running.scale[:] = [chosen.scale(site, None) for site in measured_sites]
    running.expert_scale = chosen.scale
    read = chosen.reader(estimator)
    mean_gradients = MeanGradients(estimator) if statistic == "mean" else None
    device = next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))
    number = distributed.rank()  # of the batch, over all processes: the seed of a sketch

    def read_site(site: Site, x: Tensor, delta: Tensor) -> Tensor:
        return read(site, x, delta, f"{site.name}/{number}")

    read_gradient = partial(chosen.read_gradient, estimator)
    source, loss_scales = _batch_iterator(batches), list(_LOSS_SCALES)
    with _frozen(model), capture(measured_sites, read_site, read_gradient) as captured:
        while not running.finished:
            row, weight = None, 0.0
            batch = next(source, None)
            if batch is not None:
                inputs = send_to_device(batch, device)
                weight = float(find_batch_size(inputs)) if chosen.per_example else 1.0
                readings = _backward(model, inputs, loss or _model_loss, captured, loss_scales)
                if mean_gradients is None:
                    row = _row(readings, measured_sites, chosen.order)
                    of_experts: Mapping[str, Tensor] = readings
                else:
                    row = mean_gradients.row(readings, measured_sites, weight)
                    of_experts = {}
                row += running.experts.row(of_experts, captured.routed_tokens)
            if not running.add(row, weight, device):
                break
            number += distributed.world_size()
    values = expert_values = None
    if mean_gradients is not None:
        total = running.total_weight
        norms = {s.name: mean_gradients.norms(s, total, device) for s in measured_sites}
        values = [float(norm if norm.dim() == 0 else norm.norm()) for norm in norms.values()]
        expert_values = {name: tuple(norm.tolist()) for name, norm in norms.items() if norm.dim()}
    unused = running.without_gradient - captured.called - captured.used_directly
    seconds = time.perf_counter() - started
    sensitivity = running.result(
        statistic, seconds, values, excluded=unused, expert_values=expert_values
    )
    sensitivity = replace(sensitivity, coverage=coverage(model, measured_sites))
    if unused:
        logger.warning(
            f"{len(unused)} of {len(measured_sites)} matrices are not used in the forward pass, so "
            f"they have no gradient and get no importance: {abbreviate_names(unused)}"
        )
    return sensitivity


def _resolve_sites(
    model: nn.Module, sites: str | Sequence[str] | Sequence[Site] | None
) -> Sequence[Site]:
    if sites is None or isinstance(sites, str):
        return find_sites(model, sites or "all")
    if not sites:
        raise IwloraError("sites=[] was given; accepted are kinds, names, or None for all")
    given = [site for site in sites if isinstance(site, Site)]
    return given or find_sites(model, [str(site) for site in sites])


def _batch_iterator(batches: Iterable[Any]) -> Iterator[Any]:
    if isinstance(batches, (Mapping, Tensor)):
        raise IwloraError(
            f"batches is a single {type(batches).__name__}; accepted is an iterable of batches, "
            "such as a DataLoader or [batch]"
        )
    return iter(batches)


def _backward(
    model: nn.Module, batch: Any, loss: Loss, captured: Captured, loss_scales: list[float]
) -> dict[str, Tensor]:
    """Forward and backward, again if the pass was not read completely.

    A loss scale that overflows is removed, and the next one is used.
    """
    while True:
        value = loss(model, batch)
        if not isinstance(value, Tensor) or value.numel() != 1:
            received = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise IwloraError(
                f"loss(model, batch) returned a {received}; accepted is a tensor with one number"
            )
        if not value.requires_grad:
            return {}  # the loss depends on no site
        scale = loss_scales[0]
        value.backward(torch.full_like(value, scale))
        taken = captured.take()
        if taken is None:
            continue
        readings = {name: reading / scale for name, reading in taken.items()}
        finite = all(bool(reading.isfinite().all()) for reading in readings.values())
        if finite or len(loss_scales) == 1:
            return readings
        loss_scales.pop(0)


def _row(readings: Mapping[str, Tensor], sites: Sequence[Site], order: int) -> list[float]:
    """One number for each site; 0 if the loss does not depend on it."""
    device = next(iter(readings.values())).device if readings else torch.device("cpu")
    zero = torch.zeros((), device=device)
    row = [readings.get(site.name, zero).to(device).double() for site in sites]
    whole = [value if value.dim() == 0 else value.norm(p=order) for value in row]
    return [float(value) for value in torch.stack(whole).cpu()]


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
            f"the model returned no loss for a batch with the keys {', '.join(batch)}: "
            "add 'labels' to the batches, or pass loss=f, where f(model, batch) is a scalar"
        )
    return value


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without trainable parameters, until the block ends."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with ExitStack() as after:
        for module, mode in modes.items():
            after.callback(setattr, module, "training", mode)
        for parameter, flag in flags.items():
            after.callback(parameter.requires_grad_, flag)
        for module in modes:
            # Re-entrant checkpointing runs backward only through blocks whose inputs require a
            # gradient, so the graph starts at the embeddings.
            if isinstance(module, nn.Embedding):
                after.callback(module.register_forward_hook(_require_gradient).remove)
        for config in (getattr(module, "config", None) for module in modes):
            if config is not None and getattr(config, "use_cache", False):
                after.callback(setattr, config, "use_cache", config.use_cache)
                config.use_cache = False  # each recomputed block would add to the cache
        after.enter_context(torch.random.fork_rng(devices))
        after.enter_context(torch.inference_mode(False))
        after.enter_context(torch.enable_grad())
        for module in modes:
            module.training = _checkpoints_in_training(module)
            after.enter_context(differentiable_weight(module))
        for parameter in flags:
            parameter.requires_grad_(False)
        yield


def _require_gradient(_layer: nn.Module, _inputs: object, output: Any) -> Tensor | None:
    if not (torch.is_grad_enabled() and isinstance(output, Tensor)):  # ProphetNet's is a tuple
        return None
    with_gradient: Tensor = output + output.new_zeros((), requires_grad=True)
    return with_gradient


def _checkpoints_in_training(module: nn.Module) -> bool:
    """Whether training mode makes the module use gradient checkpointing, and has no other effect.

    A layer of transformers uses checkpointing only in training mode; some layers also apply
    dropout themselves, with a rate that is a float attribute.
    """
    if not (isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing):
        return False
    rates = [rate for name, rate in vars(module).items() if "drop" in name]
    return not any(isinstance(rate, float) and rate > 0 for rate in rates)
