"""How good generated images are, by features beside those of real images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from iwlora import tasks
from iwlora.errors import IwloraError
from iwlora.image_tokens.codebook import Codebook
from iwlora.image_tokens.decoding import Codes
from iwlora.image_tokens.feature_scores import diversity, frechet_distance
from iwlora.results.run.image_scores import GENERATED, HELD_OUT, TRAINING, ImageScores
from iwlora.tasks.floors.linear import linear_classes
from iwlora.training.image_generation.features import (
    Extractor,
    Features,
    ImageModel,
    SourceModel,
    image_rows,
)
from iwlora.training.recipe import Recipe


def score_images(
    recipe: Recipe,
    codebook: Codebook,
    codes: Codes,
    classes: Sequence[str],
    trust: bool,
    image_model: ImageModel | None = None,
) -> ImageScores:
    """The scores of generated images beside those of real ones, which show what can be reached.

    The features of an image are those of a given model, or of the source model as it was before the
    run, which gets all codes and no class. So the extractor knows nothing of what was trained. A
    linear classifier of these features learns from all training images of the task.

    Args:
        recipe: Of the run that generated them.
        codebook: Of its model.
        codes: (images, N), the generated ones.
        classes: The name of the class of each.
        trust: Whether code that comes with the model may run.
        image_model: Whose features are taken; None: those of the source model.

    Raises:
        IwloraError: The task or the source model is not there any more.
    """
    spec = recipe.task.model_copy(update={"max_train": None, "draw": "shuffle"})
    task = tasks.load(spec, recipe.train.seed)
    ids = [task.labels.index(name) for name in classes]
    extractor: Extractor = image_model or SourceModel.of(recipe, task, codebook, trust)
    split_of = {TRAINING: "train", HELD_OUT: task.reported[0]}
    labels = {name: np.array(task.splits[split]["label"][:]) for name, split in split_of.items()}
    features = {
        name: extractor.of_rows(image_rows(task, split)) for name, split in split_of.items()
    }
    features[GENERATED] = extractor.of_codes(codes)
    of_classes = {name: np.isin(values, ids) for name, values in labels.items()}
    compared_features = features[HELD_OUT][of_classes[HELD_OUT]]
    same_classes = features[TRAINING][of_classes[TRAINING]]
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
        name: _accuracy(scaled[TRAINING], labels[TRAINING].tolist(), scaled[name], truth)
        for name, truth in ((GENERATED, ids), (HELD_OUT, labels[HELD_OUT].tolist()))
    }
    names = [task.labels[k] for k in labels[HELD_OUT][of_classes[HELD_OUT]]]
    return ImageScores(
        extractor=extractor.name,
        classifier=f"logistic regression on these features, of {len(labels[TRAINING]):,} images",
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
