"""The class whose mean is nearest: what features separate without anything that is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def nearest_class_mean(features: Any, labels: Sequence[int], scored: Any) -> list[int]:
    """The class of each scored row: argmin over classes k of ‖z - μ_k‖₂.

    μ_k is the mean of the training rows of class k, and z is a row's features of length 1, so that
    rows of large norm do not decide.

    Args:
        features: (training rows, features).
        labels: The class id of each training row.
        scored: (scored rows, features).

    Example:
        >>> import numpy as np
        >>> features = np.array([[1.0, 0.0], [9.0, 1.0], [0.0, 1.0]])
        >>> nearest_class_mean(features, [0, 0, 1], np.array([[5.0, 1.0], [1.0, 4.0]]))
        [0, 1]

    Source:
        Mensink et al. 2013, IEEE TPAMI 35(11), equation 1.
    """
    targets, trained = np.asarray(labels), _unit(features)
    classes = np.unique(targets)
    means = np.stack([trained[targets == k].mean(axis=0) for k in classes])
    # ‖z - μ‖² without ‖z‖², which is the same for all classes.
    distances = (means**2).sum(axis=1) - 2 * _unit(scored) @ means.T
    return [int(k) for k in classes[distances.argmin(axis=1)]]


def _unit(features: Any) -> Any:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norms, np.finfo(features.dtype).tiny)
