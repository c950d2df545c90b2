"""Scores of sets of images from their features: how alike two sets are, and how varied one is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from iwlora.errors import IwloraError

Features = npt.NDArray[Any]


def frechet_distance(first: Features, second: Features) -> float:
    """The squared Fréchet distance between the Gaussians of two sets of features.

    |m₁ - m₂|² + tr(S₁ + S₂ - 2 (S₁^½ S₂ S₁^½)^½), with the means m and the covariances S. It is 0
    for equal sets. With the features of the Inception network it is known as FID; with others it
    has another value and another name.

    Args:
        first: (images, d).
        second: (images, d).

    Returns:
        The distance, in squared units of the features.

    Raises:
        IwloraError: The numbers of features differ, a feature is not finite, or a set has fewer
            than d + 1 images, with which its covariance has no full rank.

    Source:
        Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500.

    Example:
        >>> random = np.random.default_rng(0)
        >>> features = random.normal(size=(100, 3))
        >>> round(frechet_distance(features, features + [3.0, 0.0, 0.0]), 6)
        9.0
    """
    sets = [np.asarray(features, np.float64) for features in (first, second)]
    for features in sets:
        if features.ndim != 2:
            raise IwloraError(
                f"features of shape {features.shape} were given; accepted: (images, features)"
            )
    width = sets[0].shape[1]
    if sets[1].shape[1] != width:
        raise IwloraError(f"the sets have {width} and {sets[1].shape[1]} features for an image")
    for features in sets:
        if len(features) < width + 1:
            raise IwloraError(
                f"{len(features):,} images were given, and a Fréchet distance of {width:,} "
                f"features needs {width + 1:,} in each set, one more than features; give more "
                "images, or an extractor of fewer features"
            )
        if not np.isfinite(features).all():
            raise IwloraError("a feature of an image is not finite; take another extractor")
    means = [features.mean(0) for features in sets]
    covariances = [np.cov(features, rowvar=False).reshape(width, width) for features in sets]
    root = _root(covariances[0])
    both = _root(root @ covariances[1] @ root)
    traces = sum(np.trace(covariance) for covariance in covariances) - 2 * np.trace(both)
    return max(0.0, float(((means[0] - means[1]) ** 2).sum() + traces))


def _root(matrix: Features) -> Features:
    """The root of a symmetric matrix without negative eigenvalues, but for rounding."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    root: Features = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root


def diversity(features: Features, classes: Sequence[str]) -> dict[str, float]:
    """{class: the mean Euclidean distance between the features of two of its images}.

    Args:
        features: (images, d).
        classes: Of each image; one with a single image is left out.

    Example:
        >>> diversity(np.array([[0.0], [4.0], [1.0]]), ["a", "a", "b"])
        {'a': 4.0}
    """
    from scipy.spatial.distance import pdist

    named, found = np.asarray(classes), {}
    for name in dict.fromkeys(classes):
        of_class = np.asarray(features, np.float64)[named == name]
        if len(of_class) > 1:
            found[name] = float(pdist(of_class).mean())
    return found
