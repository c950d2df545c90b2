"""How rows are divided among sources: at random, by what they are about, by class, by session."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2

from iwlora import tasks
from iwlora.training.floors.frozen_model import mean_features
from iwlora.training.model.backbone import load_backbone
from iwlora.training.recipe import Recipe
from pool_price.rows import Row

DIVISIONS = ("random", "clusters", "classes", "origins")
"""random: shards of one distribution. clusters: of the frozen embeddings, by K-means, as domains.
classes: each source has other classes. origins: such as the sessions of CORe50."""


def groups(
    division: str, rows: Sequence[Row], count: int, seed: int | str, features: Callable[[], Any]
) -> list[int]:
    """The number of the source of each row.

    Args:
        division: One of ``DIVISIONS``.
        rows: The rows of a draw, in random order.
        count: The number of sources.
        seed: Of the draw.
        features: Computes the frozen embeddings of the rows, (rows, features).
    """
    if division == "random" or count == 1:
        return [number % count for number in range(len(rows))]
    if division == "clusters":
        return _clusters(np.asarray(features(), dtype=np.float64), count)
    of_rows = [row.label if division == "classes" else row.origin for row in rows]
    names = sorted(set(of_rows))
    if len(names) < count:
        raise SystemExit(f"{count} sources need as many {division}; the rows have {len(names)}")
    Random(f"{seed}").shuffle(names)
    return [names.index(name) % count for name in of_rows]


def _clusters(features: Any, count: int) -> list[int]:
    """Of unlike sizes; those of a draw in which one is empty are drawn again."""
    for attempt in range(20):
        random = np.random.default_rng(attempt)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One of the clusters is empty")
            _, nearest = kmeans2(features, count, minit="++", rng=random)
        if len(set(nearest)) == count:
            return [int(number) for number in nearest]
    raise SystemExit(f"K-means finds no {count} clusters")


def frozen_embeddings(recipe: Recipe) -> Any:
    """(rows, features) of the training rows of a recipe, in their order."""
    task = tasks.load(recipe.task, recipe.train.seed)
    model, processor = load_backbone(recipe.model, task.labels, task.kind)
    return mean_features(recipe, task, model, processor, task.splits["train"])
