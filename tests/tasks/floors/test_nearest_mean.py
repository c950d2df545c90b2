"""The class whose mean is nearest: in closed form, and row by row."""

from __future__ import annotations

import numpy as np
import pytest

from iwlora.tasks.floors.nearest_mean import nearest_class_mean

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_planted_directions_are_found_whatever_the_norms(precision: type) -> None:
    """Class k lies around the axis k; class ids need not begin at 0, and one has no row."""
    random, axes = np.random.default_rng(0), np.eye(8)[:4]
    ids = np.array([0, 2, 3, 7])
    labels, truth = random.integers(0, 4, 200), random.integers(0, 4, 100)
    labels[:4] = range(4)

    def rows(of: np.ndarray) -> np.ndarray:
        noisy = axes[of] + 0.05 * random.normal(size=(len(of), 8))
        return (noisy * 10.0 ** random.uniform(-3, 3, (len(of), 1))).astype(precision)

    found = nearest_class_mean(rows(labels), ids[labels].tolist(), rows(truth))
    assert found == ids[truth].tolist()


def test_the_distance_is_that_to_the_mean_and_not_the_angle() -> None:
    """The rows of class 0 are spread, so that their mean is short: (0, 1/2) from (±√3/2, 1/2).
    Class 1 has the mean (1, 0). z = (cos t, sin t) is nearer to class 0 where
    sin t - 1/4 > 2 cos t - 1: the angle to (0, 1) alone would decide at 45 degrees."""
    spread = np.array([[3**0.5 / 2, 0.5], [-(3**0.5) / 2, 0.5]])
    features = np.vstack([spread, [[5.0, 0.0]]])
    angles = np.linspace(0, np.pi / 2, 50)
    scored = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    wanted = [int(np.sin(t) - 0.25 <= 2 * np.cos(t) - 1) for t in angles]
    assert nearest_class_mean(features, [0, 0, 1], 7 * scored) == wanted
    assert wanted != [int(t <= np.pi / 4) for t in angles]


def test_rows_equal_a_loop_over_classes() -> None:
    random = np.random.default_rng(1)
    features, scored = random.normal(size=(60, 5)), random.normal(size=(40, 5))
    labels = random.integers(0, 6, 60)
    unit = [row / np.linalg.norm(row) for row in features]
    means = {
        k: np.mean([r for r, n in zip(unit, labels, strict=True) if n == k], 0) for k in range(6)
    }
    wanted = [
        min(means, key=lambda k: float(np.linalg.norm(row / np.linalg.norm(row) - means[k])))
        for row in scored
    ]
    assert nearest_class_mean(features, labels.tolist(), scored) == wanted


def test_a_row_of_zeros_is_no_error() -> None:
    features = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    assert nearest_class_mean(features, [0, 1], np.zeros((1, 2), np.float32)) == [0]
