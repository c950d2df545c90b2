"""LoRA-One: A and B start as the best low-rank step against the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator

from iwlora.inputs.limits import Count, Number
from iwlora.methods.contract import Attached
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.low_rank.starts.lora_ga import LoraGa
from iwlora_study.start_gradients import Gradient, check_other_recipe, start_gradients

if TYPE_CHECKING:
    from torch import Tensor, nn

    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site


class LoraOne(Lora):
    """LoRA with B₀ = U √(S / (γ S₁)) and A₀ = √(S / (γ S₁)) Vᵀ, where U S Vᵀ is the SVD of −G.

    U, S and V have the r largest components, and S₁ is the largest singular value. G is the mean
    gradient of the first ``max_batches`` training batches at the pretrained weights, without
    dropout. So the first forward pass already has the update s B₀ A₀ = −(s / γ) G_r / ‖G‖₂, a step
    of gradient descent: G_r is the best approximation of rank r, s = lora_alpha / rank, and
    ‖s B₀ A₀‖₂ = s / γ in every matrix, however large its gradient is. Nothing is removed from W, so
    the result is a plain LoRA adapter. Where G = 0, A and B start as in LoRA.

    Here γ, the sign and the normalization by S₁ are those of the authors' code (``run_exp.py``,
    ``direction: LoRA-One``, ``scale: stable``). Other than there, the SVD is exact instead of
    randomized; s is lora_alpha / rank as in all methods here, where the authors take lora_alpha /
    √rank (the same first step needs γ divided by √rank); and G is of ``max_batches`` batches of the
    run, where they take 8 rows. The preconditioned optimizer of their theorems is not in their
    code, nor here.

    The rows of A₀ have the length √(S_i / (γ S₁)), at most 0.09 for γ = 128, and those of LoRA
    about 1/√3. Adam moves every entry by about the learning rate, so directions this short turn six
    times as fast, and the learning rate must be searched below LoRA's too.

    Source: Zhang, Liu and Chen 2025, arXiv:2502.01235, and github.com/YuanheZ/LoRA-One.
    """

    name: ClassVar[str] = "lora-one"
    summary: ClassVar[str] = "LoRA that starts with the best low-rank step against the gradient"
    paper: ClassVar[str] = "Zhang et al. 2025, arXiv:2502.01235"
    not_for_parameters: ClassVar[str | None] = "its start comes from the gradients of layers"
    not_for_convolutions: ClassVar[str | None] = "the method starts from linear layers only"
    identity_at_init: ClassVar[bool] = False  # it starts after a first step
    not_quantizable: ClassVar[str | None] = (
        "it needs the gradients of the weights, which 4-bit weights do not have"
    )

    gamma: Annotated[Number, Field(gt=0)] = 128.0
    """The norm of the first update is (lora_alpha / rank) / gamma in every matrix."""
    max_batches: Count = 16
    """Batches of training rows that the start is computed from."""
    gradient: Gradient = "measured"
    """The controls are shuffled-labels (permuted in each batch), noise (random directions) and
    another-task (the gradient of the recipe ``other_recipe``)."""
    other_recipe: str | None = None
    """A recipe with the same model and another task, for gradient=another-task."""

    @model_validator(mode="after")
    def _check_other_recipe(self) -> LoraOne:
        check_other_recipe(self.gradient, self.other_recipe)
        return self

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA; ``initialize_with_loss`` then sets A and B."""
        attached = super().attach(model, sites, seed)
        return replace(
            attached, initialize_with_loss=partial(self._initialize, attached.model, seed)
        )

    def _initialize(
        self,
        peft_model: Any,
        seed: int,
        batches: Iterable[Mapping[str, Tensor]],
        loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    ) -> None:
        import torch

        from iwlora.methods.low_rank.starts.layers import lora_layers

        gradients = start_gradients(
            self.gradient, peft_model, seed, batches, loss, self.max_batches, self.other_recipe
        )
        with torch.no_grad():
            for name, layer in lora_layers(peft_model).items():
                U, S, Vh = torch.linalg.svd(-gradients[name], full_matrices=False)
                if S[0] > 0:
                    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
                    sizes = (S[: len(A)] / (self.gamma * S[0])).sqrt()
                    A.copy_(sizes[:, None] * Vh[: len(A)])
                    B.copy_(U[:, : len(A)] * sizes)


class LoraGaControl(LoraGa):
    """LoRA-GA with another gradient than that of the task: the controls of its directions."""

    name: ClassVar[str] = "lora-ga-control"
    summary: ClassVar[str] = "control: LoRA-GA from another gradient than the task's"
    control_of: ClassVar[str | None] = LoraGa.name

    gradient: Gradient = "shuffled-labels"
    """shuffled-labels: the gradient for permuted labels; noise: random directions; another-task:
    the gradient of the recipe ``other_recipe``."""
    other_recipe: str | None = None
    """A recipe with the same model and another task, for gradient=another-task."""

    @model_validator(mode="after")
    def _check_other_recipe(self) -> LoraGaControl:
        check_other_recipe(self.gradient, self.other_recipe)
        return self

    def start_gradients(
        self,
        peft_model: Any,
        seed: int,
        batches: Iterable[Mapping[str, Tensor]],
        loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    ) -> dict[str, Tensor]:
        """Those of the option ``gradient``."""
        return start_gradients(
            self.gradient, peft_model, seed, batches, loss, self.max_batches, self.other_recipe
        )
