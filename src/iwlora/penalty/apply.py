"""Three ways to apply the penalty α Σ_k c_k ‖Δ_k‖_F² while training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from iwlora.errors import IwloraError, unknown
from iwlora.penalty.gram import LowRankPair, penalty, penalty_gradients, squared_norms
from iwlora.penalty.pairs import lora_pairs


class Penalty:
    """The penalty R = α Σ_k c_k ‖Δ_k‖_F² on a LoRA model, with Δ_k = scaling_k B_k A_k.

    ``coefficients`` is {site name: c_k} with an entry for each adapted site, for instance
    ``Importance(...).coefficients()``; entries for other sites are not used.

    Raises ``IwloraError`` for a negative or non-finite α and for sites without a coefficient.

    >>> from peft import LoraConfig, get_peft_model
    >>> config = LoraConfig(target_modules=["0"], r=2)
    >>> model = get_peft_model(nn.Sequential(nn.Linear(4, 6)), config)
    >>> penalty = Penalty(model, {"0": 1.0}, alpha=1e-4)
    >>> penalty().item()  # LoRA starts at B = 0
    0.0
    """

    def __init__(
        self, model: nn.Module, coefficients: Mapping[str, float], alpha: float = 1e-4
    ) -> None:
        if not 0 <= alpha < float("inf"):
            raise IwloraError(f"alpha={alpha} was given; accepted is a finite number of at least 0")
        self.alpha = alpha
        self.pairs: list[LowRankPair] = lora_pairs(model)
        missing = [pair.name for pair in self.pairs if pair.name not in coefficients]
        if missing:
            raise IwloraError(
                f"no coefficient for {len(missing)} of {len(self.pairs)} adapted sites, the first "
                f"being {missing[0]!r}; measure the sites that the adapter covers (measured: "
                f"{', '.join(list(coefficients)[:3])}, …)"
            )
        self.coefficients = {pair.name: coefficients[pair.name] for pair in self.pairs}

    def __call__(self) -> Tensor:
        """R as a differentiable scalar, to be added to the loss *once per optimizer step*.

        Under gradient accumulation over n micro-batches whose losses are averaged, adding it to
        each of them is right; where they are summed, add it to one, or R / n to each.
        """
        return self.alpha * penalty(self.pairs, list(self.coefficients.values()))

    @torch.no_grad()
    def norms(self) -> dict[str, float]:
        """{site name: ‖Δ_k‖_F} now."""
        squares = {pair.name: squared_norms(pair.A, pair.B).clamp(min=0) for pair in self.pairs}
        return {
            pair.name: abs(pair.scaling) * math.sqrt(float(squares[pair.name]))
            for pair in self.pairs
        }

    def attach(self, optimizer: torch.optim.Optimizer, route: str = "gradient") -> RemovableHandle:
        """Apply the penalty at each step of an optimizer, in any training loop.

        ``route="gradient"`` adds ∇R to the gradients just before the step: without clipping the
        same as adding R to the loss; with clipping, ∇R is not clipped.
        ``route="decoupled"`` moves the parameters by −lr·∇R before the step, past the
        optimizer's moments, in the manner of AdamW (Loshchilov & Hutter 2019, Algorithm 2).

        Both act once per optimizer step, however many micro-batches it has. The handle's
        ``remove()`` ends it. Raises ``IwloraError`` for another route.
        """
        routes: dict[str, Callable[[torch.optim.Optimizer], None]] = {
            "gradient": self._add_to_gradients,
            "decoupled": self._move_parameters,
        }
        if route not in routes:
            raise unknown("route", route, routes)

        def before_step(stepping: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
            routes[route](stepping)

        return optimizer.register_step_pre_hook(before_step)

    @torch.no_grad()
    def _add_to_gradients(self, _optimizer: torch.optim.Optimizer) -> None:
        for parameter, gradient in self._gradients():
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.grad.add_(gradient)

    @torch.no_grad()
    def _move_parameters(self, optimizer: torch.optim.Optimizer) -> None:
        rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
        for parameter, gradient in self._gradients():
            if parameter in rates:
                parameter.sub_(gradient * rates[parameter])

    def _gradients(self) -> list[tuple[Tensor, Tensor]]:
        """[(parameter, α ∂/∂parameter Σ_k c_k ‖Δ_k‖_F²)]."""
        strengths = [self.alpha * c for c in self.coefficients.values()]
        found = penalty_gradients(self.pairs, strengths)
        return [
            (parameter, gradient)
            for pair, (grad_A, grad_B) in zip(self.pairs, found, strict=True)
            for parameter, gradient in ((pair.A, grad_A), (pair.B, grad_B))
            if parameter.requires_grad
        ]
