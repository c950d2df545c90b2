"""How much faster several runs compute a step together than one after another, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from iwlora.methods.low_rank.lora import Lora
from iwlora.sites import Site
from iwlora.training.device import run_device
from iwlora.training.kernels import training_numerics
from iwlora.training.load import LoadedRecipe, load
from iwlora.training.packed.joint_pass import Batch, JointModel, JointPass, logits, share_frozen
from iwlora.training.packed.randomness import ProcessState
from iwlora.training.packed.seat import plain_model
from iwlora.training.packed.shares import NotPackable
from iwlora.training.recipe import Recipe

_LARGEST_RANK = 8
_REPEATS = 3


def measured_gain(recipe: Recipe, runs: int) -> float:
    """Time of a step of several runs one after another / time of it together.

    Args:
        recipe: that of one run, whose model, data and settings all have; each trains a LoRA of rank
            8, or of the largest rank that its matrices allow.
        runs: their number.

    Raises:
        NotPackable: the model or its inputs do not allow that runs are computed together.
        IwloraError: for everything that ``iwlora train`` refuses.
    """
    with passes_of(load(recipe), runs) as passes:
        return median(alone / together for alone, together in passes.seconds())


@dataclass(frozen=True)
class Passes:
    """The forward and backward passes of several runs, ready to be computed.

    Args:
        alone: computes them one after another.
        together: computes them as one.
    """

    alone: Callable[[], None]
    together: Callable[[], None]

    def seconds(self) -> list[tuple[float, float]]:
        """Pairs of the time one after another and the time together."""
        return [(_seconds(self.alone), _seconds(self.together)) for _ in range(_REPEATS)]


@contextmanager
def passes_of(
    loaded: LoadedRecipe, runs: int, rows: Sequence[int] | None = None
) -> Iterator[Passes]:
    """Inside the block, the passes of several runs of a recipe can be computed.

    Args:
        loaded: the recipe; its model stays as it is.
        runs: their number; see :func:`measured_gain`.
        rows: the training rows of each; None for those of the first step.

    Raises:
        NotPackable: as in :func:`measured_gain`.
    """
    batch, tokenizer = _batch(loaded, rows), loaded.processor
    pad_token = getattr(tokenizer, "pad_token_id", None) or 0
    models = nn.ModuleList(_with_lora(loaded, seed) for seed in range(runs)).train()
    trained = [[p for p in model.parameters() if p.requires_grad] for model in models]
    device, settings = run_device(), loaded.recipe.train

    def alone() -> None:
        for model, parameters in zip(models, trained, strict=True):
            outputs = logits(model(**batch.inputs))
            ones = [torch.ones_like(tensor) for tensor in outputs.values()]
            torch.autograd.grad([*outputs.values()], parameters, ones, allow_unused=True)

    def together() -> None:
        computed = JointPass(joint, [batch] * runs, states, pad_token)
        ones = [
            {name: torch.ones_like(tensor) for name, tensor in logits(output).items()}
            for output in computed.outputs
        ]
        computed.gradients(ones, trained)

    precision = settings.requested_precision
    with training_numerics(models, settings.fast_kernels, precision, device):
        try:
            joint, states = JointModel([*models]), [ProcessState(device) for _ in models]
            together()  # allocates what both need
        except NotPackable:
            raise
        except Exception as error:  # whatever it is, a pack computes its runs one by one then
            raise NotPackable(f"{type(error).__name__}: {error}") from error
        yield Passes(alone, together)


def _batch(loaded: LoadedRecipe, chosen: Sequence[int] | None) -> Batch:
    """What the model gets of the chosen rows, or in the first step."""
    settings, given = loaded.recipe.train, list[Batch | None]()

    def note(_model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        given.append(None if args else Batch.of(kwargs))

    rows = settings.batch_size // settings.accumulate
    order, collate = chosen or loaded.epoch_sampler(), loaded.collate
    rows = len(chosen) if chosen else rows
    first = next(iter(DataLoader(loaded.encoded["train"], rows, sampler=order, collate_fn=collate)))
    moved = {name: tensor.to(loaded.model.device) for name, tensor in first.items()}
    handle = loaded.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            loaded.task.kind.forward(loaded.model, moved)
    finally:
        handle.remove()
    if not given or given[0] is None:
        raise NotPackable("the model has inputs other than token ids, masks and token types")
    return given[0]


def _with_lora(loaded: LoadedRecipe, seed: int) -> nn.Module:
    """A model of its own over the loaded weights."""
    weights = {id(parameter): parameter for parameter in loaded.model.parameters()}
    model = deepcopy(loaded.model, weights)
    attached = Lora(rank=_rank(loaded.sites)).attach(model, loaded.sites, seed)
    plain: nn.Module = plain_model(attached.model)
    share_frozen(plain, loaded.model)  # tables that are no parameters
    return plain


def _rank(sites: list[Site]) -> int:
    return min(_LARGEST_RANK, *(site.largest_rank for site in sites))


def _seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
