"""Weights by nearness: how far rows are from the rows that each source was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from iwlora import tasks
from iwlora.errors import IwloraError
from iwlora.inputs.tensors import load_arrays
from iwlora.results import layout
from iwlora.results.fingerprint import Fingerprint, RowDigests, differences, joined, of_training
from iwlora.results.writing import replacing
from iwlora.tasks.floors.bag_of_words import bounded_rows
from iwlora.training.floors.frozen_model import mean_features
from iwlora.training.model.backbone import load_backbone
from iwlora.training.state.artifacts import Loader
from iwlora.training.state.fingerprint import check_backbone, row_digests
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.stored_task import stored_task

PROTOTYPES = 20
"""The most prototypes of a source."""

_SMALLEST_TEMPERATURE = 1e-6
_CENTERS, _SPREAD = "centers", "spread"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prototypes:
    """Centers of the training rows of a source.

    Args:
        centers: (prototypes, features), by K-means of the frozen backbone's embeddings.
        spread: The standard deviation, over the training rows, of the distance to the nearest one.
    """

    centers: Floats
    spread: float

    @classmethod
    def of(cls, embeddings: npt.ArrayLike) -> Prototypes:
        """The prototypes of rows, (rows, features); the same for the same rows in the same order.

        >>> found = Prototypes.of([[0.0, 0.0], [0.0, 0.0], [4.0, 3.0]])
        >>> sorted(found.centers.tolist()), found.spread
        ([[0.0, 0.0], [4.0, 3.0]], 0.0)
        """
        from scipy.cluster.vq import kmeans2

        rows = np.asarray(embeddings, dtype=np.float64)
        count = min(PROTOTYPES, len(np.unique(rows, axis=0)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One of the clusters is empty")
            random = np.random.default_rng(0)
            centers, nearest = kmeans2(rows, count, minit="++", rng=random)
        found = cls(centers[np.unique(nearest)], 0.0)
        return cls(found.centers, float(found.distances(rows).std()))

    def distances(self, embeddings: npt.ArrayLike) -> Floats:
        """(rows,) Euclidean distances to the nearest center."""
        from scipy.spatial.distance import cdist

        rows = np.asarray(embeddings, dtype=np.float64)
        return np.asarray(cdist(rows, self.centers).min(axis=1))


def weights_by_distance(sources: Sequence[Prototypes], embeddings: npt.ArrayLike) -> Floats:
    """(sources, rows) weights w_i = exp(-d_i / T) / Σ_j exp(-d_j / T) of rows.

    d_i is the distance of a row to the nearest prototype of source i. The temperature T is the root
    mean square of the sources' spreads: one T more of distance divides a weight by e.

    Args:
        sources: The prototypes of the sources that are used.
        embeddings: (rows, features).

    Example:
        >>> here, there = (Prototypes(np.array([[x]]), spread=1.0) for x in (0.0, 2.0))
        >>> weights_by_distance([here, there], [[1.0], [0.0]]).round(3).tolist()
        [[0.5, 0.881], [0.5, 0.119]]
    """
    from scipy.special import softmax

    temperature = np.sqrt(np.mean([np.square(source.spread) for source in sources]))
    distances = np.stack([source.distances(embeddings) for source in sources])
    scaled = -distances / max(float(temperature), _SMALLEST_TEMPERATURE)
    return np.asarray(softmax(scaled, axis=0))


def check_prototypes(source: RunDir) -> None:
    """Raise ``IwloraError`` for a kind of task whose rows have no single embedding."""
    kind = stored_task(source).kind
    if not kind.has_linear_model:
        raise IwloraError(
            f"--weights prototypes needs one embedding of the texts of a row, and tasks of kind "
            f"{kind.name} have none; take --weights mean"
        )


def source_prototypes(name: str, source: RunDir, trust_remote_code: bool = False) -> Prototypes:
    """The prototypes of the rows that a source was trained on.

    They are read from the files that its recipe names.

    Raises:
        IwloraError: The files cannot be read, or are not what the run was trained on.
    """
    recipe, result = source.recipe(), source.result()
    needs = f"the prototypes of {name} need the rows that it was trained on"
    try:
        task = tasks.load(recipe.task, recipe.train.seed)
    except IwloraError as error:
        raise IwloraError(f"{needs}, which cannot be read: {error}") from None
    trained = of_training((result and result.fingerprint) or Fingerprint(parts={}))
    rows_then = RowDigests.load_if_intact(source.path / layout.ROW_DIGESTS)  # a pool has none
    rows_now = row_digests(task)
    now = of_training(Fingerprint(parts=rows_now.parts))
    if changed := differences(trained, now, rows_then, rows_now):
        raise IwloraError(f"{needs}: {joined(changed)}; restore the files, or take --weights mean")
    rows = task.splits["train"]
    kept = rows.select(bounded_rows([rows[column][:] for column in task.text]))
    return Prototypes.of(embeddings(source, kept, trust_remote_code))


def embeddings(
    source: RunDir,
    rows: datasets.Dataset,
    trust_remote_code: bool = False,
    load: Loader = load_backbone,
) -> Any:
    """(rows, features) embeddings by the frozen backbone of a source, without its adapter.

    The mean over the tokens of the last hidden state, in float32 whatever the run trained in.
    """
    recipe, task, result = source.recipe(), stored_task(source), source.result()
    model, processor = load(recipe.model, task.labels, task.kind, trust_remote_code)
    check_backbone(source, recipe.model, result.fingerprint if result else None)
    single = recipe.train.model_copy(update={"precision": "fp32"})
    settings = recipe.model_copy(update={"train": single})
    return mean_features(settings, task, model, processor, rows)


def save_prototypes(prototypes: Prototypes, path: Path) -> None:
    """Write them as a safetensors file."""
    arrays = {
        _CENTERS: np.ascontiguousarray(prototypes.centers),
        _SPREAD: np.array([prototypes.spread]),
    }
    with replacing(path) as temporary:
        save_file(arrays, temporary)


def load_prototypes(path: Path) -> Prototypes:
    """Read what :func:`save_prototypes` wrote; ``IwloraError`` for anything else."""
    arrays = load_arrays(path)
    try:
        centers, (spread,) = arrays[_CENTERS], arrays[_SPREAD]
    except (KeyError, ValueError) as error:
        raise IwloraError(f"{path} is damaged: it holds no prototypes ({error})") from None
    return Prototypes(np.asarray(centers, dtype=np.float64), float(spread))
