from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from iwlora.errors import IwloraError
from iwlora.image_tokens.feature_scores import diversity, frechet_distance


@pytest.mark.quick
def test_the_distance_is_that_of_two_gaussians() -> None:
    random = np.random.default_rng(0)
    first = random.normal(size=(60, 5)) @ random.normal(size=(5, 5))
    second = random.normal(size=(50, 5)) @ random.normal(size=(5, 5)) + 2.0
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    between = ((first.mean(0) - second.mean(0)) ** 2).sum()
    expected = between + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-10)
    # One feature: (m1 - m2)² + (s1 - s2)², and a full rank is not needed for a line.
    line = random.normal(size=(40, 1))
    moved = 3 * line + 1
    spread = line.std(ddof=1)
    mean = float(((moved.mean() - line.mean()) ** 2).item())
    assert frechet_distance(line, moved) == pytest.approx(mean + (2 * spread) ** 2)


def test_too_few_images_and_other_features_are_refused() -> None:
    features = np.random.default_rng(0).normal(size=(6, 5))
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-10)
    for first, second, problem in (
        (features[:5], features, "5 images were given, .* 5 features needs 6 in each set"),
        (features, features[:5], "5 images were given"),
        (features, features[:, :3], "5 and 3 features"),
        (features[:, 0], features, r"shape \(6,\) were given"),
        (features, np.where(features == features[0, 0], np.nan, features), "not finite"),
    ):
        with pytest.raises(IwloraError, match=problem):
            frechet_distance(first, second)


def test_diversity_is_the_mean_distance_within_a_class() -> None:
    features = np.random.default_rng(1).normal(size=(7, 4))
    classes = ["a", "b", "a", "b", "a", "b", "c"]
    found = diversity(features, classes)
    assert set(found) == {"a", "b"}
    rows = features[[0, 2, 4]]
    pairs = [np.linalg.norm(rows[i] - rows[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found["a"] == pytest.approx(np.mean(pairs))
