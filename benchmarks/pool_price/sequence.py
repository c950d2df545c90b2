"""One adapter that is trained on the sources one after another, and what it forgets.

EWC (Kirkpatrick et al. 2017, arXiv:1612.00796) adds to the loss of each later source

    λ/2 Σ_k Σ_i F_ki (θ_i - θ_ki)²

over the earlier sources k, with θ_k the trained parameters after source k, and F_k the mean square
of the gradients of its rows there, the diagonal of the empirical Fisher information.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

from iwlora.training.device import run_device
from iwlora.training.load import LoadedRecipe, load
from iwlora.training.recipe import Recipe
from pool_price.merging import accuracy

_FISHER_ROWS = 100


@dataclass(frozen=True)
class Anchor:
    """The trained parameters after a source, and the Fisher information of each there."""

    values: list[Tensor]
    fisher: list[Tensor]

    def penalty(self, parameters: Sequence[Tensor]) -> Tensor:
        """Σ_i F_i (θ_i - θ_ki)² / 2."""
        parts = [
            (fisher * (parameter - value).square()).sum()
            for parameter, value, fisher in zip(parameters, self.values, self.fisher, strict=True)
        ]
        return torch.stack(parts).sum() / 2


def accuracy_in_sequence(recipes: Sequence[Recipe], strength: float = 0.0) -> float:
    """The accuracy of one adapter and one head after all sources.

    Args:
        recipes: Of the sources, in the order of training; the first one's names the scored rows.
        strength: λ of EWC; 0: plain fine-tuning.
    """
    first = load(recipes[0])
    method, seed = recipes[0].method, recipes[0].train.seed
    attached = method.attach(first.model, first.sites, seed)
    model, anchors = attached.model, list[Anchor]()
    parameters = [model.get_parameter(name) for name in attached.trainable]
    for number, recipe in enumerate(recipes):
        loaded = first if number == 0 else load(recipe)
        _train(model, parameters, loaded, anchors, strength)
        if strength and number + 1 < len(recipes):
            anchors.append(_anchor(model, parameters, loaded))
    return accuracy(model, first)


def _train(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    loaded: LoadedRecipe,
    anchors: Sequence[Anchor],
    strength: float,
) -> None:
    settings, rows = loaded.recipe.train, loaded.encoded["train"]
    generator = torch.Generator().manual_seed(settings.seed)
    batches: Any = DataLoader(
        rows, settings.batch_size, shuffle=True, generator=generator, collate_fn=loaded.collate
    )
    steps = settings.count_steps(len(batches))
    optimizer = torch.optim.AdamW(parameters, settings.lr, weight_decay=settings.weight_decay)
    warmup = math.ceil(settings.warmup * steps)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    model.train()
    done = 0
    while done < steps:
        for batch in batches:
            loss = loaded.task.kind.batch_loss(model, _on_device(batch))
            if anchors:
                loss = loss + strength * sum(anchor.penalty(parameters) for anchor in anchors)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            done += 1
            if done == steps:
                break


def _anchor(model: nn.Module, parameters: Sequence[nn.Parameter], loaded: LoadedRecipe) -> Anchor:
    model.eval()
    fisher = [torch.zeros_like(parameter) for parameter in parameters]
    rows = loaded.encoded["train"]
    chosen = rows.select(range(min(_FISHER_ROWS, len(rows))))
    for batch in DataLoader(chosen, 1, collate_fn=loaded.collate):
        loss = loaded.task.kind.batch_loss(model, _on_device(batch))
        gradients = torch.autograd.grad(loss, list(parameters), allow_unused=True)
        for square, gradient in zip(fisher, gradients, strict=True):
            if gradient is not None:
                square += gradient.square() / len(chosen)
    return Anchor([parameter.detach().clone() for parameter in parameters], fisher)


def _on_device(batch: Any) -> dict[str, Tensor]:
    return {name: value.to(run_device()) for name, value in batch.items()}
