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
from iwlora.penalty.gram import LowRankPair, penalty, penalty_gradients, squared_norms
from iwlora.penalty.lora_pairs import lora_pairs, squared_weights
from iwlora.penalty.schedule import Schedule, constant

ROUTES = ("loss", "gradient", "decoupled")


class Attachment:
    """Hooks on an optimizer, until ``remove()``."""

    def __init__(self, *handles: RemovableHandle) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()


class Penalty:
    """The penalty R = α Σ_k c_k ‖Δ_k‖_F² on a LoRA model, with Δ_k = scaling_k B_k A_k.

    ``coefficients`` is {site name: c_k} with an entry for each adapted site, for instance
    ``Importance(...).coefficients()``; entries for other sites are not used. With
    ``relative=True`` the terms are c_k ‖Δ_k‖_F² / ‖W_k‖_F², which have no units.
    ``schedule`` turns the number of optimizer steps done, ``step``, into a factor of α.

    ============= ============================ =================== ====================
    route         how                          ∇R is clipped       ∇R goes through Adam
    ============= ============================ =================== ====================
    ``loss``      ``loss + penalty()``         with the task's     yes
    ``gradient``  ``attach(optimizer)``        no                  yes
    ``decoupled`` ``attach(…, "decoupled")``   no                  no
    ============= ============================ =================== ====================

    Make it after whatever replaces parameters, such as ``accelerator.prepare`` and
    ``fully_shard``. Raises ``IwloraError`` for an α or a coefficient that is negative or not
    finite, for adapted sites without a coefficient, and for a model without LoRA.

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
        self._moved: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self.pairs: list[LowRankPair] = lora_pairs(model)
        _check_coefficients(coefficients, [pair.name for pair in self.pairs])
        sizes = squared_weights(model) if relative else {}
        self.coefficients = {
            pair.name: coefficients[pair.name] / sizes.get(pair.name, 1.0) for pair in self.pairs
        }

    def __call__(self) -> Tensor:
        """R as a differentiable scalar, to be added to the loss *once per optimizer step*.

        Over n micro-batches whose losses are averaged, by you, accelerate or Lightning, adding
        it to each of them is right. Where they are summed, add it to one, or R / n to each. A
        transformers Trainer does either, by model: ``IWLoraCallback(route="loss")`` adds it once.
        """
        return penalty(self._whole(), self._strengths())

    @torch.no_grad()
    def norms(self) -> dict[str, float]:
        """{site name: ‖Δ_k‖_F} now."""
        found = {}
        for pair in self._whole():
            A, B = (m.to(torch.promote_types(m.dtype, torch.float32)) for m in pair.matrices())
            square = float(squared_norms(A, B).clamp(min=0).sum())
            found[pair.name] = abs(pair.scaling) * math.sqrt(square)
        return found

    def attach(self, optimizer: torch.optim.Optimizer, route: str = "gradient") -> Attachment:
        """Apply the penalty at each step of an optimizer, in any training loop.

        ``route="gradient"`` adds ∇R to the gradients just before the step: without clipping the
        same as adding R to the loss; with clipping, ∇R is not clipped.
        ``route="decoupled"`` moves the parameters by −lr·∇R before the step, past the
        optimizer's moments, in the manner of AdamW (Loshchilov & Hutter 2019, Algorithm 2).
        ``route="loss"`` adds nothing, for ``loss + penalty()`` has put ∇R into the gradients.

        Each acts once per optimizer step, however many micro-batches it has, also where the
        step is given a closure (as by Lightning) or a loss scaler skips it, and counts
        ``step``. While ``recording`` is true, each step leaves in ``effects`` what the penalty
        does beside the task. ``remove()`` of what is returned ends it.

        Raises ``IwloraError`` for another route and an optimizer of other parameters.
        """
        if route not in ROUTES:
            raise unknown("route", route, ROUTES)
        self._check_parameters(optimizer)

        def act(stepping: torch.optim.Optimizer) -> None:
            # A fused optimizer divides by the loss scale in its own kernel, and is called even
            # where it will skip the step.
            scale, overflow = (getattr(stepping, key, None) for key in ("grad_scale", "found_inf"))
            if overflow is None or not bool(overflow):
                self._act(stepping, route, 1.0 if scale is None else float(scale))

        def before(
            stepping: torch.optim.Optimizer, args: Any, kwargs: dict[str, Any]
        ) -> tuple[Any, dict[str, Any]] | None:
            given = {"closure": args[1]} if len(args) > 1 else kwargs
            closure = given.get("closure")
            if closure is None:
                act(stepping)
                return None

            def closure_then_penalty() -> Any:
                loss = closure()  # clears the gradients and makes new ones
                act(stepping)
                return loss

            return args[:1], {**given, "closure": closure_then_penalty}

        stepped = innermost(optimizer)
        return Attachment(
            stepped.register_step_pre_hook(before),
            stepped.register_step_post_hook(lambda stepping, _args, _kwargs: self._after(stepping)),
        )

    @torch.no_grad()
    def add_gradient(self, scale: float = 1.0) -> None:
        """Add scale · ∇R to the gradients, now."""
        _add(self._gradients(), scale)

    @torch.no_grad()
    def _act(self, optimizer: torch.optim.Optimizer, route: str, scale: float) -> None:
        found = self._gradients()
        if self.recording:
            given = {p: torch.zeros_like(p) if p.grad is None else p.grad / scale for p in found}
            self.effects = effects(self.pairs, found, given, self.norms())
        if route == "gradient":
            _add(found, scale)
        elif route == "decoupled":
            for group in optimizer.param_groups:
                moving = [p for p in group["params"] if p in found]
                if moving:
                    torch._foreach_add_(
                        moving, [found[p] for p in moving], alpha=-float(group["lr"])
                    )
            if self.recording:
                self._moved = {p: (r, p.detach().clone()) for p, r in found.items()}

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer) -> None:
        self.step += 1
        if self._moved:  # what the optimizer moved is what -lr·∇R has to be compared with
            rates = {p: float(g["lr"]) for g in optimizer.param_groups for p in g["params"]}
            found = {p: gradient for p, (gradient, _) in self._moved.items()}
            moved = {
                p: (start - p) / (rates[p] or math.inf) for p, (_, start) in self._moved.items()
            }
            norms = {name: effect.norm for name, effect in self.effects.items()}
            self.effects = effects(self.pairs, found, moved, norms)
            self._moved = {}

    def _gradients(self) -> dict[Tensor, Tensor]:
        """{trainable factor: ∂R/∂factor}."""
        found = penalty_gradients(self._whole(), self._strengths())
        return {
            parameter: local_shard(gradient, parameter)
            for pair, both in zip(self.pairs, found, strict=True)
            for parameter, gradient in zip((pair.A, pair.B), both, strict=True)
            if parameter.requires_grad
        }

    def _strengths(self) -> list[float]:
        now = self.alpha * self.schedule(self.step)
        return [now * c for c in self.coefficients.values()]

    def _whole(self) -> list[LowRankPair]:
        return [replace(pair, A=full_tensor(pair.A), B=full_tensor(pair.B)) for pair in self.pairs]

    def _check_parameters(self, optimizer: torch.optim.Optimizer) -> None:
        theirs = {id(p) for group in optimizer.param_groups for p in group["params"]}
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
        absent = [name for name, factor in trained if id(factor) not in theirs]
        if absent:
            raise IwloraError(
                f"{len(absent)} of {len(trained)} LoRA factors are not among the optimizer's "
                f"parameters, the first at {absent[0]}; make the penalty from the model after "
                "preparing or sharding it (DeepSpeed's optimizers hold copies: not supported)"
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
            f"no coefficient for {len(missing)} of {len(names)} adapted sites, the first being "
            f"{missing[0]!r}; measure the sites that the adapter covers, or adapt only those that "
            f"have one ({', '.join(list(coefficients)[:3])}, …)"
        )
    wrong = [name for name in names if not 0 <= coefficients[name] < math.inf]
    if wrong:
        raise IwloraError(
            f"the coefficient of {wrong[0]} is {coefficients[wrong[0]]}; accepted are finite "
            "numbers of at least 0"
        )


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside the wrappers of accelerate and Lightning, which step it in the end."""
    inner = getattr(optimizer, "optimizer", None)
    return innermost(inner) if isinstance(inner, torch.optim.Optimizer) else optimizer


def _add(found: Mapping[Tensor, Tensor], scale: float) -> None:
    """Add scale · found[p] to the gradient of each p, in one kernel a type."""
    for parameter in found:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    grads = [p.grad for p in found if p.grad is not None]
    torch._foreach_add_(grads, list(found.values()), alpha=scale)
