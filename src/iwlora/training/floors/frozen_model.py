"""Floors that need the model as it is before training: a linear probe, and its own perplexity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from iwlora.methods.contract import seeded
from iwlora.tasks import Task
from iwlora.tasks.floors.bag_of_words import bounded_rows
from iwlora.tasks.floors.floor import Floor
from iwlora.tasks.floors.margin import GROUPS
from iwlora.tasks.floors.nearest_mean import nearest_class_mean
from iwlora.tasks.kinds.contract import Dataset, EncodingInput, Evaluation, model_inputs
from iwlora.tasks.kinds.images.collator import ImageCollator
from iwlora.tasks.tokenization import tokenize
from iwlora.training.device import run_device
from iwlora.training.floors.scores import TaskFloors
from iwlora.training.frozen_layers.skipping import FrozenLayers
from iwlora.training.kernels import training_numerics
from iwlora.training.load import LoadedRecipe
from iwlora.training.loop.row_order import LongestFirstSampler
from iwlora.training.model.backbone import load_backbone
from iwlora.training.model.frozen_dtype import frozen_loading
from iwlora.training.model.quantization import quantized_loading
from iwlora.training.recipe import Recipe
from iwlora.training.row_store.kept_images import keep_images

_BATCH_ROWS, _FEW_ROWS = 32, 2
_UNTUNED = "untuned model"
_SEED = 0
# What a processor computes within five seconds, in multiplications and additions.
_MOST_OPERATIONS = {"cuda": 1e14}
_MOST_OPERATIONS_ELSEWHERE = 5e11


_OF_TARGETS = ("perplexity", "nll")
"""Metrics that are computed from the loss of given targets alone."""

Kept = Callable[[Any, Callable[[], Any]], FrozenLayers | None]
"""Gives what runs keep of the first blocks of a model, which the function computes a batch with."""


def frozen_model_floors(
    recipe: Recipe, known: TaskFloors, kept: Kept = lambda *_: None, images: Path | None = None
) -> list[Floor]:
    """The linear probe of a row's features, and of images also the class whose mean is nearest;
    where targets are scored, the untuned model.

    Other kinds of tasks have no such floor.

    Args:
        recipe: A recipe whose model and precision are those of the runs.
        known: The task and the scored rows that floors are compared on.
        kept: What runs keep of the model's first blocks.
        images: The folder of the comparison whose runs keep decoded images.
    """
    task = known.task
    if not (task.kind.has_linear_model or task.kind.scores_targets):
        return []
    trust = recipe.trust_remote_code
    loading = frozen_loading(recipe) | quantized_loading(recipe, task.kind, trust)
    with seeded(_SEED):  # the class prompts of a model of image codes are new
        model, tokenizer = load_backbone(recipe.model, task.labels, task.kind, trust, loading)
    if not recipe.quantize:
        model.to(run_device())  # type: ignore[arg-type]
    if task.kind.scores_targets:
        return [_untuned_floor(recipe, known, model, tokenizer)]
    train = task.splits["train"]
    train = train.select(bounded_rows([train[name][:] for name in task.text]))
    scored = task.splits[task.reported[0]].select(known.rows)
    features, scored_features = (
        mean_features(recipe, task, model, tokenizer, rows, kept, images)
        for rows in (train, scored)
    )
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0] = 1.0
    predicted = task.kind.linear_predictions(
        task, (features - mean) / spread, train["label"][:], (scored_features - mean) / spread
    )
    floors = [Floor("linear probe", [{"prediction": value} for value in predicted])]
    if task.kind.reads_images and task.kind.one_class:
        nearest = nearest_class_mean(features, train["label"][:], scored_features)
        names = [{"prediction": task.labels[k]} for k in nearest]
        floors.append(Floor("nearest class mean", names))
    return floors


def untuned_floors(loaded: LoadedRecipe) -> tuple[TaskFloors | None, list[str]]:
    """The floors of a task that is ranked by the loss of its targets, and notes: what its model has
    untuned.

    The model must be as it was loaded. It computes as many rows as take about five seconds; where
    these are too few for an interval, a note says that the floor is left out.
    """
    task, model = loaded.task, loaded.model
    if task.metrics[0] not in _OF_TARGETS:
        return None, []
    split, rows = task.reported[0], len(task.splits[task.reported[0]])
    tokens = sum(loaded.encoded[split]["length"][:]) / rows
    device = next(model.parameters()).device.type
    most = _MOST_OPERATIONS.get(device, _MOST_OPERATIONS_ELSEWHERE)
    fitting = int(most / (2 * tokens * sum(p.numel() for p in model.parameters())))
    if fitting < min(rows, GROUPS):
        return None, [
            f"the untuned model's {task.metrics[0]} is left out as a floor: the model computes "
            f"{fitting:,} rows of {tokens:.0f} tokens in about 5 seconds, and {GROUPS} are needed; "
            "iwlora compare computes it"
        ]
    known = TaskFloors.of(task, loaded.recipe.task.group, most_rows=fitting)
    # The run's own rows, where they are the same: images need not be opened and encoded again.
    all_alike = len(known.rows) == rows and known.task.kind == task.kind
    encoded = loaded.encoded[split] if all_alike else None
    was_training = model.training
    floor = _untuned_floor(loaded.recipe, known, model, loaded.processor, encoded)
    model.train(was_training)
    return replace(known, floors=[*known.floors, floor]), []


def _untuned_floor(
    recipe: Recipe, known: TaskFloors, model: Any, tokenizer: Any, encoded: Dataset | None = None
) -> Floor:
    pairs = target_losses(recipe, known, model, tokenizer, encoded)
    return Floor(_UNTUNED, [{"prediction": pair} for pair in pairs], trivial=True)


def mean_features(
    recipe: Recipe,
    task: Task,
    model: Any,
    tokenizer: Any,
    rows: Dataset,
    kept: Kept = lambda *_: None,
    images: Path | None = None,
) -> Any:
    """The mean over its tokens, or over its places in an image, of the last hidden state of each
    row, (rows, features), float32."""
    settings, device = recipe.train, run_device()
    if task.kind.reads_images:
        unlabeled = rows.select_columns([name for name in rows.column_names if name != "label"])
        data = EncodingInput(task, unlabeled, tokenizer, settings.max_length, model.config)
        encoded = task.kind.encode(data)
    else:
        texts = [rows[name][:] for name in task.text]
        encoded = tokenize(texts, tokenizer, settings.max_length)
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    order, collate = LongestFirstSampler(encoded["length"][:]), task.kind.collator(tokenizer, model)
    if images and isinstance(collate, ImageCollator):
        collate = keep_images(collate, encoded, images)
    batches = DataLoader(encoded, _BATCH_ROWS, sampler=order, collate_fn=collate)
    collected = []

    def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
        return model_inputs({name: value.to(device) for name, value in batch.items()})

    numerics = training_numerics(model, False, settings.requested_precision, device)
    model.eval()
    with numerics:
        few_rows = collate([encoded[row] for row in range(min(_FEW_ROWS, len(encoded)))])
        layers = kept(model, lambda: encoder(**inputs_of(few_rows)))
        skipping: AbstractContextManager[None] = layers.skipped() if layers else nullcontext()
        with torch.inference_mode(), skipping:
            for batch in batches:
                inputs = inputs_of(batch)
                hidden = encoder(**inputs)[0].float()
                mask = inputs.get("attention_mask")
                collected.append(mean_over_places(hidden, mask).cpu().numpy())
    return order.restore({"features": np.concatenate(collected)})["features"]


def mean_over_places(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """(rows, features): of (rows, tokens, features) the mean where the mask is 1; of an image, the
    mean over patches, or over the places of (rows, features, height, width)."""
    if mask is None:
        return hidden.mean((2, 3)) if hidden.dim() == 4 else hidden.mean(1)
    mask = mask.unsqueeze(-1)
    return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)


def target_losses(
    recipe: Recipe, known: TaskFloors, model: Any, tokenizer: Any, encoded: Dataset | None = None
) -> Sequence[tuple[float, int]]:
    """(loss in nats, tokens) of the target of each compared row, which may be ``encoded``."""
    task, settings, device = known.task, recipe.train, next(model.parameters()).device
    rows = task.splits[task.reported[0]].select(known.rows)
    if encoded is None:
        data = EncodingInput(task, rows, tokenizer, settings.max_length, model.config)
        encoded = task.kind.encode(data)
    collate = task.kind.collator(tokenizer, model)
    order = LongestFirstSampler(encoded["length"][:])
    at_a_time = min(task.kind.evaluation_rows(settings.max_length), _BATCH_ROWS)
    batches = DataLoader(encoded, at_a_time, sampler=order, collate_fn=collate)
    collected = []
    numerics = training_numerics(model, False, settings.requested_precision, device)
    model.eval()
    with torch.inference_mode(), numerics:
        for batch in batches:
            inputs = {name: value.to(device) for name, value in batch.items()}
            outputs = task.kind.outputs(model, tokenizer, inputs, True)
            collected.append([outputs[name].cpu().numpy() for name in ("loss", "count")])
    losses, counts = map(np.concatenate, zip(*collected, strict=True))
    of_rows = order.restore({"loss": losses, "count": counts})
    return task.kind.text_losses(Evaluation(task, rows, encoded, of_rows, tokenizer))
