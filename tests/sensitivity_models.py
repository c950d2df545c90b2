"""Models, batches and the oracle that the tests of the sensitivity share."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from conftest import VOCABULARY, tiny_config
from iwlora.sites import Site, dense_weight, sites

Batch = dict[str, Tensor]


def classifier(architecture: str, **changes: Any) -> Any:
    """A tiny two-class model in float64, the same each time."""
    from transformers import AutoModelForSequenceClassification

    config = tiny_config(architecture)
    config.update(changes)
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).double().eval()


def batches(count: int, seed: int = 0, eos: int | None = None, rows: int = 3) -> list[Batch]:
    """Batches with padding; T5 and BART want one end-of-sequence token a row."""
    generator = torch.Generator().manual_seed(seed)
    computed = []
    for _ in range(count):
        ids = torch.randint(5, len(VOCABULARY), (rows, 7), generator=generator)
        mask = torch.ones_like(ids)
        mask[1, 5:] = 0
        ids[1, 5:] = 0
        if eos is not None:
            ids[ids == eos] = eos + 1
            ids[:, 4] = eos
        labels = torch.randint(0, 2, (rows,), generator=generator)
        computed.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return computed


def end_of_sequence(model: Any) -> int | None:
    return model.config.eos_token_id if model.config.is_encoder_decoder else None


def gradients(model: nn.Module, batch: Batch, places: list[Site] | None = None) -> dict[str, Any]:
    """{site name: ∂L/∂W of shape (d_out, d_in)} by autograd on an unfrozen copy."""
    unfrozen = copy.deepcopy(model).eval().requires_grad_(True)
    unfrozen(**batch).loss.backward()
    computed = {}
    for site in places or sites(model):
        layer: Any = unfrozen.get_submodule(site.name)
        gradient = layer.weight.grad
        if gradient is None:
            gradient = torch.zeros_like(layer.weight)
        computed[site.name] = gradient if isinstance(layer, nn.Linear) else gradient.mT
    return computed


def examples(batch: Batch) -> list[Batch]:
    """The batch, one example at a time."""
    return [{k: v[i : i + 1] for k, v in batch.items()} for i in range(len(batch["labels"]))]


def oracle(model: nn.Module, data: list[Batch], statistic: str = "norm") -> dict[str, float]:
    """The statistic from the gradients of single examples; obviously right, and slow.

    A batch's gradient is the mean of those of its examples.
    """
    singles = [[gradients(model, one) for one in examples(batch)] for batch in data]
    computed = {}
    for site in sites(model):
        W = dense_weight(site)
        one_by_one = [[example[site.name] for example in batch] for batch in singles]
        of_batches = [torch.stack(batch).mean(dim=0) for batch in one_by_one]
        everything = [gradient for batch in one_by_one for gradient in batch]
        of = {
            "norm": lambda G=of_batches: sum(g.norm() for g in G) / len(G),
            "rms": lambda G=of_batches: sum(g.square().mean().sqrt() for g in G) / len(G),
            "relative": lambda G=of_batches, W=W: sum(g.norm() / W.norm() for g in G) / len(G),
            "saliency": lambda G=of_batches, W=W: sum((W * g).abs().mean() for g in G) / len(G),
            "mean": lambda G=everything: torch.stack(G).mean(dim=0).norm(),
            "example": lambda G=everything: sum(g.norm() for g in G) / len(G),
        }
        computed[site.name] = float(of[statistic]())
    return computed
