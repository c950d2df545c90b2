"""Measuring inside a transformers Trainer: before its first step, or while it trains."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler

from iwlora import distributed
from iwlora.errors import IwloraError
from iwlora.penalty.lora_pairs import lora_pairs
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.in_flight import InFlight
from iwlora.sensitivity.measure import Loss, measure
from iwlora.sites import Site
from iwlora.sites import sites as find_sites


def measure_before(
    model: nn.Module, loader: Any, batch_size: int, seed: int, loss: Loss | None, **how: Any
) -> Sensitivity:
    """Measure on the data of a training loader, in an order of its own, and leave no trace.

    Another loader over the same dataset gives the batches, each process its own: breaking off
    an iteration of the Trainer's would leave it registered in accelerate's gradient state and
    move its random order. The random states of Python, numpy and torch are then as before.
    """
    shuffled = RandomSampler(loader.dataset, generator=torch.Generator().manual_seed(seed))
    order = BatchSampler(shuffled, batch_size, drop_last=False)
    batches = DataLoader(
        loader.dataset,
        batch_sampler=distributed.split_between_processes(order),
        collate_fn=loader.collate_fn,
    )
    with _same_random_state():
        return measure(model, map(_tensors, batches), sites=adapted_sites(model), loss=loss, **how)


def why_not_before(model: nn.Module, loader: Any, loss: Loss | None) -> str | None:
    """What keeps the frozen model from being measured apart from the Trainer, if anything."""
    if _sharded(model):
        return "the model is sharded"
    if isinstance(loader.dataset, IterableDataset):
        return "the dataset is a stream, of which nothing is to be taken ahead"
    if loss is None:
        with _same_random_state():
            example = loader.collate_fn([loader.dataset[0]])
        if "labels" not in example:
            return (
                f"the batches ({', '.join(example)}) have no labels, so the loss is the Trainer's"
            )
    return None


def measure_in_flight(model: nn.Module, **how: Any) -> InFlight:
    """Begin to read the training's own backward passes.

    Raises ``IwloraError`` for the estimator ``lora`` where LoRA's own factors are sharded.
    """
    pairs = lora_pairs(model)
    if how.get("estimator") == "lora" and any(distributed.is_sharded(pair.B) for pair in pairs):
        raise IwloraError(
            "estimator='lora' was given for LoRA that is sharded, where no process has the "
            "gradient of its B; accepted are exact, ghost, sketch and auto"
        )
    return InFlight(adapted_sites(model), pairs, **how)


def adapted_sites(model: nn.Module) -> list[Site]:
    """The sites under an active adapter; raises ``IwloraError`` when one cannot be measured."""
    found = {site.name: site for site in find_sites(model)}
    adapted = [pair.name for pair in lora_pairs(model)]
    absent = [name for name in adapted if name not in found]
    if absent:
        raise IwloraError(
            f"{len(absent)} of {len(adapted)} adapted layers cannot be measured, the first being "
            f"{absent[0]}: only linear layers inside the model's blocks can; leave it out of "
            "target_modules, or use iwlora.Penalty with coefficients of your own"
        )
    return [found[name] for name in adapted]


def _sharded(model: nn.Module) -> bool:
    return any(distributed.is_sharded(parameter) for parameter in model.parameters())


def _tensors(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in batch.items() if isinstance(value, Tensor)}


@contextmanager
def _same_random_state() -> Iterator[None]:
    python, numbers = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
