"""The mean of several models' outputs, against plain formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax

from iwlora.tasks.kinds import KINDS
from iwlora.tasks.kinds.contract import Evaluation
from iwlora.tasks.kinds.regression import Regression
from iwlora.tasks.kinds.target_scale import TargetScale
from iwlora.tasks.schema import TaskSchema

pytestmark = pytest.mark.quick

RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.dirichlet(np.ones(3), size=5).T
SHAPES = {"classification": (5, 4), "multi-label": (5, 4), "token-labels": (5, 6, 4)}


def mean(values: Any) -> Any:
    return sum(
        weights.reshape(-1, *[1] * (of_model.ndim - 1)) * of_model
        for weights, of_model in zip(WEIGHTS, values, strict=True)
    )


@pytest.mark.parametrize("name", SHAPES)
def test_probabilities_of_the_mean(name: str) -> None:
    kind = KINDS[name]()
    logits = [RANDOM.normal(size=SHAPES[name]) * 5 for _ in range(3)]
    outputs = [{"logits": values} for values in logits]

    def probabilities(values: Any) -> Any:
        return expit(values) if name == "multi-label" else softmax(values, axis=-1)

    found = kind.average(outputs, WEIGHTS, "probabilities")["logits"]
    assert np.allclose(probabilities(found), mean(map(probabilities, logits)), atol=1e-12)
    found = kind.average(outputs, WEIGHTS, "logits")["logits"]
    assert np.allclose(found, mean(logits), atol=1e-12)


@pytest.mark.parametrize("name", ["classification", "multi-label"])
def test_certain_models_that_disagree(name: str) -> None:
    """Probabilities that are 0 or 1 in float64 still have a finite mean logit."""
    half = np.full((2, 1), 0.5)
    outputs = [{"logits": np.array([[900.0, -900.0]])}, {"logits": np.array([[-900.0, 900.0]])}]
    found = KINDS[name]().average(outputs, half, "probabilities")["logits"]
    assert np.isfinite(found).all()
    assert np.allclose(softmax(found, axis=-1), 0.5)


def test_numbers_of_other_scales() -> None:
    schema = TaskSchema("demo", ("text",), (), ("pearson",))
    kinds = [
        Regression(target_scale=TargetScale(mean=m, sd=s, transform=t))
        for m, s, t in ((1.0, 2.0, None), (0.5, 0.1, "log"), (-3.0, 1.0, None))
    ]
    logits = [RANDOM.normal(size=(5, 1)).astype(np.float32) for _ in kinds]
    outputs = [k.on_shared_scale({"logits": x}) for k, x in zip(kinds, logits, strict=True)]
    shared = kinds[0].shared_scale()
    found = shared.average(outputs, WEIGHTS, "probabilities")
    evaluation: Any = Evaluation(schema, None, None, found, None)  # type: ignore[arg-type]
    predicted = [row["prediction"] for row in shared.predictions(evaluation)]
    units = [1 + 2 * logits[0], np.exp(0.5 + 0.1 * logits[1].astype(float)), logits[2] - 3]
    assert np.allclose(predicted, mean(units)[:, 0])


def test_kinds_without_a_mean_say_why() -> None:
    without = {name for name, kind in KINDS.items() if kind.not_averaged}
    with_mean = {name.removeprefix("image-") for name in KINDS.keys() - without}
    assert with_mean == {*SHAPES, "regression"}
    for name in without:
        with pytest.raises(NotImplementedError):
            KINDS[name]().average([], WEIGHTS, "logits")
