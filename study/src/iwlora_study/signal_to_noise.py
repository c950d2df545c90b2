"""LoRA with learning rates or ranks from the signal to noise of each matrix's gradient."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from iwlora import distributed
from iwlora.errors import IwloraError
from iwlora.inputs.limits import Number
from iwlora.methods.contract import Attached, ParameterGroup
from iwlora.methods.low_rank.lora import Lora
from iwlora.rank_pattern import allocate_ranks
from iwlora_study.assignment import Assign, assign

if TYPE_CHECKING:
    from torch import Tensor, nn

    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site

_MOST = 4  # times the uniform rank


class SignalToNoise(Lora):
    """LoRA with factors f_k of the learning rate, or ranks, that grow with s_k to a power.

    s_k = ‖E g‖² / E‖g − E g‖² of the gradient g of matrix k, over the first ``max_batches`` batches
    at the pretrained weights, without dropout
    (:class:`iwlora_study.gradient_noise.GradientMoments`). A large gradient that is all noise has s
    = 0, where its norm would call the matrix important.

    ``sets: learning-rate`` gives A and B of matrix k the factor f_k = c · s_k^power of the learning
    rate, limited to [1 / limit, limit], with c such that the geometric mean of all f_k is 1.
    ``sets: ranks`` gives ranks in proportion to s_k^power, from 1 to four times ``rank``, with
    exactly the number of parameters of the uniform ``rank``, and the same scaling everywhere. A
    matrix whose s is 0 counts as the smallest that is not. If all are 0, nothing differs from LoRA.

    Source: this project.
    """

    name: ClassVar[str] = "lora-signal-to-noise"
    summary: ClassVar[str] = "LoRA with learning rates or ranks by the gradient's signal to noise"
    paper: ClassVar[str] = "this project"
    not_for_parameters: ClassVar[str | None] = "it reads the gradients of layers"
    not_for_convolutions: ClassVar[str | None] = "the method reads gradients of linear layers only"
    not_quantizable: ClassVar[str | None] = (
        "it needs the gradients of the weights, which 4-bit weights do not have"
    )

    sets: Literal["learning-rate", "ranks"] = "learning-rate"
    """What the signal to noise decides."""
    power: Annotated[Number, Field(gt=0)] = 0.5
    """The power of s; 0.5 is the ratio of the lengths of signal and noise."""
    limit: Annotated[Number, Field(ge=1)] = 4.0
    """The largest factor of the learning rate, and one over the smallest."""
    assign: Assign = "measured"
    """The controls: permuted (within matrices of one shape, by the run's seed) and inverted."""
    max_batches: Annotated[int, Field(ge=2)] = 16
    """Batches of training rows that are measured."""

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA; ``initialize_with_loss`` then measures, and sets factors or ranks."""
        attached = super().attach(model, sites, seed)
        return _Measured(self, attached, sites, seed).attached

    def factors(self, signal_to_noise: Mapping[str, float]) -> dict[str, float]:
        """{site name: factor of the learning rate}, with the geometric mean 1.

        Example:
            >>> SignalToNoise(power=0.5).factors({"a": 0.04, "b": 0.01})
            {'a': 1.4142, 'b': 0.70711}
        """
        logs = {n: self.power * math.log(s) for n, s in _without_zeros(signal_to_noise).items()}
        most = math.log(self.limit)

        def limited(shift: float) -> dict[str, float]:
            return {n: min(max(log - shift, -most), most) for n, log in logs.items()}

        low, high = min(logs.values()) - most, max(logs.values()) + most
        for _ in range(100):  # bisection: the sum of the limited logarithms falls with the shift
            middle = (low + high) / 2
            low, high = (middle, high) if sum(limited(middle).values()) > 0 else (low, middle)
        return {name: float(f"{math.exp(log):.5g}") for name, log in limited(low).items()}

    def rank_pattern(
        self, sites: Sequence[Site], signal_to_noise: Mapping[str, float]
    ) -> dict[str, int]:
        """{site name: rank}, at exactly the cost of the uniform ``rank``."""
        return allocate_ranks(
            {n: s**self.power for n, s in _without_zeros(signal_to_noise).items()},
            {site.name: site.parameters_per_rank for site in sites},
            {site.name: min(_MOST * self.rank, site.largest_rank) for site in sites},
            self.rank,
        )


class _Measured:
    """One attached model: its measurement, and what follows from it."""

    def __init__(
        self, method: SignalToNoise, attached: Attached, sites: Sequence[Site], seed: int
    ) -> None:
        self.method, self.sites, self.seed = method, sites, seed
        self.model: Any = attached.model
        self.values: dict[str, float] = {}
        self.factors: dict[str, float] = {}
        by_ranks = method.sets == "ranks"
        self.attached = replace(
            attached,
            initialize_with_loss=self.initialize,
            ranks=(lambda: {pair.name: pair.rank for pair in attached.pairs}) if by_ranks else None,
            groups_after_initialize=partial(self.groups, attached),
            notes=self.notes,
        )

    def initialize(
        self,
        batches: Iterable[Mapping[str, Tensor]],
        loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    ) -> None:
        """Measure, and set the factors or the ranks."""
        measured = measure(self.model, batches, loss, self.method.max_batches)
        # Gradients may be rounded differently in each process, and all must do the same.
        self.values = distributed.run_on_main_process(lambda: measured)
        assigned = assign(self.values, self.sites, self.method.assign, self.seed)
        if self.method.sets == "learning-rate":
            self.factors = self.method.factors(assigned)
        else:
            self.set_ranks(self.method.rank_pattern(self.sites, assigned))

    def set_ranks(self, ranks: Mapping[str, int]) -> None:
        """Give every layer its rank, with A drawn anew by the run's seed."""
        import torch

        from iwlora.methods.low_rank.starts.layers import lora_layers, set_rank

        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(self.seed)
            for name, layer in lora_layers(self.model).items():
                set_rank(self.model, name, layer, ranks[name])

    def groups(self, attached: Attached) -> tuple[ParameterGroup, ...]:
        """A and B of every matrix, with its factor."""
        names = {id(p): name for name, p in self.model.named_parameters()}
        return tuple(
            ParameterGroup((names[id(pair.A)], names[id(pair.B)]), self.factors[pair.name])
            for pair in attached.pairs
            if self.factors
        )

    def notes(self) -> tuple[str, ...]:
        """The median of s over the matrices of each kind."""
        kinds: dict[str, list[float]] = defaultdict(list)
        for site in self.sites:
            kinds[site.kind].append(self.values[site.name])
        medians = ", ".join(f"{kind} {median(found):.3g}" for kind, found in kinds.items())
        zeros = sum(value == 0 for value in self.values.values())
        return (
            f"signal to noise of the gradient of a batch, median by kind: {medians}; 0 at {zeros} "
            f"of {len(self.values)} matrices",
        )


def measure(
    peft_model: Any,
    batches: Iterable[Mapping[str, Tensor]],
    loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    max_batches: int,
) -> dict[str, float]:
    """{site name: s_k} over the first batches.

    Raises:
        IwloraError: there is only one batch.
        Diverged: a gradient is NaN or infinite.
    """
    from iwlora.methods.low_rank.starts.layers import batch_gradients, check_finite, lora_layers
    from iwlora_study.gradient_noise import GradientMoments

    moments, count = defaultdict[str, GradientMoments](GradientMoments), 0
    for gradients in batch_gradients(peft_model, batches, loss, max_batches):
        check_finite(gradients)
        for name, gradient in gradients.items():
            moments[name].add(gradient)
        count += 1
    if count < 2:
        raise IwloraError(
            "there is one batch of training rows, and the noise of gradients needs two; lower "
            "train.batch_size, or take more rows"
        )
    return {
        name: moments[name].estimate().value if name in moments else 0.0
        for name in lora_layers(peft_model)
    }


def _without_zeros(values: Mapping[str, float]) -> dict[str, float]:
    """The values, where 0 counts as the smallest that is not 0; all 1 if none is."""
    smallest = min((value for value in values.values() if value > 0), default=1.0)
    return {name: value or smallest for name, value in values.items()}
