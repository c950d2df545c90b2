"""Measuring in a transformers Trainer: before the first step, or in the first steps."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice, tee
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler

from iwlora import distributed
from iwlora.errors import IwloraError
from iwlora.penalty.in_flight_plan import plan_in_flight
from iwlora.penalty.lora_pairs import lora_pairs, projects_at_random
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.called_sites import uncalled_sites
from iwlora.sensitivity.in_flight import InFlight
from iwlora.sensitivity.measure import Loss, measure
from iwlora.sites import Site, abbreviate_names, not_an_update
from iwlora.sites.find import all_sites

logger = logging.getLogger("iwlora")

_MOST_PASSES = 8  # to see which layers are called; mostly one is enough


def measure_before(
    model: nn.Module, loader: Any, batch_size: int, seed: int, loss: Loss | None, **options: Any
) -> Sensitivity:
    """Measure on the data of a training loader, without an effect on the training.

    The batches come from another loader over the same dataset, with its own order. Stopping an
    iteration over the Trainer's loader would leave it registered in accelerate's gradient state
    and change its random order. The random states of Python, numpy and torch are restored.

    Layers where LoRA has no effect, because the model does not call them, get no importance; a
    warning names them.
    """
    shuffled = RandomSampler(loader.dataset, generator=torch.Generator().manual_seed(seed))
    order = BatchSampler(shuffled, batch_size, drop_last=False)
    batches = DataLoader(
        loader.dataset,
        batch_sampler=distributed.split_between_processes(order),
        collate_fn=loader.collate_fn,
    )
    with _same_random_state():
        sites = adapted_sites(model)
        # Two iterators over the same batches, which can be read once.
        stream, first = tee(map(_tensors, batches))
        passes = islice(first, _MOST_PASSES)
        no_effect = {site.name for site in uncalled_sites(model, sites, passes, loss or _forward)}
        del first, passes  # so that the other iterator keeps no batches
        measured = measure(model, stream, sites=sites, loss=loss, **options)
    if no_effect:
        logger.warning(
            f"{len(no_effect)} of {len(sites)} adapted layers are not called in a forward pass, so "
            "LoRA has no effect there, and they get no importance; remove them from "
            f"target_modules: {abbreviate_names(no_effect)}"
        )
    excluded = no_effect.union(measured.excluded)
    return replace(measured, excluded=tuple(n for n in measured.values if n in excluded))


def _forward(model: nn.Module, batch: Mapping[str, Tensor]) -> Any:
    return model(**batch)


def obstacle_before(model: nn.Module, loader: Any, loss: Loss | None) -> str | None:
    """Why the model cannot be measured before training; None if it can."""
    if _sharded(model):
        return "the model is sharded"
    if isinstance(loader.dataset, IterableDataset):
        return "the dataset is a stream, whose first rows cannot be read twice"
    if loss is None:
        with _same_random_state():
            example = loader.collate_fn([loader.dataset[0]])
        if "labels" not in example:
            keys = ", ".join(example)
            return f"the batches ({keys}) have no labels, so only the Trainer has the loss"
    return None


def measure_in_flight(
    model: nn.Module,
    estimator: str | None,
    max_batches: int,
    tolerance: float,
    steps: int,
    passes_per_step: int,
) -> InFlight:
    """Start to read the backward passes of the training.

    Args:
        model: with its adapter.
        estimator: None chooses it, and fewer batches than ``max_batches`` if the run cannot afford
            so many, see :func:`plan_in_flight`.
        max_batches: as in ``iwlora.measure``.
        tolerance: as in ``iwlora.measure``.
        steps: the optimizer steps of the run.
        passes_per_step: the backward passes of a step, of all processes.

    Raises:
        IwloraError: the estimator is ``lora``, and LoRA's factors are sharded.
    """
    pairs, sites = lora_pairs(model), adapted_sites(model)
    if estimator is None:
        is_random = projects_at_random(model)
        estimator, affordable = plan_in_flight(sites, steps, passes_per_step, is_random)
        max_batches = min(max_batches, affordable)
    elif estimator == "lora" and any(distributed.is_sharded(pair.B) for pair in pairs):
        raise IwloraError(
            "estimator='lora' was given for sharded LoRA, where no process has the whole gradient "
            "of B; accepted are exact, ghost, sketch and auto"
        )
    return InFlight(sites, pairs, estimator, max_batches, tolerance)


def adapted_sites(model: nn.Module) -> list[Site]:
    """The sites under an active adapter; raises ``IwloraError`` when one cannot be measured."""
    sites = {site.name: site for site in all_sites(model) if not_an_update(site) is None}
    adapted = [pair.name for pair in lora_pairs(model)]
    missing = [name for name in adapted if name not in sites]
    if missing:
        raise IwloraError(
            f"{len(missing)} of {len(adapted)} adapted layers cannot be measured, the first is "
            f"{missing[0]}: only linear layers in the model's blocks can, and 2-D convolutions "
            "without groups; remove it from target_modules, or use iwlora.Penalty with your own "
            "coefficients"
        )
    return [sites[name] for name in adapted]


def _sharded(model: nn.Module) -> bool:
    return any(distributed.is_sharded(parameter) for parameter in model.parameters())


def _tensors(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in batch.items() if isinstance(value, Tensor)}


@contextmanager
def _same_random_state() -> Iterator[None]:
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
