"""One source that is made of the prompts of many, without training: two ways that need not work."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from iwlora.compose.pool import Pool
from iwlora.training.device import run_device
from iwlora.training.load import LoadedRecipe, load
from iwlora.training.prediction.new_rows import load_for_rows
from iwlora.training.recipe import Recipe

WAYS = ("mean", "side by side")
_ROWS = 64


def accuracy_of_merged(pool: Pool, recipe: Recipe, way: str) -> float:
    """The accuracy of one source that is made of the prompts, memories and heads of all.

    Side by side, the prompts read each other and all memories. The head is the mean of the heads.

    Args:
        pool: A pool of runs of apt.
        recipe: Of one of them, which names the scored rows.
        way: One of ``WAYS``.
    """
    models = [load_for_rows(pool.source(name))[0] for name in pool.names]
    host = models[0]
    for name, parameter in host.named_parameters():
        if not parameter.requires_grad:
            continue
        values = [model.get_parameter(name).data for model in models]
        axis = {"prompts": 0, "memory": 1}.get(name.rpartition(".")[2])
        if way == "side by side" and axis is not None:
            parameter.data = torch.cat(values, dim=axis)
        else:
            parameter.data = torch.stack(values).mean(dim=0)
    return accuracy(host, load(recipe))


def accuracy(model: Any, loaded: LoadedRecipe) -> float:
    """The share of the validation rows whose class the model predicts."""
    right = rows = 0
    model.eval()
    with torch.inference_mode():
        for batch in DataLoader(loaded.encoded["validation"], _ROWS, collate_fn=loaded.collate):
            batch = {name: value.to(run_device()) for name, value in batch.items()}
            labels = batch.pop("labels")
            right += int((model(**batch).logits.argmax(dim=-1) == labels).sum())
            rows += len(labels)
    return right / rows
