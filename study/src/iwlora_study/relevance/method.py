"""LoRA with a learned Gaussian prior: automatic relevance determination, and its controls."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.importance import Importance
from iwlora.methods import Attached, ParameterGroup
from iwlora.methods.low_rank.lora import Lora
from iwlora.penalty.low_rank_pair import LowRankPair
from iwlora.results.sensitivity import Sensitivity
from iwlora.results.writing import write_text
from iwlora.sensitivity.options import MeasureOptions
from iwlora.sites import Site

if TYPE_CHECKING:
    from iwlora_study.relevance.callback import Relevance

RELEVANCE = "relevance.json"
"""The file in the folder of a run: {site: its α, ‖w‖² and γ, each for every rank component}."""

Level = Literal["all", "matrix", "component"]


class RelevancePrior(MeasureOptions, Lora):
    """LoRA whose updates have a prior N(0, 1/α) with precisions that are learned from the data.

    Δ_k = s B_k A_k is the sum of rank components s b_i a_iᵀ. The weights of a component are
    w_i = s‖a_i‖ b_i: its update in the direction a_i / ‖a_i‖, so that ‖w_i‖ is its Frobenius norm.
    They are 0 at the start, which is the mean of the prior. The loss is

        L + 1/N Σ_i α_i/2 ‖w_i‖²,

    with the mean loss L of N rows. α maximizes the evidence: α ‖w‖² = γ, where γ is the number of
    well-determined parameters, Σ_j h_j / (h_j + α), at the diagonal h of the Hessian of N · L.

    Why w, and not A and B: A starts at random and B at 0, so a precision that is learned from
    ‖A‖² + ‖B‖² describes the random start; and a prior on B alone, or one for each factor, changes
    when A grows and B shrinks by as much, though Δ stays. As in probabilistic PCA, the scale of one
    factor is fixed, here that of A's rows at 1, and the prior is on the other. Given A, the model
    is linear in w to first order, which is where MacKay's update is derived. The prior acts on B
    only. What is assumed of h is in :func:`iwlora_study.relevance.evidence.fisher_from_batches`.

    Source:
        MacKay 1992, Neural Computation 4; Bishop 1999, "Bayesian PCA", NIPS 11, equations 8 to 13,
        for columns of one factor; Tipping 2001, JMLR 1. Of LoRA: arXiv:2506.22809 (relevance of
        rank components), arXiv:2601.21003 (calibration under a prior).
    """

    name: ClassVar[str] = "lora-relevance-prior"
    summary: ClassVar[str] = "candidate: LoRA with a Gaussian prior whose precisions are learned"
    paper: ClassVar[str] = "MacKay 1992; Tipping 2001"

    per: Level = "matrix"
    """What has one α: all matrices, each matrix, or each rank component."""
    start: Literal["uniform", "importance"] = "uniform"
    """The precisions at first, α c_k with one α for all: c_k = 1, or in inverse proportion to the
    measured sensitivity. With ``per: all``, c_k stays."""
    assign: Literal["own", "permuted"] = "own"
    """Which precision a matrix gets: its own; or as a control that of a random one of its shape, by
    the run's seed."""
    prior_begin: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of all steps before the prior acts."""
    memory: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Fraction of all steps after which a former α counts 1/e."""

    @property
    def fixed_alpha(self) -> float | None:
        """An α that is not learned; None: it is."""
        return None

    def calibration(self) -> dict[str, Any] | None:
        """The arguments for measuring before training, if the importance is the start."""
        return self.measure_arguments() if self.start == "importance" else None

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA, and the callback that applies the prior after each step."""
        import torch

        from iwlora_study.relevance.callback import Relevance

        if sensitivity is None and self.start == "importance":
            raise IwloraError(f"{self.name} needs the measured sensitivity of its sites")
        attached = super().attach(model, sites, seed)
        pairs, sizes = attached.pairs, [_components(pair) for pair in attached.pairs]
        of_site = [1.0] * len(pairs)
        if sensitivity is not None:
            inverse = Importance(sensitivity, "mean").coefficients()
            of_site = [inverse[pair.name] for pair in pairs]
        callback = Relevance(
            pairs,
            group=torch.tensor(group_numbers(sizes, self.per)),
            factors=torch.tensor([of_site[k] for k, size in enumerate(sizes) for _ in range(size)]),
            order=torch.tensor(self._order(pairs, sizes, seed)),
            alpha=self.fixed_alpha,
            begin=self.prior_begin,
            memory=self.memory,
        )

        def save(folder: Path) -> None:
            attached.save(folder)
            write_text(folder / RELEVANCE, json.dumps(_relevance(callback, sizes)) + "\n")

        return replace(
            attached,
            save=save,
            callbacks=(*attached.callbacks, callback),
            gradient_norm=callback.gradient_norm,
        )

    def _order(self, pairs: Sequence[LowRankPair], sizes: Sequence[int], seed: int) -> list[int]:
        shapes = [(*pair.A.shape, *pair.B.shape) for pair in pairs]
        return component_order(shapes, sizes, seed if self.assign == "permuted" else None)


class SharedPrior(RelevancePrior):
    """Control: one precision for all matrices, ``alpha``, which is tuned and not learned.

    The penalty is that of the relevance prior, 1/N α/2 Σ_i ‖w_i‖², by the same proximal step.
    """

    name: ClassVar[str] = "lora-shared-prior"
    summary: ClassVar[str] = "control: LoRA with one tuned Gaussian prior for all matrices"

    per: Literal["all"] = "all"
    start: Literal["uniform"] = "uniform"
    assign: Literal["own"] = "own"
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """The precision of every weight; the penalty of the mean loss is alpha / (2 N) · ‖Δ‖²."""

    @property
    def fixed_alpha(self) -> float:
        """``alpha``."""
        return self.alpha


class LoraWeightDecay(Lora):
    """Control: LoRA with AdamW's weight decay of A and B, as an option that a search tunes."""

    name: ClassVar[str] = "lora-weight-decay"
    summary: ClassVar[str] = "control: LoRA with tuned weight decay of A and B"
    paper: ClassVar[str] = "Loshchilov and Hutter 2019, arXiv:1711.05101"

    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    """The weight decay of A and B, in place of ``train.weight_decay``."""

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA, with a group of parameters for A and B."""
        attached = super().attach(model, sites, seed)
        group = ParameterGroup(attached.adapter, weight_decay=self.decay)
        return replace(attached, parameter_groups=(*attached.parameter_groups, group))


def group_numbers(sizes: Sequence[int], per: Level) -> list[int]:
    """The number of the α of each component, all matrices after each other.

    >>> group_numbers([2, 1], "all"), group_numbers([2, 1], "matrix")
    ([0, 0, 0], [0, 0, 1])
    """
    if per == "component":
        return list(range(sum(sizes)))
    return [0 if per == "all" else k for k, size in enumerate(sizes) for _ in range(size)]


def component_order(
    shapes: Sequence[Hashable], sizes: Sequence[int], seed: int | None
) -> list[int]:
    """Whose precision each component gets: with a seed, matrices of one shape are permuted.

    >>> component_order(["a", "b", "a"], [2, 1, 2], seed=None)
    [0, 1, 2, 3, 4]
    >>> component_order(["a", "b", "a"], [2, 1, 2], seed=0)
    [3, 4, 2, 0, 1]
    """
    of_shape: dict[Hashable, list[int]] = defaultdict(list)
    for k, shape in enumerate(shapes):
        of_shape[shape].append(k)
    source, generator = list(range(len(sizes))), random.Random(seed)
    for members in of_shape.values() if seed is not None else ():
        for k, other in zip(members, generator.sample(members, len(members)), strict=True):
            source[k] = other
    first = [sum(sizes[:k]) for k in range(len(sizes))]
    return [first[other] + i for k, other in enumerate(source) for i in range(sizes[k])]


def _components(pair: LowRankPair) -> int:
    return pair.matrices()[0].shape[:-1].numel()


def _relevance(callback: Relevance, sizes: Sequence[int]) -> dict[str, dict[str, list[float]]]:
    import torch

    columns = {"squares": callback.squares()}
    if callback.alpha is not None:  # else training ended before the prior acted
        columns["alpha"] = callback.precisions()
        if callback.fixed is None:
            columns["well_determined"] = callback.well_determined()
    parts = {name: torch.split(column, list(sizes)) for name, column in columns.items()}
    return {
        pair.name: {name: part[k].tolist() for name, part in parts.items()}
        for k, pair in enumerate(callback.pairs)
    }
