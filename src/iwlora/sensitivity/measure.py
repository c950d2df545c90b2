"""The calibration loop: batches in, a :class:`Sensitivity` out, the model as it was."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iwlora.errors import IwloraError, unknown
from iwlora.sensitivity.capture import capture
from iwlora.sensitivity.estimators import ESTIMATORS
from iwlora.sensitivity.record import Sensitivity, SiteSensitivity
from iwlora.sites import Site
from iwlora.sites import sites as find_sites

MIN_BATCHES = 4  # fewer give no usable estimate of the spread between batches

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Loss = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]


def measure(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    estimator: str = "exact",
    max_batches: int = 200,
    tolerance: float = 0.02,
    sites: Sequence[Site] | None = None,
    loss: Loss | None = None,
) -> Sensitivity:
    """Measure s_k = E‖∂L/∂W_k‖_F of every weight matrix of a frozen model.

    The expectation is over ``batches``, mappings that the model accepts as keyword arguments;
    ``loss(model, batch)`` gives a scalar, by default ``model(**batch).loss``. Dropout is off.

    Measuring ends after ``max_batches``, or once :func:`share_error`, the part of the total
    importance expected to sit on the wrong matrices, is at most ``tolerance`` (from the fourth
    batch on; 0 turns the rule off). The model's mode, ``requires_grad`` flags, gradients and
    the random state are afterwards as before.

    Raises ``IwloraError`` for unknown estimators, no batches, batches without a loss, and
    gradients that are zero or not finite.

    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    ...                     intermediate_size=16, vocab_size=10)
    >>> model = BertForSequenceClassification(config)
    >>> batch = {"input_ids": torch.tensor([[1, 2], [3, 4]]), "labels": torch.tensor([0, 1])}
    >>> sensitivity = measure(model, [batch] * 8)
    >>> sensitivity.batches, len(sensitivity.values)
    (4, 6)
    """
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    if max_batches < 1 or not tolerance >= 0:
        raise IwloraError(
            f"max_batches={max_batches} and tolerance={tolerance} were given; "
            "accepted are max_batches of at least 1 and a tolerance of at least 0"
        )
    chosen = list(find_sites(model) if sites is None else sites)
    names = [site.name for site in chosen]
    device = next(model.parameters()).device
    started = time.perf_counter()
    rows: list[list[float]] = []
    error: float | None = None
    with _frozen(model), capture(chosen, ESTIMATORS[estimator]) as captured:
        for index, batch in enumerate(batches):
            value = (loss or _model_loss)(model, {key: t.to(device) for key, t in batch.items()})
            value.backward()  # type: ignore[no-untyped-call]
            rows.append(_row(captured.take(), names, index))
            error = share_error(np.array(rows))
            stable = error is not None and error <= tolerance
            if (stable and tolerance > 0 and len(rows) >= MIN_BATCHES) or len(rows) >= max_batches:
                break
    if not rows:
        raise IwloraError("there are no calibration batches; give at least one")
    norms = np.array(rows)
    mean = norms.mean(axis=0)
    if not mean.sum() > 0:
        raise IwloraError(
            "every gradient is zero, so no matrix matters more than another: does the loss "
            "depend on the model's output, and are there labels other than -100?"
        )
    stderr = _standard_error(norms).tolist() if len(norms) > 1 else [None] * len(chosen)
    return Sensitivity(
        tuple(
            SiteSensitivity(s.name, s.kind, s.depth, s.d_in, s.d_out, value, spread)
            for s, value, spread in zip(chosen, mean.tolist(), stderr, strict=True)
        ),
        estimator=estimator,
        batches=len(rows),
        share_error=error,
        converged=error is not None and error <= tolerance,
        seconds=time.perf_counter() - started,
    )


def share_error(norms: Matrix) -> float | None:
    """Expected part of the total importance on the wrong matrices, from norms (batches, sites).

    The shares are w_k = s_k / Σ_j s_j. Their total variation distance to the true shares is
    ½ Σ_k |ŵ_k − w_k|; with normal errors of standard deviation σ_k it is expected to be
    ½ √(2/π) Σ_k σ_k. The delta method for a ratio of means over n batches gives σ_k as the
    standard error of (g_bk − ŵ_k Σ_j g_bj) / mean_b Σ_j g_bj.

    None for fewer than two batches, or when all norms are zero.

    >>> share_error(np.array([[1.0, 3.0], [2.0, 6.0]]))  # the shares do not vary
    0.0
    """
    total = norms.sum(axis=1, keepdims=True)
    if len(norms) < 2 or not total.sum() > 0:
        return None
    shares = norms.sum(axis=0) / total.sum()
    residuals = (norms - shares * total) / total.mean()
    return float(0.5 * math.sqrt(2 / math.pi) * _standard_error(residuals).sum())


def _standard_error(samples: Matrix) -> Matrix:
    spread: Matrix = samples.std(axis=0, ddof=1) / math.sqrt(len(samples))
    return spread


def _row(estimates: Mapping[str, Tensor], names: Sequence[str], index: int) -> list[float]:
    if not estimates:
        return [0.0] * len(names)
    device = next(iter(estimates.values())).device
    zero = torch.zeros((), device=device)
    row = torch.stack([estimates.get(name, zero).to(device).double() for name in names]).cpu()
    if not bool(row.isfinite().all()):
        worst = names[int((~row.isfinite()).nonzero()[0])]
        raise IwloraError(
            f"the gradient of {worst} is not finite in calibration batch {index}: "
            "look at that batch for broken rows, or measure in float32 or bfloat16"
        )
    return [float(value) for value in row]


def _model_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
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
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            model.eval()
            for parameter in flags:
                parameter.requires_grad_(False)
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
