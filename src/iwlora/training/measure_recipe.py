"""Measuring what a recipe says: its model, its task, its batches; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import set_seed as seed_everything

from iwlora import distributed, tasks
from iwlora.errors import Diverged, IwloraError
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.measure import measure
from iwlora.sites import sites as find_sites
from iwlora.tasks.tokenization import collator, encode
from iwlora.training.kernels import as_trained, resolve_precision
from iwlora.training.loop.divergence import listed
from iwlora.training.loop.row_order import EpochOrder
from iwlora.training.model.backbone import load_backbone
from iwlora.training.model.quantization import Packing
from iwlora.training.recipe import Recipe


def measure_recipe(recipe: Recipe, **how: Any) -> Sensitivity:
    """What a run of the recipe would measure before it trains; ``how`` replaces arguments of
    ``iwlora.measure``.

    Raises ``IwloraError`` for a method that measures nothing, and as ``iwlora.measure``.
    """
    wanted = recipe.method.calibration()
    if wanted is None:
        raise IwloraError(f"{recipe.method.name} measures nothing; take method.name=iw-lora")
    task = tasks.load(recipe.task, recipe.train.seed)
    seed_everything(recipe.train.seed)
    trust, packed = recipe.trust_remote_code, packing(recipe)
    model, tokenizer = load_backbone(recipe.model, task.labels, task.kind, trust, packed)
    if not recipe.quantize:  # else it is there
        model.to(device())  # type: ignore[arg-type]
    rows = encode(task, tokenizer, recipe.train.max_length, model.config)["train"]
    collate = collator(tokenizer, task, model)
    task.kind.check_model(model, rows, collate)
    batches = distributed.split_between_processes(calibration_batches(recipe, rows, collate))
    wanted = {"sites": find_sites(model, recipe.targets), "loss": task.kind.batch_loss, **wanted}
    settings = recipe.train
    fast = as_trained(model, settings.fast_kernels, settings.precision, device())
    with naming_rows(recipe, rows), fast:
        return measure(model, batches, **wanted | how)


def device() -> torch.device:
    """Where measuring and training happen: this process's accelerator, or the CPU without one."""
    found: torch.device = PartialState().device
    return found


def packing(recipe: Recipe) -> Packing | None:
    """How a recipe wants its frozen weights packed, if it does, for this process."""
    if recipe.quantize is None:
        return None
    half = resolve_precision(recipe.train.precision, device()) == "bf16"
    return Packing(torch.bfloat16 if half else torch.float32, device())


def calibration_batches(recipe: Recipe, rows: Any, collate: Any) -> Iterator[Mapping[str, Tensor]]:
    """The batches of the first epoch, as training will see them; the same in all processes."""
    order = _order(recipe, rows)
    yield from DataLoader(rows, batch_size=order.batch_size, sampler=order, collate_fn=collate)


@contextmanager
def naming_rows(recipe: Recipe, rows: Any) -> Iterator[None]:
    """Add the rows of the batch to the ``Diverged`` of a measurement on the training split."""
    try:
        yield
    except Diverged as error:
        if error.batch is None:
            raise
        told = f"{error}; its rows {listed(_order(recipe, rows).rows(error.batch))}"
        raise Diverged(told, error.batch) from None


def _order(recipe: Recipe, rows: Any) -> EpochOrder:
    settings = recipe.train
    lengths = rows["length"][:] if settings.group_by_length else None
    return EpochOrder(len(rows), settings.batch_size, settings.seed, lengths)
