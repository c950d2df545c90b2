"""CorDA, as PEFT initializes it: components of W in the directions of the task's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from iwlora.errors import Diverged
from iwlora.inputs.limits import Count
from iwlora.methods.low_rank.starts.start_from_data import StartFromData

if TYPE_CHECKING:
    from torch import Tensor, nn


class Corda(StartFromData):
    """LoRA that starts from r components of W = U S (Vᵀ C⁻¹), with U S Vᵀ the SVD of W C.

    C is the covariance of a matrix's inputs over the tokens of the first ``samples`` training rows.
    A₀ = √(S/s) Vᵀ C⁻¹ and B₀ = U √(S/s), and s B₀ A₀ is removed from W. ``ipm`` takes the r largest
    components, which the task uses most, and ``kpm`` the r smallest, to keep what the model knows.
    PEFT computes both (``preprocess_corda``).
    """

    name: ClassVar[str] = "corda"
    summary: ClassVar[str] = "LoRA that starts from the weight's components that the inputs use"
    paper: ClassVar[str] = "Yang et al. 2024, arXiv:2406.05223"

    mode: Literal["ipm", "kpm"] = "ipm"
    """ipm: start from the components that the task uses most; kpm: from those it uses least."""
    samples: Count = 256
    """Training rows whose tokens give the covariance of the inputs."""

    def set_start(
        self,
        peft_model: Any,
        seed: int,
        batches: Iterable[Mapping[str, Tensor]],
        loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    ) -> None:
        """Set A, B and the frozen weights by PEFT's ``preprocess_corda``."""
        import torch
        from peft import LoraConfig
        from peft.tuners.lora.config import CordaConfig
        from peft.tuners.lora.corda import preprocess_corda

        from iwlora.methods.low_rank.starts.layers import lora_layers, on_device

        layers = lora_layers(peft_model)
        config = LoraConfig(
            r=self.rank,
            init_lora_weights="corda",
            corda_config=CordaConfig(corda_method=self.mode),
            target_modules=[f"{name}.base_layer" for name in layers],
        )

        def run() -> None:
            rows = islice(_single_rows(batches), self.samples)
            for row in on_device(peft_model, rows):
                loss(peft_model, row)

        with torch.no_grad(), _inputs_in_two_dimensions(layers.values()):
            try:
                preprocess_corda(peft_model.get_base_model(), config, run)
            except (ValueError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
                raise Diverged(
                    f"the inputs of the matrices have no covariance ({error}): the model's "
                    "activations overflow on the training rows; check its weights"
                ) from None
            for layer in layers.values():
                layer.corda_init("default", "corda")


@contextmanager
def _inputs_in_two_dimensions(layers: Iterable[Any]) -> Iterator[None]:
    """Inside the block, linear layers read all vectors of a row as tokens, as PEFT expects.

    Models of images give some of their layers windows of patches, or places in two dimensions.
    """
    shapes: dict[nn.Module, Any] = {}

    def flatten(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shapes[layer] = inputs[0].shape[:-1]
        return (inputs[0].flatten(0, -2).unsqueeze(0), *inputs[1:])

    def restore(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.reshape(*shapes[layer], output.shape[-1])

    with ExitStack() as stack:
        for layer in layers:
            base = layer.get_base_layer()
            stack.callback(base.register_forward_pre_hook(flatten).remove)
            stack.callback(base.register_forward_hook(restore).remove)
        yield


def _single_rows(batches: Iterable[Mapping[str, Tensor]]) -> Iterator[Mapping[str, Tensor]]:
    """Each row of the batches as a batch of its own without padding, as PEFT reads inputs."""
    for batch in batches:
        mask = batch.get("attention_mask")
        for index in range(len(next(iter(batch.values())))):
            row = {name: tensor[index : index + 1] for name, tensor in batch.items()}
            if mask is not None:
                kept = mask[index].bool()
                same = {n: t for n, t in row.items() if t.shape[:2] == mask[:1].shape}
                row |= {name: tensor[:, kept] for name, tensor in same.items()}
            yield row
