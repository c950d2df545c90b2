"""The Trainer callback that applies the prior after each step and learns its precisions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerState, TrainingArguments

from iwlora.distributed import is_sharded
from iwlora.errors import IwloraError
from iwlora.inputs.tensors import load_tensors, tensor_metadata
from iwlora.penalty.apply import innermost
from iwlora.penalty.callback import clip_factor
from iwlora.penalty.low_rank_pair import LowRankPair
from iwlora.results import layout
from iwlora_study.relevance.evidence import (
    GradientVariance,
    damped,
    fisher_from_batches,
    mackay,
    pool,
    shared_precision,
    well_determined,
)

DECAY = 0.95
"""Of the weights of earlier gradients in their variance: about the last 40 count."""
_FEWEST = 2  # gradients, for a variance
_FILE = "relevance.safetensors"


class Relevance(TrainerCallback):
    """Applies N(0, 1/α) to the rank components after each optimizer step, and learns α.

    A rank component of Δ = s Σ_i b_i a_iᵀ has the weights w_i = s‖a_i‖ b_i, so that ‖w_i‖ is the
    Frobenius norm of its update. In each step after ``begin``, α moves towards MacKay's re-estimate
    (:mod:`iwlora_study.relevance.evidence`), and then

        b ← b / (1 + η λ / (√v̂ + ε)),    λ = κ α s²‖a‖² / N,

    the proximal step of the prior in Adam's metric: η is the learning rate, v̂ and ε are Adam's, N
    the training rows, and κ the factor by which this step's gradient was clipped. Adam's moments
    hold the gradient of the loss alone. Where training has ended, m̂ + λ b = 0, so that b is the
    mode of the posterior; AdamW's own decay, which lacks 1 / (√v̂ + ε), ends elsewhere.

    Args:
        pairs: the low-rank updates.
        group: (components,) the number of the α of each component, all pairs after each other.
        factors: (components,) c: the precision of a component is c times its α.
        order: (components,) whose precision each component gets: itself, or in a control another.
        alpha: an α that is not learned; None: it is learned.
        begin: the fraction of all steps before the prior acts.
        memory: the fraction of all steps after which a former α counts 1/e.
    """

    def __init__(
        self,
        pairs: Sequence[LowRankPair],
        group: Tensor,
        factors: Tensor,
        order: Tensor,
        alpha: float | None,
        begin: float,
        memory: float,
    ) -> None:
        self.pairs, self.group, self.factors, self.order = pairs, group, factors.double(), order
        self.groups = int(group.max()) + 1
        self.fixed, self.begin, self.memory = alpha, begin, memory
        self.alpha: Tensor | None = None
        self._variances = [GradientVariance(DECAY) for _ in pairs]
        self._norm = self._clip = math.nan
        self._rows = self._batch_size = 0

    def gradient_norm(self, norm: float) -> None:
        """Get the norm of the step's gradient before it was clipped."""
        self._norm = norm

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any
    ) -> None:
        """Read the sizes of data and batches, and on a resume what was learned so far."""
        optimizer = innermost(kwargs["optimizer"])
        if not isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
            raise IwloraError(
                f"the prior acts in Adam's metric, and {type(optimizer).__name__} has none; take "
                "train.optimizer=adamw"
            )
        if any(is_sharded(pair.B) for pair in self.pairs):
            raise IwloraError("the prior needs whole factors; take train.shard=false")
        self._rows = len(kwargs["train_dataloader"].dataset)
        self._batch_size = args.train_batch_size * args.gradient_accumulation_steps
        self._batch_size *= args.world_size
        if self._batch_size >= self._rows:
            raise IwloraError(
                f"{self._rows} rows in batches of {self._batch_size} have no variance between "
                "batches; lower train.batch_size"
            )
        self.alpha = None
        for variance in self._variances:
            variance.batches = 0
        if state.global_step:
            self._restore(_file(args, state))

    @torch.no_grad()
    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any
    ) -> None:
        """Count the gradients of B, as they were before clipping."""
        self._clip = clip_factor(args, self._norm)
        if self.fixed is not None:
            return
        for pair, variance in zip(self.pairs, self._variances, strict=True):
            gradient = torch.zeros_like(pair.B) if pair.B.grad is None else pair.B.grad
            variance.add(gradient / self._clip)

    @torch.no_grad()
    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any
    ) -> None:
        """Learn α, and let the prior act."""
        if state.global_step < max(_FEWEST, math.ceil(self.begin * state.max_steps)):
            return
        self._learn(state)
        self._shrink(innermost(kwargs["optimizer"]))

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Store what was learned with the checkpoint."""
        if not args.should_save:
            return
        tensors = {} if self.alpha is None else {"alpha": self.alpha}
        for k, variance in enumerate(self._variances):
            if variance.batches:
                tensors |= {f"first.{k}": variance.first, f"second.{k}": variance.second}
        batches = str(self._variances[0].batches)
        save_file(tensors, _file(args, state), metadata={"batches": batches})

    def precisions(self) -> Tensor:
        """(components,) the precision of each component, learned from it; before it acts, NaN."""
        if self.alpha is None:
            return torch.full_like(self.factors, math.nan)
        return self.alpha[self.group] * self.factors

    @torch.no_grad()
    def squares(self) -> Tensor:
        """(components,) ‖w_i‖² = s²‖a_i‖²‖b_i‖²."""
        parts = []
        for pair, scale in zip(self.pairs, self._scales(), strict=True):
            parts.append(scale * _by_component(pair, pair.B).double().square().sum(-1))
        return torch.cat(parts).cpu()

    @torch.no_grad()
    def well_determined(self) -> Tensor:
        """(components,) γ_i of each component at its present precision."""
        curvature = self._curvature()
        parts = torch.split(self.precisions(), [len(h) for h in curvature])
        gammas = [well_determined(h, p.to(h.device)) for h, p in zip(curvature, parts, strict=True)]
        return torch.cat(gammas).cpu()

    def _learn(self, state: TrainerState) -> None:
        if self.fixed is not None:
            self.alpha = torch.full((self.groups,), self.fixed, dtype=torch.float64)
            return
        squares = self.squares()
        if self.alpha is None:
            start = shared_precision(self._curvature(), self.factors, squares)
            self.alpha = torch.full((self.groups,), start, dtype=torch.float64)
            return
        gamma = pool(self.well_determined(), self.group, self.groups)
        energy = pool(self.factors * squares, self.group, self.groups)
        steps = self.memory * state.max_steps
        part = min(0.5, -math.expm1(-1 / steps)) if steps else 0.5
        self.alpha = damped(self.alpha, mackay(gamma, energy), part)

    def _shrink(self, optimizer: torch.optim.Optimizer) -> None:
        settings = {p: group for group in optimizer.param_groups for p in group["params"]}
        sizes, scales = [len(scale) for scale in self._scales()], self._scales()
        precisions = torch.split(self.precisions()[self.order], sizes)
        for pair, scale, precision in zip(self.pairs, scales, precisions, strict=True):
            adam, group = optimizer.state.get(pair.B), settings[pair.B]
            if not adam:  # it has had no gradient
                continue
            corrected = adam["exp_avg_sq"] / (1 - group["betas"][1] ** float(adam["step"]))
            decay = self._clip / self._rows * (precision.to(scale) * scale)  # λ
            A, _ = pair.matrices()
            by_rank = decay.to(pair.B.dtype).view(A.shape[:-1]).unsqueeze(-2)
            ones = torch.ones_like(pair.matrix_B(pair.B))
            _, by_entry = pair.layer_factors(A, by_rank * ones)
            metric = corrected.sqrt() + group["eps"]
            pair.B.div_(1 + float(group["lr"]) * by_entry / metric)

    def _curvature(self) -> list[Tensor]:
        """h of each pair, (components, d_out): of the summed loss in the weights w."""
        found = []
        for pair, variance, scale in zip(self.pairs, self._variances, self._scales(), strict=True):
            of_B = fisher_from_batches(variance.value(), self._batch_size, self._rows)
            found.append(_by_component(pair, of_B).double() / scale.unsqueeze(-1))
        return found

    def _scales(self) -> list[Tensor]:
        """s²‖a_i‖² of each pair, (components,): w² / b² and the inverse ratio of curvatures."""
        return [
            pair.scaling**2 * pair.matrices()[0].detach().double().square().sum(-1).flatten()
            for pair in self.pairs
        ]

    def _restore(self, file: Path) -> None:
        stored, batches = load_tensors(file), int(tensor_metadata(file)["batches"])
        self.alpha = stored.get("alpha")
        for k, (pair, variance) in enumerate(zip(self.pairs, self._variances, strict=True)):
            if batches:
                variance.batches = batches
                variance.first = stored[f"first.{k}"].to(pair.B.device)
                variance.second = stored[f"second.{k}"].to(pair.B.device)


def _by_component(pair: LowRankPair, B: Tensor) -> Tensor:
    """A tensor in the shape of the layer's B as (components, d_out)."""
    return pair.matrix_B(B).mT.flatten(0, -2)


def _file(args: TrainingArguments, state: TrainerState) -> Path:
    return layout.checkpoint_folder(Path(str(args.output_dir)), state.global_step) / _FILE
