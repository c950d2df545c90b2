"""Sensitivity from the first training steps, without separate passes for measuring."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from torch import Tensor

from iwlora.errors import IwloraError
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.capture import Captured, capture
from iwlora.sensitivity.estimators import ESTIMATORS, lora_sketch
from iwlora.sensitivity.options import DEFAULTS, MeasureOptions
from iwlora.sensitivity.running_estimate import Matrix, RunningEstimate
from iwlora.sites import Site, abbreviate_names

logger = logging.getLogger("iwlora")


class LowRank(Protocol):
    """The update scaling · B A of the site ``name``.

    ``matrices()`` are A of shape (..., r, d_in) and B (..., d_out, r). ``matrix_B`` gives a tensor
    in the shape of the parameter ``B`` the shape of that matrix.
    """

    @property
    def name(self) -> str: ...
    @property
    def B(self) -> Tensor: ...
    @property
    def scaling(self) -> float: ...
    def matrices(self) -> tuple[Tensor, Tensor]: ...
    def matrix_B(self, B: Tensor) -> Tensor: ...


class _State(BaseModel):
    """What a checkpoint has of an unfinished measurement."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sites: list[str]
    rows: list[list[FiniteFloat]]
    weights: list[Annotated[FiniteFloat, Field(gt=0)]]
    seen: dict[str, tuple[float, float]] = Field(default_factory=dict)


class InFlight:
    """Measures s_k = E‖∂L/∂W_k‖_F in the first backward passes of LoRA training.

    LoRA has no effect on a layer that the model does not call. Such sites get no importance; a
    warning and ``Sensitivity.excluded`` name them.

    Call :meth:`step` after each backward pass, before gradients are clipped or cleared, in every
    process. When it returns True, take :meth:`result`; then the penalty can start.

    Args:
        sites: the sites to measure.
        pairs: the low-rank updates; every site needs one.
        estimator: ``lora`` uses ∂L/∂B only, which training computes anyway. At B = 0, and
            approximately during warm-up, that is a random projection of ∂L/∂W by LoRA's A. The
            error of the projection does not fall with more batches. It is estimated from the r
            columns, and is part of ``stderr`` and ``share_error``, but not of the stopping rule.
            The estimators of ``iwlora.measure`` read the frozen layers in the same passes, which
            costs time and has no such error.
        max_batches: the largest number of backward passes.
        tolerance: the accepted error of the shares.

    Raises:
        IwloraError: the estimator is unknown, a site has no low-rank pair, or the rank is 1 with
            the estimator ``lora``.

    Example:
        >>> import torch
        >>> from iwlora.penalty.low_rank_pair import LowRankPair
        >>> layer = torch.nn.Linear(3, 2, bias=False).requires_grad_(False)
        >>> pair = LowRankPair("w", torch.randn(2, 3), torch.zeros(2, 2, requires_grad=True), 1.0)
        >>> flight = InFlight([Site("w", layer, "w", 3, 2, 0)], [pair], max_batches=1)
        >>> x = torch.ones(4, 3)
        >>> (layer(x) + x @ pair.A.mT @ pair.B.mT).sum().backward()
        >>> flight.step(), flight.result().batches
        (True, 1)
    """

    def __init__(
        self,
        sites: Sequence[Site],
        pairs: Sequence[LowRank],
        estimator: str = "lora",
        max_batches: int = DEFAULTS.max_batches,
        tolerance: float = DEFAULTS.tolerance,
    ) -> None:
        accepted = ["lora", *ESTIMATORS]
        options = MeasureOptions.checked(estimator, max_batches, tolerance, accepted)
        pair_of = {pair.name: pair for pair in pairs}
        missing = [site.name for site in sites if site.name not in pair_of]
        if missing:
            raise IwloraError(
                f"{len(missing)} of {len(sites)} sites have no low-rank pair, the first is "
                f"{missing[0]}; pass the sites that the adapter covers"
            )
        self._running = RunningEstimate(sites, options)
        self._device = pair_of[sites[0].name].B.device
        self._started = time.perf_counter()
        self._hooks = ExitStack()
        self._source: Captured | _LoraGradients
        if estimator == "lora":
            self._source = _LoraGradients([pair_of[site.name] for site in sites], self._hooks)
        else:
            estimate = ESTIMATORS[estimator]
            self._source = self._hooks.enter_context(
                capture(sites, lambda s, x, d: estimate(x, d, f"{s.name}/{len(self._running)}"))
            )

    def step(self, scale: float = 1.0) -> bool:
        """Read the last backward pass.

        Args:
            scale: the factor that the loss was multiplied by: the loss scale of float16, and 1/n
                if the losses of n accumulated passes are divided by n. A pass whose gradients
                overflowed, as in the first steps of float16 training, is not counted.

        Returns:
            Whether the measurement is finished.
        """
        if not self._running.finished:
            readings, row = self._source.take(), None
            if readings is not None:
                row = [_norm(readings.get(name)) / scale for name in self._running.names]
                of_experts = {name: value / scale for name, value in readings.items()}
                row += self._running.experts.row(of_experts, self._source.routed_tokens)
            is_read = row is not None and bool(np.isfinite(row).all())
            self._running.add(row if is_read else None, 1.0, self._device)
        if self._running.finished:
            self.close()
        return self._running.finished

    def state(self) -> dict[str, Any]:
        """The state of the measurement as plain values, for a checkpoint."""
        sums = self._source.sums if isinstance(self._source, _LoraGradients) else {}
        seen = {name: values.tolist() for name, values in sums.items()}
        return {**self._running.state(), "sites": self._running.names, "seen": seen}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state`; raises ``IwloraError`` for one with other sites."""
        stored = _State.model_validate(state)
        sums = self._source.sums if isinstance(self._source, _LoraGradients) else {}
        if stored.sites != self._running.names or stored.seen.keys() != sums.keys():
            raise IwloraError("the checkpoint has a measurement of other sites")
        self._running.restore(stored.rows, stored.weights)
        sums |= {name: np.array(values) for name, values in stored.seen.items()}

    def close(self) -> None:
        """Stop reading and remove every hook."""
        self._hooks.close()

    def result(self) -> Sensitivity:
        """The measurement so far; ``seconds`` is the time since the start of training.

        Raises:
            IwloraError: no pass was read, or all gradients were zero.
        """
        self.close()
        seconds = time.perf_counter() - self._started
        noise = self._source.relative_errors() if isinstance(self._source, _LoraGradients) else None
        # LoRA computes when its layer is called. Without a call it has no effect.
        used_otherwise = self._running.without_gradient | self._source.used_directly
        no_effect = used_otherwise - self._source.called
        measured = self._running.result("norm", seconds, noise=noise, excluded=no_effect)
        if no_effect:
            logger.warning(
                f"{len(no_effect)} of {len(self._running.names)} adapted layers were not called, "
                "so LoRA has no effect there, and they get no importance; remove them from "
                f"target_modules: {abbreviate_names(no_effect)}"
            )
        return measured


def _norm(reading: Tensor | None) -> float:
    """The norm of a site from that of each of its matrices; 0 without a gradient."""
    if reading is None:
        return 0.0
    return float(reading.norm() if reading.dim() else reading)


class _LoraGradients:
    """‖∂L/∂W‖ estimated from the gradients of LoRA's B, for each backward pass."""

    routed_tokens: Mapping[str, Tensor] = {}  # not counted

    def __init__(self, pairs: Sequence[LowRank], hooks: ExitStack) -> None:
        if any(pair.matrices()[0].shape[-2] == 1 for pair in pairs):
            raise IwloraError(
                "estimator='lora' was given for LoRA of rank 1, which does not show the error of "
                "the projection; accepted are ranks of at least 2, or estimator='exact'"
            )
        self._pairs = {pair.name: pair for pair in pairs}
        self._gradients: dict[str, Tensor] = {}
        self.called: set[str] = set()
        self.used_directly: set[str] = set()  # unknown from B
        self.sums = {pair.name: np.zeros(2) for pair in pairs}  # Σ square, Σ standard error
        for pair in pairs:
            handle = pair.B.register_hook(partial(self._add, pair.name))
            hooks.callback(handle.remove)

    def _add(self, name: str, gradient: Tensor) -> None:
        self.called.add(name)
        # The gradient of a layer in several checkpointed blocks arrives in several parts.
        so_far = self._gradients.get(name)
        self._gradients[name] = gradient if so_far is None else so_far + gradient

    def take(self) -> dict[str, Tensor]:
        """{site name: estimated norm} since the last call."""
        readings = {}
        for name, gradient in self._gradients.items():
            pair = self._pairs[name]
            A = pair.matrices()[0].detach()
            square, error = lora_sketch(A, pair.matrix_B(gradient), pair.scaling)
            readings[name] = square.sqrt()
            if bool(square.isfinite().all()):
                self.sums[name] += float(square.sum()), _norm(error)
        self._gradients.clear()
        return readings

    def relative_errors(self) -> Matrix:
        """The relative standard error of each norm: half of that of its square."""
        return np.array(
            [error / (2 * square) if square else 0.0 for square, error in self.sums.values()]
        )
