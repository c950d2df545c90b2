"""Weights by the distance to the training rows of each source."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest

from commands import snapshot
from compose.conftest import write_rows
from iwlora.compose.compose import compose
from iwlora.compose.predict import predict
from iwlora.compose.prototypes import (
    PROTOTYPES,
    Prototypes,
    embeddings,
    load_prototypes,
    weights_by_distance,
)
from iwlora.errors import IwloraError
from iwlora.training.state.run_folder import RunDir
from runs import logits, predictions

pytestmark = pytest.mark.quick


def test_prototypes_are_the_means_of_separate_groups() -> None:
    random = np.random.default_rng(0)
    means = random.normal(size=(PROTOTYPES, 3)) * 100
    rows = np.concatenate([mean + random.normal(size=(5, 3)) * 1e-3 for mean in means])
    found = Prototypes.of(rows)
    groups = rows.reshape(PROTOTYPES, 5, 3).mean(axis=1)
    assert found.distances(groups).max() < 1e-9
    nearest = np.linalg.norm(rows.reshape(PROTOTYPES, 5, 3) - groups[:, None], axis=-1)
    assert np.isclose(found.spread, nearest.std())


def test_weights_are_a_softmax_of_distances_over_the_temperature() -> None:
    sources = [
        Prototypes(np.array([[0.0, 0.0], [9.0, 9.0]]), spread=1.0),
        Prototypes(np.array([[3.0, 4.0]]), spread=7.0),
    ]
    weights = weights_by_distance(sources, [[0.0, 0.0], [3.0, 4.0]])
    temperature = np.sqrt((1 + 49) / 2)
    near = 1 / (1 + np.exp(-5 / temperature))
    assert np.allclose(weights, [[near, 1 - near], [1 - near, near]])
    alike = [Prototypes(np.zeros((1, 2)), 0.0), Prototypes(np.ones((1, 2)), 0.0)]
    assert weights_by_distance(alike, [[0.0, 0.0]]).round(9).tolist() == [[1.0], [0.0]]


def test_a_pool_weighs_by_distance(runs: Path, pool: Path, tmp_path: Path) -> None:
    """Its predictions are the weighted mean by hand; rows of a source are nearer to it."""
    weighed = compose([pool], tmp_path / "weighed", weights="prototypes", remove=["c"])
    direct = compose([runs / "b", runs / "a"], tmp_path / "direct", weights="prototypes")
    assert snapshot(weighed) == snapshot(direct)
    assert snapshot(compose([weighed], tmp_path / "mean", weights="mean")) == snapshot(
        compose([pool], tmp_path / "part", remove=["c"])
    )
    prototypes = [
        load_prototypes(weighed / "sources" / name / "prototypes.safetensors") for name in "ab"
    ]
    texts = datasets.Dataset.from_dict({"text": [row["text"] for row in predictions(runs / "a")]})
    features = embeddings(RunDir.finished(runs / "a"), texts)
    weights = weights_by_distance(prototypes, features)
    assert np.ptp(weights) > 0.01
    exponentials = [np.exp(logits(runs / name)) for name in "ab"]
    single = [values / values.sum(axis=1, keepdims=True) for values in exponentials]
    expected = sum(w[:, None] * p for w, p in zip(weights, single, strict=True))
    output = predict(weighed, str(runs / "scored.csv"), tmp_path / "answers.csv")
    with output.open(encoding="utf-8") as stream:
        answers = [float(row["probability_pos"]) for row in csv.DictReader(stream)]
    assert np.abs(answers - expected[:, 1]).max() < 1e-6
    (weighed / "sources" / "a" / "recipe.yaml").write_text("of a source that no row uses")
    predict(weighed, str(runs / "scored.csv"), tmp_path / "of-b.csv", use=["b"])


def test_other_training_rows_are_refused(runs: Path, tmp_path: Path) -> None:
    """A run whose training file is not what it was."""
    rows = runs / "a.csv"
    kept = rows.read_bytes()
    try:
        write_rows(rows, ("bad", "great"), "that")
        with pytest.raises(
            IwloraError, match=r"prototypes of a need .* of 8 rows of a.csv .train. changed"
        ):
            compose([runs / "a"], tmp_path / "pool", weights="prototypes")
        rows.unlink()
        with pytest.raises(IwloraError, match=r"prototypes of a need .* cannot be read"):
            compose([runs / "a"], tmp_path / "pool", weights="prototypes")
    finally:
        rows.write_bytes(kept)
    assert not (tmp_path / "pool").exists()


def test_damaged_prototypes(runs: Path, tmp_path: Path) -> None:
    shutil.copy(next((runs / "a" / "adapter").glob("*.safetensors")), tmp_path / "p.safetensors")
    with pytest.raises(IwloraError, match="holds no prototypes"):
        load_prototypes(tmp_path / "p.safetensors")
