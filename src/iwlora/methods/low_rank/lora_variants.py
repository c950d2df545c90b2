"""Variants of LoRA that are options of PEFT: DoRA, rsLoRA, PiSSA, LoRA+ and EVA."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from iwlora.errors import Diverged, IwloraError
from iwlora.inputs.limits import Count, Number
from iwlora.methods.contract import Attached, ParameterGroup
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.low_rank.starts.removed_part import RemovedPart
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site

if TYPE_CHECKING:
    from torch import Tensor, nn

_EVA_PASSES = 100  # passes over the batches within which EVA's directions must become stable


class Dora(Lora):
    """Each row of W + Δ is scaled to a trained magnitude m, which starts as the norm of the row.

    The magnitudes, d_out per site, count as adapter parameters. ``pairs`` are the low-rank parts.
    """

    name: ClassVar[str] = "dora"
    summary: ClassVar[str] = "LoRA for the direction of each row, and a trained magnitude"
    paper: ClassVar[str] = "Liu et al. 2024, arXiv:2402.09353"
    not_for_parameters: ClassVar[str | None] = "PEFT has DoRA for layers only"
    not_packable: ClassVar[str | None] = "its magnitudes scale the frozen weights of each run"
    options: ClassVar[Mapping[str, Any]] = {"use_dora": True}

    def parameters(self, model: nn.Module, sites: Sequence[Site]) -> int:
        """Σ_k (r (d_in + d_out) + d_out)."""
        return super().parameters(model, sites) + sum(site.d_out for site in sites)


class RsLora(Lora):
    """LoRA with Δ = (lora_alpha / √rank) B A, so that higher ranks do not learn more slowly."""

    name: ClassVar[str] = "rslora"
    summary: ClassVar[str] = "LoRA scaled by 1/√rank instead of 1/rank"
    paper: ClassVar[str] = "Kalajdzievski 2023, arXiv:2312.03732"
    options: ClassVar[Mapping[str, Any]] = {"use_rslora": True}


class Pissa(RemovedPart):
    """LoRA that starts from the ``rank`` principal components of W, which are removed from W."""

    name: ClassVar[str] = "pissa"
    summary: ClassVar[str] = "LoRA that starts from the principal components of the weights"
    paper: ClassVar[str] = "Meng et al. 2024, arXiv:2404.02948"
    options: ClassVar[Mapping[str, Any]] = {"init_lora_weights": "pissa"}

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Wrap the model with PEFT's PiSSA and keep B₀ and A₀ for saving."""
        return self.attach_start(model, sites, seed)[0]


class LoraPlus(Lora):
    """LoRA that trains B with ``ratio`` times the learning rate of A and of the task head."""

    name: ClassVar[str] = "lora+"
    summary: ClassVar[str] = "LoRA with a higher learning rate for B"
    paper: ClassVar[str] = "Hayou et al. 2024, arXiv:2402.12354"

    ratio: Annotated[Number, Field(gt=0)] = 16.0
    """Learning rate of B, as a multiple of that of A."""

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA and set the factor of the learning rate of every B."""
        attached = super().attach(model, sites, seed)
        B = {id(pair.B) for pair in attached.pairs}
        names = tuple(n for n, p in attached.model.named_parameters() if id(p) in B)
        return replace(attached, parameter_groups=(ParameterGroup(names, lr_factor=self.ratio),))


class Eva(Lora):
    """LoRA whose A starts as the principal directions of each site's inputs in the task's data.

    Every site keeps its rank: redistributing ranks by explained variance (ρ > 1 in the paper)
    would change the number of parameters. The first ``max_batches`` batches of the training split
    are repeated until the directions are stable.
    """

    name: ClassVar[str] = "eva"
    summary: ClassVar[str] = "LoRA that starts from the principal directions of the inputs"
    paper: ClassVar[str] = "Paischer et al. 2024, arXiv:2410.07170"
    not_for_parameters: ClassVar[str | None] = "PEFT reads the inputs of layers only"
    not_for_convolutions: ClassVar[str | None] = "the method reads the inputs of linear layers only"

    max_batches: Count = 16
    """Batches of training rows that the start is computed from."""

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA; ``initialize`` then replaces every A."""
        attached = super().attach(model, sites, seed)
        return replace(attached, initialize=partial(self._initialize, attached.model))

    def _initialize(self, peft_model: Any, batches: Iterable[Mapping[str, Tensor]]) -> None:
        from itertools import islice

        import torch
        from peft import EvaConfig, LoraConfig
        from peft.tuners.lora.eva import get_eva_state_dict

        from iwlora.methods.low_rank.starts.layers import token_vectors

        config = LoraConfig(
            r=self.rank,
            init_lora_weights="eva",
            eva_config=EvaConfig(rho=1.0, use_label_mask=False),
        )
        first = islice(batches, self.max_batches)
        usable = [batch for batch in first if _may_have_vectors(batch, self.rank)]
        if not usable:
            raise IwloraError(
                f"no batch has as many tokens as method.rank={self.rank}; raise train.batch_size"
            )
        try:
            directions = get_eva_state_dict(
                peft_model,
                _Repeated(usable),
                config,
                prepare_model_inputs_fn=lambda batch, _config: batch.get("attention_mask"),
                prepare_layer_inputs_fn=lambda inputs, mask, _name: token_vectors(inputs[0], mask),
                show_progress_bar=False,
            )
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise Diverged(
                f"the inputs of the matrices have no principal directions ({error}): the model's "
                "activations overflow on the training rows; check its weights"
            ) from None
        with torch.no_grad():
            for name, A in directions.items():
                peft_model.get_submodule(name).lora_A["default"].weight.copy_(A)


class _Repeated:
    """The batches, repeated; an error if the directions do not become stable."""

    def __init__(self, batches: Sequence[Mapping[str, Tensor]]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]:
        for _ in range(_EVA_PASSES):
            yield from self._batches
        raise IwloraError(
            f"the directions of the inputs did not become stable in {_EVA_PASSES} passes over "
            f"{len(self)} batches; raise method.max_batches, or lower method.rank"
        )


def _may_have_vectors(batch: Mapping[str, Tensor], count: int) -> bool:
    """Whether a layer reads so many vectors of a batch; of images only the layers know it."""
    if "pixel_values" in batch:
        return True
    mask = batch.get("attention_mask")
    return (batch["input_ids"].numel() if mask is None else int(mask.sum())) >= count
