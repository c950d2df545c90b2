"""LoRA-GA, as PEFT initializes it: A and B start as singular vectors of the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.inputs.limits import Count, Number
from iwlora.methods.low_rank.lora import check_rank
from iwlora.methods.low_rank.starts.start_from_data import StartFromData
from iwlora.sites import Site

if TYPE_CHECKING:
    from torch import Tensor, nn


class LoraGa(StartFromData):
    """LoRA that starts along the gradient: A₀ = V₁..r, B₀ = (d_out^¼ / √gamma) U S of r+1..2r.

    U S Vᵀ is the mean gradient of the first ``max_batches`` training batches at the pretrained
    weight, without dropout. s B₀ A₀ is removed from the weight. PEFT computes the start from the
    gradient (``init_lora_weights="lora_ga"``, direction ArB2r, scale stable).
    """

    name: ClassVar[str] = "lora-ga"
    summary: ClassVar[str] = "LoRA that starts from singular vectors of the gradient"
    paper: ClassVar[str] = "Wang et al. 2024, arXiv:2407.05000"

    max_batches: Count = 16
    """Batches of training rows that the start is computed from."""
    gamma: Annotated[Number, Field(gt=0)] = 16.0
    """The first values of B are divided by √gamma."""

    def check(self, sites: Sequence[Site]) -> None:
        """B takes the singular vectors r + 1 to 2r, so no matrix may have fewer."""
        super().check(sites)
        check_rank(2 * self.rank, sites, f"{self.name} with method.rank={self.rank}: twice it")

    def check_model(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """PEFT must know this start."""
        import peft

        if not hasattr(peft, "LoraGAConfig"):
            raise IwloraError(
                f"lora-ga needs PEFT 0.20 or later, and {peft.__version__} is installed; "
                "pip install --upgrade peft"
            )

    def start_gradients(
        self,
        peft_model: Any,
        seed: int,
        batches: Iterable[Mapping[str, Tensor]],
        loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    ) -> dict[str, Tensor]:
        """{site name: the gradient (d_out, d_in) that the start follows}; arguments as below."""
        from iwlora.methods.low_rank.starts.layers import mean_gradients

        return mean_gradients(peft_model, batches, loss, self.max_batches)

    def set_start(
        self,
        peft_model: Any,
        seed: int,
        batches: Iterable[Mapping[str, Tensor]],
        loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    ) -> None:
        """Set A, B and the frozen weights by PEFT's ``lora_ga_init``."""
        import torch
        from peft import LoraGAConfig

        from iwlora.methods.low_rank.starts.layers import lora_layers

        gradients = self.start_gradients(peft_model, seed, batches, loss)
        config = LoraGAConfig(stable_gamma=self.gamma)  # type: ignore[arg-type]  # it takes fractions
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)  # PEFT's singular vectors are found by random projections
            for name, layer in lora_layers(peft_model).items():
                stored = gradients[name].mT if layer.fan_in_fan_out else gradients[name]
                layer.get_base_layer()._peft_loraga_grad = stored
                layer.lora_ga_init("default", config)
