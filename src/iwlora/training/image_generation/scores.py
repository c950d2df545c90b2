"""How good generated images are, by features of the untrained source model of their run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from iwlora import tasks
from iwlora.errors import IwloraError
from iwlora.image_tokens.codebook import Codebook
from iwlora.image_tokens.decoding import Codes
from iwlora.image_tokens.feature_scores import diversity, frechet_distance
from iwlora.methods.contract import seeded
from iwlora.results.run.image_scores import GENERATED, HELD_OUT, TRAINING, ImageScores
from iwlora.tasks.floors.linear import linear_classes
from iwlora.tasks.kinds.contract import IMAGE
from iwlora.tasks.kinds.images.collator import DIGEST, open_row
from iwlora.tasks.task import Task
from iwlora.training.device import run_device
from iwlora.training.model.backbone import load_backbone
from iwlora.training.recipe import Recipe

_AT_A_TIME = 64
Features = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RealImages:
    """Images of a task as codes, with their class ids."""

    codes: Codes
    classes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, task: Task, split: str, codebook: Codebook) -> RealImages:
        """Those of a split."""
        (column,) = task.text
        rows = task.splits[split]
        images = rows.select_columns([column, IMAGE]).rename_column(column, DIGEST)
        codes = [codebook.encode(open_row(row)) for row in images]
        return cls(np.array(codes, np.int64), np.array(rows["label"][:], np.int64))

    def of_classes(self, ids: Sequence[int]) -> RealImages:
        """Those of some classes."""
        chosen = np.isin(self.classes, list(ids))
        return RealImages(self.codes[chosen], self.classes[chosen])


def score_images(
    recipe: Recipe, codebook: Codebook, codes: Codes, classes: Sequence[str], trust: bool
) -> ImageScores:
    """The scores of generated images beside those of real ones, which show what can be reached.

    The features of an image are the mean over its places of the last hidden state of the source
    model as it was before the run, which gets all codes and no class. So the extractor knows
    nothing of what was trained. A linear classifier of these features learns from all training
    images of the task.

    Args:
        recipe: Of the run that generated them.
        codebook: Of its model.
        codes: (images, N), the generated ones.
        classes: The name of the class of each.
        trust: Whether code that comes with the model may run.

    Raises:
        IwloraError: The task or the source model is not there any more.
    """
    spec = recipe.task.model_copy(update={"max_train": None, "draw": "shuffle"})
    task = tasks.load(spec, recipe.train.seed)
    ids = [task.labels.index(name) for name in classes]
    training = RealImages.of(task, "train", codebook)
    held_out = RealImages.of(task, task.reported[0], codebook)
    with seeded(0):
        model, _ = load_backbone(recipe.model, task.labels, task.kind, trust)
    model.to(run_device()).eval()  # type: ignore[arg-type]
    compared = held_out.of_classes(ids)
    features = {
        TRAINING: features_of(model, training.codes),
        HELD_OUT: features_of(model, held_out.codes),
        GENERATED: features_of(model, codes),
    }
    compared_features = features[HELD_OUT][np.isin(held_out.classes, ids)]
    same_classes = features[TRAINING][np.isin(training.classes, ids)]
    distances, left_out = {}, []
    for name, of_set in ((GENERATED, features[GENERATED]), (TRAINING, same_classes)):
        try:
            distances[name] = frechet_distance(of_set, compared_features)
        except IwloraError as error:
            left_out.append(f"the Fréchet distance of {name} images: {error}")
    mean, spread = features[TRAINING].mean(0), features[TRAINING].std(0)
    spread[spread == 0] = 1.0
    scaled = {name: (values - mean) / spread for name, values in features.items()}
    accuracy = {
        name: _accuracy(scaled[TRAINING], training.classes.tolist(), scaled[name], truth)
        for name, truth in ((GENERATED, ids), (HELD_OUT, held_out.classes.tolist()))
    }
    names = [task.labels[k] for k in compared.classes]
    return ImageScores(
        extractor=f"mean last hidden state of {recipe.model} before training, without a class",
        classifier=f"logistic regression on these features, of {len(training.codes):,} images",
        images={name: len(values) for name, values in features.items()},
        classes=dict(Counter(classes)),
        frechet_distance=distances,
        diversity={
            GENERATED: diversity(features[GENERATED], classes),
            HELD_OUT: diversity(compared_features, names),
        },
        accuracy=accuracy,
        left_out=left_out,
    )


def features_of(model: Any, codes: Codes) -> Features:
    """(images, width): the mean over places of the last hidden state, without a class prompt."""
    device = next(model.parameters()).device
    hook = model.class_prompts.register_forward_hook(lambda _, __, output: output * 0)
    collected = []
    try:
        with torch.inference_mode():
            for start in range(0, len(codes), _AT_A_TIME):
                read = torch.from_numpy(codes[start : start + _AT_A_TIME]).to(device)
                ids = torch.cat([torch.zeros_like(read[:, :1]), read], dim=1)
                hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
                collected.append(hidden[:, 1:].double().mean(1).cpu().numpy())
    finally:
        hook.remove()
    return np.concatenate(collected)


def _accuracy(
    features: Features, labels: Sequence[int], scored: Features, truth: Sequence[int]
) -> float:
    predicted = linear_classes(features, labels, scored)
    return float(np.mean(np.array(predicted) == np.array(truth)))


def summary_lines(scores: ImageScores) -> list[str]:
    """The scores in words, one line each."""
    distance, accuracy = scores.frechet_distance, scores.accuracy
    generated, held_out = (scores.mean_diversity(name) for name in (GENERATED, HELD_OUT))
    lines = [f"features: {scores.extractor}"]
    if GENERATED in distance:
        lines.append(
            f"Fréchet distance to held-out images: {distance[GENERATED]:.4g}"
            + (f" (training images: {distance[TRAINING]:.4g})" if TRAINING in distance else "")
        )
    if generated is not None and held_out is not None:
        lines.append(
            f"mean distance within a class: {generated:.4g} (held-out images: {held_out:.4g})"
        )
    lines.append(
        f"recognized as their class: {accuracy[GENERATED]:.1%} (held-out images: "
        f"{accuracy[HELD_OUT]:.1%}), by {scores.classifier}"
    )
    return [*lines, *(f"left out: {reason}" for reason in scores.left_out)]
