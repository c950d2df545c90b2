"""Whether a run skips its frozen blocks, by ``train.cache_frozen``, and where it keeps them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from iwlora import distributed
from iwlora.errors import IwloraError
from iwlora.head import head_modules, in_modules
from iwlora.methods.contract import Attached
from iwlora.results import layout
from iwlora.results.fingerprint import NUMERICS_VERSION
from iwlora.results.formats import content_digest
from iwlora.sites import blocks, unwrap
from iwlora.training.device import resolve_precision, run_device
from iwlora.training.frozen_layers.leading_blocks import (
    LeadingBlocks,
    has_dropout,
    leading_blocks,
    reading_module,
)
from iwlora.training.frozen_layers.skipping import FrozenLayers
from iwlora.training.kernels import training_numerics
from iwlora.training.load import LoadedRecipe
from iwlora.training.recipe import Recipe
from iwlora.training.row_store.stored_rows import StoredRows

logger = logging.getLogger("iwlora")

_ROWS_OF_A_PASS = 4
_TOLERANCES = {"fp32": 1e-5, "bf16": 1e-3}
"""Of the loss of a few rows, by precision: between the pass with all blocks and the shorter one."""


def frozen_layers_of_run(
    loaded: LoadedRecipe, attached: Attached, folder: Path
) -> FrozenLayers | None:
    """The frozen blocks that a run skips; None for one that computes everything.

    Args:
        loaded: what the recipe names.
        attached: its method on the model.
        folder: of the run.

    Raises:
        IwloraError: the recipe asks for it, and it cannot be.
    """
    recipe, model = loaded.recipe, attached.model
    setting, is_auto = recipe.train.cache_frozen, recipe.train.cache_frozen == "auto"
    comparison = layout.comparison_of(folder)
    augments = loaded.task.kind.augments
    supported = _is_supported(recipe) and not augments
    reads = attached.reads
    if setting is False or (is_auto and (comparison is None or not supported or reads)):
        return None
    if augments:
        raise IwloraError(
            f"train.cache_frozen={setting} was given, and the task makes other training images in "
            "each epoch (task.kind.augmentation, or the masks of image codes), so that nothing can "
            "be computed once; take train.cache_frozen=false"
        )
    if not _is_supported(recipe):  # the recipe's check has the other reasons
        raise IwloraError(
            f"train.cache_frozen={setting} was given with {distributed.world_size()} processes, "
            "and frozen blocks are then computed each time; take train.cache_frozen=false"
        )
    if reads and setting is not True:
        raise IwloraError(
            f"train.cache_frozen={setting} was given, and {recipe.method.name} reads every block; "
            "take true, which keeps what it reads, or false"
        )
    forward = _Pass(loaded, model)
    leading = leading_blocks(model, forward, reads)
    found = len(leading.frozen) if leading else 0
    if type(setting) is int and found < setting:
        reason = f"{recipe.method.name} trains in or below block {found} (from 0)"
        if loaded.task.kind.reads_images:
            reason += ", or that block begins another stage, or computes maps in place of tokens,"
        raise IwloraError(
            f"train.cache_frozen={setting} was given, and {reason} of "
            f"{type(unwrap(model)).__name__}; take train.cache_frozen={found or 'false'}, or other "
            "targets"
        )
    if leading is None or (is_auto and has_dropout(unwrap(model), found)):
        return None
    if type(setting) is int:
        leading = replace(leading, frozen=leading.frozen[:setting])
    name = _key(recipe, unwrap(model), leading, loaded.head)
    rows = StoredRows(
        (comparison or folder) / layout.FROZEN_LAYERS / name, leading.width, leading.dtype
    )
    count, of_all = len(leading.frozen), len(blocks(leading.encoder))
    which = "block" if count == 1 else f"{count} blocks"
    notes: tuple[str, ...] = ()
    if has_dropout(unwrap(model), count) and not reads:  # what is read has no dropout anyway
        notes = (f"the first {which} had no dropout in training (train.cache_frozen)",)
    train = recipe.train
    layers = FrozenLayers(leading, rows, train.seed, train.deterministic, notes)
    if reads:
        forward()  # now with what reads the blocks
    plain = forward.loss
    with layers.skipped():
        forward()
    precision = resolve_precision(recipe.train.requested_precision, run_device())
    if not torch.isclose(plain, forward.loss, rtol=_TOLERANCES[precision], atol=0.0):
        text = (
            f"the frozen blocks of {type(unwrap(model)).__name__} cannot be skipped: its loss "
            f"becomes {forward.loss:.6g} and was {plain:.6g}"
        )
        if not is_auto:
            raise IwloraError(f"train.cache_frozen={setting}: {text}; take false")
        logger.warning(f"{text}; they are computed each time")
        return None
    what = f"the first {count} of {of_all} blocks are"
    if reads:
        what = f"what {recipe.method.name} reads of each token ({leading.width:,} numbers) is"
    logger.info(f"{what} computed once, into {rows.folder}")
    return layers


def kept_frozen_layers(
    recipe: Recipe, model: Any, count: int, comparison: Path, forward: Callable[[], Any]
) -> FrozenLayers | None:
    """What the runs of a comparison keep of the first blocks, for the model without a method.

    Args:
        recipe: that of a run.
        model: the model as it was loaded; its parameters need no gradient from here on.
        count: the number of blocks that the run skips.
        comparison: its folder.
        forward: computes a batch with the model, in the precision of the runs.

    Returns:
        None where the runs keep nothing for these blocks.
    """
    model.requires_grad_(False)
    leading = leading_blocks(model, forward)
    if leading is None or not 0 < count <= len(leading.frozen):
        return None
    leading = replace(leading, frozen=leading.frozen[:count])
    name = _key(recipe, model, leading, head_modules(model))
    folder, train = comparison / layout.FROZEN_LAYERS / name, recipe.train
    if not folder.is_dir():
        return None
    rows = StoredRows(folder, leading.width, leading.dtype)
    return FrozenLayers(leading, rows, train.seed, train.deterministic)


def _is_supported(recipe: Recipe) -> bool:
    """Whether the run computes whole blocks, once, in one process."""
    train = recipe.train
    in_parts = train.shard or distributed.world_size() > 1
    return not (in_parts or train.gradient_checkpointing or recipe.quantize)


class _Pass:
    """A forward pass of a few rows as the run computes it, without dropout."""

    def __init__(self, loaded: LoadedRecipe, model: nn.Module) -> None:
        rows = DataLoader(loaded.encoded["train"], _ROWS_OF_A_PASS, collate_fn=loaded.collate)
        device = run_device()
        self._batch = {name: x.to(device) for name, x in next(iter(rows)).items()}
        self._kind, self._model, self._settings = loaded.task.kind, model, loaded.recipe.train
        self.loss = torch.tensor(0.0)

    def __call__(self) -> None:
        """Compute the loss."""
        settings, model = self._settings, self._model
        training = model.training
        numerics = training_numerics(
            model, settings.fast_kernels, settings.requested_precision, run_device()
        )
        model.eval()
        with numerics:
            self.loss = self._kind.batch_loss(model, self._batch).detach()
        model.train(training)


def _key(recipe: Recipe, plain: Any, leading: LeadingBlocks, head: Iterable[str]) -> str:
    """A digest of all that the activations depend on besides the rows."""
    settings = recipe.train
    return content_digest(
        {
            "weights": _weights_digest(plain, len(leading.frozen), tuple(head)),
            "configuration": plain.config.to_json_string(),
            "blocks": len(leading.frozen),
            "precision": resolve_precision(settings.requested_precision, run_device()),
            "fast kernels": settings.fast_kernels,
            "row by row": settings.deterministic,
            "device": run_device().type,
            "numerics": NUMERICS_VERSION,
            "versions": {name: version(name) for name in ("torch", "transformers")},
            **({"numbers of a token": leading.width} if leading.reads else {}),
        }
    )[:16]


def _weights_digest(plain: nn.Module, count: int, head: Iterable[str]) -> str:
    """A digest of the weights that are not in later blocks, in a head or trained."""
    later = {
        id(tensor)
        for block in blocks(reading_module(plain))[count:]
        for tensor in (*block.parameters(), *block.buffers())
    }
    digest = hashlib.sha256()
    for name, tensor in (*plain.named_parameters(), *plain.named_buffers()):
        if id(tensor) not in later and not tensor.requires_grad and not in_modules(name, head):
            values = tensor.detach().contiguous().cpu()
            digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
