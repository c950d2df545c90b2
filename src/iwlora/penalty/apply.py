"""The penalty α Σ_k c_k ‖Δ_k‖_F² on a LoRA model, and three ways to train under it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from iwlora.distributed import full_tensor, local_shard
from iwlora.errors import IwloraError, unknown
from iwlora.penalty.diagnostics import Effect, effects
from iwlora.penalty.gram import penalty, penalty_gradients, squared_norms
from iwlora.penalty.lora_pairs import lora_pairs, squared_weights
from iwlora.penalty.low_rank_pair import LowRankPair
from iwlora.penalty.routes import DEFAULT_ROUTE, ROUTES
from iwlora.penalty.schedule import Schedule, constant


class Attachment:
    """Hooks on an optimizer; ``remove()`` removes them."""

    def __init__(self, *handles: RemovableHandle) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()


class Penalty:
    """The penalty R = α Σ_k c_k ‖Δ_k‖_F² on a LoRA model, with Δ_k = scaling_k B_k A_k.

    There are three ways to train with it:

    ============= ============================ =================== ====================
    route         how                          ∇R is clipped       ∇R goes through Adam
    ============= ============================ =================== ====================
    ``loss``      ``loss + penalty()``         with the task's     yes
    ``gradient``  ``attach(optimizer)``        no                  yes
    ``decoupled`` ``attach(…, "decoupled")``   no                  no
    ============= ============================ =================== ====================

    Create it after everything that replaces parameters, such as ``accelerator.prepare`` and
    ``fully_shard``.

    Args:
        model: a PEFT model with LoRA.
        coefficients: {site name: c_k} with an entry for each adapted site, such as
            ``Importance(...).coefficients()``; entries for other sites are ignored.
        alpha: the strength α.
        relative: use c_k ‖Δ_k‖_F² / ‖W_k‖_F², which has no unit.
        schedule: a function of the number of optimizer steps, ``step``, that returns a factor of α.

    Raises:
        IwloraError: α or a coefficient is negative or not finite, an adapted site has no
            coefficient, or the model has no LoRA.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> config = LoraConfig(target_modules=["0"], r=2)
        >>> model = get_peft_model(nn.Sequential(nn.Linear(4, 6)), config)
        >>> penalty = Penalty(model, {"0": 1.0}, alpha=1e-4)
        >>> penalty().item()  # LoRA starts at B = 0
        0.0
    """

    def __init__(
        self,
        model: nn.Module,
        coefficients: Mapping[str, float],
        alpha: float = 1e-4,
        relative: bool = False,
        schedule: Schedule = constant,
    ) -> None:
        check_alpha(alpha)
        if not callable(schedule):
            raise IwloraError(
                f"schedule={schedule!r} was given; accepted is a function of the step, such as "
                "iwlora.penalty.schedule.cosine(total=1000)"
            )
        self.alpha = alpha
        self.schedule = schedule
        self.step = 0
        self.recording = False
        self.effects: dict[str, Effect] = {}
        self._before_step: dict[Tensor, tuple[Tensor, Tensor]] = {}  # {factor: (∇R, its value)}
        self.pairs: list[LowRankPair] = lora_pairs(model)
        _check_coefficients(coefficients, [pair.name for pair in self.pairs])
        divisors = squared_weights(model) if relative else {}
        self.coefficients = {
            pair.name: coefficients[pair.name] / divisors.get(pair.name, 1.0) for pair in self.pairs
        }

    def __call__(self) -> Tensor:
        """R as a differentiable scalar, to be added to the loss *once per optimizer step*.

        If the losses of n micro-batches are averaged, by you, accelerate or Lightning, add it to
        each of them. If they are summed, add it to one of them, or R / n to each. A transformers
        Trainer averages or sums depending on the model; ``IWLoraCallback(route="loss")`` adds R
        once in both cases.
        """
        return penalty(self._full_pairs(), self._strengths())

    @torch.no_grad()
    def norms(self) -> dict[str, float]:
        """{site name: ‖Δ_k‖_F} now."""
        norms = {}
        for pair in self._full_pairs():
            A, B = (m.to(torch.promote_types(m.dtype, torch.float32)) for m in pair.matrices())
            square = float(squared_norms(A, B).clamp(min=0).sum())
            norms[pair.name] = abs(pair.scaling) * math.sqrt(square)
        return norms

    def attach(self, optimizer: torch.optim.Optimizer, route: str = DEFAULT_ROUTE) -> Attachment:
        """Apply the penalty at each step of an optimizer, in any training loop.

        Each route acts once per optimizer step, for any number of micro-batches. This also holds
        if the step has a closure (as in Lightning) or a loss scaler skips the step. Every step
        increments ``step``. While ``recording`` is true, each step writes the penalty's effect
        to ``effects``.

        Args:
            optimizer: the optimizer of the LoRA factors, or a wrapper of it.
            route: ``gradient`` adds ∇R to the gradients just before the step. Without clipping
                this equals adding R to the loss; with clipping, ∇R is not clipped.
                ``decoupled`` changes the parameters by −lr·∇R before the step, without the
                optimizer's moments, as AdamW does with weight decay.
                ``loss`` adds nothing, because ``loss + penalty()`` has added ∇R already.

        Returns:
            An object whose ``remove()`` ends the penalty.

        Raises:
            IwloraError: the route is unknown, the optimizer has other parameters, or ``decoupled``
                is used with an optimizer that chooses learning rates of its own.

        Source:
            Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2, for ``decoupled``.
        """
        if route not in ROUTES:
            raise unknown("route", route, ROUTES)
        self._check_parameters(optimizer)
        if route == "decoupled":
            _check_learning_rates(optimizer)

        def apply(optimizer: torch.optim.Optimizer) -> None:
            # A fused optimizer divides by the loss scale in its own kernel. Its step is called
            # even if it will be skipped.
            scale, overflow = (getattr(optimizer, key, None) for key in ("grad_scale", "found_inf"))
            if overflow is None or not bool(overflow):
                self._apply(optimizer, route, 1.0 if scale is None else float(scale))

        def before_step(
            optimizer: torch.optim.Optimizer, args: Any, kwargs: dict[str, Any]
        ) -> tuple[Any, dict[str, Any]] | None:
            arguments = {"closure": args[1]} if len(args) > 1 else kwargs
            closure = arguments.get("closure")
            if closure is None:
                apply(optimizer)
                return None

            def closure_then_penalty() -> Any:
                loss = closure()  # computes new gradients
                apply(optimizer)
                return loss

            return args[:1], {**arguments, "closure": closure_then_penalty}

        inner = innermost(optimizer)
        return Attachment(
            inner.register_step_pre_hook(before_step),
            inner.register_step_post_hook(lambda inner, _args, _kwargs: self._after_step(inner)),
        )

    @torch.no_grad()
    def add_gradient(self, scale: float = 1.0) -> None:
        """Add scale · ∇R to the gradients now."""
        _add_to_gradients(self._gradients(), scale)

    @torch.no_grad()
    def _apply(self, optimizer: torch.optim.Optimizer, route: str, scale: float) -> None:
        gradients = self._gradients()
        if self.recording:
            of_task = {
                p: torch.zeros_like(p) if p.grad is None else p.grad / scale for p in gradients
            }
            self.effects = effects(self.pairs, gradients, of_task, self.norms())
        if route == "gradient":
            _add_to_gradients(gradients, scale)
        elif route == "decoupled":
            for group in optimizer.param_groups:
                factors = [p for p in group["params"] if p in gradients]
                if factors:
                    steps = [gradients[p] for p in factors]
                    torch._foreach_add_(factors, steps, alpha=-float(group["lr"]))
            if self.recording:
                self._before_step = {p: (g, p.detach().clone()) for p, g in gradients.items()}

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.step += 1
        if self._before_step:  # -lr·∇R is compared with the optimizer's own update
            lr = {p: float(g["lr"]) for g in optimizer.param_groups for p in g["params"]}
            gradients = {p: gradient for p, (gradient, _) in self._before_step.items()}
            updates = {
                p: (start - p) / (lr[p] or math.inf) for p, (_, start) in self._before_step.items()
            }
            norms = {name: effect.norm for name, effect in self.effects.items()}
            self.effects = effects(self.pairs, gradients, updates, norms)
            self._before_step = {}

    def _gradients(self) -> dict[Tensor, Tensor]:
        """{trainable factor: ∂R/∂factor}."""
        by_pair = penalty_gradients(self._full_pairs(), self._strengths())
        return {
            parameter: local_shard(gradient, parameter)
            for pair, both in zip(self.pairs, by_pair, strict=True)
            for parameter, gradient in zip((pair.A, pair.B), both, strict=True)
            if parameter.requires_grad
        }

    def _strengths(self) -> list[float]:
        alpha = self.alpha * self.schedule(self.step)
        return [alpha * c for c in self.coefficients.values()]

    def _full_pairs(self) -> list[LowRankPair]:
        return [replace(pair, A=full_tensor(pair.A), B=full_tensor(pair.B)) for pair in self.pairs]

    def _check_parameters(self, optimizer: torch.optim.Optimizer) -> None:
        optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
        trained = [
            (pair.name, factor)
            for pair in self.pairs
            for factor in (pair.A, pair.B)
            if factor.requires_grad
        ]
        if not trained:
            raise IwloraError(
                "no LoRA factor requires a gradient; load the adapter with is_trainable=True"
            )
        missing = [name for name, factor in trained if id(factor) not in optimized]
        if missing:
            raise IwloraError(
                f"{len(missing)} of {len(trained)} LoRA factors are not among the optimizer's "
                f"parameters, the first at {missing[0]}; create the penalty after preparing or "
                "sharding the model (DeepSpeed is not supported: its optimizers have copies)"
            )


def _check_learning_rates(optimizer: torch.optim.Optimizer) -> None:
    """Raise ``IwloraError`` for an optimizer whose steps have another size than its ``lr``."""
    own = ("relative_step", "scale_parameter", "d")  # of Adafactor; of Prodigy and D-Adaptation
    names = [key for key in own if any(group.get(key) for group in optimizer.param_groups)]
    if names:
        raise IwloraError(
            f"route=decoupled takes steps of the optimizer's lr, and {type(optimizer).__name__} "
            f"with {', '.join(names)} chooses its own; take route=gradient, or Adafactor with "
            "relative_step=False, scale_parameter=False and an lr"
        )


def check_alpha(alpha: float) -> None:
    """Raise ``IwloraError`` for a strength that is negative or not finite."""
    if not 0 <= alpha < math.inf:
        raise IwloraError(f"alpha={alpha} was given; accepted is a finite number of at least 0")


def _check_coefficients(coefficients: Mapping[str, float], names: list[str]) -> None:
    if not isinstance(coefficients, Mapping):
        raise IwloraError(
            f"coefficients is a {type(coefficients).__name__}; accepted is a mapping of site names "
            "to numbers, such as Importance(sensitivity).coefficients()"
        )
    missing = [name for name in names if name not in coefficients]
    if missing:
        raise IwloraError(
            f"no coefficient for {len(missing)} of {len(names)} adapted sites, the first is "
            f"{missing[0]!r}; measure the sites that the adapter covers, or adapt only sites "
            f"with a coefficient ({', '.join(list(coefficients)[:3])}, …)"
        )
    wrong = [name for name in names if not 0 <= coefficients[name] < math.inf]
    if wrong:
        raise IwloraError(
            f"the coefficient of {wrong[0]} is {coefficients[wrong[0]]}; accepted are finite "
            "numbers of at least 0"
        )


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The torch optimizer inside the wrappers of accelerate and Lightning."""
    inner = getattr(optimizer, "optimizer", None)
    return innermost(inner) if isinstance(inner, torch.optim.Optimizer) else optimizer


def _add_to_gradients(gradients: Mapping[Tensor, Tensor], scale: float) -> None:
    """Add scale · gradients[p] to the gradient of each parameter p, with one kernel per dtype."""
    for parameter in gradients:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    current = [p.grad for p in gradients if p.grad is not None]
    torch._foreach_add_(current, list(gradients.values()), alpha=scale)
