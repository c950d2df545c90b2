"""What two arms predicted in the runs that they share."""

from __future__ import annotations

import numpy as np

from iwlora.compare.statistics import bootstrap
from iwlora.compare.statistics.bootstrap import PairedPredictions
from iwlora.compare.statistics.paired_tests import PairedDifference
from iwlora.results.comparison import Comparison


def paired_predictions(comparison: Comparison, pair: PairedDifference) -> PairedPredictions | None:
    """What both arms predicted with the shared seeds; None if it does not reproduce the scores.

    The positive class of F1 is the one that reproduces the scores.
    """
    if pair.metric not in bootstrap.METRICS:
        return None
    by_key = {(run.result.label, run.result.seed): run for run in comparison.runs}
    runs = [by_key[label, seed] for label in (pair.arm, pair.baseline) for seed in pair.differences]
    saved = [rows for run in runs if (rows := run.predictions)]
    if len(saved) < len(runs) or any(labels != saved[0][0] for labels, _ in saved):
        return None
    classes = [saved[0][0], *(predictions for _, predictions in saved)]
    names, inverse = np.unique(classes, return_inverse=True)
    ids = inverse.reshape(1 + len(runs), -1)
    expected = [run.result.metrics[pair.metric] for run in runs]
    for positive in range(len(names) if pair.metric == "f1" else 1):
        both_arms = ids[1:].reshape(2, len(pair.differences), -1)
        paired = PairedPredictions(pair.metric, ids[0], both_arms, len(names), positive)
        scores = paired.scores(np.ones((len(ids[0]), 1)))
        if np.allclose(scores.ravel(), expected, atol=1e-6):
            return paired
    return None
