"""Candidate: ranks in proportion to the effective rank of the activation-whitened gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from iwlora import distributed
from iwlora.errors import IwloraError
from iwlora.inputs.limits import Count, Number
from iwlora.methods import Attached, save_as_lora
from iwlora.methods.low_rank.lora import Lora
from iwlora.rank_pattern import allocate_ranks
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site
from iwlora_study.assignment import Assign, assign

if TYPE_CHECKING:
    from torch import Tensor, nn

_MOST = 4  # times the uniform rank


class RanksBySpectrum(Lora):
    """LoRA with ranks r_k ∝ exp(−Σ p log p), the effective rank of the spectrum of a matrix.

    p = σ² / Σσ², with σ the singular values of M = G (C + λI)^(−1/2). G is the mean gradient of the
    first ``max_batches`` training batches at the pretrained weights, without dropout. C = E[x xᵀ]
    are the second moments of the matrix's inputs over the tokens of these batches whose output the
    loss depends on, and λ = ridge · tr(C) / d_in. If the loss were quadratic in the outputs, M
    would be the wanted change of W, measured where the inputs are. So the effective rank counts in
    how many directions the matrix is asked to change, and not how strongly. The gradients of a
    classifier's last block pass through a head of few rows, so the effective rank is near 1 there,
    and early blocks get more rank.

    The number of parameters is exactly that of the uniform ``rank``, and the scaling
    lora_alpha / rank is the same at every site. Ranks are at most 4 · ``rank`` and at least 1, or 0
    where ``rank`` is 1: such a matrix is not adapted. A is drawn as LoRA's, and B starts at 0.

    As in the source, the effective rank is not divided by the largest rank of a matrix, and ranks
    lie between 1 and four times the uniform one. It differs in three points. The source gives rank
    where Σ_k e_k Σ_{j ≤ r_k} 1/√j is largest, with e_k the effective rank, which makes r_k nearly
    proportional to (e_k / (d_in + d_out))²; that is ``allocation: diminishing``. It draws all A
    from one bank, of which each rank takes the first rows. And it has no padding, nor tokens that
    the loss does not depend on.

    ``spectrum`` and ``assignment`` make the control arms.
    """

    name: ClassVar[str] = "ranks-by-spectrum"
    summary: ClassVar[str] = "LoRA with ranks by the effective rank of the whitened gradient"
    paper: ClassVar[str] = "Lin 2026, github.com/GoGoKo699/early-gradient-spectra-lora"
    not_for_parameters: ClassVar[str | None] = "its ranks come from the gradients of layers"
    not_for_convolutions: ClassVar[str | None] = "the ranks come from linear layers only"
    not_quantizable: ClassVar[str | None] = (
        "it needs the gradients of the weights, which 4-bit weights do not have"
    )
    saved_as_other_ranks: ClassVar[bool] = True

    max_batches: Count = 8
    """Batches of training rows that the ranks are computed from."""
    ridge: Annotated[Number, Field(gt=0)] = 1e-3
    """λ as a multiple of the mean of the eigenvalues of C."""
    spectrum: Literal["whitened", "gradient", "inputs"] = "whitened"
    """Whose singular values: of M; of G; or of the inputs, the roots of the eigenvalues of C."""
    assignment: Assign = "measured"
    """Which matrix gets which effective rank: its own; that of a random matrix of the same shape,
    by the run's seed; or that of the matrix at the opposite place in the order of all."""
    allocation: Literal["proportional", "diminishing"] = "proportional"
    """Ranks in proportion to e, or to (e / (d_in + d_out))² as in the source."""

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA of one rank; ``initialize_with_loss`` then sets the ranks."""
        attached = super().attach(model, sites, seed)
        pairs = attached.pairs
        return replace(
            attached,
            save=lambda folder: save_as_lora(attached.model, [p for p in pairs if p.rank], folder),
            initialize_with_loss=partial(self._initialize, attached.model, sites, seed),
            ranks=lambda: {pair.name: pair.rank for pair in pairs},
        )

    def rank_pattern(
        self, sites: Sequence[Site], effective_ranks: Mapping[str, float], seed: int
    ) -> dict[str, int]:
        """{site name: rank} of these effective ranks, with the parameters of the uniform ``rank``.

        Args:
            sites: the adapted matrices.
            effective_ranks: {site name: e_k}, as measured.
            seed: of the permutation.

        Raises:
            IwloraError: every effective rank is 0.
        """
        if not any(effective_ranks.values()):
            raise IwloraError("every gradient is 0: the loss does not depend on these matrices")
        cost = {site.name: site.parameters_per_rank for site in sites}
        opposite = self.assignment == "inverted"
        values = assign(effective_ranks, sites, self.assignment, seed, across_shapes=opposite)
        if self.allocation == "diminishing":
            values = {name: (value / cost[name]) ** 2 for name, value in values.items()}
        limit = {site.name: min(_MOST * self.rank, site.largest_rank) for site in sites}
        return allocate_ranks(values, cost, limit, self.rank, minimum=min(1, self.rank - 1))

    def _initialize(
        self,
        peft_model: Any,
        sites: Sequence[Site],
        seed: int,
        batches: Iterable[Mapping[str, Tensor]],
        loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    ) -> None:
        import torch

        from iwlora.methods.low_rank.starts.layers import lora_layers, set_rank

        effective_ranks = measure_effective_ranks(
            peft_model, batches, loss, self.max_batches, self.ridge, self.spectrum
        )
        # Gradients may be rounded differently in each process, and the ranks must be the same.
        ranks = distributed.run_on_main_process(
            lambda: self.rank_pattern(sites, effective_ranks, seed)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for name, layer in lora_layers(peft_model).items():
                set_rank(peft_model, name, layer, ranks[name])


def measure_effective_ranks(
    peft_model: Any,
    batches: Iterable[Mapping[str, Tensor]],
    loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    max_batches: int,
    ridge: float,
    spectrum: Literal["whitened", "gradient", "inputs"],
) -> dict[str, float]:
    """{site name: effective rank}, of the spectrum that :class:`RanksBySpectrum` describes.

    Args:
        peft_model: the model with LoRA that does not change it yet, because B = 0.
        batches: of training rows.
        loss: ``loss(model, batch)``, the mean loss of a batch.
        max_batches: the largest number of batches.
        ridge: λ as a multiple of the mean of the eigenvalues of C.
        spectrum: of the whitened gradient, of the gradient, or of the inputs.
    """
    import torch

    from iwlora.methods.low_rank.starts.layers import input_moments, mean_gradients
    from iwlora_study.spectrum import effective_rank, whitened_singular_values

    if spectrum == "gradient":
        gradients = mean_gradients(peft_model, batches, loss, max_batches)
        return {n: effective_rank(torch.linalg.svdvals(G.double())) for n, G in gradients.items()}
    with input_moments(peft_model) as moments:
        gradients = mean_gradients(peft_model, batches, loss, max_batches)
    effective_ranks = dict.fromkeys(gradients, 0.0)
    for name, C in moments.items():
        if not gradients[name].any():
            continue
        if spectrum == "whitened":
            singular_values = whitened_singular_values(gradients[name], C, ridge)
        else:
            singular_values = torch.linalg.eigvalsh(C).clamp_min(0).sqrt()
        effective_ranks[name] = effective_rank(singular_values)
    return effective_ranks
