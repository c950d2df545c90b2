"""Sensitivity from the first steps of training itself: no pass is spent on measuring."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from iwlora.errors import IwloraError, unknown
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.capture import Captured, capture
from iwlora.sensitivity.estimators import ESTIMATORS, lora_sketch
from iwlora.sensitivity.running_estimate import (
    Matrix,
    Tally,
    distance_bound,
    expected_distance,
    share_deviations,
)
from iwlora.sites import Site


class LowRank(Protocol):
    """The update scaling · B A of the site ``name``, A of shape (r, d_in) and B (d_out, r)."""

    @property
    def name(self) -> str: ...
    @property
    def A(self) -> Tensor: ...
    @property
    def B(self) -> Tensor: ...
    @property
    def scaling(self) -> float: ...


class InFlight:
    """Reads s_k = E‖∂L/∂W_k‖_F while a LoRA model trains, from its first backward passes.

    With ``estimator="lora"`` it looks at ∂L/∂B alone, which training computes anyway: at B = 0,
    and nearly so while the learning rate warms up, that is a random projection of ∂L/∂W by
    LoRA's own A. The projection's error does not fall with more batches; it is estimated from
    the r columns and is part of what ``stderr`` and ``share_error`` say, not of when to stop.
    The estimators of ``iwlora.measure`` are accepted too: they read the frozen layers in the
    same passes, which costs time but leaves no such error.

    Call :meth:`step` after each backward pass, before gradients are clipped or dropped, in all
    processes alike. Once it returns True, take :meth:`result`, and the penalty may start.

    Raises ``IwloraError`` for an unknown estimator, sites without a low-rank pair, and rank 1.

    >>> import torch
    >>> from iwlora.penalty.gram import LowRankPair
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
        max_batches: int = 200,
        tolerance: float = 0.02,
    ) -> None:
        if estimator != "lora" and estimator not in ESTIMATORS:
            raise unknown("estimator", estimator, ["lora", *ESTIMATORS])
        of = {pair.name: pair for pair in pairs}
        absent = [site.name for site in sites if site.name not in of]
        if absent:
            raise IwloraError(
                f"{len(absent)} of {len(sites)} sites have no low-rank pair, the first being "
                f"{absent[0]}; give the sites that the adapter covers"
            )
        self._tally = Tally(sites, tolerance, max_batches)
        self._tolerance = tolerance
        self._estimator = estimator
        self._device = of[sites[0].name].B.device
        self._started = time.perf_counter()
        self._hooks = ExitStack()
        self._source: Captured | _Projections
        if estimator == "lora":
            self._source = _Projections([of[site.name] for site in sites], self._hooks)
        else:
            estimate = ESTIMATORS[estimator]
            self._source = self._hooks.enter_context(
                capture(sites, lambda s, x, d: estimate(x, d, f"{s.name}/{len(self._tally)}"))
            )

    def step(self, scale: float = 1.0) -> bool:
        """Take in the last backward pass; whether enough is known.

        ``scale`` is what its loss was multiplied by: float16's loss scale, and one over the
        number of accumulated passes where their losses are divided by it. A pass whose
        gradients overflowed, as float16's first ones do, does not count.
        """
        if not self._tally.enough:
            readings = self._source.take()
            row = [float(readings.get(name, 0.0)) / scale for name in self._tally.names]
            self._tally.add(row if np.isfinite(row).all() else None, 1.0, self._device)
        if self._tally.enough:
            self.close()
        return self._tally.enough

    def state(self) -> dict[str, Any]:
        """What was read so far, as plain values: for a checkpoint of a training that goes on."""
        seen = self._source.seen if isinstance(self._source, _Projections) else {}
        told = {name: sums.tolist() for name, sums in seen.items()}
        return {**self._tally.state(), "sites": self._tally.names, "seen": told}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`; raises ``IwloraError`` for that of another reader."""
        if state.get("sites") != self._tally.names:
            raise IwloraError("the measurement to go on with is one of other sites")
        self._tally.restore(state)
        if isinstance(self._source, _Projections):
            self._source.seen |= {name: np.array(sums) for name, sums in state["seen"].items()}

    def close(self) -> None:
        """Stop reading and remove every hook."""
        self._hooks.close()

    def result(self) -> Sensitivity:
        """What the passes so far say; ``seconds`` is the time since the start of training.

        Raises ``IwloraError`` if there was none, or nothing but zeros.
        """
        self.close()
        found = self._tally.result(self._estimator, "norm", time.perf_counter() - self._started)
        if not isinstance(self._source, _Projections):
            return found
        noise = self._source.relative_errors()
        sites = [
            replace(site, stderr=None if site.stderr is None else math.hypot(site.stderr, error))
            for site, error in zip(found.sites, noise * self._tally.rows.mean(axis=0), strict=True)
        ]
        spread = share_deviations(self._tally.rows)
        if spread is None:
            return replace(found, sites=tuple(sites))
        shares = np.array([site.value for site in sites]) / math.fsum(found.values.values())
        # A share moves with its own matrix, and against every other one.
        own, all_of_them = (1 - 2 * shares) * noise**2, ((shares * noise) ** 2).sum()
        spread = np.sqrt(spread**2 + shares**2 * (own + all_of_them))
        error = expected_distance(spread)
        return replace(
            found,
            sites=tuple(sites),
            share_error=error,
            share_bound=distance_bound(spread, found.batches),
            converged=error <= self._tolerance,
        )


class _Projections:
    """‖∂L/∂W‖ as the gradients of B tell it, one look a backward pass."""

    def __init__(self, pairs: Sequence[LowRank], hooks: ExitStack) -> None:
        if any(len(pair.A) == 1 for pair in pairs):
            raise IwloraError(
                "estimator='lora' was given for LoRA of rank 1, which cannot tell the error of "
                "its projection; accepted are ranks from 2, or estimator='exact'"
            )
        self._pairs = {pair.name: pair for pair in pairs}
        self._gradients: dict[str, Tensor] = {}
        self.seen = {pair.name: np.zeros(2) for pair in pairs}  # Σ square, Σ standard error
        for pair in pairs:
            handle = pair.B.register_hook(partial(self._add, pair.name))  # type: ignore[no-untyped-call]
            hooks.callback(handle.remove)

    def _add(self, name: str, gradient: Tensor) -> None:
        # A layer in several checkpointed blocks has its gradient in as many parts.
        so_far = self._gradients.get(name)
        self._gradients[name] = gradient if so_far is None else so_far + gradient

    def take(self) -> dict[str, Tensor]:
        """{site name: reading} since the last call."""
        readings = {}
        for name, gradient in self._gradients.items():
            pair = self._pairs[name]
            square, error = lora_sketch(pair.A.detach(), gradient, pair.scaling)
            readings[name] = square.sqrt()
            if bool(square.isfinite()):
                self.seen[name] += float(square), float(error)
        self._gradients.clear()
        return readings

    def relative_errors(self) -> Matrix:
        """What the projection may be off by, of each site's norm: half of that of its square."""
        return np.array(
            [error / (2 * square) if square else 0.0 for square, error in self.seen.values()]
        )
